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
import { Context, Deferred, Duration, Effect, Layer, Option, Queue, Schedule, Stream } from "effect"
import type { Array as Arr } from "effect"
import type { InvalidNameError } from "./errors.ts"
import * as Handlers from "./Handlers.ts"
import type { Delivery, Handler } from "./Handlers.ts"
import { inBackground } from "./internal/background.ts"
import {
  checkDuration,
  checkPollInterval,
  checkWhole,
  maximumPartition,
  outsideTransaction
} from "./internal/checks.ts"
import { checkName } from "./internal/names.ts"
import * as Migrations from "./postgres/migrations/migrations.ts"
import type { MessageCodec } from "./Serializer.ts"
import type { AggregatedStorage, Failure, Halt, PartitionStatus, Pause, Storage, UnknownType } from "./Storage.ts"
import type { DeliveryOptions, OnFailure } from "./subscription/attempt.ts"
import { batches, type Consumer, each, untraced } from "./subscription/consumer.ts"
import * as Control from "./subscription/control.ts"
import type { PauseOptions } from "./subscription/control.ts"
import * as Deliver from "./subscription/delivery.ts"
import * as Drain from "./subscription/drain.ts"
import type { Drained, DrainOptions } from "./subscription/drain.ts"
import type { MakeError, RunError, Subscribable, Subscription, Unacknowledged } from "./subscription/interface.ts"
import { age, lag } from "./subscription/lag.ts"
import * as Metrics from "./subscription/metrics.ts"
import {
  checkClaims,
  concurrencyOf,
  defaultRetry,
  type Options,
  parkStreamOf,
  type ParkStreamOptions
} from "./subscription/options.ts"
import * as Parked from "./subscription/parked.ts"
import type { ParkedMessage, Place, ReadParkedOptions, Replayed } from "./subscription/parked.ts"
import { waitUntilProcessed } from "./subscription/processed.ts"
import * as Redeliver from "./subscription/redelivery.ts"
import { Shutdown } from "./subscription/shutdown.ts"
import { positionsOf, type Start } from "./subscription/start.ts"
import * as Supervisor from "./subscription/supervisor.ts"

export type {
  Drained,
  DrainOptions,
  Failure,
  Halt,
  MakeError,
  OnFailure,
  Options,
  ParkedMessage,
  ParkStreamOptions,
  PartitionStatus,
  Pause,
  PauseOptions,
  Place,
  ReadParkedOptions,
  Replayed,
  RunError,
  Start,
  Subscribable,
  Subscription,
  Unacknowledged,
  UnknownType
}

