/**
 * A store that is read, and not written to: on a standby, or wherever else only reads should go. There is nothing in it that writes,
 * and nothing is made or changed when it opens.
 */
import { Duration, Effect, Schedule } from "effect"
import type { DateTime, Scope } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import * as AggregatedStream from "../AggregatedStream.ts"
import { type InvalidArgumentError, type InvalidNameError, NotReplicatedError, type SetupError } from "../errors.ts"
import { checkDuration, checkWhole } from "../internal/checks.ts"
import { operationsOf } from "../internal/telemetry.ts"
import { isTransient, retryTransient } from "../internal/transient.ts"
import type { Path } from "../Partitioner.ts"
import * as Reader from "../Reader.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { AggregatedStorage, Backend } from "../Storage.ts"
import { declare } from "./declarations.ts"

/** An aggregated stream that is read. A projector on the primary keeps it up to date. */
export interface ReadOnlyStream<in out A> extends
  Pick<
    AggregatedStream.AggregatedStream<A>,
    "name" | "read" | "follow" | "partitions" | "positionsAtTime" | "positionsAtGlobalPosition" | "statistics"
  >
{}

/** How long `waitFor` waits. */
export interface WaitForOptions {
  /** Default 5 seconds. */
  readonly timeout?: Duration.Input | undefined
}

/** A store that is read: its messages, and its aggregated streams. */
export interface ReadOnlyStore<in out A, P extends Path = Path> extends Reader.Reader<A> {
  /** The name that its database objects have in theirs. */
  readonly name: string

  /**
   * One consistent view of the store, until the scope closes, as that of the store that writes. On a standby it may be ended by
   * recovery, which then waited for it as long as `max_standby_streaming_delay` allows: that is a retryable `SqlError`.
   */
  readonly reader: Effect.Effect<Reader.Reader<A>, SqlError, Scope.Scope>

  /**
   * Waits until the message at a global position, such as `write` returns, can be read here: to read your own writes. Fails with a
   * `NotReplicatedError` when the timeout is over.
   *
   * **Details**
   *
   * When it ends, everything that was written with that message, or committed before it, can be read here: all that its writer has
   * seen. It says nothing of other messages at lower positions: a transaction that took one may commit later, here as on the
   * primary. It looks every few milliseconds, since a standby wakes nobody.
   *
   * **Gotchas**
   *
   * The position has to be that of a committed write: a message that is deleted meanwhile, or was lost with a server, never comes.
   * A transaction at REPEATABLE READ sees nothing new: wait before it, or before `reader`.
   *
   * **Example**
   *
   * ```ts
   * yield* replica.waitFor(globalPosition, { timeout: "2 seconds" })
   * ```
   */
  readonly waitFor: (
    globalPosition: number,
    options?: WaitForOptions
  ) => Effect.Effect<void, NotReplicatedError | InvalidArgumentError | SqlError>

  /**
   * An aggregated stream of this store, to be read. It has to be there: a store that writes makes it. What `waitFor` says of
   * messages says nothing of their links, which come some milliseconds later; `follow` looks for them every `pollInterval`.
   */
  aggregatedStream(
    options: AggregatedStream.Options<A, P>
  ): Effect.Effect<
    ReadOnlyStream<A>,
    InvalidNameError | InvalidArgumentError | SetupError | MigrationError | SqlError
  >
}

/** The key of a store that is read, beside that of the store which writes. */
export interface ReadOnly<out Self> {
  readonly "~effect-message-store/ReadOnly": Self
}

const polling = Schedule.min([Schedule.exponential("2 millis", 1.5), Schedule.spaced("50 millis")])

/** How often a read is tried again which recovery has cancelled, or whose connection was lost: about three seconds. */
const attempts = Schedule.max([retryTransient, Schedule.recurs(6)])

/** Statements that a time limit has ended would take as long again. */
const isInterrupted = (error: SqlError): boolean => isTransient(error) && error.reason._tag !== "StatementTimeoutError"

/** The reads of a backend, each tried again by itself. In a transaction, which is over with the first failure, none is. */
const persistent = (storage: Backend): Backend => {
  const retried = <A>(read: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
    Effect.catchIf(
      read,
      isInterrupted,
      (error) =>
        Effect.flatMap(storage.inTransaction, (inTransaction) =>
          inTransaction ? Effect.fail(error) : Effect.retry(read, { schedule: attempts, while: isInterrupted }))
    )
  return {
    ...storage,
    readStream: (query) => retried(storage.readStream(query)),
    readPattern: (query) => retried(storage.readPattern(query)),
    readTagged: (query) => retried(storage.readTagged(query)),
    readByIds: (messageIds) => retried(storage.readByIds(messageIds)),
    head: (stream) => retried(storage.head(stream)),
    declaredTags: retried(storage.declaredTags),
    aggregatedStream: (definition) =>
      Effect.map(storage.aggregatedStream(definition), (stream): AggregatedStorage => ({
        ...stream,
        readPartition: (query) => retried(stream.readPartition(query)),
        positions: (query) => retried(stream.positions(query)),
        partitions: retried(stream.partitions),
        progress: retried(stream.progress),
        waiting: retried(stream.waiting)
      }))
  }
}

/**
 * @internal
 */
export const make = Effect.fnUntraced(function*<A>(
  storage: Backend,
  codec: MessageCodec<A>,
  time: (message: A) => DateTime.DateTime,
  name: string
): Effect.fn.Return<ReadOnlyStore<A>, SqlError> {
  const reads = persistent(storage)
  const { requireTags } = yield* declare(reads, name, codec.tags, false)
  const isVisible = (globalPosition: number) =>
    Effect.map(
      reads.readPattern({
        pattern: "%",
        fromPosition: globalPosition,
        toPosition: globalPosition,
        direction: "forward",
        limit: 1
      }),
      ({ messages }) => messages.length > 0
    )
  const operation = operationsOf(name)
  const waiting = operation("waitFor")
  return {
    ...Reader.make(reads, codec, requireTags),
    name,
    reader: Reader.inSnapshot(storage, codec, requireTags),
    waitFor: Effect.fn(waiting.spanName, waiting.spanOptions)(
      function*(globalPosition, { timeout = "5 seconds" } = {}) {
        yield* Effect.fromResult(checkWhole("globalPosition", globalPosition, 0))
        const duration = yield* Effect.fromResult(checkDuration("timeout", timeout))
        yield* waiting.observe(
          isVisible(globalPosition).pipe(
            Effect.repeat({ until: (visible) => visible, schedule: polling }),
            Effect.timeoutOrElse({
              duration,
              orElse: () =>
                Effect.fail(
                  new NotReplicatedError({ store: name, globalPosition, waited: Duration.toMillis(duration) })
                )
            })
          )
        )
      }
    ),
    aggregatedStream: (options) =>
      Effect.map(AggregatedStream.make(reads, codec, time, name, options), (stream): ReadOnlyStream<A> => ({
        name: stream.name,
        read: stream.read,
        follow: stream.follow,
        partitions: stream.partitions,
        positionsAtTime: stream.positionsAtTime,
        positionsAtGlobalPosition: stream.positionsAtGlobalPosition,
        statistics: stream.statistics
      }))
  }
})
