/**
 * Delivers the messages read from a partition: hands them to the consumer, acknowledges those that were handled
 * (`attempt.ts`), and deals with failures. A batch that failed is bisected until the failing message is alone; it is then
 * tried again by the schedule of retries (`retry.ts`), and at last parked, skipped, or left.
 */
import { Array as Arr, Effect, Result } from "effect"
import type { Delivery } from "../Handlers.ts"
import { decodeRow } from "../Reader.ts"
import type { EncodedLinkedMessage } from "../Storage.ts"
import { atLeastOnce, type Delivering, type Ended, logFailure, transactional } from "./attempt.ts"
import type { ClaimedPartition } from "./claimedPartition.ts"
import * as Retry from "./retry.ts"

/** Delivers messages that were read behind the checkpoint. When a shutdown is requested, it ends behind the one in hand. */
export interface Deliver<R> {
  (
    partition: ClaimedPartition,
    rows: Arr.NonEmptyReadonlyArray<EncodedLinkedMessage>
  ): Effect.Effect<void, Ended, R>
}

/** @internal */
export const make = <A, R>(delivering: Delivering<A, R>): Deliver<R> => {
  const { codec, options, shutdown } = delivering
  // A transaction for each message, or one for the batch.
  const size = options.acknowledge === "message" && options.delivery === "transactional" ? 1 : Infinity

  return Effect.fnUntraced(function*(partition, rows) {
    const attempt = options.delivery === "transactional"
      ? transactional(delivering, partition)
      : atLeastOnce(delivering, partition)
    const giveUp = (message: Retry.Given<A>, cause: unknown) => Retry.giveUp(delivering, partition, message, cause)
    const retry = Retry.make(delivering, attempt, giveUp)

    const deliver: (deliveries: ReadonlyArray<Delivery<A>>) => Effect.Effect<void, Ended, R> = Effect.fnUntraced(
      function*(deliveries) {
        const rest = deliveries.filter(({ position }) => position > partition.checkpoint)
        if (!Arr.isReadonlyArrayNonEmpty(rest) || shutdown.isRequested) return
        const attempted = yield* Effect.result(attempt(rest))
        if (Result.isSuccess(attempted)) return
        const failure = attempted.failure
        if (failure._tag !== "HandlerFailure") return yield* failure
        const { cause, index } = failure
        const failed = index === undefined ? undefined : rest[index]
        if (index === undefined || failed === undefined) {
          const middle = rest.length >> 1
          const next = rest.map((delivery) => ({ ...delivery, attempt: delivery.attempt + 1 }))
          yield* logFailure(delivering, "batch failed; bisecting it", rest[0], cause)
          yield* deliver(next.slice(0, middle))
          return yield* deliver(next.slice(middle))
        }
        yield* deliver(rest.slice(0, index))
        yield* retry(failed, cause)
        yield* deliver(rest.slice(index + 1))
      }
    )

    let deliveries: Array<Delivery<A>> = []
    for (const row of rows) {
      const stored = decodeRow(codec, row)
      if (Result.isFailure(stored)) {
        // Trying again does not help with a message that cannot be decoded.
        yield* deliver(deliveries)
        deliveries = []
        yield* giveUp({ ...row, attempt: 1 }, stored.failure)
        continue
      }
      deliveries.push({
        ...stored.success,
        partition: partition.partition,
        position: row.position,
        attempt: 1
      })
      if (deliveries.length < size) continue
      yield* deliver(deliveries)
      deliveries = []
    }
    yield* deliver(deliveries)
  })
}
