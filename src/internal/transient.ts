/** What passes if one waits: lost connections, a server that starts or stops, conflicts, locks. */
import { Predicate, Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"

/**
 * PostgreSQL's states of a server that goes, comes, or has no place left, which the client does not count among lost
 * connections: admin_shutdown (`pg_terminate_backend` too), crash_shutdown, cannot_connect_now, idle_session_timeout,
 * idle_in_transaction_session_timeout, too_many_connections.
 */
const statesOfServers: ReadonlyArray<unknown> = ["57P01", "57P02", "57P03", "57P05", "25P03", "53300"]

/** Whether the connection failed, which says nothing of what was to be done on it. */
export const isConnectionError = (error: unknown): error is SqlError =>
  Predicate.isTagged(error, "SqlError") && Predicate.hasProperty(error, "reason") &&
  (Predicate.isTagged(error.reason, "ConnectionError") ||
    (Predicate.hasProperty(error.reason, "cause") && Predicate.hasProperty(error.reason.cause, "code") &&
      statesOfServers.includes(error.reason.cause.code)))

/** Whether trying again can help, when nothing but our own statements is to blame. */
export const isTransient = <E extends { readonly _tag: string }>(error: E | SqlError): error is SqlError =>
  error._tag === "SqlError" && ((error as SqlError).isRetryable || isConnectionError(error))

/** A failure of the database that stays, however often it is tried again. */
export const isPermanent = (error: { readonly _tag: string }): error is SqlError =>
  error._tag === "SqlError" && !isTransient(error)

/** When what passes is tried again. */
export const retryTransient = Schedule.jittered(
  Schedule.min([Schedule.exponential("50 millis"), Schedule.spaced("5 seconds")])
)
