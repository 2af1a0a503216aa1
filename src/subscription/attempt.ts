/** One attempt at handling messages of a partition, by either kind of delivery. */
import { type Array as Arr, Effect, type Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { HandlerError } from "../errors.ts"
import type { Delivery } from "../Handlers.ts"
import { isConnectionError, isPermanent } from "../internal/transient.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { Storage, SubscriptionStorage } from "../Storage.ts"
import type { BatchStopped, ClaimedPartition } from "./claimedPartition.ts"
import { annotationsOf, type Consumer, HandlerFailure } from "./consumer.ts"
import type { Metrics } from "./metrics.ts"
import type { Shutdown } from "./shutdown.ts"

/** What is done with a message whose handler has failed for the last time: see `onFailure` of a subscription's options. */
export type OnFailure = "park" | "skip" | "haltPartition" | "stop" | "parkStream"

/** How `onFailure: "parkStream"` parks. */
export interface ParkStream<A> {
  readonly limit: number
  readonly keyOf: (delivery: Delivery<A>) => string
  /** Whether the keys are the names of streams, which messages have that cannot be decoded. */
  readonly hasStreams: boolean
}

/** What becomes of the messages of a subscription. */
export interface DeliveryOptions {
  readonly name: string
  readonly delivery: "atLeastOnce" | "transactional"
  readonly acknowledge: "message" | "batch"
  readonly retry: Schedule.Schedule<unknown, unknown>
  readonly onFailure: OnFailure
  readonly onUnknownType: "leave" | "skip" | "fail"
}

/** Why a delivery ends other than by success: the claim must be given up. */
export type Ended = BatchStopped | HandlerError | SqlError

/**
 * What a delivery works with.
 *
 * @internal
 */
export interface Delivering<A, R> {
  readonly storage: Storage["Service"]
  readonly subscribed: SubscriptionStorage
  readonly codec: MessageCodec<A>
  readonly options: DeliveryOptions
  readonly consumer: Consumer<A, R>
  /** Undefined unless messages are parked behind others. */
  readonly parkStream: ParkStream<A> | undefined
  readonly metrics: Metrics
  readonly shutdown: Shutdown
}

/**
 * Hands messages to the consumer once. Those handled before a failure are acknowledged, unless they are rolled back.
 *
 * @internal
 */
export interface Attempt<A, R> {
  (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>): Effect.Effect<void, HandlerFailure | BatchStopped | SqlError, R>
}

/** @internal */
export const atLeastOnce =
  <A, R>({ consumer, metrics, options, shutdown }: Delivering<A, R>, partition: ClaimedPartition): Attempt<A, R> =>
  (deliveries) => {
    let handled = partition.checkpoint
    const acknowledgeHandled = Effect.suspend(() => Effect.flatMap(partition.acknowledge(handled), metrics.handled))
    const handling = consumer(deliveries, ({ position }) => {
      handled = position
      const goesOn = Effect.suspend(() =>
        shutdown.isRequested ? Effect.succeed(false) : Effect.as(partition.ensureClaimed, true)
      )
      return options.acknowledge === "message" ? Effect.andThen(acknowledgeHandled, goesOn) : goesOn
    })
    return partition.ensureClaimed.pipe(
      Effect.andThen(handling),
      // The messages before the one that failed. If they may not be acknowledged, the claim is another's.
      Effect.tapErrorTag("HandlerFailure", () => acknowledgeHandled),
      Effect.andThen(acknowledgeHandled),
      Effect.onError(() => Effect.ignore(acknowledgeHandled)),
      blameless(partition)
    )
  }

/** @internal */
export const transactional =
  <A, R>({ consumer, metrics, shutdown, storage }: Delivering<A, R>, partition: ClaimedPartition): Attempt<A, R> =>
  (deliveries) => {
    let handled = partition.checkpoint
    const handling = consumer(deliveries, ({ position }) =>
      Effect.sync(() => {
        handled = position
        return !shutdown.isRequested
      }))
    const advance = Effect.suspend(() => partition.advance(handled))
    const transaction = Effect.andThen(
      partition.ensureClaimed,
      storage.withTransaction(Effect.andThen(handling, advance))
    )
    const { handlerTransactions } = storage
    return (handlerTransactions === undefined ? transaction : handlerTransactions.inTurn(transaction)).pipe(
      brokenTransaction(deliveries.length === 1 ? 0 : undefined),
      Effect.andThen(Effect.suspend(() => metrics.handled(partition.checkpointCommitted(handled)))),
      blameless(partition)
    )
  }

/**
 * A transaction that the handler has broken fails when it goes on, or is committed.
 *
 * @internal
 */
export const brokenTransaction = (index: number | undefined) =>
<B, R>(
  transaction: Effect.Effect<B, HandlerFailure | BatchStopped | SqlError, R>
): Effect.Effect<B, HandlerFailure | BatchStopped | SqlError, R> =>
  Effect.catchIf(transaction, isPermanent, (cause) => Effect.fail(new HandlerFailure({ index, cause })))

/**
 * A connection that a handler lost is no failure of the handler if the subscription has lost its own as well.
 *
 * @internal
 */
export const blameless = (partition: ClaimedPartition) =>
<R>(
  attempt: Effect.Effect<void, HandlerFailure | BatchStopped | SqlError, R>
): Effect.Effect<void, HandlerFailure | BatchStopped | SqlError, R> =>
  Effect.tapErrorTag(
    attempt,
    "HandlerFailure",
    ({ cause }) => isConnectionError(cause) ? partition.confirm : Effect.void
  )

/** @internal */
export const logFailure = <A, R>(
  { metrics, options }: Pick<Delivering<A, R>, "metrics" | "options">,
  what: string,
  delivery: Delivery<A>,
  cause: unknown
): Effect.Effect<void> =>
  Effect.andThen(
    metrics.failed(1),
    Effect.annotateLogs(
      Effect.logWarning(`subscription ${options.name}: ${what}`, cause),
      annotationsOf(delivery)
    )
  )
