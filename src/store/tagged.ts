/**
 * What messages of given tags come to, from the beginning or from a state that is known.
 *
 * Whoever sees a message of a tag sees all messages of that tag at lower positions. So what was added to a query stands behind
 * the last position that was seen of its first tag, its end, and is folded on the state. Three things are looked at first:
 *
 * - Where a tag is in another edition, messages of it were deleted or redacted: all is folded anew.
 * - The messages at the ends are read again: where one is gone, the store was truncated, and all is folded anew.
 * - Queries with different first tags have different ends, and what was added to one may stand below what was folded of another: it
 *   was committed late. Messages are folded in the order of their positions, so all are folded anew.
 */
import { Array as Arr, Effect, Stream } from "effect"
import { type Fold, snapshotOf } from "../Fold.ts"
import type { Declared } from "../internal/tags.ts"
import type { Internal, ReadError, TagEnds } from "../Reader.ts"
import type { TagQuery } from "../Storage.ts"
import { digest, type Kept, type Snapshots, type Standing } from "./snapshots.ts"

/** What messages of given tags come to, and of each query the last position of its first tag, and the edition of that. */
export interface KnownTagged extends Standing<unknown> {
  readonly ends: ReadonlyArray<number>
  readonly editions: ReadonlyArray<number>
}

type Queries = Arr.NonEmptyReadonlyArray<TagQuery>

/** Folds all up to where the tags end at the moment of the first page. */
export const foldAll = <A>(
  read: Internal<A>["readQueries"],
  fold: Fold<unknown, A>,
  queries: Queries
): Effect.Effect<KnownTagged, ReadError> =>
  Effect.suspend(() => {
    let ended: TagEnds = { tags: [], editions: [] }
    const folded = Stream.runFold(
      read(queries, (found) => {
        ended = found
      }),
      () => ({ state: fold.initial, unsaved: 0 }),
      ({ state, unsaved }, { message }) => ({ state: fold.evolve(state, message), unsaved: unsaved + 1 })
    )
    return Effect.map(folded, (known) => ({ ...known, ends: ended.tags, editions: ended.editions }))
  })

/** Folds up to these ends; on what is known, if anything is. */
export const foldTagged = <A>(
  read: Internal<A>["readQueries"],
  fold: Fold<unknown, A>,
  queries: Queries,
  ends: ReadonlyArray<number>,
  editions: ReadonlyArray<number>,
  before: KnownTagged | undefined
): Effect.Effect<KnownTagged, ReadError> => {
  const endOf = (i: number): number => ends[i] ?? 0
  const anew = Stream.runFold(
    read(Arr.map(queries, (query, i) => ({ ...query, upTo: endOf(i) }))),
    (): KnownTagged => ({ state: fold.initial, ends, editions, unsaved: 0 }),
    (known, { message }) => ({ ...known, state: fold.evolve(known.state, message), unsaved: known.unsaved + 1 })
  )
  // No message has the tags.
  if (ends.every((end) => end === 0)) return Effect.succeed({ state: fold.initial, ends, editions, unsaved: 0 })
  if (before === undefined || before.ends.length !== queries.length) return anew
  if (before.editions.some((edition, i) => edition !== editions[i])) return anew
  // Positions are given once: where all of them are the same, nothing was added, and nothing removed that was read last.
  if (before.ends.every((end, i) => end === endOf(i))) return Effect.succeed(before)
  if (before.ends.some((end, i) => end > endOf(i))) return anew

  const seen = new Set(before.ends.filter((end) => end > 0))
  const added = Arr.map(queries, (query, i) => ({ ...query, after: before.ends[i] ?? 0, upTo: endOf(i) }))
  const again = queries.flatMap(({ tags: [tag] }, i) => {
    const end = before.ends[i] ?? 0
    return end === 0 ? [] : [{ tags: Arr.of(tag), types: undefined, after: end - 1, upTo: end }]
  })
  const last = Math.max(...before.ends)
  const begin = { known: { ...before, ends }, missing: seen.size, isLate: false }
  const folded = Stream.runFold(
    read([...added, ...again]),
    () => begin,
    (now, { globalPosition, message }) => {
      if (seen.has(globalPosition)) return { ...now, missing: now.missing - 1 }
      if (now.isLate || globalPosition < last) return { ...now, isLate: true }
      const { state, unsaved } = now.known
      return { ...now, known: { ...now.known, state: fold.evolve(state, message), unsaved: unsaved + 1 } }
    }
  )
  return Effect.flatMap(
    // A message at an end may be of a type that this schema does not have, and that nobody has asked for.
    Effect.catchTag(folded, "SerializationError", () => Effect.succeed({ ...begin, isLate: true })),
    ({ isLate, known, missing }) => isLate || missing > 0 ? anew : Effect.succeed(known)
  )
}

/**
 * What is kept of a fold on tags. The order of a query's tags behind the first, and of its types, does not matter; which tags
 * the types have does: messages that were tagged afterwards may stand below the ends.
 */
export const keptOfTags = (
  snapshots: Snapshots,
  fold: Fold<unknown, never>,
  queries: Queries,
  declared: Declared | undefined
): Effect.Effect<Kept<unknown, KnownTagged> | undefined> => {
  if (snapshotOf(fold) === undefined) return Effect.undefined
  const canonical = queries.map(({ tags: [first, ...others], types }) => [
    first,
    others.toSorted(),
    types?.toSorted() ?? null,
    Array.from(declared?.byType ?? [])
      .filter(([type]) => types?.includes(type) ?? true)
      .map(([type, tags]) => [type, ...Array.from(tags).toSorted()].join(" "))
      .toSorted()
  ])
  return Effect.flatMap(
    digest(JSON.stringify(canonical)),
    (source) =>
      snapshots(fold, `tags ${source}`, ({ editions, ends }: KnownTagged) => ({
        version: 0,
        ends,
        madeOf: queries.map(({ tags: [name] }, i) => ({ of: "tag", name, edition: editions[i] ?? 0 }))
      }))
  )
}
