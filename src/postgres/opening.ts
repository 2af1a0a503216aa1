/** Opens aggregated streams, their subscriptions and projections; makes their database objects first, where it should. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError } from "../errors.ts"
import type { AggregatedStorage, OpenedDefinition } from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import type { ClaimHolder } from "./claims.ts"
import * as Migrations from "./migrations/run.ts"
import { checkStreamName, checkSubscriptionName } from "./names.ts"
import * as Objects from "./objects.ts"
import { checkStore, openProjection, openSubscription } from "./open.ts"
import * as Aggregated from "./streams.ts"
import * as Subscription from "./subscriptions.ts"
import * as Versions from "./versions.ts"

/** Why something cannot be opened. */
type OpenError = InvalidNameError | SetupError | MigrationError | SqlError

export const make = (
  sql: SqlClient.SqlClient,
  store: Objects.Store,
  claims: ClaimHolder["Service"],
  wakeup: Wakeup["Service"]
) => {
  const provided = Effect.provideService(SqlClient.SqlClient, sql)

  return (definition: OpenedDefinition, migrates: boolean): Effect.Effect<AggregatedStorage, OpenError> =>
    Effect.gen(function*() {
      const stream = yield* Effect.fromResult(Objects.forStream(definition.name))
      yield* migrates ? Migrations.runStream(store.name, definition.name) : checkStreamName(definition.name)
      yield* checkStore(store.name, definition.name)
      const subscription: AggregatedStorage["subscription"] = (name) =>
        Effect.gen(function*() {
          yield* migrates ? Migrations.runSubscription(name) : checkSubscriptionName(name)
          const subscribed = yield* openSubscription(name)
          yield* Subscription.claimName(sql, definition.name, subscribed)
          return Subscription.make(sql, store, stream, subscribed, claims, wakeup)
        }).pipe(provided)
      const projection: AggregatedStorage["projection"] = (name) =>
        Effect.gen(function*() {
          if (migrates) yield* Migrations.runProjection(store.name, name)
          return Versions.make(sql, definition.name, stream, yield* openProjection(name))
        }).pipe(provided)
      return Aggregated.make(sql, store, stream, definition, wakeup, { subscription, projection })
    }).pipe(provided)
}
