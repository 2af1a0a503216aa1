/**
 * Keeps an aggregated stream up to date: links new messages to its partitions.
 *
 * **Guarantees**
 *
 * - Each message of a matching stream is linked exactly once, whatever is committed late, rolled back, or interrupted.
 * - Each partition keeps the order of every stream; its positions are 0, 1, 2, … without gaps.
 * - Work is committed page by page: whoever is interrupted has lost a page at most, and the next one goes on there.
 * - Any number of projectors may run, in any number of processes, Python's included. One works at a time; another waits,
 *   and fails after 5 seconds with an `SqlError` that is retryable (`run` tries again).
 */
import { Effect, Fiber, Option, Result, Stream } from "effect"
import type { Duration } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import {
  type InvalidArgumentError,
  PartitionError,
  type SerializationError,
  type StreamDefinitionError
} from "./errors.ts"
import { invalid, maximumPartition } from "./internal/checks.ts"
import { isTransient, retryTransient } from "./internal/transient.ts"
import type { StoredMessage } from "./Message.ts"
import type { Partitioner } from "./Partitioner.ts"
import { decodeRow } from "./Reader.ts"
import type { MessageCodec } from "./Serializer.ts"
import {
  type AggregatedStorage,
  isRound,
  type ProjectedPage,
  type Round,
  type ScannedPage,
  type Storage
} from "./Storage.ts"

/** Why a projection may fail. */
export type ProjectionError =
  | PartitionError
  | SerializationError
  | StreamDefinitionError
  | InvalidArgumentError
  | SqlError

/** How far a projection has come. */
export interface Progress {
  /** How many messages it has linked. */
  readonly linked: number
  /** The global position up to which it has come; what is committed late, below it, is linked later. */
  readonly position: number
  /** The global position up to which it will go. Where nothing is new, it has come there. */
  readonly target: number
}

/** How `run` waits. */
export interface RunOptions {
  /**
   * How long a projector waits for a wake-up before it looks for itself, should one have been lost. Default 5 seconds.
   */
  readonly pollInterval?: Duration.Input | undefined
}

/** Links the messages of a stream. */
export interface Projector {
  /**
   * Links all messages that were committed before the call, and perhaps later ones. Each element tells of a page that
   * has been committed. Not inside a transaction.
   */
  readonly pages: Stream.Stream<Progress, ProjectionError>
  /** The same, in one effect; returns how far it has come. */
  readonly runOnce: Effect.Effect<Progress, ProjectionError>
  /**
   * Links messages as they come, until it is interrupted. Lost connections and locks that others hold are waited out, and
   * logged: the first failure of a row as a warning. It fails when a partitioner or the definition of the stream is at
   * fault, or a message cannot be decoded.
   */
  readonly run: (options?: RunOptions) => Effect.Effect<never, ProjectionError>
}

/** Messages scanned in one page: more make each a little cheaper, and the page longer. */
const pageSize = 1000

const defaultPollInterval: Duration.Input = "5 seconds"

/** @internal */
export const make = <A>(
  storage: Storage["Service"],
  stream: AggregatedStorage,
  codec: MessageCodec<A>,
  name: string,
  partitioner: Partitioner<A>
): Projector => {
  const source = typeof partitioner === "function"
    ? partitionedHere(stream, codec, name, partitioner)
    : Stream.fromEffectRepeat(stream.project(pageSize))

  const pages: Projector["pages"] = Stream.unwrap(
    Effect.map(storage.inTransaction, (inTransaction) =>
      inTransaction
        ? Stream.fromEffect(Effect.fromResult(invalid("projector", "must not run inside a transaction")))
        : source.pipe(
          Stream.mapAccum(() => ({ linked: 0, hasBegun: false }), ({ hasBegun, linked }, page: ProjectedPage) => {
            const progress = { linked: linked + page.linked, position: page.position, target: page.target }
            // A round that began before this call may have missed what was committed since: another one follows.
            const began = hasBegun || page.began
            return [{ linked: progress.linked, hasBegun: began || page.done }, [{
              progress,
              isLast: page.done && began
            }]]
          }),
          Stream.takeUntil(({ isLast }) => isLast),
          Stream.map(({ progress }): Progress => progress)
        ))
  )
  const runOnce = Effect.map(Stream.runLast(pages), Option.getOrElse(() => ({ linked: 0, position: 0, target: 0 })))

  return {
    pages,
    runOnce: Effect.withSpan(runOnce, "Projector.runOnce"),
    run: ({ pollInterval = defaultPollInterval } = {}) =>
      Effect.scoped(Effect.gen(function*() {
        const listener = yield* storage.listen
        let hasFailed = false
        const attempt = Effect.tapError(runOnce, (error) => {
          if (!isTransient(error)) return Effect.void
          const level = hasFailed ? "Debug" : "Warn"
          hasFailed = true
          return Effect.logWithLevel(level)(`The projector of ${name} tries again`, error)
        })
        while (true) {
          yield* Effect.retry(attempt, { schedule: retryTransient, while: isTransient })
          hasFailed = false
          yield* listener.wait(pollInterval)
        }
      }))
  }
}

