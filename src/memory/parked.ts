/** The dead letters of a subscription, in memory. */
import { Clock, DateTime, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { alike } from "../internal/alike.ts"
import type {
  EncodedParkedMessage,
  EncodedStoredMessage,
  ParkedBehind,
  Requeue,
  SubscriptionStorage
} from "../Storage.ts"
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

/** The places of those that are meant, and of those with their keys. */
const withKeys = (
  state: State,
  { keys = [], messageIds = [], places = [] }: Requeue,
  withTheirKeys: boolean
): ReadonlySet<string> => {
  const [given, ids] = [new Set(places.map(placeOf)), new Set(messageIds)]
  const found = Array.from(state.parked.values()).filter((entry) =>
    given.has(placeOf(entry)) || ids.has(entry.messageId)
  )
  const chains = withTheirKeys ? [...keys, ...found] : keys
  return new Set([
    ...found,
    ...chains.flatMap(({ key, partition }) => state.parkedWith(partition, key))
  ].map(placeOf))
}

export const make = (
  view: Effect.Effect<State, SqlError>,
  change: ChangeState,
  read: (messageId: string) => EncodedStoredMessage | undefined,
  wake: Effect.Effect<void>
): Pick<
  SubscriptionStorage,
  "park" | "parkBehind" | "parked" | "parkedKeys" | "isFirstParked" | "unpark" | "requeue" | "requeued"
> => {
  const withStored = (entry: Parked): EncodedParkedMessage => ({ ...entry, stored: read(entry.messageId) })

  return {
    park: (entry, { onlyIfParked = false } = {}) =>
      Effect.gen(function*() {
        const isParked = yield* change(
          [`parked ${placeOf(entry)}`],
          ({ parked }) =>
            Effect.map(now, (parkedAt) => {
              const before = parked.get(placeOf(entry))
              if (onlyIfParked && before === undefined) return undefined
              return { _tag: "Park", entry: onlyIfParked ? { ...entry, key: before?.key } : entry, parkedAt }
            })
        )
        // Those that stand behind it are not requeued any more either.
        const behind = (yield* view).parkedWith(entry.partition, entry.key)
          .filter(({ position, requeuedAt }) => position > entry.position && requeuedAt !== undefined)
        if (!onlyIfParked || behind.length === 0) return isParked
        yield* change(behind.map((each) => `parked ${placeOf(each)}`), ({ parked }) =>
          Effect.succeed({
            _tag: "Requeue",
            entries: behind.flatMap((each) => parked.get(placeOf(each)) ?? []),
            at: undefined
          }))
        return isParked
      }),

    // Waits for whoever takes the first one away, and looks again.
    parkBehind: (entry, limit) =>
      Effect.gen(function*() {
        while (true) {
          const known = (yield* view).parkedWith(entry.partition, entry.key)
          const [first] = known
          if (first === undefined) return "Free"
          const isLocked = known.length >= limit // so that none of them is taken away
          const looked: { outcome?: ParkedBehind } = {}
          yield* change((isLocked ? known : [first]).map((each) => `parked ${placeOf(each)}`), (state) =>
            Effect.map(now, (parkedAt) => {
              const all = state.parkedWith(entry.partition, entry.key)
              const [present] = all
              if (present === undefined) {
                looked.outcome = "Free"
              } else if (placeOf(present) === placeOf(first)) {
                if (all.length < limit) {
                  looked.outcome = "Parked"
                } else if (present.requeuedAt !== undefined) {
                  looked.outcome = "Requeued"
                } else if (isLocked) {
                  looked.outcome = "Full"
                }
              }
              return looked.outcome === "Parked"
                ? { _tag: "Park", entry, parkedAt, requeuedAt: present?.requeuedAt }
                : undefined
            }))
          if (looked.outcome !== undefined) {
            return looked.outcome
          }
        }
      }),

    parkedKeys: (partition) =>
      Effect.map(view, ({ parked }) => {
        const keys = Array.from(parked.values()).flatMap((entry) =>
          entry.partition === partition && entry.key !== undefined ? [entry.key] : []
        )
        return Array.from(new Set(keys))
      }),

    isFirstParked: (place) =>
      Effect.map(view, (state) => {
        const entry = state.parked.get(placeOf(place))
        return entry !== undefined && state.isFirst(entry)
      }),

    unpark: (unparked, { ifFirst = false } = {}) =>
      Effect.gen(function*() {
        let hasKey = false
        const isUnparked = yield* change([`parked ${placeOf(unparked)}`], (state) =>
          Effect.sync(() => {
            const entry = state.parked.get(placeOf(unparked))
            if (entry === undefined || (ifFirst && !state.isFirst(entry))) return undefined
            hasKey = entry.key !== undefined
            return { _tag: "Unpark", partition: unparked.partition, position: unparked.position }
          }))
        if (isUnparked && hasKey) yield* wake
        return isUnparked
      }),

    parked: ({ after, error, limit = Infinity, places, withTheirKeys = false }) =>
      Effect.map(view, (state) => {
        const wanted = places && withKeys(state, { places }, withTheirKeys)
        return Array.from(state.parked.values())
          .filter((entry) => wanted?.has(placeOf(entry)) !== false)
          .filter((entry) =>
            error === undefined || (entry.error.tag === error.tag && alike(entry.error.message) === error.message)
          )
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
        const meantBy = (state: State) => {
          const wanted = which && withKeys(state, which, true)
          return Array.from(state.parked.values())
            .filter((entry) => entry.requeuedAt === undefined && wanted?.has(placeOf(entry)) !== false)
            .toSorted(inOrder)
        }
        const locks = meantBy(yield* view).map((entry) => `parked ${placeOf(entry)}`)
        let count = 0
        yield* change(locks, (state) =>
          Effect.map(now, (at) => {
            const entries = meantBy(state)
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
          .filter((entry) => entry.partition === partition && entry.requeuedAt !== undefined && state.isFirst(entry))
          .toSorted(inOrder)
        return first && withStored(first)
      })
  }
}
