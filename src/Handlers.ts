/**
 * Handlers of messages: functions of a message and its delivery, or handlers by tag.
 */
import { Effect } from "effect"
import type { AggregatedMessage } from "./Message.ts"

/** The delivery of a message to a handler. */
export interface Delivery<out A> extends AggregatedMessage<A> {
  /**
   * From 1; higher when the handler failed before, alone or in a batch, in this run of the subscription. In `replay`, it
   * goes on from the attempts of the parked message.
   */
  readonly attempt: number
}

/** Handles a message. Its failures, defects and own interruptions lead to `retry` and `onFailure`. */
export interface Handler<in A, out E = never, out R = never> {
  (message: A, delivery: Delivery<A>): Effect.Effect<unknown, E, R>
}

/** The tags of messages. */
export type TagsOf<A> = A extends { readonly _tag: infer Tag extends string } ? Tag : never

/** A handler for some of the tags, each for the messages of its tag. */
export type ByTag<A> = {
  readonly [Tag in TagsOf<A>]?: (
    message: Extract<A, { readonly _tag: Tag }>,
    delivery: Delivery<Extract<A, { readonly _tag: Tag }>>
  ) => Effect.Effect<unknown, unknown, unknown>
}

/** No handlers for tags that no message has. */
export type OnlyTagsOf<A, H> = { readonly [Tag in Exclude<keyof H, TagsOf<A>>]: never }

/** The effects of handlers by tag. */
export type EffectsOf<H> = {
  readonly [Tag in keyof H]: H[Tag] extends (...args: never) => infer Result ? Result : never
}[keyof H]

/** Makes one handler of handlers by tag. Messages of other tags are acknowledged without being handled. */
export interface MakeByTag<in out A> {
  <const H extends ByTag<A>>(
    handlers: H & OnlyTagsOf<A, H>
  ): Handler<A, Effect.Error<EffectsOf<H>>, Effect.Services<EffectsOf<H>>>
}

/**
 * A handler made of handlers by tag, for messages of type `A`. A subscription has the same as `handlers`, and knows its
 * messages.
 *
 * **Example**
 *
 * ```ts
 * Handlers.make<OrderEvent>()({
 *   OrderPlaced: (order, { position }) => Console.log(position, order.orderId)
 * })
 * ```
 */
export const make = <A>(): MakeByTag<A> => <const H extends ByTag<A>>(handlers: H & OnlyTagsOf<A, H>) => {
  type Made = Handler<A, Effect.Error<EffectsOf<H>>, Effect.Services<EffectsOf<H>>>
  // The tag says which message it is, and which handler takes it.
  const byTag = new Map(Object.entries(handlers)) as ReadonlyMap<unknown, Made>
  const handle: Made = (message, delivery) =>
    byTag.get((message as { readonly _tag?: unknown })._tag)?.(message, delivery) ?? Effect.void
  return handle
}

/** A handler with something around each of its calls: a log line, a time limit, a transaction, services. */
export const around = <A, E, R, E2, R2>(
  handler: Handler<A, E, R>,
  wrap: (effect: Effect.Effect<unknown, E, R>, delivery: Delivery<A>) => Effect.Effect<unknown, E2, R2>
): Handler<A, E2, R2> =>
(message, delivery) => wrap(handler(message, delivery), delivery)
