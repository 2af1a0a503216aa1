import type { PgClient } from "@effect/sql-pg"
import { Layer } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import { inject } from "vitest"
import { layerDatabase } from "./server.ts"

/** A client on a new, empty database of the run's server, which is dropped when the layer is released. */
export const databaseLayer = (
  options?: Parameters<typeof layerDatabase>[1]
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.suspend(() => layerDatabase(inject("postgresUrl"), options))
