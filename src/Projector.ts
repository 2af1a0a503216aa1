/**
 * Keeps an aggregated stream up to date: links new messages to its partitions.
 *
 * **Guarantees**
 *
 * - Each message of a matching stream is linked exactly once, whatever is committed late, rolled back, or interrupted.
 * - Each partition keeps the order of every stream; its positions are 0, 1, 2, … without gaps.
 * - Work is committed page by page: an interruption loses a page at most, and the next projector goes on there.
 * - Any number of projectors may run, in any number of processes, Python's included. One works at a time; another waits,
 *   and fails after 5 seconds with an `SqlError` that is retryable (`run` tries again).
 */
import { DateTime, Effect, Fiber, Metric, Option, Result, Stream } from "effect"
import type { Duration, Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import {
  type InvalidArgumentError,
  PartitionError,
  type SequenceError,
  type SerializationError,
  type SetupError,
  type StreamDefinitionError
} from "./errors.ts"
import { checkPollInterval, maximumPartition, outsideTransaction } from "./internal/checks.ts"
import { attribute, attributesOf, counter, metric, system } from "./internal/telemetry.ts"
import { tryingAgain } from "./internal/transient.ts"
import type { StoredMessage } from "./Message.ts"
import { type BuiltIn, type Partitioner, partitionOf as partitionOfBuiltIn } from "./Partitioner.ts"
import { decodeRow } from "./Reader.ts"
import type { MessageCodec } from "./Serializer.ts"
import {
  type AggregatedStorage,
  isScanned,
  type Link,
  type ProjectedPage,
  type RoundError,
  type ScannedPage,
  type Storage
} from "./Storage.ts"

/** Why a projection may fail. */
export type ProjectionError =
  | PartitionError
  | SerializationError
  | StreamDefinitionError
  | SequenceError
  | SetupError
  | InvalidArgumentError
  | SqlError

/** Progress of a projection after one page. */
export interface Progress {
  /** How many messages it has linked. */
  readonly linked: number
  /** The global position that it has reached. Messages below it that are committed late are linked later. */
  readonly position: number
  /** The global position that it will reach; if nothing is new, it is there already. */
  readonly target: number
}

/** How `run` waits. */
export interface RunOptions {
  /**
   * How long a projector waits for a wake-up before it polls, since wake-ups may be lost; a millisecond or more. Default 5
   * seconds.
   */
  readonly pollInterval?: Duration.Input | undefined
}

/** How a layer runs a projector. */
export interface LayerOptions extends RunOptions {
  /**
   * When a projector that has failed runs again; its input is the error. Default: after 30 seconds, each time. When the
   * schedule ends, the projector ends. Each failure is logged as an error.
   */
  readonly restart?: Schedule.Schedule<unknown, ProjectionError> | undefined
}

/** Links the messages of a stream. */
export interface Projector {
  /**
   * Links all messages that were committed before the call, and perhaps later ones. Each element tells of a page that
   * has been committed. Not inside a transaction.
   */
  readonly pages: Stream.Stream<Progress, ProjectionError>
  /** The same, in one effect; returns its last progress. */
  readonly runOnce: Effect.Effect<Progress, ProjectionError>
  /**
   * Links messages as they come, until it is interrupted. Transient failures (lost connections, locks that others hold)
   * are tried again and logged, the first in a row as a warning. It fails when a partitioner or the definition of the
   * stream is at fault, or a message cannot be decoded.
   */
  readonly run: (options?: RunOptions) => Effect.Effect<never, ProjectionError>
}

/** Messages scanned in one page. Larger pages make each message a little cheaper, and take longer. */
const pageSize = 1000

/** @internal */
export const make = <A>(
  storage: Storage["Service"],
  stream: AggregatedStorage,
  codec: MessageCodec<A>,
  time: (message: A) => DateTime.DateTime,
  name: string,
  partitioner: Partitioner<A>
): Projector => {
  const source: Stream.Stream<ProjectedPage, ProjectionError> = typeof partitioner === "function"
    ? decideHere(stream, byFunction(codec, time, name, partitioner))
    : stream.project === undefined
    ? decideHere(stream, byBuiltIn(partitioner))
    : Stream.fromEffectRepeat(stream.project(pageSize))

  const attributes = attributesOf(name, "project", undefined)
  const linkedTotal = counter(
    metric.linked,
    { description: "Messages that were linked to an aggregated stream", unit: "{message}" },
    { [attribute.system]: system, [attribute.destination]: name }
  )
  const linking = source.pipe(
    Stream.tap((page) => Metric.update(linkedTotal, page.linked)),
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
  )
  const pages: Projector["pages"] = Stream.unwrap(Effect.as(outsideTransaction(storage, "projector"), linking))
  const runOnce = Effect.map(Stream.runLast(pages), Option.getOrElse(() => ({ linked: 0, position: 0, target: 0 })))

  return {
    pages,
    runOnce: Effect.withSpan(runOnce, `project ${name}`, { attributes }),
    run: (runOptions = {}) =>
      Effect.scoped(Effect.gen(function*() {
        const pollInterval = yield* Effect.fromResult(checkPollInterval(runOptions.pollInterval))
        const listener = yield* storage.listen
        const attempt = tryingAgain(`the projector of ${name}`)(runOnce)
        while (true) {
          yield* attempt
          yield* listener.wait(pollInterval)
        }
      }))
  }
}

/** The partitions of a page's messages: of all, or of those before the one that has none, and why it has none. */
interface Decided<E> {
  readonly links: ReadonlyArray<Link>
  /** The global position of the last of them. */
  readonly through: number | undefined
  readonly failure: E | undefined
}

/** Scans, decides, links. The next page is scanned while this one is linked. */
const decideHere = <E>(
  stream: AggregatedStorage,
  decide: (messages: ScannedPage["messages"]) => Effect.Effect<Decided<E>>
): Stream.Stream<ProjectedPage, E | RoundError> =>
  Stream.unwrap(Effect.map(Effect.scope, (scope) => {
    type Scan = ReturnType<AggregatedStorage["scan"]>
    const first = stream.scan(undefined, pageSize)
    return Stream.paginate(
      first,
      Effect.fnUntraced(function*(scan: Scan) {
        const page = yield* scan
        if (!isScanned(page)) return [[page], Option.some(first)] as const
        const next: Scan = page.done
          ? first
          : Fiber.join(yield* Effect.forkIn(stream.scan(page.token, pageSize), scope))
        const { failure, links, through } = yield* decide(page.messages)
        if (failure !== undefined) {
          // Those before it are linked, so that they need not be scanned again.
          if (through !== undefined) yield* stream.link(page.token, links, through)
          return yield* Effect.fail(failure)
        }
        const linked = yield* stream.link(page.token, links)
        return linked === undefined
          ? [[], Option.some(first)] as const // another projector was faster: begin where it is
          : [[linked], Option.some(next)] as const
      })
    )
  }))

/** Partitions by a built-in partitioner, as the backend does where it can. */
const byBuiltIn = (partitioner: BuiltIn) => (messages: ScannedPage["messages"]): Effect.Effect<Decided<never>> =>
  Effect.map(
    Effect.forEach(messages, (message) =>
      Effect.map(
        partitionOfBuiltIn(partitioner, message),
        (partition): Link => ({ messageId: message.messageId, partition, occurredAt: undefined })
      )),
    (links) => ({ links, through: undefined, failure: undefined })
  )

/** Partitions by a function, up to the first message that cannot be decoded or has no partition. */
const byFunction = <A>(
  codec: MessageCodec<A>,
  time: (message: A) => DateTime.DateTime,
  name: string,
  partitioner: (stored: StoredMessage<A>) => number
) =>
(messages: ScannedPage["messages"]): Effect.Effect<Decided<PartitionError | SerializationError>> =>
  Effect.sync(() => {
    const links: Array<Link> = []
    let through: number | undefined
    for (const row of messages) {
      const decided = Result.flatMap(decodeRow(codec, row), (stored) =>
        Result.map(partitionOf(name, partitioner, stored), (partition) => ({ partition, stored })))
      if (Result.isFailure(decided)) {
        return { links, through, failure: decided.failure }
      }
      const { partition, stored } = decided.success
      const occurredAt = row.isTimed ? undefined : timeOf(time, stored.message)
      links.push({ messageId: row.messageId, partition, occurredAt })
      through = row.globalPosition
    }
    return { links, through, failure: undefined }
  })

/** A time that cannot be read stops no projection: the time the message was added takes its place. */
const timeOf = <A>(time: (message: A) => DateTime.DateTime, message: A): DateTime.Utc | undefined => {
  try {
    return DateTime.toUtc(time(message))
  } catch {
    return undefined
  }
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
