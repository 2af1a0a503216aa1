/** Where the examples keep their messages: on the server that DATABASE_URL names, else in PGlite, inside this process. */
import { PgClient } from "@effect/sql-pg"
import { Redacted } from "effect"
import { PgliteClient } from "effect-message-store/pglite"

const url = process.env["DATABASE_URL"]

export const isServer = url !== undefined && url !== ""

/** With `dataDir`, PGlite keeps its database in that directory; without, in memory. */
export const layerDatabase = (options: { readonly dataDir?: string } = {}) =>
  url ? PgClient.layer({ url: Redacted.make(url) }) : PgliteClient.layer(options)

export const databaseName = (dataDir: string) => url ? "PostgreSQL (DATABASE_URL)" : `PGlite in ${dataDir}`
