/** A connection outside of the pool, for a statement that may have to wait for long. */
import type { PgPoolConfig } from "@effect/sql-pg/PgClient"
import { Effect } from "effect"
import type { Scope } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import type { SqlClient } from "effect/sql/SqlClient"

/**
 * A client like the given one, with a connection of its own: opened when it is needed, and closed after 10 idle seconds.
 * Nothing for a client that is no `PgClient`.
 */
export const make = (sql: SqlClient): Effect.Effect<SqlClient | undefined, never, Scope.Scope> =>
  Effect.gen(function*() {
    const { config } = sql as { readonly config?: PgPoolConfig }
    if (config === undefined) return undefined
    // An optional peer: loaded by those who use it.
    const PgClient = yield* Effect.promise(() => import("@effect/sql-pg/PgClient"))
    const client = yield* Effect.orDie(PgClient.make({
      ...config,
      minConnections: 0,
      maxConnections: 1,
      idleTimeout: "10 seconds",
      multiplex: false
    }))
    return client.withoutTransforms()
  }).pipe(Effect.provide(Reactivity.layer))
