/** Brings a store up to date with all that belongs to it, as far as the database knows of it. */
import { Effect, Result } from "effect"
import { SqlClient } from "effect/sql"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError, UnsupportedEngineError } from "../../errors.ts"
import type { ObjectsVersion } from "../../Storage.ts"
import type { Migration } from "../migrations/Migration.ts"
import * as Migrations from "../migrations/migrations.ts"
import * as Run from "../migrations/run.ts"
import * as Objects from "../objects.ts"
import * as Catalogue from "./catalogue.ts"

/** Migrations that have not run yet. */
export interface PendingMigrations {
  readonly kind: "store" | "aggregated stream" | "subscription" | "projection"
  readonly name: string
  /** In the order of their numbers. */
  readonly migrations: ReadonlyArray<Migration>
}

type MigrateError = InvalidNameError | SetupError | UnsupportedEngineError | MigrationError | SqlError

const behind = (
  kind: PendingMigrations["kind"],
  name: string,
  { made = 0 }: Pick<ObjectsVersion, "made">,
  migrations: Result.Result<ReadonlyArray<Migration>, InvalidNameError>
): ReadonlyArray<PendingMigrations> => {
  const left = Result.isSuccess(migrations) ? migrations.success.filter(({ id }) => id > made) : []
  return left.length === 0 ? [] : [{ kind, name, migrations: left }]
}

/** Of a store that there is not, all. */
export const pending = (
  store: string
): Effect.Effect<ReadonlyArray<PendingMigrations>, InvalidNameError | SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const objects = yield* Effect.fromResult(Objects.forStore(store))
    const found = yield* Catalogue.make(sql, objects)
    return [
      ...behind("store", store, found.store, Migrations.forStore(store)),
      ...found.aggregatedStreams.flatMap(({ definition: { name }, objects: of }) =>
        behind("aggregated stream", name, of, Migrations.forStream(store, name))
      ),
      ...found.subscriptions.flatMap(({ name, objects: of }) =>
        behind("subscription", name, of, Migrations.forSubscription(name))
      ),
      ...found.projections.flatMap(({ name, objects: of }) =>
        behind("projection", name, of, Migrations.forProjection(name))
      )
    ]
  })

/** Runs them; answers which. */
export const migrate = (
  store: string
): Effect.Effect<ReadonlyArray<PendingMigrations>, MigrateError, SqlClient.SqlClient> =>
  Effect.tap(
    pending(store),
    Effect.forEach(({ kind, name }) => {
      switch (kind) {
        case "store":
          return Run.run(name)
        case "aggregated stream":
          return Run.runStream(store, name)
        case "subscription":
          return Run.runSubscription(name)
        case "projection":
          return Run.runProjection(store, name)
      }
    })
  )
