/** What a subscription offers. */
import type { Array as Arr, Duration, Effect, Stream } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type {
  HandlerError,
  InvalidArgumentError,
  InvalidNameError,
  NotProcessedError,
  SetupError,
  StreamRebuiltError
} from "../errors.ts"
import type * as Handlers from "../Handlers.ts"
import type { Delivery, Handler } from "../Handlers.ts"
import type { PartitionStatus } from "../Storage.ts"
import type { PauseOptions } from "./control.ts"
import type { Drained, DrainOptions } from "./drain.ts"
import type { Options } from "./options.ts"
import type { ParkedMessage, Place, ReadParkedOptions, Replayed } from "./parked.ts"
import type { Start } from "./start.ts"

/**
 * Why `run` ends: `onFailure: "stop"`; a permanent failure of the database; a transaction that is open; claims by session behind
 * a pooler by transaction (`SetupError`).
 */
export type RunError = HandlerError | StreamRebuiltError | InvalidArgumentError | SetupError | SqlError

/** A message to be acknowledged by hand. The next of its partition comes after that. */
export interface Unacknowledged<out A> extends Delivery<A> {
  /** Acknowledges the message; the checkpoint is stored soon after. */
  readonly acknowledge: Effect.Effect<void>
}

/** The messages of an aggregated stream, handled one after the other, and the checkpoints of each partition. */
export interface Subscription<in out A> {
  /** Its name, as in the names of its database objects. */
  readonly name: string
  /**
   * Makes one handler of handlers by tag. Messages of other tags are acknowledged without being handled.
   *
   * **Example**
   *
   * ```ts
   * yield* invoices.run(invoices.handlers({ OrderPlaced: (order) => writeInvoice(order) }))
   * ```
   */
  readonly handlers: Handlers.MakeByTag<A>
  /**
   * Handles messages as they come, until it is interrupted; it ends when the messages in hand are finished, within
   * `shutdownTimeout`. Transient failures of the database are tried again. Not inside a transaction.
   *
   * **Example**
   *
   * ```ts
   * yield* invoices.run((order, { attempt, position }) => writeInvoice(order))
   * ```
   */
  readonly run: <E, R>(handler: Handler<A, E, R>) => Effect.Effect<never, RunError, R>
  /**
   * The same, a batch at a time: messages of one partition, in their order. A batch whose handler failed is bisected, at
   * once, until the message that fails is alone: it then follows `retry` and `onFailure`.
   */
  readonly runBatches: <E, R>(
    handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>
  ) => Effect.Effect<never, RunError, R>
  /**
   * Handles messages until none is left, or the time is over, and answers what was done: for tests, scheduled jobs, and
   * whatever else does not stay. It waits for what other consumers have in hand, and does not wait for the projector:
   * messages that are not linked yet do not count. Partitions that are paused or halted, or left to processes that know the
   * type of their next message, are left as they are. Where nothing is to be done, it ends after one look at the database.
   *
   * **Example**
   *
   * ```ts
   * yield* ordersByCustomer.projector.runOnce
   * const { handled, isCaughtUp } = yield* invoices.drain((order) => writeInvoice(order), { for: "5 minutes" })
   * ```
   */
  readonly drain: <E, R>(
    handler: Handler<A, E, R>,
    options?: DrainOptions
  ) => Effect.Effect<Drained, RunError, R>
  /**
   * The messages as a stream, each to be acknowledged by its consumer; of each partition one at a time. They are delivered
   * at least once, and acknowledged one by one, whatever the options say.
   */
  readonly messages: Stream.Stream<Unacknowledged<A>, RunError>
  /**
   * Each partition with its last position, its checkpoint, how old the first message behind it is, what has claimed it, how
   * many messages are parked, where it is halted, and since when it is paused.
   */
  readonly status: Effect.Effect<ReadonlyArray<PartitionStatus>, SqlError>
  /**
   * How many messages are not acknowledged yet, linked or not: 0 only if the projector has come to the end, and the
   * subscription too. One that is linked at this very moment may count twice.
   */
  readonly lag: Effect.Effect<number, StreamRebuiltError | SqlError>
  /**
   * How long the oldest message that is not acknowledged has been stored, linked or not, by the clock of the database; zero
   * if there is none. Of those that are not linked, the first 10,000 ahead of the projector count.
   */
  readonly age: Effect.Effect<Duration.Duration, SqlError>
  /**
   * Waits until the message of a global position, such as `write` returns, has been acknowledged or parked. Fails with a
   * `NotProcessedError` if it takes longer, which says whether the message is linked. What `update` returns has no global
   * position only where the stream has no message: then there is nothing to wait for.
   *
   * **Example** (read what you wrote)
   *
   * ```ts
   * const { globalPosition } = yield* orders.write("order-1", new OrderPlaced({ customer: "Ada" }))
   * yield* invoices.waitUntilProcessed(globalPosition, "5 seconds")
   * ```
   */
  readonly waitUntilProcessed: (
    globalPosition: number,
    timeout: Duration.Input
  ) => Effect.Effect<void, NotProcessedError | StreamRebuiltError | InvalidArgumentError | SqlError>
  /** The dead letters: all parked messages, in the order of partitions and positions. */
  readonly parked: Effect.Effect<ReadonlyArray<ParkedMessage<A>>, SqlError>
  /**
   * The same, in pages of 100, with no connection held between them: however many there are, they need not be in memory
   * together. To go on later, give the last one that was read as `after`.
   */
  readonly readParked: (
    options?: ReadParkedOptions
  ) => Stream.Stream<ParkedMessage<A>, InvalidArgumentError | SqlError>
  /**
   * Has parked messages handled again by whatever process runs the subscription, now or later: all, or those given by place
   * or message id. They stay parked until they were handled; those that fail again, with all attempts that `retry` gives, stay
   * parked, whatever `onFailure` says. With `"parkStream"`, all that are parked of the stream of one come with it. Messages of a partition are handled in their order, between the others. Answers how
   * many were not requeued yet.
   *
   * **Example**
   *
   * ```ts
   * yield* invoices.requeue() // the mail server is back
   * ```
   */
  readonly requeue: (
    which?: ReadonlyArray<Place | string>
  ) => Effect.Effect<number, InvalidArgumentError | SqlError>
  /**
   * Hands parked messages to a handler once more, all or those given. Those that it handles are not parked any more; with
   * transactional delivery, in one transaction with what it writes. Messages that others have replayed or discarded
   * meanwhile do not count.
   *
   * **Example**
   *
   * ```ts
   * const { failed, handled } = yield* invoices.replay((order) => writeInvoice(order))
   * ```
   */
  readonly replay: <E, R>(
    handler: Handler<A, E, R>,
    places?: ReadonlyArray<Place>
  ) => Effect.Effect<Replayed, SqlError, R>
  /**
   * Discards a parked message; returns whether it was parked. With `onFailure: "parkStream"`, those that were parked behind
   * it are requeued, if it was the first of them.
   */
  readonly discard: (place: Place) => Effect.Effect<boolean, SqlError>
  /**
   * Pauses the subscription, or one of its partitions, in all processes, until it is resumed: restarts do not end it. What
   * was read of a partition before this returned may still be handled, but nothing more than the handlers that are under
   * way once a second has gone by, unless a transaction has to end; `claimedBy` of `status` is undefined when that is over.
   * Pausing again changes reason and name. In an open transaction, it holds from the commit on.
   *
   * **Example**
   *
   * ```ts
   * yield* invoices.pause({ reason: "the printer is out of paper", by: "Ada" })
   * ```
   */
  readonly pause: (options?: PauseOptions) => Effect.Effect<void, InvalidArgumentError | SqlError>
  /**
   * Lifts the pause of the subscription, or of a partition; whether it was paused. Partitions that were paused by
   * themselves stay paused when the subscription is resumed.
   */
  readonly resume: (
    options?: { readonly partition?: number | undefined }
  ) => Effect.Effect<boolean, InvalidArgumentError | SqlError>
  /**
   * Begins again, forgetting all checkpoints and parked messages; what is paused stays so. Running workers begin again too: what they handle
   * meanwhile is not acknowledged, and may be handled twice. In a transactional handler of the subscription itself it is undone,
   * with all that the handler did: the acknowledgement is refused.
   */
  readonly reset: (start?: Start) => Effect.Effect<void, InvalidArgumentError | SqlError>
  /** Removes the subscription with its database objects. Not while it runs, and not inside a transaction. */
  readonly drop: Effect.Effect<void, InvalidArgumentError | SqlError>
}

/** Why a subscription cannot be made. */
export type MakeError = InvalidNameError | InvalidArgumentError | SetupError | MigrationError | SqlError

/** Can be subscribed to: an aggregated stream. */
export interface Subscribable<in out A> {
  /** A subscription to this stream. Its start is stored when this ends: no message written later is missed. */
  readonly subscription: (options: Options<A>) => Effect.Effect<Subscription<A>, MakeError>
}
