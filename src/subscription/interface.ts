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
   * Handles messages as they come, until it is interrupted; then it waits up to `shutdownTimeout` for the messages in hand.
   * Transient failures of the database are retried, and the first in a row is logged as a warning. Not inside a transaction.
   *
   * **Example**
   *
   * ```ts
   * yield* invoices.run((order, { attempt, position }) => writeInvoice(order))
   * ```
   */
  readonly run: <E, R>(handler: Handler<A, E, R>) => Effect.Effect<never, RunError, R>
  /**
   * The same, a batch at a time: up to `batchSize` messages of one partition, in their order. A batch whose handler fails is
   * bisected, without a pause, until the failing message is alone; then `retry` and `onFailure` apply to it.
   */
  readonly runBatches: <E, R>(
    handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>
  ) => Effect.Effect<never, RunError, R>
  /**
   * Handles messages until none is left, or the time is over, and returns what was done: for tests, scheduled jobs, and
   * functions that do not stay. It waits for what other consumers have in hand, but not for the projector: messages that are
   * not linked yet do not count. Partitions that are paused or halted, or left to processes that know the type of their next
   * message, stay as they are. If there is nothing to do, it ends after one look at the database.
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
   * The messages as a stream, each to be acknowledged by its consumer; of each partition, one at a time. They are delivered
   * at least once and acknowledged one by one, whatever the options say.
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
   * Waits until the message of a global position, such as `write` returns, has been acknowledged or parked. When the timeout is
   * over it fails with a `NotProcessedError`, which says whether the message is linked. The head that `update` returns lacks a
   * global position only if the stream has no message: then there is nothing to wait for.
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
   * Has parked messages handled again by the processes that run the subscription, now or later: all, or those given by place
   * or message id. Returns how many of them were not requeued before.
   *
   * **Details**
   *
   * They stay parked until they were handled, and also if all attempts of `retry` fail again, whatever `onFailure` says. Workers handle them between other messages, those of a partition in their order. With `"parkStream"`,
   * requeueing one message requeues all that are parked of its stream.
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
   * Hands parked messages to a handler once more, here and now: all, or those given. Those that it handles are no longer
   * parked; with transactional delivery, that is one transaction with what the handler writes. Messages that others have
   * replayed or discarded meanwhile do not count.
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
   * Discards a parked message; returns whether it was parked. With `onFailure: "parkStream"`, discarding the first parked
   * message of a stream requeues those behind it.
   */
  readonly discard: (place: Place) => Effect.Effect<boolean, SqlError>
  /**
   * Pauses the subscription, or one of its partitions, in all processes, until it is resumed; a pause survives restarts.
   *
   * **Details**
   *
   * Messages that were read before this returns may still be handled; a second later, only the handlers that are under way,
   * and transactional batches, go on. It is over when `claimedBy` in `status` is undefined. Pausing again changes the reason
   * and the name. In an open transaction, the pause holds from the commit on.
   *
   * **Example**
   *
   * ```ts
   * yield* invoices.pause({ reason: "the printer is out of paper", by: "Ada" })
   * ```
   */
  readonly pause: (options?: PauseOptions) => Effect.Effect<void, InvalidArgumentError | SqlError>
  /**
   * Lifts the pause of the subscription, or of a partition; returns whether it was paused. Partitions that were paused one by
   * one stay paused when the subscription is resumed.
   */
  readonly resume: (
    options?: { readonly partition?: number | undefined }
  ) => Effect.Effect<boolean, InvalidArgumentError | SqlError>
  /**
   * Begins again: forgets all checkpoints and parked messages. Pauses stay. Running workers begin again too: what they have in
   * hand is not acknowledged, and may be handled twice. Calling it in a transactional handler of the subscription itself has no
   * effect: the acknowledgement is refused, and the handler's transaction rolls back.
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
