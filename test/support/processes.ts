/** Processes that tests start, and what they tell. */
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted, Schedule, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { fork } from "node:child_process"
import * as path from "node:path"
import type { Told, WorkerConfig, WriterConfig } from "./work.ts"

const program = path.join(import.meta.dirname, "workProcess.ts")

export interface Started {
  readonly pid: number
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  /** Asks for its processor time; it is told. */
  readonly ask: Effect.Effect<void>
  readonly hasTold: (tag: Told["_tag"]) => boolean
  readonly told: ReadonlyArray<Told>
  /** Its exit code, or the signal that ended it; undefined while it runs. */
  readonly ended: () => number | string | undefined
  /** What it logged. */
  readonly output: () => string
}

/** Ends with the scope, if not before. */
export const start = Effect.fnUntraced(function*(
  config: WorkerConfig | WriterConfig
): Effect.fn.Return<Started, never, Scope.Scope> {
  let output = ""
  let ended: number | string | undefined
  const told: Array<Told> = []
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      fork(program, [JSON.stringify(config)], {
        execArgv: ["--conditions=@effect-message-store/source"],
        stdio: ["ignore", "pipe", "pipe", "ipc"]
      })
    ),
    (started) =>
      Effect.callback<void>((resume) => {
        if (ended !== undefined) return resume(Effect.void)
        started.once("close", () => resume(Effect.void))
        started.kill("SIGKILL")
      })
  )
  for (const pipe of [child.stdout, child.stderr]) {
    pipe?.setEncoding("utf8").on("data", (text: string) => {
      output = (output + text).slice(-20_000)
    })
  }
  child.on("message", (message) => told.push(message as Told))
  child.once("exit", (code, signal) => {
    ended = code ?? signal ?? "unknown"
  })
  return {
    pid: child.pid ?? -1,
    kill: (signal) => Effect.sync(() => void child.kill(signal)),
    ask: Effect.sync(() => void child.send("cpu")),
    told,
    hasTold: (tag) => told.some(({ _tag }) => _tag === tag),
    ended: () => ended,
    output: () => output
  }
})

/** Looks every few milliseconds until it holds; fails, saying what it waited for, when that takes too long. */
export const until = <E, R>(
  what: string,
  condition: Effect.Effect<boolean, E, R>,
  seconds = 20
): Effect.Effect<void, E, R> =>
  Effect.repeat(condition, {
    until: (holds) => holds,
    schedule: Schedule.min([Schedule.exponential("5 millis", 1.2), Schedule.spaced("25 millis")])
  }).pipe(
    Effect.timeoutOrElse({
      duration: seconds * 1000,
      orElse: () => Effect.die(new Error(`${what}: not within ${seconds} seconds`))
    }),
    Effect.asVoid
  )

export const untilTold = (started: Started, tag: Told["_tag"]) =>
  until(
    `a process tells that it is ${tag}`,
    Effect.suspend(() =>
      started.ended() === undefined
        ? Effect.succeed(started.hasTold(tag))
        : Effect.die(new Error(`A process ended (${started.ended()}):\n${started.output()}`))
    ),
    60 // a busy machine takes long to start one
  )

/** Ends it as a supervisor does, and answers its exit code. */
export const terminate = Effect.fnUntraced(function*(started: Started) {
  yield* started.kill("SIGTERM")
  yield* until(`process ${started.pid} ends`, Effect.sync(() => started.ended() !== undefined))
  return started.ended()
})

/** Connections of another application to the database of the client at hand, as another process has them. */
export const clientNamed = (
  applicationName: string,
  startupParameters: Readonly<Record<string, string>> = {},
  maxConnections?: number
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError, PgClient.PgClient> =>
  Layer.fresh(
    Layer.unwrap(
      Effect.map(PgClient.PgClient, ({ config }) =>
        PgClient.layer({
          ...config,
          applicationName,
          startupParameters,
          ...maxConnections === undefined ? {} : { maxConnections }
        }))
    )
  )

/** Where a process finds the database of the client at hand. */
export const place = Effect.map(PgClient.PgClient, ({ config }) => ({
  url: config.url === undefined ? "" : Redacted.value(config.url) as string,
  database: config.database ?? ""
}))

/** The backends of an application that hold advisory locks. */
export const lockers = Effect.fnUntraced(function*(application: string) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly pid: number; readonly locks: number }>`
    select a.pid, count(*)::int as locks from pg_stat_activity a join pg_locks l using (pid)
    where a.datname = current_database() and a.application_name = ${application} and l.locktype = 'advisory'
      and l.mode = 'ExclusiveLock' -- listeners share another
    group by a.pid`
  return rows
})

/** Ends the session of an application that holds its locks. Answers how many there were. */
export const terminateLockers = Effect.fnUntraced(function*(application: string) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* lockers(application)
  for (const { pid } of rows) yield* sql`select pg_terminate_backend(${pid}, 5000)`
  return rows.length
})

/** How a process came to its end. */
export interface Ended {
  /** Its exit code, or the signal that ended it. */
  readonly by: number | string
  /** The messages that it sent. */
  readonly told: ReadonlyArray<unknown>
  /** What it printed last. */
  readonly output: string
}

/** Runs a program of this folder to its end. */
export const runToEnd = (name: string, config: unknown): Effect.Effect<Ended> =>
  Effect.callback((resume) => {
    const child = fork(path.join(import.meta.dirname, name), [JSON.stringify(config)], {
      execArgv: ["--conditions=@effect-message-store/source"],
      stdio: ["ignore", "pipe", "pipe", "ipc"]
    })
    let output = ""
    for (const pipe of [child.stdout, child.stderr]) {
      pipe?.setEncoding("utf8").on("data", (text: string) => {
        output = (output + text).slice(-5000)
      })
    }
    const told: Array<unknown> = []
    child.on("message", (message) => told.push(message))
    child.once("close", (code, signal) => resume(Effect.succeed({ by: code ?? signal ?? "unknown", told, output })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })
