/** What the tests of PGlite's client share. */
import type { PgClient } from "@effect/sql-pg"
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Duplex } from "node:stream"

/** The session factory that `sql` makes its connections of. */
export const streamOf = (sql: PgClient.PgClient): () => Duplex => {
  const { stream } = sql.config
  assert(stream !== undefined)
  return stream
}

/** Why a statement failed. */
export const sqlError = <A, R>(effect: Effect.Effect<A, SqlError, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)

/** The first column of each row. */
export const numbers = (rows: ReadonlyArray<object>): ReadonlyArray<unknown> => rows.map((row) => Object.values(row)[0])
