/**
 * `onFailure: "parkStream"`: what follows a parked message, with the same key, is parked behind it.
 *
 * Only the worker that has claimed a partition parks its messages; others take them away: replays, requeues, discards. So a
 * key that this worker does not know to be parked is not. One that it takes for parked may be parked no more, which shows
 * when a message is parked behind it: whoever takes the last one away comes before that, and the message is handled, or
 * after it, and finds this one too.
 */
import { Data, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Delivery } from "../Handlers.ts"
import type { EncodedLinkedMessage, Failure, ParkedBehind, ParkedEntry } from "../Storage.ts"
import type { Delivering, Ended, ParkStream } from "./attempt.ts"
import { BatchStopped, type ClaimedPartition } from "./claimedPartition.ts"
import { annotationsOf, type Told } from "./consumer.ts"

/** Rolls the acknowledgement back. */
class NotParked extends Data.TaggedError("NotParked")<{ readonly outcome: ParkedBehind }> {}

const behindAnother: Failure = {
  tag: "ParkedBehind",
  message:
    "a message before it, of the same stream or with the same key, is parked: this one was not handed to a handler"
}

const full = (limit: number): Failure => ({
  tag: "ParkedStreamFull",
  message:
    `${limit} messages of its stream, or with its key, are parked: requeue, replay or discard them, and it goes on`
})

/** @internal */
export const make = <A, R>(
  { metrics, options, storage, subscribed }: Delivering<A, R>,
  { hasStreams, keyOf, limit }: ParkStream<A>,
  claimed: ClaimedPartition
) => {
  const { partition } = claimed

  /** Whether it is halted: nobody takes one of those away meanwhile, which would set it going before it is halted. */
  const haltIfFull = (entry: ParkedEntry & { readonly key: string }): Effect.Effect<boolean, BatchStopped | SqlError> =>
    storage.withTransaction(Effect.flatMap(
      subscribed.parkBehind(entry, limit),
      (outcome): Effect.Effect<boolean, NotParked | BatchStopped | SqlError> =>
        outcome === "Full"
          ? Effect.as(claimed.halt({ ...entry, error: full(limit) }), true)
          : Effect.fail(new NotParked({ outcome }))
    )).pipe(Effect.catchTag("NotParked", () => Effect.succeed(false)))

  const parkWith = (
    told: Pick<Told, "message" | "messageId" | "position" | "stream">,
    key: string
  ): Effect.Effect<boolean, Ended> =>
    Effect.gen(function*() {
      const { message, messageId, position, stream } = told
      const entry = { partition, position, messageId, attempts: 0, key }
      const behind = { ...entry, error: behindAnother }
      const parking = Effect.flatMap(
        subscribed.parkBehind(behind, limit),
        (parked) => parked === "Parked" ? Effect.succeed(parked) : Effect.fail(new NotParked({ outcome: parked }))
      )
      const outcome = yield* storage.withTransaction(Effect.andThen(claimed.advance(position), parking)).pipe(
        Effect.catchTag("NotParked", (not) => Effect.succeed(not.outcome))
      )
      switch (outcome) {
        case "Parked":
          yield* metrics.parked(claimed.checkpointCommitted(position))
          return true
        case "Free":
          claimed.parkedKeys?.delete(key)
          return false
        case "Requeued":
          return yield* new BatchStopped({ reason: "requeued" })
        case "Full":
          if (!(yield* haltIfFull(behind))) return yield* parkWith(told, key)
          yield* Effect.annotateLogs(
            Effect.logError(
              `subscription ${options.name}: a partition is halted: ${limit} messages are parked before this`
            ),
            annotationsOf({ message, messageId, position, stream, partition, attempt: 0 })
          )
          return yield* new BatchStopped({ reason: "halted" })
      }
    })

  return {
    /** Before the first batch of a claim. */
    load: Effect.suspend((): Effect.Effect<void, SqlError> =>
      claimed.parkedKeys !== undefined
        ? Effect.void
        : Effect.map(subscribed.parkedKeys(partition), (keys) => {
          claimed.parkedKeys = new Set(keys)
        })
    ),
    /** The index of the first message that may have to be parked behind others; -1: none. */
    firstHeld: (deliveries: ReadonlyArray<Delivery<A>>): number =>
      claimed.parkedKeys === undefined || claimed.parkedKeys.size === 0
        ? -1
        : deliveries.findIndex((delivery) => claimed.parkedKeys?.has(keyOf(delivery))),
    /** Whether it is parked now: else it can be handled. */
    park: (delivery: Delivery<A>): Effect.Effect<boolean, Ended> => parkWith(delivery, keyOf(delivery)),
    /** The same, of one that cannot be decoded. */
    parkUndecoded: (row: EncodedLinkedMessage): Effect.Effect<boolean, Ended> =>
      hasStreams && claimed.parkedKeys?.has(row.stream) === true ? parkWith(row, row.stream) : Effect.succeed(false)
  }
}
