/** Opens aggregated streams, their subscriptions and projections; makes their database objects first, where it should. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError } from "../errors.ts"
import { permitted } from "../internal/refusal.ts"
import type { AggregatedStorage, OpenedDefinition } from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import type { ClaimHolder } from "./claims.ts"
import type { Gather } from "./client/gathered.ts"
import { forStream, forSubscription, type Migration } from "./migrations/migrations.ts"
import * as Migrations from "./migrations/run.ts"
import { checkSubscriptionName, type Naming, streamNaming, subscriptionNaming } from "./names.ts"
import * as Objects from "./objects.ts"
import { checkOwner, checkStore, openProjection, openSubscription, seesAll } from "./open.ts"
import * as Standing from "./standing.ts"
import * as Aggregated from "./streams.ts"
import * as Subscription from "./subscriptions.ts"
import * as Versions from "./versions.ts"

/** Why something cannot be opened. */
type OpenError = InvalidNameError | SetupError | MigrationError | SqlError

export const make = (
  sql: SqlClient.SqlClient,
  store: Objects.Store,
  claims: ClaimHolder["Service"],
  wakeup: Wakeup["Service"],
  gather: Gather
) => {
  const provided = Effect.provideService(SqlClient.SqlClient, sql)
  const { relations, row: rowOf } = Standing.make(sql, gather)

  /** The row of an object that stands, with all its tables; undefined: some are missing, or migrations are. */
  const standingRow = Effect.fnUntraced(function*(
    { judge, wanted }: Naming,
    tables: ReadonlyArray<string>,
    columns: Standing.Columns,
    migrations: { readonly table: string; readonly newest: number } | undefined
  ): Effect.fn.Return<Standing.Row | undefined, InvalidNameError | SqlError> {
    const needed = migrations === undefined ? tables : [...tables, migrations.table]
    const found = yield* relations([...wanted, ...needed.map((table) => [table] as const)])
    yield* Effect.fromResult(judge(found))
    if (!needed.every((table) => found.has(table))) return undefined
    const latest = migrations && `(select coalesce(max(migration_id), 0) from ${migrations.table})`
    const row = yield* rowOf({ ...columns, latest })
    return migrations === undefined || (row?.latest ?? 0) >= migrations.newest ? row : undefined
  })

  const openSubscriptionOf = Effect.fnUntraced(function*(
    stream: string,
    name: string,
    migrates: boolean
  ): Effect.fn.Return<Objects.OpenedSubscription & { readonly isStarted: boolean }, OpenError, SqlClient.SqlClient> {
    const objects = yield* Effect.fromResult(Objects.forSubscription(name))
    const { locksTable, migrationsTable, originTable, pausedTable, table } = objects
    const row = yield* standingRow(
      subscriptionNaming(objects),
      [locksTable, originTable, pausedTable],
      {
        owner: `(select stream from ${originTable})`,
        prefix: `(select prefix from ${locksTable})`,
        is_started: `(select numbering is not null from ${originTable}) and exists (
          select from ${table} where subscription_name::text = '${name}'::text and partition = -1
        )`
      },
      migrates
        ? { table: migrationsTable, newest: newestOf(yield* Effect.fromResult(forSubscription(name))) }
        : undefined
    )
    if (row?.owner === stream) return { ...objects, lockPrefix: row.prefix ?? "", isStarted: row.is_started === true }
    yield* migrates ? Migrations.runSubscription(name) : checkSubscriptionName(name)
    const opened = yield* openSubscription(name)
    yield* Subscription.claimName(sql, stream, opened)
    return { ...opened, isStarted: false }
  })

  const openStream = Effect.fnUntraced(function*(
    name: string,
    objects: Objects.StreamObjects,
    migrates: boolean
  ): Effect.fn.Return<void, OpenError, SqlClient.SqlClient> {
    const { migrationsTable, projectionTable } = objects
    const row = yield* standingRow(
      streamNaming(name, objects),
      [projectionTable],
      { owner: `(select store from ${projectionTable})` },
      migrates
        ? { table: migrationsTable, newest: newestOf(yield* Effect.fromResult(forStream(store.name, name))) }
        : undefined
    )
    if (row !== undefined) return yield* checkOwner(store.name, name, row.owner ?? undefined)
    if (migrates) yield* Migrations.runStream(store.name, name)
    yield* checkStore(store.name, name)
  })

  /** Operators tell by themselves which right is lacked. */
  return (
    definition: OpenedDefinition,
    { isOperator = false, migrates }: { readonly migrates: boolean; readonly isOperator?: boolean }
  ): Effect.Effect<AggregatedStorage, OpenError> =>
    Effect.gen(function*() {
      const allowed = (name: string) => <A, E, R>(opening: Effect.Effect<A, E, R>) =>
        isOperator ? opening : permitted(name)(opening)
      const stream = yield* Effect.fromResult(Objects.forStream(definition.name))
      yield* allowed(definition.name)(openStream(definition.name, stream, migrates))
      const subscription: AggregatedStorage["subscription"] = (name) =>
        Effect.map(
          Effect.andThen(
            isOperator ? Effect.void : seesAll(store, name),
            allowed(name)(openSubscriptionOf(definition.name, name, migrates))
          ),
          (subscribed) => Subscription.make(sql, store, stream, subscribed, claims, wakeup, gather)
        ).pipe(provided)
      const projection: AggregatedStorage["projection"] = (name) =>
        Effect.gen(function*() {
          if (migrates) yield* Migrations.runProjection(store.name, name)
          return Versions.make(sql, definition.name, stream, yield* openProjection(name))
        }).pipe(allowed(name), provided)
      return Aggregated.make(sql, store, stream, definition, wakeup, { subscription, projection })
    }).pipe(provided)
}

const newestOf = (migrations: ReadonlyArray<Migration>): number => Math.max(...migrations.map(({ id }) => id))
