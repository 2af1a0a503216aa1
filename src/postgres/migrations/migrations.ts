/**
 * The database objects of stores, aggregated streams and subscriptions, as numbered migrations: one file each, in the
 * folder of what they make, and listed here.
 *
 * The first of each makes what depeche_db's contract asks for, where it does not exist; what Python made is adopted as
 * it is. The others add what this library needs, and do no harm to Python processes beside it.
 *
 * **To add one**, write a file with the next number and add it to the list. A migration that has been released never
 * changes: it holds its text whole, and shares no function with anything that may change. A function of the database is
 * changed by making it anew in a new migration; the newest that makes it is its text. Statements have to be safe in a
 * database that another version of this library, or Python, is working on at the same time.
 */
import { Effect, Result } from "effect"
import { Migrator, SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError } from "../../errors.ts"
import * as Objects from "../objects.ts"
import type { Migration, PayloadType } from "./Migration.ts"
import * as Store1 from "./store/0001_messages.ts"
import * as Store2 from "./store/0002_columns.ts"
import * as Store3 from "./store/0003_append.ts"
import * as Stream1 from "./stream/0001_tables.ts"
import * as Stream2 from "./stream/0002_projection.ts"
import * as Subscription1 from "./subscription/0001_tables.ts"

export type { Migration, PayloadType }

/** The database objects of a store. */
export const forStore = (
  name: string,
  options?: { readonly payload?: PayloadType | undefined }
): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.map(Objects.forStore(name), (objects) => [
    { id: 1, name: "messages", statements: Store1.messages(objects, options?.payload ?? "json") },
    { id: 2, name: "columns", statements: Store2.columns(objects) },
    { id: 3, name: "append", statements: Store3.append(objects) }
  ])

/** The database objects of an aggregated stream of a store. */
export const forStream = (
  storeName: string,
  name: string
): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.flatMap(Objects.forStore(storeName), (store) =>
    Result.map(Objects.forStream(name), (stream) => [
      { id: 1, name: "aggregated stream", statements: Stream1.tables(store, stream) },
      { id: 2, name: "projection", statements: Stream2.projection(store, stream) }
    ]))

/** The database objects of a subscription. */
export const forSubscription = (name: string): Result.Result<ReadonlyArray<Migration>, InvalidNameError> =>
  Result.map(Objects.forSubscription(name), (subscription) => [
    { id: 1, name: "subscription", statements: Subscription1.tables(subscription) }
  ])

/**
 * Runs the migrations that have not run yet, in one transaction under a lock: any number of processes may start at
 * once. What has run is recorded in the table `effect_message_store_migrations_{name}`.
 */
export const run = Effect.fnUntraced(function*(
  name: string,
  options?: { readonly payload?: PayloadType | undefined }
): Effect.fn.Return<void, InvalidNameError | Migrator.MigrationError | SqlError, SqlClient.SqlClient> {
  const { migrationsTable } = yield* Effect.fromResult(Objects.forStore(name))
  yield* checkUntaken(name, (yield* Effect.fromResult(Objects.forStream(name))).table, "an aggregated stream")
  yield* runAll(migrationsTable, yield* Effect.fromResult(forStore(name, options)))
})

/** The same for an aggregated stream: `effect_message_store_streamed_{name}`. */
export const runStream = Effect.fnUntraced(function*(
  storeName: string,
  name: string
): Effect.fn.Return<void, InvalidNameError | Migrator.MigrationError | SqlError, SqlClient.SqlClient> {
  const { migrationsTable } = yield* Effect.fromResult(Objects.forStream(name))
  yield* checkUntaken(name, (yield* Effect.fromResult(Objects.forStore(name))).table, "a message store")
  yield* runAll(migrationsTable, yield* Effect.fromResult(forStream(storeName, name)))
})

/** The same for a subscription: `effect_message_store_subscribed_{name}`. */
export const runSubscription = Effect.fnUntraced(function*(
  name: string
): Effect.fn.Return<void, InvalidNameError | Migrator.MigrationError | SqlError, SqlClient.SqlClient> {
  const { migrationsTable } = yield* Effect.fromResult(Objects.forSubscription(name))
  yield* runAll(migrationsTable, yield* Effect.fromResult(forSubscription(name)))
})

/** A store and a stream of one name would share depeche_db's channel. */
const checkUntaken = Effect.fnUntraced(function*(name: string, table: string, owner: string) {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const [row] = yield* sql<{ readonly taken: boolean }>`select to_regclass(${table}) is not null as taken`
  if (row?.taken === true) return yield* new InvalidNameError({ name, reason: `is taken by ${owner}` })
})

/** Of two stores that want a stream of one name, the first one has it: its functions link the messages of that one. */
export const checkStore = Effect.fnUntraced(function*(
  storeName: string,
  name: string
): Effect.fn.Return<void, InvalidNameError | SqlError, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const { projectionTable } = yield* Effect.fromResult(Objects.forStream(name))
  const [row] = yield* sql<{ readonly store: string }>`select store from ${sql(projectionTable)}`
  if (row !== undefined && row.store !== storeName) {
    return yield* new InvalidNameError({ name, reason: `is taken by an aggregated stream of the store "${row.store}"` })
  }
})

const runAll = Effect.fnUntraced(function*(table: string, migrations: ReadonlyArray<Migration>) {
  const sql = yield* SqlClient.SqlClient
  yield* Migrator.make({})({
    table,
    loader: Effect.succeed(migrations.map((migration) => [
      migration.id,
      migration.name,
      Effect.succeed(
        Effect.forEach(migration.statements, (statement) => sql.unsafe(statement).unprepared, { discard: true })
      )
    ]))
  })
})
