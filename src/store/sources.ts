/**
 * What a decision on several sources reads, and what it requires.
 *
 * The ends of all sources are read in one statement; what is read up to them later is still what was there at that moment. So no
 * snapshot and no connection is held while something is read, decided and written. Of a single source the first page tells where
 * it ends, and most have no second one.
 */
import { Array as Arr, Effect, Equivalence, Exit, Predicate } from "effect"
import type { StreamSource, TaggedSource } from "../Decision.ts"
import type { Declared } from "../internal/tags.ts"
import type { Internal, ReadError } from "../Reader.ts"
import type { EncodedSnapshot, Ends, Storage, TagQuery } from "../Storage.ts"
import type { Kept, Snapshots } from "./snapshots.ts"
import { foldAll, foldTagged, keptOfTags, type KnownTagged } from "./tagged.ts"
import { keptOf, type KeptStream, type Known, knownOf, nothing, type ReadStream } from "./update.ts"

/** A source under its name, checked. */
export type Named<A> =
  | { readonly name: string; readonly source: StreamSource<unknown, A> }
  | {
    readonly name: string
    readonly source: TaggedSource<unknown, A>
    readonly queries: Arr.NonEmptyReadonlyArray<TagQuery>
  }

/** A source, and what is kept of its fold. */
export type Sourced<A> =
  & {
    /** Decisions whose sources have one of these in common are made in turn. */
    readonly keys: ReadonlyArray<string>
  }
  & (
    | Extract<Named<A>, { readonly source: { readonly _tag: "Stream" } }> & { readonly kept: KeptStream<unknown> }
    | Extract<Named<A>, { readonly source: { readonly _tag: "Tagged" } }> & {
      readonly kept: Kept<unknown, KnownTagged> | undefined
    }
  )

export const streamKey = (stream: string): string => `stream ${stream}`
export const tagKey = (tag: string): string => `tag ${tag}`

/**
 * @internal
 */
export const withKept = <A>(
  snapshots: Snapshots,
  named: Named<A>,
  declared: Declared | undefined
): Effect.Effect<Sourced<A>> =>
  "queries" in named
    ? Effect.map(keptOfTags(snapshots, named.source.fold, named.queries, declared), (kept) => ({
      ...named,
      kept,
      keys: Arr.dedupe(named.queries.map((query) => tagKey(query.tags[0])))
    }))
    : Effect.map(keptOf(snapshots, named.source.fold, named.source.stream), (kept) => ({
      ...named,
      kept,
      keys: [streamKey(named.source.stream)]
    }))

/** What a source comes to, and where it ended then. */
export type KnownSource = Known<unknown> | KnownTagged

/** Of each source what it comes to, in their order. */
export type View = ReadonlyArray<KnownSource>

/**
 * Reads sources in one consistent view; of those that are known only what was added. Where many are `asking` at once, where
 * their sources end is asked for all of them together, also of one: of what is new nothing else is to be read.
 */
export interface ReadSources<A> {
  (
    sources: ReadonlyArray<Sourced<A>>,
    known: ReadonlyArray<KnownSource | undefined>,
    inTransaction: boolean,
    asking?: "one" | "many"
  ): Effect.Effect<View, ReadError>
}

/** How many sources are read at once; in a transaction one. */
const atOnce = 4

export const queriesOf = <A>(named: Named<A>): ReadonlyArray<TagQuery> => "queries" in named ? named.queries : []

export const streamsAndTags = <A>(sources: ReadonlyArray<Named<A>>) => ({
  streams: sources.flatMap(({ source }) => source._tag === "Stream" ? [source.stream] : []),
  tags: sources.flatMap((named) => queriesOf(named).map((query) => query.tags[0]))
})

/** Whether two sources read the same, and come to the same. */
export const isSame = <A>(a: Named<A>, b: Named<A>): boolean =>
  a.source.fold === b.source.fold &&
  (a.source._tag === "Stream"
    ? b.source._tag === "Stream" && a.source.stream === b.source.stream
    : sameQueries(queriesOf(a), queriesOf(b)))

const sameTexts = Arr.makeEquivalence<string>(Equivalence.strictEqual())
const isSameQuery = (a: TagQuery, b: TagQuery): boolean =>
  sameTexts(a.tags, b.tags) &&
  (a.types === b.types || (a.types !== undefined && b.types !== undefined && sameTexts(a.types, b.types)))
