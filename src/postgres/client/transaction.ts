/** Transactions whose connection may be lost. */
import { Cause, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { isConnectionError } from "../../internal/transient.ts"

/**
 * `sql.withTransaction`, with one difference. There, a ROLLBACK on a connection that was lost is a defect, and makes one of
 * the failure before it: neither can be caught or tried again. But there is nothing left to roll back: here it is the
 * failure alone that is told.
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
