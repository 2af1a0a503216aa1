/** The dead letters of a subscription, in memory. */
import { Clock, DateTime, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { EncodedParkedMessage, EncodedStoredMessage, SubscriptionStorage } from "../Storage.ts"
import { type Change, type Parked, placeOf, type State } from "./subscribed.ts"

/** Changes the state, with some of its locks held, as it then decides; whether it did. */
export interface ChangeState {
  (
    locks: ReadonlyArray<string>,
    decide: (state: State) => Effect.Effect<Change | undefined>
  ): Effect.Effect<boolean, SqlError>
}

const now = Effect.map(Clock.currentTimeMillis, DateTime.makeUnsafe)

const inOrder = (a: Parked, b: Parked): number => a.partition - b.partition || a.position - b.position

export const make = (
  view: Effect.Effect<State, SqlError>,
  change: ChangeState,
  read: (messageId: string) => EncodedStoredMessage | undefined,
  wake: Effect.Effect<void>
): Pick<SubscriptionStorage, "park" | "parked" | "unpark" | "requeue" | "requeued"> => {
  const withStored = (entry: Parked): EncodedParkedMessage => ({ ...entry, stored: read(entry.messageId) })

  return {
    park: (entry, { onlyIfParked = false } = {}) =>
      change(
        [`parked ${placeOf(entry)}`],
        ({ parked }) =>
          Effect.map(now, (parkedAt) =>
            !onlyIfParked || parked.has(placeOf(entry)) ? { _tag: "Park", entry, parkedAt } : undefined)
      ),

    unpark: (unparked) =>
      change([`parked ${placeOf(unparked)}`], ({ parked }) =>
        Effect.succeed(
          parked.has(placeOf(unparked))
            ? { _tag: "Unpark", partition: unparked.partition, position: unparked.position }
            : undefined
        )),

    parked: ({ after, limit = Infinity, places }) =>
      Effect.map(view, ({ parked }) => {
        const wanted = places && new Set(places.map(placeOf))
        return Array.from(parked.values())
          .filter((entry) => wanted?.has(placeOf(entry)) !== false)
          .filter(({ partition, position }) =>
            after === undefined || partition > after.partition ||
            (partition === after.partition && position > after.position)
          )
          .toSorted(inOrder)
          .slice(0, limit)
          .map(withStored)
      }),

    requeue: (which) =>
      Effect.gen(function*() {
        const places = new Set(which?.places.map(placeOf))
        const ids = new Set(which?.messageIds)
        const isMeant = (entry: Parked) =>
          entry.requeuedAt === undefined &&
          (which === undefined || places.has(placeOf(entry)) || ids.has(entry.messageId))
        const meant = Array.from((yield* view).parked.values()).filter(isMeant).toSorted(inOrder)
        let count = 0
        yield* change(meant.map((entry) => `parked ${placeOf(entry)}`), ({ parked }) =>
          Effect.map(now, (at) => {
            const entries = meant.flatMap((entry) => parked.get(placeOf(entry)) ?? []).filter(isMeant)
            count = entries.length
            return entries.length > 0 ? { _tag: "Requeue", entries, at } : undefined
          }))
        if (count > 0) yield* wake
        return count
      }),

    requeued: (partition) =>
      Effect.map(view, (state) => {
        if (state.pauseOf(partition) !== undefined) return undefined
        const [first] = Array.from(state.parked.values())
          .filter((entry) => entry.partition === partition && entry.requeuedAt !== undefined)
          .toSorted(inOrder)
        return first && withStored(first)
      })
  }
}
