/**
 * Runs migrations: those that have not run yet, in one transaction under a lock. Any number of processes may start at once;
 * where nothing is left to do, a process needs no rights but to read what has run.
 */
import { Effect, Predicate } from "effect"
import { Migrator, SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { type InvalidNameError, SetupError, type UnsupportedEngineError } from "../../errors.ts"
import { permitted } from "../../internal/refusal.ts"
import { withTransaction } from "../client/transaction.ts"
import { checkStoreName, checkStreamName, checkSubscriptionName } from "../names.ts"
import * as Objects from "../objects.ts"
import type { Migration, PayloadType } from "./Migration.ts"
import { forProjection, forStore, forStream, forSubscription } from "./migrations.ts"
import { inSchemaOf } from "./schema.ts"

type RunError = InvalidNameError | SetupError | Migrator.MigrationError | SqlError

/** What has run for a store is recorded in the table `effect_message_store_migrations_{name}`. */
export const run = Effect.fnUntraced(function*(
  name: string,
  options?: { readonly payload?: PayloadType | undefined }
): Effect.fn.Return<void, RunError | UnsupportedEngineError, SqlClient.SqlClient> {
  const { migrationsTable, table } = yield* Effect.fromResult(Objects.forStore(name))
  const found = yield* checkStoreName(name, migrationsTable)
  yield* runAll(
    name,
    table,
    migrationsTable,
    found.has(migrationsTable),
    yield* Effect.fromResult(forStore(name, options))
  )
})

/** The same for an aggregated stream: `effect_message_store_streamed_{name}`. */
export const runStream = Effect.fnUntraced(function*(
  storeName: string,
  name: string
): Effect.fn.Return<void, RunError, SqlClient.SqlClient> {
  const { migrationsTable } = yield* Effect.fromResult(Objects.forStream(name))
  const { table } = yield* Effect.fromResult(Objects.forStore(storeName)) // it stands where its store stands
  const found = yield* checkStreamName(name, migrationsTable)
  yield* runAll(
    name,
    table,
    migrationsTable,
    found.has(migrationsTable),
    yield* Effect.fromResult(forStream(storeName, name))
  )
})

/** The same for a subscription: `effect_message_store_subscribed_{name}`. */
export const runSubscription = Effect.fnUntraced(function*(
  name: string
): Effect.fn.Return<void, RunError, SqlClient.SqlClient> {
  const { migrationsTable, table } = yield* Effect.fromResult(Objects.forSubscription(name))
  const found = yield* checkSubscriptionName(name, migrationsTable)
  yield* runAll(
    name,
    table,
    migrationsTable,
    found.has(migrationsTable),
    yield* Effect.fromResult(forSubscription(name))
  )
})

/** The same for a projection: `effect_message_store_projected_{name}`. */
export const runProjection = Effect.fnUntraced(function*(
  storeName: string,
  name: string
): Effect.fn.Return<void, RunError, SqlClient.SqlClient> {
  const { migrationsTable } = yield* Effect.fromResult(Objects.forProjection(name))
  const { table } = yield* Effect.fromResult(Objects.forStore(storeName)) // it stands where its store stands
  yield* runAll(name, table, migrationsTable, undefined, yield* Effect.fromResult(forProjection(name)))
})

const runAll = Effect.fnUntraced(function*(
  name: string,
  home: string,
  table: string,
  /** Whether the table is there that records them, if that is known. */
  isRecorded: boolean | undefined,
  migrations: ReadonlyArray<Migration>
): Effect.fn.Return<void, RunError, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()

  /** The migrations that have not run; all, where the table that records them is missing. */
  const pending = Effect.fnUntraced(function*(isThere: boolean | undefined) {
    const exists = isThere === undefined
      ? sql<{ readonly exists: boolean }>`select to_regclass(${table}::text) is not null as exists`
      : Effect.succeed([{ exists: isThere }])
    const [found] = yield* exists
    if (found?.exists !== true) return migrations
    const [row] = yield* sql<{ readonly latest: number }>`
      select coalesce(max(migration_id), 0) as latest from ${sql(table)}`
    return migrations.filter(({ id }) => id > (row?.latest ?? 0))
  })
  if ((yield* permitted(name)(pending(isRecorded))).length === 0) return

  yield* withTransaction(sql)(Effect.gen(function*() {
    yield* sql`select pg_advisory_xact_lock(hashtextextended(${table}::text, 0::bigint))`
    yield* sql.unsafe(inSchemaOf(home)).unprepared
    const [rights] = yield* sql<{ readonly role: string; readonly schema: string | null; readonly create: boolean }>`
      select current_user::text as role, current_schema()::text as schema,
        coalesce(has_schema_privilege(current_schema()::text, 'create'), false) as create`
    if (rights === undefined || !rights.create) {
      return yield* new SetupError({
        identifier: name,
        reason: rights?.schema === undefined || rights.schema === null
          ? "has no place: no schema of the search path exists, or the role may use none of them"
          : `cannot be made or brought up to date: the role "${rights.role}" may not create objects in the schema ` +
            `"${rights.schema}": let a role that may run what \`migrations\` prints`
      })
    }
    yield* sql`create table if not exists ${sql(table)} (
      migration_id integer primary key, created_at timestamptz not null default now(), name text not null
    )`
    yield* sql`lock table ${sql(table)} in access exclusive mode` // as version 0.1 does
    for (const { id, name: title, statements } of yield* pending(true)) {
      yield* Effect.forEach(statements, (statement) => sql.unsafe(statement).unprepared, { discard: true }).pipe(
        Effect.mapError((cause) =>
          new Migrator.MigrationError({
            kind: "Failed",
            cause,
            message: `migration ${id} of "${name}" (${title}) failed: ${said(cause)}`
          })
        ),
        Effect.withSpan(`Migrator ${id}_${title}`)
      )
      yield* sql`insert into ${sql(table)} (migration_id, name) values (${id}, ${title})`
    }
  }))
})

/** What the database itself says of a failure. */
const said = (error: SqlError): string => {
  const { cause } = error.reason
  if (!Predicate.hasProperty(cause, "message")) return error.message
  return Predicate.hasProperty(cause, "hint") && cause.hint !== undefined
    ? `${cause.message}: ${cause.hint}`
    : String(cause.message)
}
