/**
 * Follows an aggregated stream: its messages as they are linked, for those who remember nothing.
 *
 * It reads a page when the one before was taken, and asks for the ends of partitions when all was; so what it holds is a page,
 * however slow the consumer is, and nothing is missed: wake-ups are hints, and what is new follows from positions.
 */
import { type Duration, Effect, Option, Result, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError, SerializationError } from "../errors.ts"
import { checkPollInterval, checkWhole, invalid, maximumPartition } from "../internal/checks.ts"
import { decodeAll } from "../internal/pages.ts"
import { isTransient, retryTransient } from "../internal/transient.ts"
import type { AggregatedMessage } from "../Message.ts"
import { decodeRow } from "../Reader.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { AggregatedStorage, PartitionHead, Storage } from "../Storage.ts"

/** What is followed, and from where. */
export interface FollowOptions {
  /** Default: all partitions, those that come later too. */
  readonly partitions?: number | ReadonlyArray<number> | undefined
  /**
   * `"now"` (default): what is linked from then on; `"beginning"`; or the first position of each partition that is wanted, 0 where
   * none is given: one more than the last one that was seen, to go on after a reconnect.
   */
  readonly from?: "now" | "beginning" | ReadonlyMap<number, number> | undefined
  /**
   * How long it waits for a wake-up before it looks for itself, since wake-ups may be lost; a millisecond or more. Default 5
   * seconds.
   */
  readonly pollInterval?: Duration.Input | undefined
}

/** Why following ends: a message that does not decode, a permanent failure of the database, or positions that are not there. */
export type FollowError = InvalidArgumentError | SerializationError | SqlError

/** Messages that are read at once. */
const pageSize = 100

interface State {
  /** Of each partition the first position that was not read. */
  readonly next: ReadonlyMap<number, number>
  /** Partitions that have more, in the order in which they come to their turns. */
  readonly pending: ReadonlyArray<PartitionHead>
  readonly isFirst: boolean
}

/** @internal */
export const follow = <A>(
  storage: Storage["Service"],
  stream: AggregatedStorage,
  codec: MessageCodec<A>,
  { from = "now", partitions, pollInterval }: FollowOptions = {}
): Stream.Stream<AggregatedMessage<A>, FollowError> =>
  Stream.unwrap(Effect.gen(function*() {
    const only = partitions === undefined ? undefined : new Set([partitions].flat())
    yield* Effect.fromResult(Result.all([
      ...Array.from(only ?? [], (partition) => checkWhole("partition", partition, 0, maximumPartition)),
      ...typeof from === "string" ? [] : Array.from(from).flatMap(([partition, position]) => [
        checkWhole("partition", partition, 0, maximumPartition),
        checkWhole("from", position, 0, maximumPartition)
      ])
    ]))
    const interval = yield* Effect.fromResult(checkPollInterval(pollInterval))
    if (yield* storage.inTransaction) {
      return yield* Effect.fromResult(invalid("follow", "must not be called inside a transaction"))
    }
    const persistent = <B, E extends { readonly _tag: string }>(effect: Effect.Effect<B, E | SqlError>) =>
      Effect.retry(effect, { schedule: retryTransient, while: isTransient })
    // Before anything is read: what is linked later wakes it.
    const listener = yield* stream.listen
    const heads = persistent(stream.partitions)
    const start = typeof from === "string"
      ? new Map(from === "beginning" ? [] : (yield* heads).map(({ partition, position }) => [partition, position + 1]))
      : from

    /** The partitions that have more. Positions that are behind the end are those of a stream that was rebuilt. */
    const look = (next: ReadonlyMap<number, number>): Effect.Effect<ReadonlyArray<PartitionHead>, FollowError> =>
      Effect.flatMap(heads, (found) => {
        const ends = new Map(found.map(({ partition, position }) => [partition, position]))
        for (const [partition, position] of next) {
          if (position > (ends.get(partition) ?? -1) + 1) {
            const reason =
              `has position ${position} of partition ${partition}, which is behind its end: the stream was rebuilt ` +
              "since, and is to be followed anew"
            return Effect.fromResult(invalid("from", reason))
          }
        }
        return Effect.succeed(found.filter(({ partition, position }) =>
          only?.has(partition) !== false && position >= (next.get(partition) ?? 0)
        ))
      })

    const initial: State = { next: start, pending: [], isFirst: true }
    return Stream.paginate(
      initial,
      Effect.fnUntraced(function*({ isFirst, next, pending }: State): Effect.fn.Return<
        readonly [ReadonlyArray<AggregatedMessage<A>>, Option.Option<State>],
        FollowError
      > {
        const [head, ...others] = pending
        if (head === undefined) {
          if (!isFirst) {
            yield* listener.wait(interval)
          }
          return [[], Option.some({ next, pending: yield* look(next), isFirst: false })]
        }
        const { partition } = head
        const fromPosition = next.get(partition) ?? 0
        const { messages } = yield* persistent(stream.readPartition({ partition, fromPosition, limit: pageSize }))
        const read = yield* Effect.fromResult(decodeAll(messages, (row) =>
          Result.map(decodeRow(codec, row), (stored) => ({ ...stored, partition, position: row.position }))))
        // The store may lack messages that are linked.
        const reached = (read.at(-1)?.position ?? head.position) + 1
        const more = reached <= head.position ? [...others, head] : others
        return [read, Option.some({ next: new Map(next).set(partition, reached), pending: more, isFirst: false })]
      })
    )
  }))
