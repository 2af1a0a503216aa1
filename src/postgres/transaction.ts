/** Transactions whose connection may be lost. */
import { Cause, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { isConnectionError } from "../passing.ts"

/**
 * `sql.withTransaction`, with one difference. There, a ROLLBACK on a connection that was lost is a defect beside the
 * failure, and what has a defect cannot be caught or tried again. But there is nothing left to roll back: here it is the
 * failure alone that is told.
 */
export const withTransaction =
  (sql: SqlClient) => <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
    Effect.catchCause(sql.withTransaction(effect), (cause): Effect.Effect<never, E | SqlError> => {
      const others = cause.reasons.filter((reason) => !Cause.isDieReason(reason) || !isConnectionError(reason.defect))
      if (others.length > 0) return Effect.failCause(Cause.fromReasons(others))
      const [lost] = cause.reasons
      return lost !== undefined && Cause.isDieReason(lost) && isConnectionError(lost.defect)
        ? Effect.fail(lost.defect)
        : Effect.failCause(cause)
    })
