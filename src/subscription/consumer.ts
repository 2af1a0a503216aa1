/** How handlers are called: message by message, or with a batch; with a span, and with annotations of the log. */
import { Array as Arr, Cause, Context, Data, Effect, Predicate, References, Tracer } from "effect"
import type { Schema } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Delivery, Handler } from "../Handlers.ts"
import { answered, Handled } from "../internal/handled.ts"
import { brief, printable } from "../internal/printable.ts"
import * as Telemetry from "../internal/telemetry.ts"
import { fromTraceparent } from "../Message.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { BatchStopped } from "./claimedPartition.ts"
import type { Metrics } from "./metrics.ts"

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
  metrics: Metrics,
  handler: Handler<A, E, R>,
  isTraced?: boolean
): Consumer<A, R> =>
(deliveries, handled) =>
  Effect.contextWith((context: Context.Context<R>) => {
    const call = calling(metrics, context, isTraced)
    return Effect.gen(function*() {
      for (const [index, delivery] of deliveries.entries()) {
        const handling = Effect.suspend(() => handler(delivery.message, delivery))
        yield* failing(call(handling, annotationsOf(delivery), [delivery]), index)
        if (!(yield* handled(delivery))) return
      }
    })
  })

/** @internal */
export const batches = <A, E, R>(
  metrics: Metrics,
  handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>,
  isTraced: boolean
): Consumer<A, R> =>
(deliveries, handled) =>
  Effect.contextWith((context: Context.Context<R>) => {
    const [{ partition, position }] = deliveries
    const annotations = { partition, position, messages: deliveries.length }
    const called = calling(metrics, context, isTraced)(
      Effect.suspend(() => handler(deliveries)),
      annotations,
      deliveries
    )
    return Effect.asVoid(Effect.flatMap(
      failing(called, deliveries.length === 1 ? 0 : undefined),
      () => handled(Arr.lastNonEmpty(deliveries))
    ))
  })

/**
 * Calls handlers in a span, with annotations of the log; what is written meanwhile says which message it answers, if it is one.
 * As `withSpan` and the like would, but with one change of the context instead of five, which is most of what a call costs.
 */
const calling = <R>(
  { called, spanAttributes, spanName }: Metrics,
  context: Context.Context<R>,
  isTraced = Context.get(context, References.TracerEnabled)
) => {
  const parent = Context.get(context, References.CurrentStackFrame)
  const shared = Context.merge(
    context,
    Context.make(References.TracerEnabled, isTraced).pipe(
      Context.add(References.CurrentStackFrame, { name: spanName, stack: () => undefined, parent })
    )
  )
  const logged = Context.get(context, References.CurrentLogAnnotations)
  /** Nobody sees the attributes of spans without a tracer. */
  const isSeen = isTraced && Context.getOrUndefined(context, Tracer.Tracer) !== undefined

  return <A, E>(
    handling: Effect.Effect<A, E, R>,
    annotations: Readonly<Record<string, unknown>>,
    of: Arr.NonEmptyReadonlyArray<Delivery<unknown>>
  ): Effect.Effect<A, E> => {
    const annotated = Context.add(shared, References.CurrentLogAnnotations, { ...logged, ...annotations })
    const known = of.length === 1 ? Context.add(annotated, Handled, answered(of[0])) : annotated
    const attributes = isSeen ? { ...spanAttributes, ...attributesOf(of) } : undefined
    return Effect.setContext(
      Effect.useSpan(
        spanName,
        { kind: "consumer", attributes, links: linksOf(of) },
        (span) =>
          Telemetry.observed(
            Effect.setContext(handling, Context.add(known, Tracer.ParentSpan, span)),
            span,
            context,
            (cause, seconds) => {
              const errorType = called(of.length, cause, seconds, context)
              if (isSeen && errorType !== undefined) span.attribute(Telemetry.attribute.errorType, errorType)
            }
          )
      ),
      shared
    )
  }
}

/** A message of which lines of the log tell: decoded, or with the type that it has where it is stored. */
export interface Told extends Pick<Delivery<unknown>, "attempt" | "messageId" | "partition" | "position" | "stream"> {
  readonly message?: unknown
  readonly type?: string | undefined
}

/** The annotations of these lines. */
export const annotationsOf = ({ attempt, message, messageId, partition, position, stream, type }: Told) => {
  const annotations = { messageId, stream: printable(stream), partition, position, attempt }
  const told = type ?? typeOf(message)
  return told === undefined ? annotations : { ...annotations, type: brief(told) }
}

const typeOf = (message: unknown): string | undefined =>
  Predicate.hasProperty(message, "_tag") ? String(message._tag) : undefined

/** The type of a message that is not decoded, if its serializer tells. */
export const typeIn = <A>({ types }: MessageCodec<A>, stored: { readonly data: Schema.Json } | undefined) =>
  stored === undefined ? undefined : types?.of(stored.data)

/** Those of a span, beside those that all spans of the subscription have. */
const attributesOf = (deliveries: Arr.NonEmptyReadonlyArray<Delivery<unknown>>): Record<string, unknown> => {
  const { attribute } = Telemetry
  const [{ attempt, message, messageId, metadata, partition, position, stream }] = deliveries
  const place = { [attribute.partition]: String(partition), [attribute.position]: position }
  if (deliveries.length > 1) return { ...place, [attribute.messageCount]: deliveries.length }
  return {
    ...place,
    [attribute.messageId]: messageId,
    // Other writers may have put anything there.
    ...typeof metadata.correlationId === "string" ? { [attribute.conversation]: brief(metadata.correlationId) } : {},
    [attribute.stream]: printable(stream),
    [attribute.type]: typeOf(message),
    [attribute.attempt]: attempt
  }
}

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

/**
 * Runs what consumers do for themselves without spans: each poll and each acknowledgement would be a trace of its own. It is
 * told whether handlers have theirs, as whoever runs the subscription has.
 *
 * @internal
 */
export const untraced = <A, E, R>(effect: (isTraced: boolean) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(References.TracerEnabled, (isEnabled) => Effect.withTracerEnabled(effect(isEnabled), false))
