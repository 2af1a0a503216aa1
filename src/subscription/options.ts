/** The options of a subscription, with their bounds and defaults. */
import { Duration, Effect, Result, Schedule } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import type { Delivery } from "../Handlers.ts"
import { checkDuration, checkKey, checkWhole } from "../internal/checks.ts"
import type { ClaimMode, Storage } from "../Storage.ts"
import type { DeliveryOptions, OnFailure, ParkStream } from "./attempt.ts"
import type { Start } from "./start.ts"

/** How messages are parked behind one that failed. */
export interface ParkStreamOptions<in A = unknown> {
  /**
   * How many messages of one stream are parked at most, the one that failed included: 1 to 1,000,000. Default 1000. The next
   * one halts the partition, until one of them is handled, requeued or discarded.
   */
  readonly limit?: number | undefined
  /**
   * Messages of one partition with the same key are kept in their order. A key has 1 to 255 characters, none of them NUL or a
   * lone surrogate. Default: the name of the stream, which is also used where this throws or returns something else.
   * Messages that cannot be decoded have no key: nothing is parked behind them.
   */
  readonly key?: ((message: A, delivery: Delivery<A>) => string) | undefined
}

/** Options of a subscription. */
export interface Options<in A = unknown> {
  /**
   * Part of the names of database objects: 1 to 41 of `a-z`, `0-9` and `_`, not beginning with a digit. Unique in the
   * schema of the database: it belongs to the aggregated stream whose subscription had it first.
   */
  readonly name: string
  /** Where a new subscription begins; ignored when it exists already. Default `"beginning"`. */
  readonly start?: Start | undefined
  /**
   * `"atLeastOnce"` (default), or `"transactional"`: handler and acknowledgement are one transaction. Then each partition that
   * is being handled takes a connection of the pool; all subscriptions of a process together leave two to others. `messages`
   * are always delivered at least once.
   */
  readonly delivery?: "atLeastOnce" | "transactional" | undefined
  /**
   * Whether messages are acknowledged one by one, or a batch at once (default). A batch that ends early acknowledges what was
   * handled. `messages` are always acknowledged one by one.
   */
  readonly acknowledge?: "message" | "batch" | undefined
  /** How many messages are read, and acknowledged, at once, at most: 1 to 10,000. Default 100. */
  readonly batchSize?: number | undefined
  /**
   * How many partitions a process handles at the same time, at most: 1 to 2,147,483,647. Default 16; with transactional
   * delivery, two less than the pool has connections, if that is less. If more partitions have messages, they take turns every
   * few seconds; one that is retrying a message keeps its slot meanwhile. While handlers are quick, a process claims up to 48
   * partitions more, so that the next ones are at hand.
   */
  readonly concurrency?: number | undefined
  /**
   * When a failed handler is called again; the schedule's input is the handler's error. Default: 5 times, after 0.1, 0.2, 0.4,
   * 0.8 and 1.6 seconds. A connection that is lost in a handler counts as its failure, unless the subscription has lost its
   * own connection as well: then the handler is called again when the connection is back.
   */
  readonly retry?: Schedule.Schedule<unknown, unknown> | undefined
  /**
   * What is done when a handler has failed for the last time, which is logged as an error. A message that cannot be decoded
   * counts as one whose handler failed.
   *
   * - `"park"` (default) makes the message a dead letter, with the error; the partition goes on;
   * - `"parkStream"` parks it, and whatever follows it in its stream behind it, so that no stream is handled out of order; other
   *   streams go on;
   * - `"skip"` acknowledges it;
   * - `"haltPartition"` leaves its partition alone until the subscription runs again or is reset; other processes that run it try
   *   the message in their turn, and halt the partition too;
   * - `"stop"` makes `run` fail with a `HandlerError`.
   */
  readonly onFailure?: OnFailure | undefined
  /** How `onFailure: "parkStream"` parks. */
  readonly parkStream?: ParkStreamOptions<A> | undefined
  /**
   * What is done with a message whose type is not one of the schema's, so that this build does not know it.
   *
   * - `"leave"` (default) leaves its partition to processes that know the type, as during a rolling deploy. `status` says so, and
   *   the partition waits as long as there is none;
   * - `"skip"` acknowledges it: for subscriptions that want some types only;
   * - `"fail"` does what `onFailure` says.
   *
   * A serializer written by hand knows its types if it has `types`; without them, such a message is one that cannot be decoded.
   */
  readonly onUnknownType?: "leave" | "skip" | "fail" | undefined
  /**
   * How partitions are claimed: by locks of one database session of this process (default), which are free as soon as the
   * process is gone; or by leases of a second to a day, for processes that reach the database through a pooler such as
   * PgBouncer, where claims by session make `run` fail with a `SetupError`. All processes of a subscription have to do the same.
   */
  readonly claims?: "session" | { readonly lease: Duration.Input } | undefined
  /** How long it waits for a wake-up before it polls; a millisecond or more. Default 5 seconds. */
  readonly pollInterval?: Duration.Input | undefined
  /**
   * How long a handler may go on when `run` is interrupted or a layer closes, before it is interrupted; 0 or more. Default 10
   * seconds. Nothing more is begun meanwhile, and what finishes in time is acknowledged. Consumers of `messages` are not
   * waited for.
   */
  readonly shutdownTimeout?: Duration.Input | undefined
  /** A label of this process, which `claimedBy` in `status` shows beside its host and process id. */
  readonly owner?: string | undefined
}

const defaultConcurrency = 16

/** @internal */
export const defaultRetry = Schedule.max([Schedule.exponential("100 millis"), Schedule.recurs(5)])

/**
 * Transactions of handlers are bounded by the pool, however many partitions are claimed: more would only wait.
 *
 * @internal
 */
export const concurrencyOf = Effect.fnUntraced(function*(
  name: string,
  given: number | undefined,
  { delivery }: DeliveryOptions,
  { handlerTransactions }: Storage["Service"]
) {
  const limit = delivery === "transactional" ? handlerTransactions?.limit ?? Infinity : Infinity
  if (given === undefined) return Math.min(defaultConcurrency, limit)
  if (given > limit) {
    yield* Effect.logWarning(
      `subscription ${name}: handles ${limit} partitions at a time, not ${given}: each takes a connection of the pool, ` +
        `which leaves some to others. The rest of its claims waits: set concurrency to ${limit}, or maxConnections of ` +
        `the client to ${given + 2}`
    )
  }
  return given
})

/** @internal */
export const checkClaims = (claims: Options["claims"]): Result.Result<ClaimMode, InvalidArgumentError> => {
  if (claims === undefined || claims === "session") return Result.succeed({ _tag: "Session" })
  const bounds = { minimum: 1000, maximum: 86_400_000, reason: "must be from a second to a day" }
  return Result.map(
    checkDuration("lease", claims.lease, bounds),
    (lease) => ({ _tag: "Lease", milliseconds: Duration.toMillis(lease) })
  )
}

/** @internal */
export const parkStreamOf = <A>(
  { onFailure, parkStream = {} }: Options<A>
): Result.Result<ParkStream<A> | undefined, InvalidArgumentError> =>
  Result.map(checkWhole("parkStream.limit", parkStream.limit ?? 1000, 1, 1_000_000), (limit) => {
    const { key } = parkStream
    if (onFailure !== "parkStream") return undefined
    return {
      limit,
      keyOf: (delivery) => {
        if (key === undefined) return delivery.stream
        try {
          return Result.getOrElse(checkKey(key(delivery.message, delivery)), () => delivery.stream)
        } catch {
          return delivery.stream
        }
      },
      hasStreams: key === undefined
    }
  })
