/**
 * A batch of a partition: handled, acknowledged, and what is done when a handler fails.
 */
import { Array as Arr, Cause, Data, Effect, Metric, Result } from "effect"
import type { Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { HandlerError } from "./errors.ts"
import type { Delivery, Handler } from "./Handlers.ts"
import { fromTraceparent } from "./Message.ts"
import { isConnectionError } from "./passing.ts"
import { decodeRow } from "./Reader.ts"
import type { MessageCodec } from "./Serializer.ts"
import type { Claim, EncodedLinkedMessage, Storage, SubscriptionStorage } from "./Storage.ts"

/** `"park"` puts the message aside, to be replayed or discarded later; `"skip"` acknowledges it as if it were handled. */
export type OnFailure = "park" | "skip" | "haltPartition" | "stop"

export interface DeliveryOptions {
  readonly name: string
  readonly delivery: "atLeastOnce" | "transactional"
  readonly acknowledge: "message" | "batch"
  readonly retry: Schedule.Schedule<unknown, unknown>
  readonly onFailure: OnFailure
}

/** Handles some messages; in a batch, it may know which of them failed. */
export interface Consumer<A, R> {
  (
    deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>,
    handled: (delivery: Delivery<A>) => Effect.Effect<void, Interruption | SqlError>
  ): Effect.Effect<void, HandlerFailure | Interruption | SqlError, R>
}

/** Why a batch ends before its end, other than by failure. */
export class Interruption extends Data.TaggedError("Interruption")<{
  readonly reason: "fenced" | "halted"
}> {}

/** `index` is that of the message whose handler failed, where it is known. */
export class HandlerFailure extends Data.TaggedError("HandlerFailure")<{
  readonly index: number | undefined
  readonly cause: unknown
}> {}

/** @internal */
export const each = <A, E, R>(handler: Handler<A, E, R>): Consumer<A, R> => (deliveries, handled) =>
  Effect.gen(function*() {
    for (const [index, delivery] of deliveries.entries()) {
      yield* failing(
        Effect.withSpan(Effect.suspend(() => handler(delivery.message, delivery)), "Subscription.handle", {
          kind: "consumer",
          attributes: { stream: delivery.stream, partition: delivery.partition, position: delivery.position },
          links: linksOf([delivery]),
          captureStackTrace: false
        }),
        index
      )
      yield* handled(delivery)
    }
  })

/** @internal */
export const batches = <A, E, R>(
  handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>
): Consumer<A, R> =>
(deliveries) =>
  failing(
    Effect.withSpan(Effect.suspend(() => handler(deliveries)), "Subscription.handle", {
      kind: "consumer",
      attributes: { messages: deliveries.length, partition: deliveries[0].partition },
      links: linksOf(deliveries),
      captureStackTrace: false
    }),
    deliveries.length === 1 ? 0 : undefined
  )

const linksOf = (deliveries: ReadonlyArray<Delivery<unknown>>) =>
  deliveries.flatMap(({ metadata }) => {
    const span = fromTraceparent(metadata.traceparent)
    return span === undefined ? [] : [{ span, attributes: {} }]
  })

/** Failures and defects alike count as the handler's; an interruption is ours. A lost connection says nothing of it. */
const failing = <E, R>(
  effect: Effect.Effect<unknown, E, R>,
  index: number | undefined
): Effect.Effect<void, HandlerFailure | SqlError, R> =>
  Effect.catchCause(Effect.asVoid(effect), (cause): Effect.Effect<never, HandlerFailure | SqlError> => {
    if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause as Cause.Cause<never>)
    const error = Cause.squash(cause)
    return isConnectionError(error) ? Effect.fail(error) : Effect.fail(new HandlerFailure({ index, cause: error }))
  })

const handledTotal = Metric.counter("effect_message_store_handled", { description: "Messages handled" })
const failedTotal = Metric.counter("effect_message_store_failed", { description: "Attempts of handlers that failed" })
const parkedTotal = Metric.counter("effect_message_store_parked", { description: "Messages parked" })

/**
 * Handles what was read of a partition, from a checkpoint on. Answers the new checkpoint; the claim must be given up if
 * it fails.
 *
 * @internal
 */
