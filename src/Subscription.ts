/**
 * Subscriptions: every message of an aggregated stream is handled, in the order of its partition, by a process that is
 * free.
 *
 * **Guarantees**
 *
 * - Any number of processes may run the same subscription. A partition is handled by one of them at a time; different
 *   partitions are handled at the same time.
 * - *At least once* (the default): a message is acknowledged after its handler has succeeded. A process that is killed in
 *   between leaves it to be handled again.
 * - *Transactional*: the handler and the acknowledgement are one transaction. What the handler writes to the same database
 *   happens exactly once.
 * - Checkpoints only rise, and only by the claim that was made last: a process that has lost a claim cannot move them any
 *   more, and calls no handler for it once a second has gone by.
 * - A message whose handler keeps failing does what `onFailure` says; other partitions go on.
 */
import { Context, DateTime, Deferred, Duration, Effect, Layer, Option, Queue, Result, Schedule, Stream } from "effect"
import type { Array as Arr, Cause } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { HandlerError, InvalidArgumentError, InvalidNameError, SetupError, StreamRebuiltError } from "./errors.ts"
import type { Delivery, Handler } from "./Handlers.ts"
import { checkWhole, invalid, maximumPartition } from "./internal/checks.ts"
import { checkName } from "./internal/names.ts"
import type { MessageCodec } from "./Serializer.ts"
import {
  type AggregatedStorage,
  type ClaimMode,
  type PartitionHead,
  type PartitionStatus,
  PositionQuery,
  type Storage
} from "./Storage.ts"
import {
  batches,
  type Consumer,
  type DeliveryOptions,
  each,
  make as makeDelivery,
  type OnFailure
} from "./subscription/delivery.ts"
import * as Parked from "./subscription/parked.ts"
import type { ParkedMessage, Place, Replayed } from "./subscription/parked.ts"
import * as Worker from "./subscription/worker.ts"

export type { OnFailure, ParkedMessage, PartitionStatus, Place, Replayed }

/**
 * Where a subscription begins, when it is made for the first time: with the first message; behind the last that is
 * linked; with the first that occurred at a time or later; with the first behind a global position. As positions of a
 * partition are not always in the order of times and global positions, messages before that may be among those behind it;
 * none is missed.
 */
export type Start =
  | "beginning"
  | "next"
  | { readonly time: DateTime.DateTime }
  | { readonly globalPosition: number }

/** What a subscription is. */
export interface Options {
  /**
   * Part of the names of database objects: 1 to 41 of `a-z`, `0-9` and `_`, not beginning with a digit. Unique in the
   * schema of the database: it belongs to the aggregated stream whose subscription had it first.
   */
  readonly name: string
  /** Default `"beginning"`. Ignored when the subscription was made before. */
  readonly start?: Start | undefined
  /**
   * Default `"atLeastOnce"`. With `"transactional"`, each partition that is being handled takes a connection of the pool:
   * up to `concurrency` of them. `messages` are always delivered at least once.
   */
  readonly delivery?: "atLeastOnce" | "transactional" | undefined
  /**
   * Whether each message is acknowledged, or a batch at once (default). A batch that ends early acknowledges its part.
   * `messages` are always acknowledged one by one.
   */
  readonly acknowledge?: "message" | "batch" | undefined
  /** How many messages are read, and acknowledged, at once, at most: 1 to 10,000. Default 100. */
  readonly batchSize?: number | undefined
  /**
   * How many partitions a process handles at the same time, at most: 1 to 2,147,483,647. Default 16. If more have
   * messages, they take turns every few seconds; one whose message is being tried again keeps its place until that ends.
   */
  readonly concurrency?: number | undefined
  /**
   * When a failed handler is called again; its input is the handler's error. Default: 5 times, after 0.1, 0.2, 0.4, 0.8 and
   * 1.6 seconds. A connection that was lost in a handler counts as its failure, unless the subscription has lost its own
   * to the database as well: that is waited out.
   */
  readonly retry?: Schedule.Schedule<unknown, unknown> | undefined
  /**
   * What is done when it has failed for the last time. `"park"` (default) puts the message aside, with the error, to be
   * replayed; `"skip"` acknowledges it; `"haltPartition"` leaves its partition alone, until the subscription runs again
   * (other processes that run it try the message in their turn, and halt the partition too); `"stop"` makes `run` fail. A
   * message that cannot be decoded counts as one whose handler failed. Each is logged as an error.
   */
  readonly onFailure?: OnFailure | undefined
  /**
   * How partitions are claimed: by locks of one database session of this process (default), which are free as soon as it
   * is gone; or by leases of a second to a day, for processes that reach the database through a pooler such as PgBouncer.
   * All processes of a subscription have to do the same.
   */
  readonly claims?: "session" | { readonly lease: Duration.Input } | undefined
  /** How long it waits for a wake-up before it looks for itself. Default 5 seconds. */
  readonly pollInterval?: Duration.Input | undefined
}

