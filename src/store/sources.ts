/**
 * What a decision on several sources reads, and what it requires.
 *
 * The ends of all sources are read in one statement; what is read up to them later is still what was there at that moment. So no
 * snapshot and no connection is held while something is read, decided and written.
 */
import { Array as Arr, Effect, Predicate } from "effect"
import type { Source } from "../Decision.ts"
import type { Declared } from "../internal/tags.ts"
import type { Internal, ReadError } from "../Reader.ts"
import type { EncodedSnapshot, Ends, Storage, TagCondition, TagQuery } from "../Storage.ts"
import { type Kept, remembering, type Snapshots } from "./snapshots.ts"
import { foldTagged, keptOfTags, type KnownTagged } from "./tagged.ts"
import type { Basis } from "./turns.ts"
import { expectedOf, keptOf, type KeptStream, type Known, knownOf, type ReadStream, streamKey } from "./update.ts"

/** A source under its name, checked. */
export type Named<A> =
  | { readonly name: string; readonly source: Extract<Source<unknown, A>, { readonly _tag: "Stream" }> }
  | {
    readonly name: string
    readonly source: Extract<Source<unknown, A>, { readonly _tag: "Tagged" }>
    readonly queries: Arr.NonEmptyReadonlyArray<TagQuery>
  }

/** A source, and what is kept of its fold. */
export type Sourced<A> =
  | Extract<Named<A>, { readonly source: { readonly _tag: "Stream" } }> & { readonly kept: KeptStream<unknown> }
  | Extract<Named<A>, { readonly source: { readonly _tag: "Tagged" } }> & {
    readonly kept: Kept<unknown, KnownTagged> | undefined
  }

/**
 * @internal
 */
export const withKept = <A>(
  snapshots: Snapshots,
  named: Named<A>,
  declared: Declared | undefined
): Effect.Effect<Sourced<A>> =>
  "queries" in named
    ? Effect.map(keptOfTags(snapshots, named.source.fold, named.queries, declared), (kept) => ({ ...named, kept }))
    : Effect.map(keptOf(snapshots, named.source.fold, named.source.stream), (kept) => ({ ...named, kept }))

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
  sources: ReadonlyArray<Sourced<A>>,
  inTransaction: boolean
): Basis<View, ReadError> => {
  const streams = sources.flatMap(({ source }) => source._tag === "Stream" ? [source.stream] : [])
  const tags = sources.flatMap((named) => queriesOf(named).map((query) => query.tags[0]))

  const readTo = (
    ends: Ends,
    before: ReadonlyArray<Before>,
    snapshots: ReadonlyArray<EncodedSnapshot | undefined>
  ): Effect.Effect<View, ReadError> => {
    let stream = 0
    let tag = 0
    const parts = sources.map((named, i): Effect.Effect<Known<unknown> | KnownTagged, ReadError> => {
      const { kept, source } = named
      const known = before[i]
      const snapshot = snapshots[i]
      const stored = snapshot && kept?.stateOf(snapshot)
      if ("queries" in named) {
        const own = ends.tags.slice(tag, tag += named.queries.length)
        const fromSnapshot = stored && snapshot && { ...stored, unsaved: 0, ends: snapshot.ends }
        const begin = known !== undefined && "ends" in known ? known : fromSnapshot
        return foldTagged(readUpTo, source.fold, named.queries, own, begin)
      }
      const { fold, stream: name } = named.source
      const head = ends.heads[stream++]
      const fromSnapshot = stored && snapshot && knownOf(name, stored, snapshot)
      const begin = known !== undefined && "head" in known ? known : fromSnapshot
      const toVersion = head?.version ?? 0
      return begin === undefined
        ? reading.all(name, fold, undefined, toVersion)
        : reading.on(name, fold, undefined, begin, toVersion)
    })
    return Effect.all(parts, { concurrency: inTransaction ? 1 : atOnce })
  }

  const read = (known: View | undefined): Effect.Effect<View, ReadError> =>
    Effect.suspend(() => {
      // What others have committed, a transaction may not see.
      const before = known ?? sources.map(({ kept }): Before => inTransaction ? undefined : kept?.remembered())
      const wanted = sources.map(({ kept }, i) => before[i] === undefined ? kept?.key : undefined)
      return Effect.flatMap(
        storage.ends(streams, tags, wanted.filter(Predicate.isNotUndefined)),
        (ends) => {
          let at = 0
          return readTo(ends, before, wanted.map((key) => key && ends.snapshots[at++]))
        }
      )
    })

  return {
    keys: Arr.dedupe([...streams.map(streamKey), ...tags.map((tag) => `tag ${tag}`)]).toSorted(),
    read: read(undefined),
    readOn: read,
    isSame: (before, now) => before === now,
    leaves: undefined,
    remember: sources.some(({ kept }) => kept !== undefined)
      ? remembering(
        storage,
        inTransaction,
        (view: View): View => view.map((known, i) => rememberOne(sources[i], known, inTransaction))
      )
      : undefined
  }
}

type Before = Known<unknown> | KnownTagged | undefined

/**
 * A transaction at REPEATABLE READ may see its own messages of a tag, and not those of others below them: of tags nothing is
 * kept that was known in a transaction. A stream at a version is the same for everybody.
 */
const rememberOne = <A>(
  sourced: Sourced<A> | undefined,
  known: Known<unknown> | KnownTagged,
  inTransaction: boolean
): Known<unknown> | KnownTagged => {
  if (sourced?.kept === undefined) return known
  if ("queries" in sourced) return "ends" in known && !inTransaction ? sourced.kept.remember(known) : known
  return "head" in known ? sourced.kept.remember(known) : known
}

/**
 * Of what was read what is expected of streams, and the conditions on tags, each with the name of its source.
 *
 * @internal
 */
export const requirementsOf = <A>(named: ReadonlyArray<Named<A>>, view: View) => {
  const expected = new Map<string, ReturnType<typeof expectedOf>>()
  const conditions: Array<{ readonly source: string; readonly condition: TagCondition }> = []
  for (const [i, one] of named.entries()) {
    const known = view[i]
    if (known === undefined) continue
    if ("head" in known) expected.set(known.head.stream, expectedOf(one.source.fold, known.head))
    else {
      for (const [q, query] of queriesOf(one).entries()) {
        conditions.push({ source: one.name, condition: { ...query, after: known.ends[q] ?? 0 } })
      }
    }
  }
  return { expected, conditions }
}
