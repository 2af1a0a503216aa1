/** What layers run for as long as they live. */
import { Effect, type Schedule, type Scope } from "effect"

/**
 * Runs an effect until the scope closes, and again by a schedule when it has failed; the schedule's input is the error. Each failure
 * is logged as an error, and so is the end of the schedule, which is the end of it.
 */
export const inBackground = <E, R>(
  what: string,
  effect: Effect.Effect<unknown, E, R>,
  restart: Schedule.Schedule<unknown, E>
): Effect.Effect<void, never, R | Scope.Scope> => {
  const log = (happened: string) => (error: E) => Effect.logError(`${what} ${happened}`, error)
  return effect.pipe(
    Effect.tapError(log("failed")),
    Effect.retry(restart),
    Effect.catch(log("has ended: it does not run again")),
    Effect.forkScoped,
    Effect.asVoid
  )
}