const sameQueries = Arr.makeEquivalence<TagQuery>(isSameQuery)

/**
 * @internal
 */
export const makeReadSources = <A>(
  storage: Storage["Service"],
  reading: ReadStream<A>,
  readQueries: Internal<A>["readQueries"]
): ReadSources<A> => {
  const readTo = (
    sources: ReadonlyArray<Sourced<A>>,
    ends: Ends,
    before: ReadonlyArray<KnownSource | undefined>,
    snapshots: ReadonlyArray<EncodedSnapshot | undefined>,
    inTransaction: boolean
  ): Effect.Effect<View, ReadError> => {
    let stream = 0
    let tag = 0
    const ofTags = ends.editions.slice(ends.heads.length)
    const parts = sources.map((named, i): Effect.Effect<KnownSource, ReadError> => {
      const { kept, source } = named
      const known = before[i]
      const snapshot = snapshots[i]
      const stored = snapshot && kept?.stateOf(snapshot)
      if ("queries" in named) {
        const editions = ofTags.slice(tag, tag + named.queries.length)
        const own = ends.tags.slice(tag, tag += named.queries.length)
        const fromSnapshot = stored && snapshot && { ...stored, unsaved: 0, ends: snapshot.ends, editions }
        const begin = known !== undefined && "ends" in known ? known : fromSnapshot
        return foldTagged(readQueries, source.fold, named.queries, own, editions, begin)
      }
      const { fold, stream: name } = named.source
      const edition = ends.editions[stream] ?? 0
      const head = ends.heads[stream++]
      const fromSnapshot = stored && snapshot && knownOf(name, stored, snapshot, edition)
      const begin = known !== undefined && "head" in known ? known : fromSnapshot
      const toVersion = head?.version ?? 0
      if (toVersion === 0) return Effect.succeed(nothing(name, fold, edition))
      return begin === undefined
        ? reading.all(name, fold, undefined, toVersion)
        : reading.on(name, fold, undefined, begin, toVersion)
    })
    // Where nothing is to be read, the states are at hand.
    const isAtOnce = !inTransaction && parts.filter((part) => !Exit.isExit(part)).length > 1
    return Effect.all(parts, { concurrency: isAtOnce ? atOnce : 1 })
  }

  return (sources, known, inTransaction, asking = "one") =>
    Effect.suspend(() => {
      const [only] = sources
      if (only !== undefined && sources.length === 1 && asking === "one") {
        const [before] = known
        if ("queries" in only) {
          const { kept, queries, source: { fold } } = only
          if (kept === undefined && before === undefined) return Effect.map(foldAll(readQueries, fold, queries), Arr.of)
        } else {
          const { kept, source: { fold, stream } } = only
          const all = before !== undefined && "head" in before
            ? reading.on(stream, fold, kept, before)
            : reading.all(stream, fold, kept)
          return Effect.map(all, Arr.of)
        }
      }
      // What others have committed, a transaction may not see.
      const before = sources.map(({ kept }, i) => known[i] ?? (inTransaction ? undefined : kept?.remembered()))
      const wanted = sources.map(({ kept }, i) => before[i] === undefined ? kept?.key : undefined)
      const { streams, tags } = streamsAndTags(sources)
      const view: Effect.Effect<View, ReadError> = Effect.flatMap(
        storage.ends(streams, tags, wanted.filter(Predicate.isNotUndefined)),
        (ends) => {
          let at = 0
          const snapshots = wanted.map((key) => key && ends.snapshots[at++])
          return Effect.flatMap(
            readTo(sources, ends, before, snapshots, inTransaction),
            (read) => isTorn(read, ends) ? view : Effect.succeed(read)
          )
        }
      )
      return view
    })
}

/** Whether something was deleted or redacted while streams were read. */
const isTorn = (view: View, { editions, heads }: Ends): boolean =>
  view.flatMap((known) => "head" in known ? [known] : []).some(({ edition, head: { version } }, i) =>
    version !== heads[i]?.version || (version > 0 && edition !== editions[i])
  )

/**
 * Remembers what a source comes to, if its fold has snapshots; gives it back as it is remembered.
 *
 * @internal
 */
export const remember = <A>(sourced: Sourced<A>, known: KnownSource): KnownSource => {
  if ("queries" in sourced) return "ends" in known && sourced.kept !== undefined ? sourced.kept.remember(known) : known
  return "head" in known && sourced.kept !== undefined ? sourced.kept.remember(known) : known
}