/** Pages whose messages are partitioned in the application. The next one is read while this one is linked. */
const partitionedHere = <A>(
  stream: AggregatedStorage,
  codec: MessageCodec<A>,
  name: string,
  partitioner: (stored: StoredMessage<A>) => number
): Stream.Stream<ProjectedPage, ProjectionError> => {
  interface State {
    readonly round: Round
    readonly scanned: Effect.Effect<ScannedPage, SqlError>
  }
  return Stream.unwrap(Effect.map(Effect.scope, (scope) => {
    const begin = Effect.map(
      stream.beginRound,
      (begun): State | ProjectedPage =>
        isRound(begun) ? { round: begun, scanned: stream.scan(begun, begun.cursor, pageSize) } : begun
    )

    return Stream.paginate(
      undefined as State | undefined,
      Effect.fnUntraced(function*(state: State | undefined) {
        const begun = state ?? (yield* begin)
        if (!("round" in begun)) return [[begun], Option.some(undefined)] as const
        const { round, scanned } = begun
        const page = yield* scanned
        const next = page.done
          ? undefined
          : { round, scanned: Fiber.join(yield* Effect.forkIn(stream.scan(round, page.to, pageSize), scope)) }
        const { failure, links } = partitionAll(codec, name, partitioner, page.messages)
        if (failure !== undefined) {
          // Those before it are linked, so that they need not be looked at again.
          const before = links.at(-1)?.globalPosition ?? page.from
          yield* stream.link(round, { from: page.from, to: before, done: false }, links)
          return yield* failure
        }
        const linked = yield* stream.link(round, page, links)
        return linked === undefined
          ? [[], Option.some(undefined)] as const // somebody else was faster: begin where that one is
          : [[linked], Option.some(next)] as const
      })
    )
  }))
}

/** Up to the first message that cannot be decoded or has no partition. */
const partitionAll = <A>(
  codec: MessageCodec<A>,
  name: string,
  partitioner: (stored: StoredMessage<A>) => number,
  rows: ScannedPage["messages"]
) => {
  const links: Array<{ readonly messageId: string; readonly partition: number; readonly globalPosition: number }> = []
  for (const row of rows) {
    const partition = Result.flatMap(decodeRow(codec, row), (stored) => partitionOf(name, partitioner, stored))
    if (Result.isFailure(partition)) return { links, failure: partition.failure }
    links.push({ messageId: row.messageId, partition: partition.success, globalPosition: row.globalPosition })
  }
  return { links, failure: undefined }
}

const partitionOf = <A>(
  name: string,
  partitioner: (stored: StoredMessage<A>) => number,
  stored: StoredMessage<A>
): Result.Result<number, PartitionError> => {
  const { messageId, stream, version } = stored
  const fail = (reason: string, cause?: unknown) =>
    Result.fail(
      new PartitionError({
        aggregatedStream: name,
        messageId,
        stream,
        version,
        reason,
        ...(cause === undefined ? {} : { cause })
      })
    )
  try {
    const partition = partitioner(stored)
    return Number.isInteger(partition) && partition >= 0 && partition <= maximumPartition
      ? Result.succeed(partition)
      : fail(`gave ${String(partition)}, not a whole number from 0 to ${maximumPartition},`)
  } catch (cause) {
    return fail("threw", cause)
  }
}
