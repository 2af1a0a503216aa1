/** What a name is of: among what was seen a moment ago, else in the lists of the operator. */
import { Effect } from "effect"
import type { AggregatedStreamStatus, OperatorError, Page, PageOptions, SubscriptionStatus } from "../Operator.ts"
import { type Asked, NotFound } from "./asked.ts"
import type { Snapshot } from "./live.ts"

const find = <A extends { readonly name: string }>(
  what: string,
  seen: (snapshot: Snapshot) => ReadonlyArray<A>,
  list: (options: PageOptions) => Effect.Effect<Page<A>, OperatorError>
) =>
  Effect.fnUntraced(function*({ live }: Asked, name: string): Effect.fn.Return<A, OperatorError | NotFound> {
    const snapshot = yield* Effect.orElseSucceed(live.snapshot, () => undefined)
    const known = snapshot && seen(snapshot).find((each) => each.name === name)
    if (known !== undefined) return known
    let cursor: string | undefined
    do {
      const page: Page<A> = yield* list({ cursor, limit: 100 })
      const found = page.items.find((each) => each.name === name)
      if (found !== undefined) return found
      cursor = page.next
    } while (cursor !== undefined)
    return yield* Effect.fail(new NotFound(`This store has no ${what} “${name}”`))
  })

export const subscriptionOf = (asked: Asked, name: string) =>
  find<SubscriptionStatus>("subscription", ({ subscriptions }) => subscriptions, asked.operator.subscriptions)(
    asked,
    name
  )

export const aggregatedStreamOf = (asked: Asked, name: string) =>
  find<AggregatedStreamStatus>(
    "aggregated stream",
    ({ aggregatedStreams }) => aggregatedStreams,
    asked.operator.aggregatedStreams
  )(asked, name)