/** @internal */
export const make = Effect.fnUntraced(function*<A>(
  storage: Storage["Service"],
  stream: AggregatedStorage,
  codec: MessageCodec<A>,
  streamName: string,
  options: Options<A>
): Effect.fn.Return<Subscription<A>, MakeError> {
  const name = yield* Effect.fromResult(checkName("subscription", options.name))
  const batchSize = yield* Effect.fromResult(checkWhole("batchSize", options.batchSize ?? 100, 1, 10_000))
  if (options.concurrency !== undefined) {
    yield* Effect.fromResult(checkWhole("concurrency", options.concurrency, 1, maximumPartition))
  }
  const parkStream = yield* Effect.fromResult(parkStreamOf(options))
  const mode = yield* Effect.fromResult(checkClaims(options.claims))
  const pollInterval = yield* Effect.fromResult(checkPollInterval(options.pollInterval))
  const shutdownTimeout = yield* Effect.fromResult(
    checkDuration("shutdownTimeout", options.shutdownTimeout ?? "10 seconds")
  )
  const subscribed = yield* stream.subscription(name)
  const initialise = (start: Start) => subscribed.initialise(positionsOf(stream, start))
  yield* initialise(options.start ?? "beginning")

  const metrics = Metrics.make(name, streamName)
  const delivery: DeliveryOptions = {
    name,
    delivery: options.delivery ?? "atLeastOnce",
    acknowledge: options.acknowledge ?? "batch",
    retry: options.retry ?? defaultRetry,
    onFailure: options.onFailure ?? "park",
    onUnknownType: options.onUnknownType ?? "leave"
  }

  const replaying = { storage, subscribed, codec, metrics, options: delivery }

  const supervised = <R>(
    makeConsumer: (isTraced: boolean) => Consumer<A, R>,
    { drains = false, how = delivery, measured = metrics, within = shutdownTimeout }: {
      readonly how?: DeliveryOptions
      /** The timeout of its shutdown. */
      readonly within?: Duration.Duration
      readonly measured?: Metrics.Metrics
      readonly drains?: boolean
    }
  ): Effect.Effect<void, RunError, R> =>
    Effect.andThen(
      outsideTransaction(storage, drains ? "drain" : "run"),
      untraced((isTraced) =>
        Effect.gen(function*() {
          const shutdown = new Shutdown()
          const consumer = makeConsumer(isTraced)
          const delivering = { ...replaying, options: how, consumer, parkStream, metrics: measured, shutdown }
          yield* Supervisor.run(stream, subscribed, {
            name,
            owner: options.owner,
            mode,
            batchSize,
            concurrency: yield* concurrencyOf(name, options.concurrency, how, storage),
            pollInterval,
            shutdownTimeout: within,
            deliver: Deliver.make(delivering),
            redeliver: Redeliver.make(delivering),
            metrics: measured,
            shutdown,
            leaves: (type) => how.onUnknownType === "leave" && codec.types?.knows(type) === false,
            drains
          })
        })
      )
    ).pipe(Effect.annotateLogs({ subscription: name }))

  const consume = <R>(
    makeConsumer: (isTraced: boolean) => Consumer<A, R>,
    how: Parameters<typeof supervised>[1] = {}
  ): Effect.Effect<never, RunError, R> => Effect.andThen(supervised(makeConsumer, how), Effect.never)

  const drain = Effect.fnUntraced(function*<R>(
    makeConsumer: (isTraced: boolean) => Consumer<A, R>,
    drainOptions: DrainOptions = {}
  ): Effect.fn.Return<Drained, RunError, R> {
    const time = yield* Effect.fromResult(Drain.checkFor(drainOptions.for))
    yield* outsideTransaction(storage, "drain")
    const { counts, metrics: measured } = Drain.counting(metrics)
    const first = yield* subscribed.pending
    if (Drain.isIdle(first)) return Drain.drained(counts, first, true)
    const running = supervised(makeConsumer, { measured, drains: true })
    const done = Duration.isFinite(time)
      ? yield* Effect.timeoutOption(running, time)
      : Option.some(yield* running)
    return Drain.drained(counts, yield* subscribed.pending, Option.isSome(done))
  })

  return {
    name,
    handlers: Handlers.make<A>(),
    run: (handler) => consume((isTraced) => each(metrics, handler, isTraced)),
    runBatches: (handler) => consume((isTraced) => batches(metrics, handler, isTraced)),
    drain: (handler, drainOptions) => drain((isTraced) => each(metrics, handler, isTraced), drainOptions),
    messages: Stream.callback<Unacknowledged<A>, RunError>((queue) =>
      consume(
        () =>
          each(metrics, (_, delivered: Delivery<A>) =>
            Effect.gen(function*() {
              const acknowledged = yield* Deferred.make<void>()
              const acknowledge = Effect.asVoid(Deferred.succeed(acknowledged, undefined))
              yield* Queue.offer(queue, { ...delivered, acknowledge })
              yield* Deferred.await(acknowledged)
            })),
        // Consumers may wait with a message for as long as they like: no transaction is open meanwhile.
        {
          how: { ...delivery, delivery: "atLeastOnce", acknowledge: "message" },
          within: Duration.zero // when the stream has ended, nothing is acknowledged any more
        }
      )
    ),
    status: subscribed.status,
    lag: lag(stream, subscribed),
    age: age(stream, subscribed),
    waitUntilProcessed: (globalPosition, timeout) => waitUntilProcessed(name, subscribed, globalPosition, timeout),
    parked: Parked.list(subscribed, codec),
    readParked: (range) => Parked.read(subscribed, codec, range),
    requeue: (which) => Parked.requeue(subscribed, which),
    replay: (handler, places) => Effect.annotateLogs(Parked.replay(replaying, handler, places), { subscription: name }),
    discard: (place) => Parked.discard(storage, subscribed, place),
    pause: (pauseOptions) => Control.pause(subscribed, pauseOptions),
    resume: (of) => Control.resume(subscribed, of),
    reset: (start = options.start ?? "beginning") =>
      storage.withTransaction(Effect.andThen(subscribed.reset, initialise(start))),
    drop: Effect.andThen(outsideTransaction(storage, "drop"), subscribed.drop)
  }
})