/** Why `run` ends: `onFailure: "stop"`; a failure of the database that does not pass; a transaction that is open. */
export type RunError = HandlerError | StreamRebuiltError | InvalidArgumentError | SqlError

/** A message to be acknowledged by hand. The next of its partition comes after that. */
export interface Unacknowledged<out A> extends Delivery<A> {
  /** Tells that it was handled; the checkpoint is stored soon after. */
  readonly acknowledge: Effect.Effect<void>
}

/** What is handled of an aggregated stream, and how far it has come. */
export interface Subscription<in out A> {
  /** Its name, as in the names of its database objects. */
  readonly name: string
  /**
   * Handles messages as they come, until it is interrupted. Lost connections are waited out. Not inside a transaction.
   *
   * **Example**
   *
   * ```ts
   * yield* invoices.run((order, { attempt, position }) => writeInvoice(order))
   * ```
   */
  readonly run: <E, R>(handler: Handler<A, E, R>) => Effect.Effect<never, RunError, R>
  /**
   * The same, a batch at a time: messages of one partition, in their order. A batch whose handler failed is handled again
   * in halves, at once, until the message that fails is alone: it then follows `retry` and `onFailure`.
   */
  readonly runBatches: <E, R>(
    handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>
  ) => Effect.Effect<never, RunError, R>
  /**
   * The messages as a stream, each to be acknowledged by its consumer; of each partition one at a time. They are delivered
   * at least once, and acknowledged one by one, whatever the options say.
   */
  readonly messages: Stream.Stream<Unacknowledged<A>, RunError>
  /** Of each partition: its last position, its checkpoint, what has claimed it, how many messages are parked. */
  readonly status: Effect.Effect<ReadonlyArray<PartitionStatus>, SqlError>
  /** How many messages are linked, and not acknowledged yet. */
  readonly lag: Effect.Effect<number, StreamRebuiltError | SqlError>
  /**
   * Waits until the message of a global position, such as `write` returns, has been acknowledged or parked. Fails with a
   * `TimeoutError` if it takes longer, or if the message is none of the aggregated stream's.
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
  ) => Effect.Effect<void, Cause.TimeoutError | SqlError>
  /** Messages that were put aside, in the order of partitions and positions. */
  readonly parked: Effect.Effect<ReadonlyArray<ParkedMessage<A>>, SqlError>
  /**
   * Hands parked messages to a handler once more, all or those given. Those that it handles are parked no more; with
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
  /** Forgets a parked message. Whether it was there. */
  readonly discard: (place: Place) => Effect.Effect<boolean, SqlError>
  /** Begins again, forgetting all checkpoints and parked messages. What is being handled meanwhile may be handled twice. */
  readonly reset: (start?: Start) => Effect.Effect<void, InvalidArgumentError | SqlError>
  /** Removes the subscription with its database objects. Not while it runs, and not inside a transaction. */
  readonly drop: Effect.Effect<void, InvalidArgumentError | SqlError>
}

/** Why a subscription cannot be made. */
export type MakeError = InvalidNameError | InvalidArgumentError | SetupError | MigrationError | SqlError

/** Something that can be subscribed to: an aggregated stream. */
export interface Subscribable<in out A> {
  /** A subscription to this stream. When this ends, it is known where it begins: nothing written after is missed. */
  readonly subscription: (options: Options) => Effect.Effect<Subscription<A>, MakeError>
}

