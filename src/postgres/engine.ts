/**
 * Whether a database is PostgreSQL, or an engine that looks like it. What a store relies on is tried, in the first statement of its
 * layer; only engines that are known to pass, and to lack something all the same, are told by their names.
 */
import { Effect, Predicate, Result } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { UnsupportedEngineError } from "../errors.ts"

/** Of the lock that is tried, and shared by all who try it: two numbers, as no lock of a store has. */
const key = [1_162_694_475, 17] as const

/** What a store relies on, and SQL that is true where it is there, false or refused where it is not. */
const features = {
  has_locks: {
    what: "advisory locks that are held (pg_advisory_xact_lock): writers of a stream exclude each other by them",
    // Of a function that does nothing, no lock is to be seen: neither of this session, nor of who has it alone.
    sql: `(
      with lock as materialized (select pg_catalog.pg_try_advisory_xact_lock_shared(${key[0]}, ${key[1]}) as taken)
      select exists (
        select from pg_catalog.pg_locks l
        where l.locktype operator(pg_catalog.=) 'advisory'::text and l.granted
          and (l.pid = pg_catalog.pg_backend_pid()) = lock.taken and l.classid = ${key[0]}::oid and l.objid = ${
      key[1]
    }::oid
      ) from lock
    )`
  },
  has_snapshots: {
    what:
      "snapshots of transactions (pg_current_snapshot, pg_visible_in_snapshot): projectors tell by them what is new",
    sql: `(
      select not pg_catalog.pg_visible_in_snapshot(pg_catalog.pg_snapshot_xmax(s.now), s.now)
        and pg_catalog.pg_snapshot_xmin(s.now) <= pg_catalog.pg_snapshot_xmax(s.now)
      from (select pg_catalog.pg_current_snapshot() as now) s
    )`
  },
  has_transactions: {
    what: "transaction ids in rows (xmin): a snapshot says by them what it sees",
    sql: `(
      select d.xmin::text operator(pg_catalog.<>) '0'::text from pg_catalog.pg_database d
      where d.datname = pg_catalog.current_database()
    )`
  },
  has_functions: {
    what: "functions in PL/pgSQL: what is written is decided in them",
    sql: `exists (select from pg_catalog.pg_language l where l.lanname operator(pg_catalog.=) 'plpgsql'::name)`
  },
  has_runs: {
    what:
      "the time at which the server began (pg_postmaster_start_time): what is remembered of another one is told by it",
    sql: `(pg_catalog.pg_postmaster_start_time() is not null)`
  }
} as const

type Feature = keyof typeof features

const all = Object.keys(features) as ReadonlyArray<Feature>

/** What the statement that probes tells. */
export type Probed = { readonly [F in Feature]: boolean } & { readonly engine: string }

/** Columns of a statement that probes. */
export const probe = [
  "pg_catalog.version() as engine",
  ...all.map((feature) => `${features[feature].sql} as ${feature}`)
].join(",\n    ")

/** Engines that say who they are, and what they are known to lack, though it looks as if it were there. */
const known: ReadonlyArray<readonly [name: RegExp, lacks: string]> = [
  [/cockroach/i, "advisory locks that exclude anybody, and snapshots of transactions"],
  [/yugabyte|-YB-/i, "transaction ids that all its nodes share"],
  [/greenplum|redshift|spanner|materialize|risingwave/i, "snapshots and transaction ids that all its nodes share"]
]

const refused = (engine: string, missing: ReadonlyArray<string>) =>
  Effect.fail(new UnsupportedEngineError({ engine, missing }))

/** Refused by the engine's parser, or as something that it does not have; not for want of rights. */
const isUnknown = ({ reason: { cause } }: SqlError): boolean =>
  Predicate.hasProperty(cause, "code") && /^(42(?!501)|0A|XX)/.test(String(cause.code))

/** Runs the statement that probes, and refuses the engine if something is missing. */
export const probing = <Row extends Probed>(
  sql: SqlClient,
  statement: Effect.Effect<ReadonlyArray<Row>, SqlError>
): Effect.Effect<Row | undefined, UnsupportedEngineError | SqlError> =>
  Effect.matchEffect(statement, {
    onFailure: (error) =>
      isUnknown(error) ? Effect.flatMap(diagnose(sql), () => Effect.fail(error)) : Effect.fail(error),
    onSuccess: ([row]) => {
      if (row === undefined) return Effect.succeed(row)
      const missing = all.filter((feature) => row[feature] !== true).map((feature) => features[feature].what)
      const lacks = known.flatMap(([name, what]) => name.test(row.engine) ? [what] : [])
      return missing.length + lacks.length === 0
        ? Effect.succeed(row)
        : refused(row.engine, missing.length > 0 ? missing : lacks)
    }
  })

/** Tries one thing after the other where an engine has refused them together. */
const diagnose = Effect.fnUntraced(function*(sql: SqlClient) {
  const missing: Array<string> = []
  for (const feature of all) {
    const { sql: text, what } = features[feature]
    const tried = yield* Effect.result(sql.unsafe<{ readonly has: boolean }>(`select ${text} as has`))
    const isMissing = Result.isFailure(tried) ? isUnknown(tried.failure) : tried.success[0]?.has !== true
    if (isMissing) missing.push(what)
  }
  if (missing.length === 0) return
  const version = sql<{ readonly engine: string }>`select version() as engine`
  const [row] = yield* Effect.orElseSucceed(version, () => [])
  return yield* refused(row?.engine ?? "it does not say which", missing)
})
