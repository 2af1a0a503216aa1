/** Gives up parked messages of a subscription, however many. */
import { Effect } from "effect"
import type { OperatorService } from "./interface.ts"
import type { OperatorError } from "./opened.ts"
import type { WhichParked } from "./parked.ts"

const pageSize = 500

/** All of them, or those that are meant; those of an error page by page. Answers how many were discarded. */
export const discardAll = Effect.fnUntraced(function*(
  operator: Pick<OperatorService, "parked" | "discard">,
  subscription: string,
  which?: WhichParked
): Effect.fn.Return<number, OperatorError> {
  const { error, messageIds = [], places = [] } = which ?? {}
  const isNamed = places.length > 0 || messageIds.length > 0
  let count = isNamed ? yield* operator.discard(subscription, { places, messageIds }) : 0
  if (isNamed && error === undefined) return count
  while (true) {
    const { items } = yield* operator.parked(subscription, { error, limit: pageSize })
    const discarded = items.length === 0 ? 0 : yield* operator.discard(subscription, { places: items })
    if (discarded === 0) return count
    count += discarded
  }
})