const defaultRetry = Schedule.max([Schedule.exponential("100 millis"), Schedule.recurs(5)])

/** @internal */
export const make = Effect.fnUntraced(function*<A>(
  storage: Storage["Service"],
  stream: AggregatedStorage,
  codec: MessageCodec<A>,
  options: Options
): Effect.fn.Return<Subscription<A>, MakeError> {
  const name = yield* Effect.fromResult(checkName("subscription", options.name))
  const batchSize = yield* Effect.fromResult(checkWhole("batchSize", options.batchSize ?? 100, 1, 10_000))
  const concurrency = yield* Effect.fromResult(
    checkWhole("concurrency", options.concurrency ?? 16, 1, maximumPartition)
  )
  const mode = yield* Effect.fromResult(checkClaims(options.claims))
  const subscribed = yield* stream.subscription(name)
  const initialise = (start: Start) => subscribed.initialise(positionsOf(stream, start))
  yield* initialise(options.start ?? "beginning")

  const delivery: DeliveryOptions = {
    name,
    delivery: options.delivery ?? "atLeastOnce",
    acknowledge: options.acknowledge ?? "batch",
    retry: options.retry ?? defaultRetry,
    onFailure: options.onFailure ?? "park"
  }

  const outsideTransaction = Effect.flatMap(storage.inTransaction, (inTransaction) =>
    inTransaction
      ? Effect.fromResult(invalid("run and drop", "must not be called inside a transaction"))
      : Effect.void)

  const consume = <R>(consumer: Consumer<A, R>, how: DeliveryOptions = delivery): Effect.Effect<never, RunError, R> =>
    Effect.andThen(
      outsideTransaction,
      Worker.run(stream, subscribed, {
        name,
        mode,
        batchSize,
        concurrency,
        pollInterval: options.pollInterval ?? "5 seconds",
        deliver: makeDelivery(storage, subscribed, codec, how, consumer)
      })
    )

  const pendingTotal = Effect.map(
    subscribed.pending,
    (pending) => pending.reduce((sum, { checkpoint, position }) => sum + position - checkpoint, 0)
  )

  return {
    name,
    run: (handler) => consume(each(handler)),
    runBatches: (handler) => consume(batches(handler)),
    messages: Stream.callback<Unacknowledged<A>, RunError>((queue) =>
      consume(
        each((_, delivered: Delivery<A>) =>
          Effect.gen(function*() {
            const acknowledged = yield* Deferred.make<void>()
            const acknowledge = Effect.asVoid(Deferred.succeed(acknowledged, undefined))
            yield* Queue.offer(queue, { ...delivered, acknowledge })
            yield* Deferred.await(acknowledged)
          })
        ),
        // Consumers may wait with a message for as long as they like: no transaction is open meanwhile.
        { ...delivery, delivery: "atLeastOnce", acknowledge: "message" }
      )
    ),
    status: subscribed.status,
    lag: pendingTotal,
    waitUntilProcessed: (globalPosition, timeout) =>
      Effect.suspend(() => {
        let place: PartitionHead | undefined
        const isProcessed = Effect.gen(function*() {
          if (place === undefined) place = yield* subscribed.place(globalPosition)
          return place !== undefined && (yield* subscribed.checkpoint(place.partition)) >= place.position
        })
        return isProcessed.pipe(
          Effect.repeat({ until: (processed) => processed, schedule: pollingSchedule }),
          Effect.timeout(timeout),
          Effect.asVoid
        )
      }),
    parked: Parked.list(subscribed, codec),
    replay: (handler, places) => Parked.replay(storage, subscribed, codec, delivery, handler, places),
    discard: ({ partition, position }) => subscribed.unpark(partition, position),
    reset: (start = options.start ?? "beginning") =>
      storage.withTransaction(Effect.andThen(subscribed.reset, initialise(start))),
    drop: Effect.andThen(outsideTransaction, subscribed.drop)
  }
})

/** How often it is looked whether a message has been processed. */
const pollingSchedule = Schedule.min([Schedule.exponential("5 millis", 1.5), Schedule.spaced("100 millis")])

