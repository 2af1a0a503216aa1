/** One message whose handler has failed: tried again by the schedule of retries, and at last given up. */
import { Effect, Pull, Result, Schedule } from "effect"
import { HandlerError } from "../errors.ts"
import type { Delivery } from "../Handlers.ts"
import { type Attempt, type Delivering, type Ended, logFailure } from "./attempt.ts"
import { BatchStopped, type ClaimedPartition } from "./claimedPartition.ts"
import { annotationsOf, type Told } from "./consumer.ts"
import { toFailure } from "./failure.ts"

/** A message that is given up. */
export type Given<A> =
  & Pick<Delivery<A>, "attempt" | "messageId" | "position" | "stream">
  & Pick<Told, "message" | "type">

/**
 * Called after the first failure. If a shutdown is requested while the message waits for its next attempt, it is left
 * unacknowledged.
 *
 * @internal
 */
export const make = <A, R>(
  delivering: Pick<Delivering<A, R>, "metrics" | "options" | "shutdown">,
  attempt: Attempt<A, R>,
  giveUpOn: (delivery: Delivery<A>, cause: unknown) => Effect.Effect<void, Ended>
) =>
(failed: Delivery<A>, cause: unknown): Effect.Effect<void, Ended, R> =>
  Effect.gen(function*() {
    const { options, shutdown } = delivering
    if (shutdown.isRequested) return
    const waitForTurn = yield* Schedule.toStepWithSleep(options.retry)
    let delivery = failed
    let error = cause
    while (true) {
      yield* logFailure(delivering, "a handler failed", delivery, error)
      const turn = waitForTurn(error).pipe(
        Effect.as("again" as const),
        Pull.catchDone(() => Effect.succeed("never" as const)),
        Effect.raceFirst(Effect.as(shutdown.awaitRequest, "stopping" as const))
      )
      switch (yield* turn) {
        case "stopping":
          return
        case "never":
          return yield* giveUpOn(delivery, error)
      }
      delivery = { ...delivery, attempt: delivery.attempt + 1 }
      const attempted = yield* Effect.result(attempt([delivery]))
      if (Result.isSuccess(attempted)) return
      if (attempted.failure._tag !== "HandlerFailure") return yield* attempted.failure
      error = attempted.failure.cause
    }
  })

/**
 * Applies `onFailure` to a message that failed for the last time.
 *
 * @internal
 */
export const giveUp = Effect.fnUntraced(function*<A, R>(
  { metrics, options, shutdown, storage, subscribed }: Delivering<A, R>,
  claimed: ClaimedPartition,
  message: Given<A>,
  cause: unknown,
  key?: string
): Effect.fn.Return<void, Ended> {
  if (shutdown.isRequested) return
  const { partition } = claimed
  const { attempt: attempts, messageId, position } = message
  const entry = { partition, position, messageId, attempts, error: toFailure(cause) }
  const log = (what: string) =>
    Effect.annotateLogs(
      Effect.logError(`subscription ${options.name}: ${what}`, cause),
      annotationsOf({ ...message, partition })
    )
  switch (options.onFailure) {
    case "park":
    case "parkStream":
      yield* storage.withTransaction(Effect.andThen(claimed.advance(position), subscribed.park({ ...entry, key })))
      if (key !== undefined) claimed.parkedKeys?.add(key)
      yield* metrics.parked(claimed.checkpointCommitted(position))
      return yield* log("a message is parked")
    case "skip":
      yield* Effect.flatMap(claimed.acknowledge(position), metrics.skipped)
      return yield* log("a message is skipped")
    case "haltPartition":
      yield* claimed.halt(entry)
      yield* log("a partition is halted at a message")
      return yield* new BatchStopped({ reason: "halted" })
    case "stop":
      yield* log("stops at a message")
      return yield* new HandlerError({
        subscription: options.name,
        partition,
        position,
        messageId,
        attempts,
        cause
      })
  }
})
