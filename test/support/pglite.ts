/** PGlite databases for tests that only want one: making one takes seconds, a copy of one a fraction of that. */
import type { PgClient } from "@effect/sql-pg"
import { PGlite } from "@electric-sql/pglite"
import { Effect, Layer } from "effect"
import { PgliteClient } from "effect-message-store/pglite"
import type { SqlClient, SqlError } from "effect/sql"

/** What a new database has, for `loadDataDir`; made once by each worker of the run. */
export const image = Effect.runSync(Effect.cached(
  Effect.scoped(
    Effect.flatMap(
      Effect.acquireRelease(
        Effect.promise(() => PGlite.create()),
        (database) => Effect.promise(() => database.close())
      ),
      (database) => Effect.promise(() => database.dumpDataDir("none"))
    )
  )
))

/** A client on a new, empty database in memory, which ends with the layer. */
export const pgliteLayer: Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> = Layer.unwrap(
  Effect.map(image, (loadDataDir) => PgliteClient.layer({ loadDataDir }))
)