/** How a layer runs its subscription. */
export interface HandlerLayerOptions {
  /**
   * When it runs again after it failed; the schedule's input is the error. Default: every 30 seconds, but not after a
   * `HandlerError`, which is what `onFailure: "stop"` makes of it. Each failure is logged as an error.
   */
  readonly restart?: Schedule.Schedule<unknown, RunError> | undefined
}

/** A subscription as a service: the class is its key, its layers are its static members. */
export interface ServiceClass<in out Self, in out Id extends string, in out A, out From>
  extends Context.ServiceClass<Self, Id, Subscription<A>>
{
  /** The subscription; makes its database objects where they do not exist, if its store's layer does so. */
  readonly layer: Layer.Layer<Self, MakeError, From>
  /** Handles messages while the layer lives; when it closes, the messages in hand may take `shutdownTimeout`. */
  readonly layerHandler: <E, R>(
    handler: Handler<A, E, R>,
    options?: HandlerLayerOptions
  ) => Layer.Layer<never, never, Self | R>
  /** The same with handlers by tag. Messages of other tags are acknowledged without being handled. */
  readonly layerHandlers: <const H extends Handlers.ByTag<A>>(
    handlers: H & Handlers.OnlyTagsOf<A, H>,
    options?: HandlerLayerOptions
  ) => Layer.Layer<never, never, Self | Effect.Services<Handlers.EffectsOf<H>>>
  /** The same, a batch at a time. */
  readonly layerBatchHandler: <E, R>(
    handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>,
    options?: HandlerLayerOptions
  ) => Layer.Layer<never, never, Self | R>
  /** Makes one handler of handlers by tag, to be wrapped, or tested. */
  readonly handlers: Handlers.MakeByTag<A>
  /** What `layer` runs on PostgreSQL: numbered migrations, each a list of statements to be run in one transaction. */
  readonly migrations: Effect.Effect<ReadonlyArray<Migrations.Migration>, InvalidNameError>
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
 * Invoices.layerHandlers({ OrderPlaced: (order) => writeInvoice(order) }).pipe(
 *   Layer.provide(Invoices.layer)
 * )
 * ```
 */
export const Service = <Self = never>() =>
<const Id extends string, From, A>(
  id: Id,
  options: Options<NoInfer<A>> & { readonly stream: Context.Key<From, Subscribable<A>> }
): [Self] extends [never] ? MissingSelf : ServiceClass<Self, Id, A, From> => {
  const Tag = Context.Service<Self, Subscription<A>>()(id)
  const running = <R>(
    use: (subscription: Subscription<A>) => Effect.Effect<never, RunError, R>,
    { restart = defaultRestart }: HandlerLayerOptions = {}
  ) =>
    Layer.effectDiscard(
      Effect.flatMap(
        Tag,
        (subscription) => inBackground(`subscription ${subscription.name}`, use(subscription), restart)
      )
    )
  const handlers = Handlers.make<A>()
  const layerHandler = <E, R>(handler: Handler<A, E, R>, layerOptions?: HandlerLayerOptions) =>
    running((subscription) => subscription.run(handler), layerOptions)
  const statics = {
    layer: Layer.effect(Tag, Effect.flatMap(options.stream, (stream) => stream.subscription(options))),
    layerHandler,
    layerHandlers: <const H extends Handlers.ByTag<A>>(
      byTag: H & Handlers.OnlyTagsOf<A, H>,
      layerOptions?: HandlerLayerOptions
    ) => layerHandler(handlers(byTag), layerOptions),
    layerBatchHandler: <E, R>(
      handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>,
      layerOptions?: HandlerLayerOptions
    ) => running((subscription) => subscription.runBatches(handler), layerOptions),
    handlers,
    migrations: Effect.suspend(() => Effect.fromResult(Migrations.forSubscription(options.name)))
  }
  return Object.assign(Tag, statics) as never // what the return type promises
}

const defaultRestart: Schedule.Schedule<unknown, RunError> = Schedule.while(
  Schedule.spaced("30 seconds").pipe(Schedule.setInputType<RunError>()),
  ({ input }) => input._tag !== "HandlerError"
)
