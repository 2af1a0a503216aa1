/** Everything that is known of one message. */
import { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { checkMessageId } from "../internal/checks.ts"
import { declaredTagsOf } from "../internal/tags.ts"
import type { Catalogue, LinkedPlace, OperatorStorage, Storage } from "../Storage.ts"
import { type Message, toMessage, type TypeOf } from "./messages.ts"
import { isOutdated, type Opened, type OperatorError } from "./opened.ts"
import { causesOf } from "./trace.ts"

/**
 * What a subscription has done with a message: `"handled"`, it is acknowledged; `"parked"`, and it waits for somebody to look
 * at it; `"requeued"`, it is parked, and about to be handled again; `"waiting"`, it was not acknowledged yet.
 */
export type HandledState = "handled" | "parked" | "requeued" | "waiting"

/** A place of a message in an aggregated stream, and what subscriptions have done with it. */
export interface MessagePlace extends LinkedPlace {
  readonly subscriptions: ReadonlyArray<{ readonly name: string; readonly state: HandledState }>
}

/** A message, with what is known of it. */
export interface MessageDetails {
  readonly message: Message
  /** By which it is found: those that are declared where its type is. */
  readonly tags: ReadonlyArray<string>
  /** The message that its `causationId` names, if the store has it. */
  readonly cause: Message | undefined
  readonly places: ReadonlyArray<MessagePlace>
}

/** So many subscriptions of an aggregated stream are asked, at most. */
const mostSubscriptions = 100

export const make = (storage: Storage["Service"], operator: OperatorStorage, opened: Opened, typeOf: TypeOf) => {
  const handled = Effect.fnUntraced(function*(
    catalogue: Catalogue,
    place: LinkedPlace
  ): Effect.fn.Return<MessagePlace, OperatorError> {
    const consumers = catalogue.subscriptions
      .filter((each) => each.aggregatedStream === place.aggregatedStream && !isOutdated(each.objects))
      .slice(0, mostSubscriptions)
    const subscriptions = yield* Effect.forEach(
      consumers,
      Effect.fnUntraced(function*(consumer) {
        const { name } = consumer
        const { subscribed } = yield* opened.subscriptionIn(catalogue, consumer)
        const [parked] = yield* subscribed.parked({ places: [place] })
        const isBehind = (yield* subscribed.checkpoint(place.partition)) < place.position
        const state: HandledState = parked === undefined
          ? isBehind ? "waiting" : "handled"
          : parked.requeuedAt === undefined
          ? "parked"
          : "requeued"
        return { name, state }
      })
    )
    return { ...place, subscriptions }
  })

  return Effect.fnUntraced(function*(
    messageId: string
  ): Effect.fn.Return<MessageDetails | undefined, OperatorError | SqlError> {
    const id = yield* Effect.fromResult(checkMessageId(messageId))
    const [stored] = yield* storage.readByIds([id])
    if (stored === undefined) return undefined
    const to = toMessage(typeOf)
    const [cause] = yield* causesOf(storage, stored, 1)
    const catalogue = yield* operator.catalogue
    const streams = catalogue.aggregatedStreams.filter(({ objects }) => !isOutdated(objects))
    const places = yield* operator.places(id, streams.map(({ definition }) => definition.name))
    return {
      message: to(stored),
      tags: declaredTagsOf((yield* storage.declaredTags).tags, stored.data),
      cause: cause && to(cause),
      places: yield* Effect.forEach(places, (place) => handled(catalogue, place))
    }
  })
}
