/** How handlers are called: message by message, or with a batch; with a span, and with annotations of the log. */
import { Array as Arr, Cause, Context, Data, Effect, Predicate, References, Tracer } from "effect"
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
  isTraced?: boolean
): Consumer<A, R> =>
(deliveries, handled) =>
  Effect.contextWith((context: Context.Context<R>) => {
    const call = calling(context, isTraced)
    return Effect.gen(function*() {
      for (const [index, delivery] of deliveries.entries()) {
        const annotations = { subscription, ...annotationsOf(delivery) }
        const attributes = { ...annotations, type: typeOf(delivery.message) }
        const handling = Effect.suspend(() => handler(delivery.message, delivery))
        yield* failing(call(handling, { annotations, attributes, of: [delivery] }), index)
        if (!(yield* handled(delivery))) return
      }
    })
  })

/** @internal */
export const batches = <A, E, R>(
  subscription: string,
  handler: (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>) => Effect.Effect<unknown, E, R>,
  isTraced: boolean
): Consumer<A, R> =>
(deliveries, handled) =>
  Effect.contextWith((context: Context.Context<R>) => {
    const [{ partition, position }] = deliveries
    const annotations = { subscription, partition, position, messages: deliveries.length }
    const called = calling(context, isTraced)(
      Effect.suspend(() => handler(deliveries)),
      { annotations, attributes: annotations, of: deliveries }
    )
    return Effect.asVoid(Effect.flatMap(
      failing(called, deliveries.length === 1 ? 0 : undefined),
      () => handled(Arr.lastNonEmpty(deliveries))
    ))
  })

interface Call {
  /** Of log lines. */
  readonly annotations: Readonly<Record<string, unknown>>
  /** Of the span. */
  readonly attributes: Readonly<Record<string, unknown>>
  readonly of: Arr.NonEmptyReadonlyArray<Delivery<unknown>>
}

const spanName = "Subscription.handle"

/**
 * Calls handlers in a span, with annotations of the log; what is written meanwhile says which message it answers, if it is one.
 * As `withSpan` and the like would, but with one change of the context instead of five, which is most of what a call costs.
 */
const calling = <R>(context: Context.Context<R>, isTraced = Context.get(context, References.TracerEnabled)) => {
  const parent = Context.get(context, References.CurrentStackFrame)
  const shared = Context.merge(
    context,
    Context.make(References.TracerEnabled, isTraced).pipe(
      Context.add(References.CurrentStackFrame, { name: spanName, stack: () => undefined, parent })
    )
  )
  const logged = Context.get(context, References.CurrentLogAnnotations)

  return <A, E>(handling: Effect.Effect<A, E, R>, { annotations, attributes, of }: Call): Effect.Effect<A, E> => {
    const annotated = Context.add(shared, References.CurrentLogAnnotations, { ...logged, ...annotations })
    const known = of.length === 1 ? Context.add(annotated, Handled, answered(of[0])) : annotated
    const options = { kind: "consumer", attributes, links: linksOf(of) } as const
    return Effect.setContext(
      Effect.useSpan(
        spanName,
        options,
        (span) => Effect.setContext(handling, Context.add(known, Tracer.ParentSpan, span))
      ),
      shared
    )
  }
}

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

/**
 * Runs what consumers do for themselves without spans: each poll and each acknowledgement would be a trace of its own. It is
 * told whether handlers have theirs, as whoever runs the subscription has.
 *
 * @internal
 */
export const untraced = <A, E, R>(effect: (isTraced: boolean) => Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(References.TracerEnabled, (isEnabled) => Effect.withTracerEnabled(effect(isEnabled), false))