export const make = <A, R>(
  storage: Storage["Service"],
  subscribed: SubscriptionStorage,
  codec: MessageCodec<A>,
  options: DeliveryOptions,
  consume: Consumer<A, R>
) => {
  const isTransactional = options.delivery === "transactional"
  const attributes = { subscription: options.name }
  const count = (metric: Metric.Counter<number>, by: number) =>
    Effect.asVoid(Metric.update(Metric.withAttributes(metric, attributes), by))

  return (
    claim: Claim,
    checkpoint: number,
    rows: Arr.NonEmptyReadonlyArray<EncodedLinkedMessage>
  ): Effect.Effect<
    { readonly checkpoint: number; readonly isWanted: boolean },
    Interruption | HandlerError | SqlError,
    R
  > =>
    Effect.suspend(() => {
      let acknowledged = checkpoint
      let isWanted = false

      const advance = (to: number) =>
        Effect.flatMap(subscribed.advance(claim, acknowledged, to), (advanced) => {
          if (advanced === "Fenced") return Effect.fail(new Interruption({ reason: "fenced" }))
          if (advanced === "Wanted") isWanted = true
          return Effect.void
        })
      /** Outside of transactions: what is acknowledged is committed. */
      const acknowledge = (to: number) => to <= acknowledged ? Effect.void : Effect.andThen(advance(to), moved(to))
      const moved = (to: number) =>
        Effect.suspend(() => {
          const by = to - acknowledged
          acknowledged = to
          return count(handledTotal, by)
        })

      const attempt = (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => {
        const last = Arr.lastNonEmpty(deliveries).position
        if (isTransactional) {
          const all = Effect.andThen(consume(deliveries, () => Effect.void), advance(last))
          return Effect.andThen(storage.withTransaction(all), moved(last))
        }
        let handled = acknowledged
        return consume(deliveries, ({ position }) => {
          handled = position
          return options.acknowledge === "message" ? acknowledge(position) : Effect.void
        }).pipe(
          Effect.onError(() => Effect.ignore(acknowledge(handled))), // the messages before the one that failed
          Effect.andThen(Effect.suspend(() => acknowledge(last)))
        )
      }

      const process = (
        deliveries: ReadonlyArray<Delivery<A>>
      ): Effect.Effect<void, Interruption | HandlerError | SqlError, R> =>
        Effect.suspend(() => {
          const rest = deliveries.filter(({ position }) => position > acknowledged)
          return Arr.isReadonlyArrayNonEmpty(rest)
            ? Effect.catchTag(attempt(rest), "HandlerFailure", ({ cause, index }) => {
              const failed = index === undefined ? undefined : rest[index]
              if (index === undefined || failed === undefined) {
                const middle = rest.length >> 1
                return Effect.andThen(process(rest.slice(0, middle)), process(rest.slice(middle)))
              }
              return process(rest.slice(0, index)).pipe(
                Effect.andThen(again(failed, cause)),
                Effect.andThen(process(rest.slice(index + 1)))
              )
            })
            : Effect.void
        })

      /** One message alone, after its first failure. */
      const again = (
        delivery: Delivery<A>,
        cause: unknown
      ): Effect.Effect<void, Interruption | HandlerError | SqlError, R> => {
        let failure = new HandlerFailure({ index: 0, cause })
        let attempts = delivery.attempt
        const next = Effect.suspend(() => attempt([{ ...delivery, attempt: ++attempts }]))
        let isFirst = true
        return Effect.suspend(() => {
          if (!isFirst) return next
          isFirst = false
          return Effect.fail(failure)
        }).pipe(
          Effect.tapErrorTag("HandlerFailure", (error) => {
            failure = error
            return Effect.andThen(count(failedTotal, 1), log("a handler failed", delivery, attempts, error.cause))
          }),
          Effect.retry({ schedule: options.retry, while: (error) => error._tag === "HandlerFailure" }),
          Effect.catchTag("HandlerFailure", (error) => giveUp(delivery, error.cause, attempts))
        )
      }

      const giveUp = (
        { messageId, partition, position }: Pick<Delivery<A>, "messageId" | "partition" | "position">,
        cause: unknown,
        attempts: number
      ): Effect.Effect<void, Interruption | HandlerError | SqlError> => {
        switch (options.onFailure) {
          case "park": {
            const parked = subscribed.park({ partition, position, messageId, attempts, error: textOf(cause) })
            return storage.withTransaction(Effect.andThen(parked, advance(position))).pipe(
              Effect.andThen(moved(position)),
              Effect.andThen(count(parkedTotal, 1))
            )
          }
          case "skip":
            return acknowledge(position)
          case "haltPartition":
            return Effect.fail(new Interruption({ reason: "halted" }))
          case "stop":
            return Effect.fail(
              new HandlerError({ subscription: options.name, partition, position, messageId, attempts, cause })
            )
        }
      }

      const log = (
        message: string,
        { messageId, partition, position, stream }: Delivery<A>,
        attempts: number,
        cause: unknown
      ) =>
        Effect.logWarning(`subscription ${options.name}: ${message}`, cause).pipe(
          Effect.annotateLogs({ messageId, stream, partition, position, attempts })
        )

      const size = options.acknowledge === "message" && isTransactional ? 1 : rows.length
      return Effect.gen(function*() {
        let deliveries: Array<Delivery<A>> = []
        for (const row of rows) {
          const stored = decodeRow(codec, row)
          if (Result.isFailure(stored)) {
            // What cannot be decoded can be handled by nobody, however often it is tried.
            yield* process(deliveries)
            deliveries = []
            yield* giveUp({ ...row, partition: claim.partition }, stored.failure, 1)
            continue
          }
          deliveries.push({ ...stored.success, partition: claim.partition, position: row.position, attempt: 1 })
          if (deliveries.length >= size) {
            yield* process(deliveries)
            deliveries = []
          }
        }
        yield* process(deliveries)
        return { checkpoint: acknowledged, isWanted }
      })
    })
}

/** As PostgreSQL holds it: without NUL, well-formed, and not without end. */
const textOf = (cause: unknown): string =>
  (cause instanceof Error ? cause.stack ?? String(cause) : String(cause))
    .slice(0, 10_000).replaceAll("\0", "").toWellFormed()
