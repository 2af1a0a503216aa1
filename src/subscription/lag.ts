/** How far a subscription is behind. */
import { Duration, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { StreamRebuiltError } from "../errors.ts"
import type { AggregatedStorage, PendingPartition, SubscriptionStorage } from "../Storage.ts"

/** How many messages are linked and not acknowledged. */
export const unacknowledged = (pending: ReadonlyArray<PendingPartition>): number =>
  pending.reduce((sum, { checkpoint, position }) => sum + position - checkpoint, 0)

/** The same, and those that are not linked yet: first, so that one that is linked meanwhile is not left out. */
export const lag = (
  { waiting }: AggregatedStorage,
  { pending }: SubscriptionStorage
): Effect.Effect<number, StreamRebuiltError | SqlError> =>
  Effect.zipWith(waiting, pending, (notLinked, linked) => notLinked + unacknowledged(linked))

/** How long the oldest message that is not acknowledged has been stored, linked or not; zero if there is none. */
export const age = (
  { waitingFor }: AggregatedStorage,
  subscribed: SubscriptionStorage
): Effect.Effect<Duration.Duration, SqlError> =>
  Effect.zipWith(
    waitingFor,
    subscribed.age,
    (notLinked = 0, linked = 0) => Duration.millis(Math.max(notLinked, linked))
  )