const checkClaims = (claims: Options["claims"]): Result.Result<ClaimMode, InvalidArgumentError> => {
  if (claims === undefined || claims === "session") return Result.succeed({ _tag: "Session" })
  return Option.match(Duration.fromInput(claims.lease), {
    onNone: () => invalid("lease", "must be a duration"),
    onSome: (lease) => {
      const milliseconds = Duration.toMillis(lease)
      return milliseconds >= 1000 && milliseconds <= 86_400_000
        ? Result.succeed({ _tag: "Lease", milliseconds })
        : invalid("lease", "must be from a second to a day")
    }
  })
}

/** The positions before the first ones. */
const positionsOf = (
  stream: AggregatedStorage,
  start: Start
): Effect.Effect<ReadonlyArray<PartitionHead>, InvalidArgumentError | SqlError> => {
  if (start === "beginning") return Effect.succeed([])
  if (start === "next") return stream.partitions
  const firsts = "time" in start
    ? stream.positions(PositionQuery.SinceTime({ time: DateTime.toUtc(start.time) }))
    : Effect.flatMap(
      Effect.fromResult(checkWhole("globalPosition", start.globalPosition, 0)),
      (globalPosition) => stream.positions(PositionQuery.AfterGlobalPosition({ globalPosition }))
    )
  return Effect.map(firsts, (heads) => heads.map(({ partition, position }) => ({ partition, position: position - 1 })))
}

/** A subscription as a service: the class is its key, its layers are its static members. */
export interface ServiceClass<in out Self, in out Id extends string, in out A, out From>
  extends Context.ServiceClass<Self, Id, Subscription<A>>
{
  /** The subscription; makes its database objects where they do not exist, if its store's layer does so. */
  readonly layer: Layer.Layer<Self, MakeError, From>
  /**
   * Handles messages for as long as the layer is there. What makes `run` fail, `onFailure: "stop"` included, is logged,
   * and it runs again after 30 seconds.
   */
  readonly layerHandler: <E, R>(handler: Handler<A, E, R>) => Layer.Layer<never, never, Self | R>
  /** The same, a batch at a time. */
  readonly layerBatchHandler: <E, R>(
    handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>
  ) => Layer.Layer<never, never, Self | R>
}

type MissingSelf = "Missing `Self` generic - use `class Self extends Subscription.Service<Self>()(…)`"

/**
 * Makes the class of a subscription.
 *
 * **Example**
 *
 * ```ts
 * class Invoices extends Subscription.Service<Invoices>()("app/Invoices", {
 *   stream: OrdersByCustomer,
 *   name: "invoices",
 *   delivery: "transactional"
 * }) {}
 *
 * Invoices.layerHandler(Handlers.make(OrderEvent, { OrderPlaced: (order) => writeInvoice(order) })).pipe(
 *   Layer.provide(Invoices.layer)
 * )
 * ```
 */
export const Service = <Self = never>() =>
<const Id extends string, From, A>(
  id: Id,
  options: Options & { readonly stream: Context.Key<From, Subscribable<A>> }
): [Self] extends [never] ? MissingSelf : ServiceClass<Self, Id, A, From> => {
  const Tag = Context.Service<Self, Subscription<A>>()(id)
  const lasting = <R>(use: (subscription: Subscription<A>) => Effect.Effect<never, RunError, R>) =>
    Layer.effectDiscard(Effect.flatMap(Tag, (subscription) =>
      use(subscription).pipe(
        Effect.tapError((error) => Effect.logError(`subscription ${subscription.name} stopped`, error)),
        Effect.retry(Schedule.spaced("30 seconds")),
        Effect.forkScoped
      )))
  const layers = {
    layer: Layer.effect(Tag, Effect.flatMap(options.stream, (stream) => stream.subscription(options))),
    layerHandler: <E, R>(handler: Handler<A, E, R>) => lasting((subscription) => subscription.run(handler)),
    layerBatchHandler: <E, R>(
      handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>
    ) => lasting((subscription) => subscription.runBatches(handler))
  }
  return Object.assign(Tag, layers) as never // what the return type promises
}
