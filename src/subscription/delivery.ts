/**
 * Delivers the messages read from a partition: hands them to the consumer, acknowledges those that were handled
 * (`attempt.ts`), and deals with failures. A batch that failed is bisected until the failing message is alone; it is then
 * tried again by the schedule of retries (`retry.ts`), and at last parked, skipped, or left.
 */
import { Array as Arr, Effect, Result } from "effect"
import type { SerializationError } from "../errors.ts"
import type { Delivery } from "../Handlers.ts"
import { brief } from "../internal/printable.ts"
import { decodeRow } from "../Reader.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { EncodedLinkedMessage } from "../Storage.ts"
import { atLeastOnce, type Delivering, type Ended, logFailure, transactional } from "./attempt.ts"
import * as Behind from "./behind.ts"
import { BatchStopped, type ClaimedPartition } from "./claimedPartition.ts"
import { annotationsOf, typeIn } from "./consumer.ts"
import { toFailure } from "./failure.ts"
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
  const { codec, metrics, options, parkStream, shutdown } = delivering
  // A transaction for each message, or one for the batch.
  const size = options.acknowledge === "message" && options.delivery === "transactional" ? 1 : Infinity

  return Effect.fnUntraced(function*(partition, rows) {
    const attempt = options.delivery === "transactional"
      ? transactional(delivering, partition)
      : atLeastOnce(delivering, partition)
    const giveUp = (message: Retry.Given<A>, cause: unknown, key?: string) =>
      Retry.giveUp(delivering, partition, message, cause, key)
    const retry = Retry.make(
      delivering,
      attempt,
      (delivery, cause) => giveUp(delivery, cause, parkStream?.keyOf(delivery))
    )
    const behind = parkStream && Behind.make(delivering, parkStream, partition)
    if (behind !== undefined) yield* behind.load

    const deliver: (deliveries: ReadonlyArray<Delivery<A>>) => Effect.Effect<void, Ended, R> = Effect.fnUntraced(
      function*(deliveries) {
        const rest = deliveries.filter(({ position }) => position > partition.checkpoint)
        if (!Arr.isReadonlyArrayNonEmpty(rest) || shutdown.isRequested) return
        const held = behind?.firstHeld(rest) ?? -1
        if (held >= 0) return yield* deliverAround(rest, held)
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

    /** Parks one behind others, between those before it and those after it. */
    const deliverAround = Effect.fnUntraced(function*(
      deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>,
      index: number
    ): Effect.fn.Return<void, Ended, R> {
      yield* deliver(deliveries.slice(0, index))
      const held = deliveries[index]
      if (shutdown.isRequested || held === undefined) return
      const isParked = behind !== undefined && (yield* behind.park(held))
      yield* deliver(deliveries.slice(isParked ? index + 1 : index))
    })

    let deliveries: Array<Delivery<A>> = []
    for (const row of rows) {
      const stored = decodeRow(codec, row)
      const unknown = Result.isFailure(stored) ? unknownType(codec, row) : undefined
      if (unknown !== undefined && options.onUnknownType === "skip") {
        continue // acknowledged with what is behind it
      }
      if (Result.isFailure(stored)) {
        // Trying again does not help with a message that cannot be decoded.
        yield* deliver(deliveries)
        deliveries = []
        if (unknown !== undefined && options.onUnknownType === "leave") {
          return yield* leave(delivering, partition, row, unknown, stored.failure)
        }
        if (isOutOfReach(row)) return yield* giveUpForAWhile(delivering, partition, row, stored.failure)
        if (behind !== undefined && (yield* behind.parkUndecoded(row))) continue
        yield* giveUp(
          { ...row, attempt: 1, type: typeIn(codec, row) },
          stored.failure,
          parkStream?.hasStreams === true ? row.stream : undefined
        )
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
    if (shutdown.isRequested) return
    const last = Arr.lastNonEmpty(rows).position
    if (partition.checkpoint < last) yield* Effect.flatMap(partition.acknowledge(last), metrics.handled)
  })
}

/** The type of a message, if this build does not know it. */
const unknownType = <A>({ types }: MessageCodec<A>, { data }: EncodedLinkedMessage): string | undefined => {
  const type = types?.of(data)
  return type === undefined || types?.knows(type) !== false ? undefined : type
}

/** Whether a message can be read once the keys of personal data are there. */
const isOutOfReach = ({ unreadable }: EncodedLinkedMessage): boolean =>
  unreadable?.reason === "unavailable" || unreadable?.reason === "wrappingKey"

/** Neither parks nor skips what can be read later, or elsewhere. */
const giveUpForAWhile = Effect.fnUntraced(function*<A, R>(
  { codec, options }: Delivering<A, R>,
  { partition }: ClaimedPartition,
  row: EncodedLinkedMessage,
  cause: SerializationError
): Effect.fn.Return<never, Ended> {
  yield* Effect.annotateLogs(
    Effect.logWarning(`subscription ${options.name}: a message cannot be decrypted yet: its partition waits`, cause),
    annotationsOf({ ...row, partition, attempt: 0, type: typeIn(codec, row) })
  )
  return yield* new BatchStopped({ reason: "disturbed" })
})

/** Leaves a message to processes that know its type. */
const leave = Effect.fnUntraced(function*<A, R>(
  { options, shutdown }: Delivering<A, R>,
  claimed: ClaimedPartition,
  row: EncodedLinkedMessage,
  type: string,
  cause: SerializationError
): Effect.fn.Return<void, Ended> {
  if (shutdown.isRequested) return
  const { partition } = claimed
  const { messageId, position } = row
  yield* claimed.halt({ partition, position, messageId, error: toFailure(cause), attempts: 0 }, type)
  yield* Effect.annotateLogs(
    Effect.logWarning(
      `subscription ${options.name}: a message of a type that this build does not know (${
        brief(type)
      }) is left to a process that does: its partition waits`
    ),
    annotationsOf({ ...row, partition, attempt: 0, type })
  )
  return yield* new BatchStopped({ reason: "unknownType" })
})
