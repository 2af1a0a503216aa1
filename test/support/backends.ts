/** Every backend, for tests that run on all of them. */
import { Layer } from "effect"
import { PgliteClient } from "effect-message-store/pglite"
import type { SqlClient } from "effect/sql"
import * as MemoryStorage from "../../src/memory/MemoryStorage.ts"
import * as Migrations from "../../src/postgres/migrations.ts"
import * as PostgresStorage from "../../src/postgres/PostgresStorage.ts"
import type { Storage } from "../../src/Storage.ts"
import { databaseLayer } from "./database.ts"

export interface Backend {
  readonly name: string
  readonly layer: (storeName: string) => Layer.Layer<Storage, unknown>
  readonly concurrentTransactions: boolean
}

const onDatabase =
  (database: Layer.Layer<SqlClient.SqlClient, unknown>, payload: Migrations.PayloadType) => (storeName: string) =>
    PostgresStorage.layer(storeName).pipe(
      Layer.provide(Layer.effectDiscard(Migrations.run(storeName, { payload }))),
      Layer.provide(database)
    )

export const backends: ReadonlyArray<Backend> = [
  { name: "memory", layer: () => MemoryStorage.layer, concurrentTransactions: true },
  { name: "PGlite", layer: onDatabase(PgliteClient.layer(), "json"), concurrentTransactions: false },
  { name: "PostgreSQL", layer: onDatabase(databaseLayer(), "json"), concurrentTransactions: true },
  { name: "PostgreSQL with jsonb", layer: onDatabase(databaseLayer(), "jsonb"), concurrentTransactions: true }
]
