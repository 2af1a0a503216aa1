/** What the tests of operators share. */
import { Effect } from "effect"
import * as Operator from "../../Operator.ts"
import { Storage } from "../../Storage.ts"
import { during, subscribe, until } from "../subscription/fixture.ts"

/** The operator of the store that the tests write to. */
export const operated = (options?: Operator.OperatorOptions) =>
  Effect.flatMap(Storage, (storage) => Operator.make(storage, "contract", options))

/** A subscription whose messages, so many in each partition, were all parked: of what they fail with. */
export const parkedAll = Effect.fnUntraced(function*(
  counts: ReadonlyArray<number>,
  failure: (position: number) => unknown = () => "no"
) {
  const given = yield* subscribe({ onFailure: "park" })
  for (const [partition, count] of counts.entries()) yield* given.write(partition, count)
  const subscription = yield* given.make()
  const caughtUp = until(Effect.map(subscription.lag, (lag) => lag === 0))
  yield* during(subscription.run((_, { position }) => Effect.fail(failure(position))), caughtUp)
  return { ...given, subscription, name: subscription.name }
})
