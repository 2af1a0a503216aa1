/** Every backend, for tests that run on all of them. */
import { Effect, Layer } from "effect"
import { PgliteClient } from "effect-message-store/pglite"
import type { SqlClient } from "effect/sql"
import * as MemoryStorage from "../../src/memory/storage.ts"
import * as Migrations from "../../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../../src/postgres/storage.ts"
import type { Storage } from "../../src/Storage.ts"
import { databaseLayer } from "./database.ts"
import { createDepecheStore } from "./depeche.ts"
import * as Release01 from "./release01.ts"

export interface Backend {
  readonly name: string
  readonly layer: (storeName: string) => Layer.Layer<Storage, unknown>
  readonly concurrentTransactions: boolean
}

const onDatabase = (
  database: Layer.Layer<SqlClient.SqlClient, unknown>,
  prepare: (storeName: string) => Effect.Effect<void, unknown, SqlClient.SqlClient> = (name) => Migrations.run(name)
) =>
(storeName: string) =>
  PostgresStorage.layer(storeName).pipe(
    Layer.provide(Layer.effectDiscard(prepare(storeName))),
    Layer.provideMerge(database) // tests of projections make tables of their own
  )

export const backends: ReadonlyArray<Backend> = [
  { name: "memory", layer: () => MemoryStorage.layer, concurrentTransactions: true },
  { name: "PGlite", layer: onDatabase(PgliteClient.layer()), concurrentTransactions: false },
  { name: "PostgreSQL", layer: onDatabase(databaseLayer()), concurrentTransactions: true },
  {
    name: "PostgreSQL with jsonb",
    layer: onDatabase(databaseLayer(), (storeName) => Migrations.run(storeName, { payload: "jsonb" })),
    concurrentTransactions: true
  },
  {
    name: "PostgreSQL with a store made by depeche_db",
    layer: onDatabase(
      databaseLayer(),
      (storeName) => Effect.andThen(createDepecheStore(storeName), Migrations.run(storeName))
    ),
    concurrentTransactions: true
  },
  {
    name: "PostgreSQL upgraded from 0.1",
    layer: (storeName) => {
      const database = databaseLayer()
      return Release01.upgraded(
        storeName,
        PostgresStorage.layer(storeName).pipe(
          Layer.provide(
            Layer.effectDiscard(Effect.andThen(Release01.createStore(storeName), Migrations.run(storeName)))
          )
        )
      ).pipe(Layer.provideMerge(database))
    },
    concurrentTransactions: true
  }
]
