/** Transactions that survive the loss of their connection with a typed failure. */
import { Cause, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { isConnectionError } from "../../internal/transient.ts"

/**
 * `sql.withTransaction`, with one difference: there, a ROLLBACK on a lost connection dies, and the failure before it is
 * lost in the defect, so that neither can be caught or tried again. Since nothing is left to roll back, this fails with
 * the first failure alone.
 */
export const withTransaction =
  (sql: SqlClient) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
    Effect.suspend(() => {
      let failed: Cause.Cause<E> | undefined
      const noted = Effect.tapCause(effect, (cause) =>
        Effect.sync(() => {
          failed = cause
        }))
      return Effect.catchCause(sql.withTransaction(noted), (cause): Effect.Effect<never, E | SqlError> => {
        const lost = cause.reasons.filter(Cause.isDieReason).map(({ defect }) => defect).find(isConnectionError)
        if (lost === undefined) return Effect.failCause(cause)
        return failed === undefined ? Effect.fail(lost) : Effect.failCause(failed)
      })
    })
