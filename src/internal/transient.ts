/** Transient failures, which trying again may mend: lost connections, a server that starts or stops, conflicts, locks. */
import { Cause, Effect, Predicate, Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"

/**
 * The SQLSTATEs of a server that shuts down, starts, or is full, which the client does not classify as connection
 * errors: admin_shutdown (`pg_terminate_backend` too), crash_shutdown, cannot_connect_now, idle_session_timeout,
 * idle_in_transaction_session_timeout, too_many_connections.
 */
const unavailable: ReadonlyArray<unknown> = ["57P01", "57P02", "57P03", "57P05", "25P03", "53300"]

/** Whether the connection failed: what was sent on it may have been executed, or not. */
export const isConnectionError = (error: unknown): error is SqlError =>
  Predicate.isTagged(error, "SqlError") && Predicate.hasProperty(error, "reason") &&
  (Predicate.isTagged(error.reason, "ConnectionError") ||
    (Predicate.hasProperty(error.reason, "cause") && Predicate.hasProperty(error.reason.cause, "code") &&
      unavailable.includes(error.reason.cause.code)))

/** read_only_sql_transaction: a standby, which is promoted soon, or which the client leaves for the primary. */
const isOfStandby = (error: object): boolean =>
  Predicate.hasProperty(error, "reason") && Predicate.hasProperty(error.reason, "cause") &&
  Predicate.hasProperty(error.reason.cause, "code") && error.reason.cause.code === "25006"

/** Whether a failure of one of the library's own statements is transient: trying again can help. */
export const isTransient = <E extends { readonly _tag: string }>(error: E | SqlError): error is SqlError =>
  error._tag === "SqlError" &&
  ((error as SqlError).isRetryable || isConnectionError(error) || isOfStandby(error))

/** Whether a failure of the database is permanent: trying again gives the same. */
export const isPermanent = (error: { readonly _tag: string }): error is SqlError =>
  error._tag === "SqlError" && !isTransient(error)

/** The backoff after transient failures: 50 milliseconds, doubled each time up to 5 seconds, with jitter. */
export const retryTransient = Schedule.jittered(
  Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("5 seconds")])
)

/** Tries again by that backoff while failures are transient. The first one is logged as a warning, by who it is that tries. */
export const tryingAgain =
  (who: string) =>
  <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.suspend(() => {
      let hasFailed = false
      const logged = Effect.tapError(effect, (error) => {
        if (!isTransient(error)) return Effect.void
        const level = hasFailed ? "Debug" : "Warn"
        hasFailed = true
        return Effect.logWithLevel(level)(`${who} tries again`, error)
      })
      return Effect.retry(logged, { schedule: retryTransient, while: isTransient })
    })

/** Whether the database itself refused the statement, so that nothing of it was stored. */
export const wasRefused = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.length === 1 &&
  cause.reasons.every((reason) => {
    if (!Cause.isFailReason(reason) || !Predicate.isTagged(reason.error, "SqlError")) return false
    const { reason: why } = reason.error as SqlError
    return why._tag !== "ConnectionError" && Predicate.hasProperty(why.cause, "code")
  })
