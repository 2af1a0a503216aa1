/** A read-only transaction that lasts as long as a scope. */
import { Effect, identity, Option } from "effect"
import type { Scope } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Snapshot } from "../../Storage.ts"

/**
 * Inside a transaction nothing is opened: effects run in that transaction. Otherwise a connection is reserved until the
 * scope closes, and effects run on it, even inside a transaction that was opened later.
 *
 * Gotcha: only plain statements may run in a snapshot; `sql.withTransaction` needs more than the connection.
 */
export const snapshot = (sql: SqlClient): Effect.Effect<Snapshot, SqlError, Scope.Scope> =>
  Effect.flatMap(
    Effect.serviceOption(sql.transactionService),
    Option.match({
      onSome: () => Effect.succeed<Snapshot>(identity),
      onNone: () =>
        Effect.gen(function*() {
          const connection = yield* sql.reserve
          yield* Effect.acquireRelease(
            connection.executeUnprepared("begin isolation level repeatable read read only", [], undefined),
            // A connection that cannot roll back is lost, and its transaction with it.
            () => Effect.ignore(connection.executeUnprepared("rollback", [], undefined))
          )
          // PostgreSQL takes the snapshot with the first query, not with BEGIN.
          yield* connection.executeUnprepared("select 1", [], undefined)
          return Effect.provideService(sql.transactionService, [connection, 0]) as Snapshot
        })
    })
  )
