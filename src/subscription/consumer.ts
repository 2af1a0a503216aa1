/** How handlers are called: message by message, or with a batch; with a span, and with annotations of the log. */
import { Array as Arr, Cause, Data, Effect, Predicate, References } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Delivery, Handler } from "../Handlers.ts"
import { answered, Handled } from "../internal/handled.ts"
import { printable } from "../internal/printable.ts"
import { fromTraceparent } from "../Message.ts"
import type { BatchStopped } from "./claimedPartition.ts"

/** Handles messages in their order; `handled` tells after each, or after the last of a batch, whether to go on. */
export interface Consumer<A, R> {
  (
    deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>,
    handled: (delivery: Delivery<A>) => Effect.Effect<boolean, BatchStopped | SqlError>
  ): Effect.Effect<void, HandlerFailure | BatchStopped | SqlError, R>
}

/** `index` is that of the message whose handler failed, where it is known. */
export class HandlerFailure extends Data.TaggedError("HandlerFailure")<{
  readonly index: number | undefined
  readonly cause: unknown
}> {}

/** @internal */
export const each = <A, E, R>(
  subscription: string,
  handler: Handler<A, E, R>,
  traced: Traced = (handling) => handling
): Consumer<A, R> =>
(deliveries, handled) =>
  Effect.gen(function*() {
    for (const [index, delivery] of deliveries.entries()) {
      const annotations = { subscription, ...annotationsOf(delivery) }
      const handling = answering(
        delivery,
        Effect.annotateLogs(Effect.suspend(() => handler(delivery.message, delivery)), annotations)
      )
      const spanned = Effect.withSpan(handling, "Subscription.handle", {
        kind: "consumer",
        attributes: { ...annotations, type: typeOf(delivery.message) },
        links: linksOf([delivery]),
        captureStackTrace: false
      })
      yield* failing(traced(spanned), index)
      if (!(yield* handled(delivery))) return
    }
  })

/** @internal */
export const batches = <A, E, R>(
  subscription: string,
  handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>,
  traced: Traced
): Consumer<A, R> =>
(deliveries, handled) => {
  const [first, ...others] = deliveries
  const { partition, position } = first
  const handling = Effect.suspend(() => handler(deliveries))
  const annotations = { subscription, partition, position, messages: deliveries.length }
  const spanned = Effect.withSpan(
    Effect.annotateLogs(others.length === 0 ? answering(first, handling) : handling, annotations),
    "Subscription.handle",
    { kind: "consumer", attributes: annotations, links: linksOf(deliveries), captureStackTrace: false }
  )
  return Effect.asVoid(Effect.flatMap(
    failing(traced(spanned), deliveries.length === 1 ? 0 : undefined),
    () => handled(Arr.lastNonEmpty(deliveries))
  ))
}

/** What is written meanwhile says which message it answers. */
const answering = <B, E, R>(delivery: Delivery<unknown>, handling: Effect.Effect<B, E, R>): Effect.Effect<B, E, R> =>
  Effect.provideService(handling, Handled, answered(delivery))

/** The annotations of log lines and spans about a message. */
export const annotationsOf = (
  { attempt, messageId, partition, position, stream }: Pick<
    Delivery<unknown>,
    "attempt" | "messageId" | "partition" | "position" | "stream"
  >
) => ({ messageId, stream: printable(stream), partition, position, attempts: attempt })

const typeOf = (message: unknown): string | undefined =>
  Predicate.hasProperty(message, "_tag") ? String(message._tag) : undefined

const linksOf = (deliveries: ReadonlyArray<Delivery<unknown>>) =>
  deliveries.flatMap(({ metadata }) => {
    const span = fromTraceparent(metadata.traceparent)
    return span === undefined ? [] : [{ span, attributes: {} }]
  })

/**
 * Failures and defects alike are the handler's, and so is an interruption: after an interruption from outside nothing
 * recovers, so a handler that arrives here interrupted itself.
 */
const failing = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  index: number | undefined
): Effect.Effect<A, HandlerFailure, R> =>
  Effect.catchCause(effect, (cause) => Effect.fail(new HandlerFailure({ index, cause: Cause.squash(cause) })))

/** Runs the call of a handler with the tracing of whoever runs the subscription. */
export interface Traced {
  <A, E, R>(handling: Effect.Effect<A, E, R>): Effect.Effect<A, E, R>
}

/**
 * Runs what consumers do for themselves without spans: each poll and each acknowledgement would be a trace of its own.
 *
 * @internal
 */
export const untraced = <A, E, R>(effect: (traced: Traced) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(
    References.TracerEnabled,
    (isEnabled) => Effect.withTracerEnabled(effect(Effect.withTracerEnabled(isEnabled)), false)
  )
