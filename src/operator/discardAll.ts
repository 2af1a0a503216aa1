/** Gives up all parked messages of a subscription. */
import { Effect } from "effect"
import type { OperatorService } from "./interface.ts"
import type { OperatorError } from "./opened.ts"

const pageSize = 500

/** Page by page; answers how many were discarded. */
export const discardAll = Effect.fnUntraced(function*(
  operator: Pick<OperatorService, "parked" | "discard">,
  subscription: string
): Effect.fn.Return<number, OperatorError> {
  let count = 0
  while (true) {
    const { items } = yield* operator.parked(subscription, { limit: pageSize })
    const discarded = items.length === 0 ? 0 : yield* operator.discard(subscription, { places: items })
    if (discarded === 0) return count
    count += discarded
  }
})
