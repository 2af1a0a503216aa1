/** What was read is a condition of what is written. */
import { Array as Arr, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { MessagePosition } from "../Message.ts"
import type { ReadError } from "../Reader.ts"
import type { AppendItem, AppendOutcome, Storage, TagCondition } from "../Storage.ts"
import type { Evolving } from "./evolving.ts"
import { type KnownSource, queriesOf, type ReadSources, type Sourced, streamsAndTags } from "./sources.ts"
import { expectedOf } from "./update.ts"

/** Whether sources end where they did; of one stream also what it comes to now. */
export interface Looked {
  readonly isUnchanged: boolean
  readonly now: KnownSource | undefined
}

/**
 * Looks whether sources end where they did. A stream alone is read on, unless decisions that are not written have evolved it:
 * a page says both.
 *
 * @internal
 */
export const look = <A>(
  storage: Storage["Service"],
  read: ReadSources<A>,
  sources: ReadonlyArray<Evolving<A>>
): Effect.Effect<Looked, SqlError | ReadError> => {
  const named = sources.map((source) => source.named)
  const ended = sources.map(({ end }) => end)
  const heads = ended.flatMap((end) => "head" in end ? [end.head] : [])
  const editions = [
    ...ended.flatMap((end) => "head" in end ? [end.edition] : []),
    ...ended.flatMap((end) => "ends" in end ? end.editions : [])
  ]
  const [only] = sources.length === 1 ? sources : []
  if (only !== undefined && "head" in only.known && only.known.head.version === heads[0]?.version) {
    return Effect.map(read(named, [only.known], false), ([now]) => ({
      isUnchanged: now !== undefined && "head" in now && now.head.globalPosition === heads[0]?.globalPosition &&
        now.edition === editions[0],
      now
    }))
  }
  const lasts = ended.flatMap((end) => "ends" in end ? end.ends : [])
  const { streams, tags } = streamsAndTags(named)
  return Effect.map(storage.ends(streams, tags, []), (ends) => ({
    isUnchanged: ends.heads.every(({ globalPosition }, i) => globalPosition === heads[i]?.globalPosition) &&
      ends.tags.every((end, i) => end === lasts[i]) && ends.editions.every((edition, i) => edition === editions[i]),
    now: undefined
  }))
}

/** An append that goes through only if what was read is unchanged. */
export interface Conditional {
  readonly items: Arr.NonEmptyReadonlyArray<AppendItem>
  /** How many of the items are conditions alone; they come first. */
  readonly required: number
  /** The names of the sources that the conditions are of. */
  readonly conditions: ReadonlyArray<string>
}

/**
 * The items of an atomic append, on condition that sources are as they are known: of a stream its head, which the first
 * item expects that is written to it (a second one finds what the first one left), or an item without messages; of tags
 * that nothing was added.
 *
 * @internal
 */
export const conditional = <A>(
  sources: ReadonlyArray<readonly [Sourced<A>, KnownSource]>,
  [first, ...others]: Arr.NonEmptyReadonlyArray<AppendItem>
): Conditional => {
  const expected = new Map<string, ReturnType<typeof expectedOf>>()
  const conditions: Array<TagCondition> = []
  const names: Array<string> = []
  const distinct = new Set<string>()
  for (const [named, known] of sources) {
    if ("head" in known) {
      const { stream, version } = known.head
      const other = expected.get(stream)
      // Of two that were read at different moments the older one is not so any more: positions rise, versions do, too.
      if (other !== undefined && other.expectedVersion < version) continue
      const own = expectedOf(known)
      const isBefore = other !== undefined && ((other.expectedPosition ?? 0) < (own.expectedPosition ?? 0) ||
        other.expectedEdition < own.expectedEdition)
      if (!isBefore) expected.set(stream, own)
    } else {
      for (const [q, query] of queriesOf(named).entries()) {
        const condition = { ...query, after: known.ends[q] ?? 0, edition: known.editions[q] ?? 0 }
        // Folds differ, what they were made on may not.
        const key = JSON.stringify(condition)
        if (distinct.has(key)) continue
        distinct.add(key)
        conditions.push(condition)
        names.push(named.name)
      }
    }
  }
  const expecting = (item: AppendItem): AppendItem => {
    const head = expected.get(item.stream)
    expected.delete(item.stream)
    return { ...item, ...head }
  }
  const written = [expecting(first), ...others.map(expecting)] as const
  const required = Array.from(expected, ([stream, head]): AppendItem => ({
    stream,
    ...head,
    messages: [],
    metadata: "{}"
  }))
  const [head, ...tail] = Arr.appendAll(required, written)
  return {
    items: conditions.length === 0 ? [head, ...tail] : [{ ...head, conditions }, ...tail],
    required: required.length,
    conditions: names
  }
}

/** The outcome of the first item that was refused; none if all were written. */
export const refusalOf = (outcomes: ReadonlyArray<AppendOutcome>): AppendOutcome | undefined =>
  outcomes.find(({ _tag }) => _tag !== "Written" && _tag !== "Unchanged" && _tag !== "Skipped")

/** Whether others have changed what the decision was made on. */
export const isConflict = (refusal: AppendOutcome | undefined): boolean =>
  refusal?._tag === "WrongVersion" || refusal?._tag === "Conflict" || refusal?._tag === "Outdated"

/** The positions of the items that were written, of each its last message. */
export const positionsOf = (
  { items }: Conditional,
  outcomes: ReadonlyArray<AppendOutcome>
): ReadonlyArray<MessagePosition> =>
  items.flatMap(({ stream }, i) => {
    const outcome = outcomes[i]
    return outcome?._tag === "Written"
      ? [{ stream, version: outcome.version, globalPosition: outcome.globalPosition }]
      : []
  })
