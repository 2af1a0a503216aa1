/** The processor time that a case costs: on a machine that others use as well it says more than the time that passes. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import * as fs from "node:fs"
import process from "node:process"

/** In seconds. */
export interface ProcessorTime {
  /** Of this process. */
  readonly client: number
  /** Of the server's processes that serve this database; undefined if they are elsewhere. */
  readonly server: number | undefined
}

/** How much an effect takes. */
export const spent = <A, E>(sql: SqlClient.SqlClient, effect: Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const before = yield* serverTimes(sql)
    const client = process.cpuUsage()
    const done = yield* effect
    const { system, user } = process.cpuUsage(client)
    const after = yield* serverTimes(sql)
    const server = before && after &&
      Array.from(after).reduce((sum, [pid, time]) => sum + time - (before.get(pid) ?? 0), 0)
    return [done, { client: (user + system) / 1e6, server } satisfies ProcessorTime as ProcessorTime] as const
  })

export const added = (one: ProcessorTime, other: ProcessorTime = { client: 0, server: 0 }): ProcessorTime => ({
  client: one.client + other.client,
  server: one.server === undefined || other.server === undefined ? undefined : one.server + other.server
})

const serverTimes = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ readonly pid: number }>`select pid from pg_stat_activity where datname = current_database()`,
    (rows): ReadonlyMap<number, number> | undefined => {
      const times = rows.map(({ pid }) => [pid, timeOf(pid)] as const)
      return times.every((one): one is readonly [number, number] => one[1] !== undefined) ? new Map(times) : undefined
    }
  )

/** As Linux tells it, in hundredths of a second; undefined where it is not Linux, or there is no such process of PostgreSQL. */
const timeOf = (pid: number): number | undefined => {
  try {
    const [, name, rest = ""] = /^\d+ \((.*)\) (.*)$/s.exec(fs.readFileSync(`/proc/${pid}/stat`, "utf8")) ?? []
    const fields = rest.split(" ")
    return name === "postgres" ? (Number(fields[11]) + Number(fields[12])) / 100 : undefined
  } catch {
    return undefined
  }
}
