/** PGlite databases for tests that only want one: making one takes seconds, a copy of one a fraction of that. */
import type { PgClient } from "@effect/sql-pg"
import { PGlite } from "@electric-sql/pglite"
import { Effect, Layer } from "effect"
import { PgliteClient } from "effect-message-store/pglite"
import type { SqlClient, SqlError } from "effect/sql"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import installed from "../../node_modules/@electric-sql/pglite/package.json" with { type: "json" }

const cache = path.resolve(import.meta.dirname, "../../node_modules/.cache")
const kept = path.join(cache, `pglite-${installed.version}.tar`)

const make = async (): Promise<Blob> => {
  const database = await PGlite.create()
  const made = await database.dumpDataDir("none")
  await database.close()
  const written = `${kept}.${process.pid}`
  await fs.mkdir(cache, { recursive: true })
  await fs.writeFile(written, made.stream())
  await fs.rename(written, kept) // whole, or not there
  return made
}

/** What a new database has, for `loadDataDir`. It is made once, and kept for the other workers of the run, and later runs. */
export const image = Effect.runSync(Effect.cached(
  Effect.promise(() => fs.readFile(kept).then((found) => new Blob([found]), make))
))

/** A client on a new, empty database in memory, which ends with the layer. */
export const pgliteLayer: Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> = Layer.unwrap(
  Effect.map(image, (loadDataDir) => PgliteClient.layer({ loadDataDir }))
)
