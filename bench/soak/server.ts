/** What a PostgreSQL has done, as it tells itself, and as the system counts its processes. */
import { Effect, Schema } from "effect"
import type { SqlClient } from "effect/sql"
import * as fs from "node:fs"

export const TableState = Schema.Struct({
  table: Schema.String,
  /** With its indexes and what is stored beside it, in bytes. */
  bytes: Schema.Finite,
  /** Rows, as the server estimates them. */
  live: Schema.Finite,
  /** Versions of rows that nobody sees any more, and nobody has cleared away. */
  dead: Schema.Finite,
  vacuums: Schema.Finite,
  analyzes: Schema.Finite
})

export const ServerState = Schema.Struct({
  /** Seconds of processor time of all its processes; null where the system does not tell. */
  cpu: Schema.NullOr(Schema.Finite),
  /** Bytes that were written to its log, from when the cluster was made. */
  wal: Schema.Finite,
  transactions: Schema.Finite,
  checkpoints: Schema.Finite,
  tables: Schema.Array(TableState)
})

export type ServerState = typeof ServerState.Type

/** Ticks of the system's clock in a second: as good as always. */
const ticks = 100

/** Of `/proc/PID/stat`, behind the name, which may have blanks. */
const statOf = (pid: string | number): ReadonlyArray<number> => {
  const text = fs.readFileSync(`/proc/${pid}/stat`, "utf8")
  return text.slice(text.lastIndexOf(")") + 4).split(" ").map(Number)
}

/** The processes of a server that have ended count with the one that started them. */
const cpuOf = (backend: number): number | null => {
  try {
    const [postmaster = 0] = statOf(backend)
    const own = statOf(postmaster)
    let sum = [10, 11, 12, 13].reduce((all, i) => all + (own[i] ?? 0), 0)
    for (const pid of fs.readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      try {
        const stat = statOf(pid)
        if (stat[0] === postmaster) sum += (stat[10] ?? 0) + (stat[11] ?? 0)
      } catch {
        // It has ended.
      }
    }
    return sum / ticks
  } catch {
    return null // another system, or another machine
  }
}

interface Row {
  readonly pid: number
  readonly wal: number
  readonly transactions: number
  readonly checkpoints: number
}

export const stateOf = Effect.fnUntraced(function*(sql: SqlClient.SqlClient): Effect.fn.Return<ServerState, unknown> {
  const tables = yield* sql<typeof TableState.Type>`
    select relname::text as "table", pg_total_relation_size(relid)::float8 as bytes, n_live_tup::float8 as live,
      n_dead_tup::float8 as dead, (autovacuum_count + vacuum_count)::float8 as vacuums,
      (autoanalyze_count + analyze_count)::float8 as analyzes
    from pg_stat_user_tables where n_tup_ins + n_tup_upd + n_live_tup > 0 order by bytes desc, relname`
  // The counters of checkpoints have moved in PostgreSQL 17.
  const [version] = yield* sql<{ readonly number: number }>`
    select current_setting('server_version_num')::int as number`
  const checkpoints = (version?.number ?? 0) >= 170_000
    ? "select num_timed + num_requested from pg_stat_checkpointer"
    : "select checkpoints_timed + checkpoints_req from pg_stat_bgwriter"
  const [row] = yield* sql<Row>`
    select pg_backend_pid() as pid, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as wal,
      (select xact_commit::float8 from pg_stat_database where datname = current_database()) as transactions,
      (${sql.literal(checkpoints)})::float8 as checkpoints`
  const { checkpoints: done = NaN, pid = 0, transactions = NaN, wal = NaN } = row ?? {}
  return { cpu: cpuOf(pid), wal, transactions, checkpoints: done, tables }
})
