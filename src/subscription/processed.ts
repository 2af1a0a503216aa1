/** Waits until a subscription has processed a message. */
import { Duration, Effect, Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type InvalidArgumentError, NotProcessedError, type StreamRebuiltError } from "../errors.ts"
import { checkDuration, checkWhole } from "../internal/checks.ts"
import type { PartitionHead, SubscriptionStorage } from "../Storage.ts"

const polling = Schedule.min([Schedule.exponential("5 millis", 1.5), Schedule.spaced("100 millis")])

/** @internal */
export const waitUntilProcessed = (
  subscription: string,
  subscribed: SubscriptionStorage,
  globalPosition: number,
  timeout: Duration.Input
): Effect.Effect<void, NotProcessedError | StreamRebuiltError | InvalidArgumentError | SqlError> =>
  Effect.gen(function*() {
    yield* Effect.fromResult(checkWhole("globalPosition", globalPosition, 0))
    const duration = yield* Effect.fromResult(checkDuration("timeout", timeout))
    let place: PartitionHead | undefined
    const isProcessed = Effect.gen(function*() {
      place ??= yield* subscribed.place(globalPosition)
      return place !== undefined && (yield* subscribed.checkpoint(place.partition)) >= place.position
    })
    yield* isProcessed.pipe(
      Effect.repeat({ until: (processed) => processed, schedule: polling }),
      Effect.timeoutOrElse({
        duration,
        // The database may have answered nothing yet; and the stream may have been rebuilt meanwhile.
        orElse: () =>
          Effect.flatMap(
            subscribed.place(globalPosition),
            (linked) =>
              Effect.fail(
                new NotProcessedError({
                  subscription,
                  globalPosition,
                  isLinked: linked !== undefined,
                  waited: Duration.toMillis(duration)
                })
              )
          )
      })
    )
  })
