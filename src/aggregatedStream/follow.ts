/**
 * Follows an aggregated stream: its messages as they are linked, for those who remember nothing.
 *
 * It reads a page when the one before was taken, and asks for the ends of partitions when all was; so what it holds is a page,
 * however slow the consumer is, and nothing is missed: wake-ups are hints, and what is new follows from positions. Where another
 * run of the server answers, which may lack links and give their positions to other messages, the last message of each partition
 * that was read has to be where it was.
 */
import { type Duration, Effect, Option, Result, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError, SerializationError } from "../errors.ts"
import { checkPollInterval, checkWhole, invalid, maximumPartition, outsideTransaction } from "../internal/checks.ts"
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

interface LinkedMessage extends PartitionHead {
  readonly messageId: string
}

interface State {
  /** Of each partition the first position that was not read. */
  readonly next: ReadonlyMap<number, number>
  /** Of partitions the last message before that. */
  readonly last: ReadonlyMap<number, LinkedMessage>
  /** Which run of the server has said so. */
  readonly run: number
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
    yield* outsideTransaction(storage, "follow")
    const persistent = <B, E extends { readonly _tag: string }>(effect: Effect.Effect<B, E | SqlError>) =>
      Effect.retry(effect, { schedule: retryTransient, while: isTransient })
    // Before anything is read: what is linked later wakes it.
    const listener = yield* stream.listen
    const heads = persistent(stream.partitions)
    const start = typeof from === "string"
      ? new Map(from === "beginning" ? [] : (yield* heads).map(({ partition, position }) => [partition, position + 1]))
      : from

    const elsewhere = (partition: number, position: number) =>
      Effect.fromResult(invalid(
        "from",
        `has position ${position} of partition ${partition}, where another message is now: what was read is lost with the ` +
          "server that had it, and the stream is to be followed anew"
      ))

    /** The run of the server that has answered last. Fails if it is another one, which has other messages where these were. */
    const stillThere = ({ last, run }: State): Effect.Effect<number, FollowError> => {
      const answered = storage.serverRun()
      return answered === run || last.size === 0
        ? Effect.succeed(answered)
        : Effect.flatMap(persistent(stream.messageIds(Array.from(last.values()))), (found) => {
          const other = found.find(({ messageId, partition }) => last.get(partition)?.messageId !== messageId)
          return other === undefined ? Effect.succeed(answered) : elsewhere(other.partition, other.position)
        })
    }

    /** The partitions that have more. Positions that are behind the end are those of a stream that was rebuilt. */
    const look = Effect.fnUntraced(
      function*(state: State): Effect.fn.Return<Pick<State, "pending" | "run">, FollowError> {
        const { next } = state
        const found = yield* heads
        const run = yield* stillThere(state)
        const ends = new Map(found.map(({ partition, position }) => [partition, position]))
        for (const [partition, position] of next) {
          if (position > (ends.get(partition) ?? -1) + 1) {
            const reason =
              `has position ${position} of partition ${partition}, which is behind its end: the stream was rebuilt ` +
              "since, and is to be followed anew"
            return yield* Effect.fromResult(invalid("from", reason))
          }
        }
        const pending = found.filter(({ partition, position }) =>
          only?.has(partition) !== false && position >= (next.get(partition) ?? 0)
        )
        return { pending, run }
      }
    )

    const before = Array.from(start).flatMap(([partition, position]) =>
      position > 0 ? [{ partition, position: position - 1 }] : []
    )
    const seen = before.length === 0 ? [] : yield* persistent(stream.messageIds(before))
    const initial: State = {
      next: start,
      last: new Map(seen.map((one) => [one.partition, one])),
      run: storage.serverRun(),
      pending: [],
      isFirst: true
    }
    return Stream.paginate(
      initial,
      Effect.fnUntraced(function*(state: State): Effect.fn.Return<
        readonly [ReadonlyArray<AggregatedMessage<A>>, Option.Option<State>],
        FollowError
      > {
        const { isFirst, last, next, pending } = state
        const [head, ...others] = pending
        if (head === undefined) {
          if (!isFirst) {
            yield* listener.wait(interval)
          }
          return [[], Option.some({ ...state, ...(yield* look(state)), isFirst: false })]
        }
        const { partition } = head
        const fromPosition = next.get(partition) ?? 0
        const query = { partition, fromPosition, limit: pageSize, tellsRun: true }
        const page = yield* Effect.result(stream.readPartition(query))
        if (Result.isFailure(page) && !isTransient(page.failure)) return yield* Effect.fail(page.failure)
        // What is not there may be lost, and come later, if another run of the server has answered: an empty page does not tell.
        if (Result.isSuccess(page) && page.success.messages.length === 0) yield* heads
        if (Result.isFailure(page) || (page.success.messages.length === 0 && storage.serverRun() !== state.run)) {
          // Whoever answers next is asked first where partitions end.
          yield* Effect.sleep("50 millis")
          return [[], Option.some({ ...state, pending: [], isFirst: true })]
        }
        const run = yield* stillThere(state)
        const { messages } = page.success
        const read = yield* Effect.fromResult(decodeAll(messages, (row) =>
          Result.map(decodeRow(codec, row), (stored) => ({ ...stored, partition, position: row.position }))))
        // The store may lack messages that are linked.
        const reached = (read.at(-1)?.position ?? head.position) + 1
        const more = reached <= head.position ? [...others, head] : others
        const newest = read.at(-1)
        return [
          read,
          Option.some({
            ...state,
            next: new Map(next).set(partition, reached),
            last: newest === undefined
              ? last
              : new Map(last).set(partition, { partition, position: newest.position, messageId: newest.messageId }),
            run,
            pending: more,
            isFirst: false
          })
        ]
      })
    )
  }))
