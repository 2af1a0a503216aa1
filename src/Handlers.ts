/**
 * What is done with a message: a function of the message and its delivery, or one for each tag.
 */
import { Effect } from "effect"
import type { AggregatedMessage } from "./Message.ts"
import type { MessageSchema } from "./Serializer.ts"

/** A message as it is handed to a handler. */
export interface Delivery<out A> extends AggregatedMessage<A> {
  /**
   * From 1; higher when the handler failed before, alone or in a batch, in this run of the subscription. In `replay`, it
   * goes on from the attempts of the parked message.
   */
  readonly attempt: number
}

/** Handles a message. Its failures, defects and own interruptions are what `retry` and `onFailure` are for. */
export interface Handler<in A, out E = never, out R = never> {
  (message: A, delivery: Delivery<A>): Effect.Effect<unknown, E, R>
}

type Tagged = { readonly _tag: string }

/** A handler for some of the tags, each for the messages of its tag. */
export type ByTag<A extends Tagged> = {
  readonly [Tag in A["_tag"]]?: (
    message: Extract<A, { readonly _tag: Tag }>,
    delivery: Delivery<Extract<A, { readonly _tag: Tag }>>
  ) => Effect.Effect<unknown, unknown, unknown>
}

type EffectsOf<H> = {
  readonly [Tag in keyof H]: H[Tag] extends (...args: never) => infer Result ? Result : never
}[keyof H]

/**
 * A handler made of one for each tag. Messages of other tags are acknowledged, and nothing is done with them.
 *
 * **Example**
 *
 * ```ts
 * Handlers.make(OrderEvent, {
 *   OrderPlaced: (order, { position }) => Console.log(position, order.orderId)
 * })
 * ```
 */
export const make = <S extends MessageSchema & { readonly Type: Tagged }, const H extends ByTag<S["Type"]>>(
  _schema: S,
  handlers: H & { readonly [Tag in Exclude<keyof H, S["Type"]["_tag"]>]: never }
): Handler<S["Type"], Effect.Error<EffectsOf<H>>, Effect.Services<EffectsOf<H>>> => {
  // The tag says which message it is, and which handler takes it.
  const byTag = new Map(Object.entries(handlers)) as ReadonlyMap<
    string,
    Handler<S["Type"], Effect.Error<EffectsOf<H>>, Effect.Services<EffectsOf<H>>>
  >
  return (message, delivery) => byTag.get(message._tag)?.(message, delivery) ?? Effect.void
}

/** A handler with something around each of its calls: a log line, a time limit, a transaction, services. */
export const around = <A, E, R, E2, R2>(
  handler: Handler<A, E, R>,
  wrap: (effect: Effect.Effect<unknown, E, R>, delivery: Delivery<A>) => Effect.Effect<unknown, E2, R2>
): Handler<A, E2, R2> =>
(message, delivery) => wrap(handler(message, delivery), delivery)
