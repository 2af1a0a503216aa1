/** The backends, for tests that run on all of them, and on some. */
import { Effect, Layer } from "effect"
import type { SqlClient } from "effect/sql"
import * as MemoryStorage from "../../src/memory/storage.ts"
import * as Migrations from "../../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../../src/postgres/storage.ts"
import type { Storage } from "../../src/Storage.ts"
import { databaseLayer } from "./database.ts"
import { createDepecheStore } from "./depeche.ts"
import { pgliteLayer } from "./pglite.ts"
import * as Release01 from "./release01.ts"

export interface Backend {
  readonly name: string
  readonly layer: (storeName: string) => Layer.Layer<Storage, unknown>
  readonly concurrentTransactions: boolean
}

const onDatabase = (
  database: Layer.Layer<SqlClient.SqlClient, unknown>,
  prepare: (storeName: string) => Effect.Effect<void, unknown, SqlClient.SqlClient>,
  options?: Parameters<typeof PostgresStorage.layer>[1]
) =>
(storeName: string) =>
  PostgresStorage.layer(storeName, options).pipe(
    Layer.provide(Layer.effectDiscard(prepare(storeName))),
    Layer.provideMerge(database) // tests of projections make tables of their own
  )

const onServer = (prepare: (storeName: string) => Effect.Effect<void, unknown, SqlClient.SqlClient>) =>
  onDatabase(databaseLayer(), prepare)

export const memory: Backend = { name: "memory", layer: () => MemoryStorage.layer, concurrentTransactions: true }

export const pglite: Backend = {
  name: "PGlite",
  layer: onDatabase(pgliteLayer, (storeName) => Migrations.run(storeName)),
  concurrentTransactions: false
}

export const postgres: Backend = {
  name: "PostgreSQL",
  layer: onServer((storeName) => Migrations.run(storeName)),
  concurrentTransactions: true
}

/** PostgreSQL whose messages are `jsonb`. */
export const withJsonb: Backend = {
  name: "PostgreSQL with jsonb",
  layer: onServer((storeName) => Migrations.run(storeName, { payload: "jsonb" })),
  concurrentTransactions: true
}

/** PostgreSQL, where appends of one item have no functions of their own. */
export const withoutLean: Backend = {
  name: "PostgreSQL without lean calls",
  layer: onDatabase(databaseLayer(), (storeName) => Migrations.run(storeName), { lean: false }),
  concurrentTransactions: true
}

/** PostgreSQL with a store that Python made: its messages are `jsonb`, its positions int4. */
export const madeByDepeche: Backend = {
  name: "PostgreSQL with a store made by depeche_db",
  layer: onServer((storeName) => Effect.andThen(createDepecheStore(storeName), Migrations.run(storeName))),
  concurrentTransactions: true
}

/** PostgreSQL whose store, streams and subscriptions were made by version 0.1. */
export const upgraded: Backend = {
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

/** Where every suite of the contract runs. */
export const backends: ReadonlyArray<Backend> = [memory, pglite, postgres]
