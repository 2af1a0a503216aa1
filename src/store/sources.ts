/**
 * What a decision on several sources reads, and what it requires.
 *
 * The ends of all sources are read in one statement; what is read up to them later is still what was there at that moment. So no
 * snapshot and no connection is held while something is read, decided and written.
 */
import { Array as Arr, Effect, Stream } from "effect"
import type { Source } from "../Decision.ts"
import type { Fold } from "../Fold.ts"
import type { Internal, ReadError } from "../Reader.ts"
import type { Ends, Storage, TagCondition, TagQuery } from "../Storage.ts"
import type { Basis } from "./turns.ts"
import { type Known, type ReadStream, streamKey } from "./update.ts"

/** A source under its name, checked. */
export type Named<A> =
  | { readonly name: string; readonly source: Extract<Source<unknown, A>, { readonly _tag: "Stream" }> }
  | {
    readonly name: string
    readonly source: Extract<Source<unknown, A>, { readonly _tag: "Tagged" }>
    readonly queries: Arr.NonEmptyReadonlyArray<TagQuery>
  }

/** What messages of given tags come to, and of each query the last position of its first tag. */
interface KnownTagged {
  readonly state: unknown
  readonly ends: ReadonlyArray<number>
}

/** Of each source what it comes to, in their order. */
export type View = ReadonlyArray<Known<unknown> | KnownTagged>

/** How many sources are read at once; in a transaction one. */
const atOnce = 4

const queriesOf = <A>(named: Named<A>): ReadonlyArray<TagQuery> => "queries" in named ? named.queries : []

/**
 * @internal
 */
export const basisOfAll = <A>(
  storage: Storage["Service"],
  reading: ReadStream<A>,
  readUpTo: Internal<A>["readUpTo"],
  sources: ReadonlyArray<Named<A>>,
  inTransaction: boolean
): Basis<View, ReadError> => {
  const streams = sources.flatMap(({ source }) => source._tag === "Stream" ? [source.stream] : [])
  const tags = sources.flatMap((named) => queriesOf(named).map((query) => query.tags[0]))

  const foldTagged = (
    fold: Fold<unknown, A>,
    queries: Arr.NonEmptyReadonlyArray<TagQuery>,
    ends: ReadonlyArray<number>,
    before: KnownTagged | undefined
  ): Effect.Effect<KnownTagged, ReadError> => {
    // Positions are given once: where all of them are the same, nothing was added, and nothing removed that was read last.
    if (before !== undefined && before.ends.every((end, i) => end === ends[i])) return Effect.succeed(before)
    if (ends.every((end) => end === 0)) return Effect.succeed({ state: fold.initial, ends }) // no message has the tags
    return Effect.map(
      Stream.runFold(
        readUpTo(Arr.map(queries, (query, i) => ({ ...query, upTo: ends[i] ?? 0 }))),
        () => fold.initial,
        (state, { message }) => fold.evolve(state, message)
      ),
      (state) => ({ state, ends })
    )
  }

  const readTo = (ends: Ends, known: View | undefined): Effect.Effect<View, ReadError> => {
    let stream = 0
    let tag = 0
    const parts = sources.map((named, i): Effect.Effect<Known<unknown> | KnownTagged, ReadError> => {
      const before = known?.[i]
      if ("queries" in named) {
        const own = ends.tags.slice(tag, tag += named.queries.length)
        return foldTagged(
          named.source.fold,
          named.queries,
          own,
          before !== undefined && "ends" in before ? before : undefined
        )
      }
      const toVersion = ends.heads[stream++]?.version ?? 0
      const { fold, stream: name } = named.source
      return before !== undefined && "head" in before
        ? reading.on(name, fold, before, toVersion)
        : reading.all(name, fold, toVersion)
    })
    return Effect.all(parts, { concurrency: inTransaction ? 1 : atOnce })
  }

  const read = (known: View | undefined) => Effect.flatMap(storage.ends(streams, tags), (ends) => readTo(ends, known))
  return {
    keys: Arr.dedupe([...streams.map(streamKey), ...tags.map((tag) => `tag ${tag}`)]).toSorted(),
    read: read(undefined),
    readOn: read,
    isSame: (before, now) => before === now,
    leaves: undefined
  }
}

/**
 * Of what was read the versions of streams, and the conditions on tags, each with the name of its source.
 *
 * @internal
 */
export const requirementsOf = <A>(named: ReadonlyArray<Named<A>>, view: View) => {
  const versions = new Map<string, number>()
  const conditions: Array<{ readonly source: string; readonly condition: TagCondition }> = []
  for (const [i, one] of named.entries()) {
    const known = view[i]
    if (known === undefined) continue
    if ("head" in known) versions.set(known.head.stream, known.head.version)
    else {
      for (const [q, query] of queriesOf(one).entries()) {
        conditions.push({ source: one.name, condition: { ...query, after: known.ends[q] ?? 0 } })
      }
    }
  }
  return { versions, conditions }
}
