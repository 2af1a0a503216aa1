/**
 * A batch of a partition: handled, acknowledged, and what is done when a handler fails.
 */
import { Array as Arr, Cause, Clock, Data, Effect, Metric, Result } from "effect"
import type { Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { HandlerError } from "../errors.ts"
import type { Delivery, Handler } from "../Handlers.ts"
import { printable } from "../internal/printable.ts"
import { isConnectionError, isPermanent } from "../internal/transient.ts"
import { fromTraceparent } from "../Message.ts"
import { decodeRow } from "../Reader.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { Claim, EncodedLinkedMessage, Storage, SubscriptionStorage } from "../Storage.ts"

/** `"park"` puts the message aside, to be replayed or discarded later; `"skip"` acknowledges it as if it were handled. */
export type OnFailure = "park" | "skip" | "haltPartition" | "stop"

/** What becomes of the messages of a subscription. */
export interface DeliveryOptions {
  readonly name: string
  readonly delivery: "atLeastOnce" | "transactional"
  readonly acknowledge: "message" | "batch"
  readonly retry: Schedule.Schedule<unknown, unknown>
  readonly onFailure: OnFailure
}

/** A claim, and when it was last known to stand. */
export interface HeldClaim {
  readonly claim: Claim
  confirmedAt: number
  /** How long that is good for, in milliseconds: no handler is called later than that without a new confirmation. */
  readonly validity: number
  readonly confirm: Effect.Effect<boolean, SqlError>
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

/**
 * Failures and defects alike are the handler's, and so is an interruption: when we interrupt a fiber, nothing in it
 * recovers, so what arrives here was interrupted by itself.
 */
const failing = <E, R>(
  effect: Effect.Effect<unknown, E, R>,
  index: number | undefined
): Effect.Effect<void, HandlerFailure, R> =>
  Effect.catchCause(
    Effect.asVoid(effect),
    (cause) => Effect.fail(new HandlerFailure({ index, cause: Cause.squash(cause) }))
  )

const handledTotal = Metric.counter("effect_message_store_handled", { description: "Messages handled" })
const failedTotal = Metric.counter("effect_message_store_failed", { description: "Calls of handlers that failed" })
const parkedTotal = Metric.counter("effect_message_store_parked", { description: "Messages parked" })
const skippedTotal = Metric.counter("effect_message_store_skipped", { description: "Messages skipped" })

/** Counts for one subscription. */
export const counting = (subscription: string) => {
  const count = (metric: Metric.Counter<number>) => (by: number) =>
    Metric.update(Metric.withAttributes(metric, { subscription }), by)
  return {
    handled: count(handledTotal),
    failed: count(failedTotal),
    parked: count(parkedTotal),
    skipped: count(skippedTotal)
  }
}

/**
 * Handles what was read of a partition, from a checkpoint on. Returns the new checkpoint; the claim must be given up if
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
  const count = counting(options.name)

  return (
    held: HeldClaim,
    checkpoint: number,
    rows: Arr.NonEmptyReadonlyArray<EncodedLinkedMessage>
  ): Effect.Effect<
    { readonly checkpoint: number; readonly isWanted: boolean },
    Interruption | HandlerError | SqlError,
    R
  > =>
    Effect.suspend(() => {
      const { claim } = held
      let acknowledged = checkpoint
      let isWanted = false

      const confirm = Effect.gen(function*() {
        const now = yield* Clock.currentTimeMillis
        if (!(yield* held.confirm)) return yield* new Interruption({ reason: "fenced" })
        held.confirmedAt = now
      })
      /** Before a handler is called: a process that was stopped may have lost the claim without having noticed. */
      const standing = Effect.flatMap(
        Clock.currentTimeMillis,
        (now) => now - held.confirmedAt < held.validity ? Effect.void : confirm
      )

      const advance = Effect.fnUntraced(function*(to: number) {
        const now = yield* Clock.currentTimeMillis
        const advanced = yield* subscribed.advance(claim, acknowledged, to)
        if (advanced === "Fenced") return yield* new Interruption({ reason: "fenced" })
        if (advanced === "Wanted") isWanted = true
        held.confirmedAt = now
      })
      /** What was acknowledged is committed. */
      const moved = (to: number) =>
        Effect.sync(() => {
          const by = to - acknowledged
          acknowledged = to
          return by
        })
      /** Outside of transactions. */
      const acknowledge = (to: number) =>
        Effect.suspend(() => to <= acknowledged ? Effect.succeed(0) : Effect.andThen(advance(to), moved(to)))

      const attempt = (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => {
        const last = Arr.lastNonEmpty(deliveries).position
        const index = deliveries.length === 1 ? 0 : undefined
        let handled = acknowledged
        const acknowledgeHandled = (to: number) => Effect.flatMap(acknowledge(to), count.handled)
        const handling = isTransactional
          ? storage.withTransaction(Effect.andThen(consume(deliveries, () => Effect.void), advance(last))).pipe(
            // What a handler did to the transaction shows when it goes on, or is committed.
            Effect.catchIf(isPermanent, (cause) => Effect.fail(new HandlerFailure({ index, cause }))),
            Effect.andThen(moved(last)),
            Effect.flatMap(count.handled)
          )
          : consume(deliveries, ({ position }) => {
            handled = position
            return options.acknowledge === "message"
              ? Effect.andThen(acknowledgeHandled(position), standing)
              : standing
          }).pipe(
            // The messages before the one that failed. If they may not be acknowledged, the claim is another's.
            Effect.tapErrorTag("HandlerFailure", () => acknowledgeHandled(handled)),
            Effect.andThen(Effect.suspend(() => {
              handled = last
              return acknowledgeHandled(last)
            })),
            Effect.onError(() => Effect.ignore(acknowledgeHandled(handled)))
          )
        return Effect.andThen(standing, handling).pipe(
          // It says nothing of the handler if ours is lost as well.
          Effect.tapErrorTag("HandlerFailure", ({ cause }) => isConnectionError(cause) ? confirm : Effect.void)
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
                const next = rest.map((delivery) => ({ ...delivery, attempt: delivery.attempt + 1 }))
                return failedWith("a batch failed, and is handled in halves", rest[0], cause).pipe(
                  Effect.andThen(process(next.slice(0, middle))),
                  Effect.andThen(process(next.slice(middle)))
                )
              }
              return process(rest.slice(0, index)).pipe(
                Effect.andThen(again(failed, cause)),
                Effect.andThen(process(rest.slice(index + 1)))
              )
            })
            : Effect.void
        })

      /** One message alone, after its first failure. What is none of the handler's ends it at once. */
      const again = (
        delivery: Delivery<A>,
        cause: unknown
      ): Effect.Effect<void, Interruption | HandlerError | SqlError, R> => {
        let attempts = delivery.attempt
        let first: Effect.Effect<never, HandlerFailure> | undefined = Effect.fail(
          new HandlerFailure({ index: 0, cause })
        )
        const next = Effect.suspend(() => {
          const failed = first
          first = undefined
          return failed ?? attempt([{ ...delivery, attempt: ++attempts }])
        })
        return next.pipe(
          Effect.tapErrorTag("HandlerFailure", (failure) =>
            failedWith("a handler failed", { ...delivery, attempt: attempts }, failure.cause)),
          Effect.map(Result.succeed),
          Effect.catchTag(["Interruption", "SqlError"], (ended) =>
            Effect.succeed(Result.fail(ended))),
          Effect.mapError((failure) => failure.cause),
          Effect.retry(options.retry),
          Effect.catch((last) => Effect.map(giveUp(delivery, last, attempts), Result.succeed)),
          Effect.flatMap(Effect.fromResult)
        )
      }

      const giveUp = (
        message: Pick<Delivery<A>, "messageId" | "stream" | "position">,
        cause: unknown,
        attempts: number
      ): Effect.Effect<void, Interruption | HandlerError | SqlError> => {
        const { messageId, position } = message
        const { partition } = claim
        const log = (what: string) =>
          Effect.annotateLogs(
            Effect.logError(`subscription ${options.name}: ${what}`, cause),
            annotations({ ...message, partition, attempt: attempts })
          )
        switch (options.onFailure) {
          case "park": {
            const parked = subscribed.park({ partition, position, messageId, attempts, error: textOf(cause) })
            return storage.withTransaction(Effect.andThen(parked, advance(position))).pipe(
              Effect.andThen(moved(position)),
              Effect.flatMap(count.parked),
              Effect.andThen(log("a message is parked"))
            )
          }
          case "skip":
            return acknowledge(position).pipe(
              Effect.flatMap(count.skipped),
              Effect.andThen(log("a message is skipped"))
            )
          case "haltPartition":
            return Effect.andThen(
              log("a partition is halted at a message"),
              Effect.fail(new Interruption({ reason: "halted" }))
            )
          case "stop":
            return Effect.andThen(
              log("stops at a message"),
              Effect.fail(
                new HandlerError({ subscription: options.name, partition, position, messageId, attempts, cause })
              )
            )
        }
      }

      const failedWith = (what: string, delivery: Delivery<A>, cause: unknown) =>
        Effect.andThen(
          count.failed(1),
          Effect.annotateLogs(
            Effect.logWarning(`subscription ${options.name}: ${what}`, cause),
            annotations(delivery)
          )
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
            yield* giveUp(row, stored.failure, 1)
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

/** Of a line of the log about a message. */
export const annotations = (
  { attempt, messageId, partition, position, stream }: Pick<
    Delivery<unknown>,
    "attempt" | "messageId" | "partition" | "position" | "stream"
  >
) => ({ messageId, stream: printable(stream), partition, position, attempts: attempt })

/** With the reasons behind it. As PostgreSQL holds it: without NUL, well-formed, and not without end. */
export const textOf = (cause: unknown): string =>
  Cause.pretty(Cause.fail(cause)).slice(0, 10_000).replaceAll("\0", "").toWellFormed()
