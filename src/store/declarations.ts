/**
 * The tags that a store's schema declares, beside those that are declared in the backend: what its writers know of them, and
 * whether what it asks about is there as a whole.
 */
import { Effect, Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { TagsIncompleteError } from "../errors.ts"
import { isSame } from "../internal/tagPaths.ts"
import type { Declared } from "../internal/tags.ts"
import type { RequireTags } from "../Reader.ts"
import type { Declarations, DeclaredTag, Storage, TagQuery } from "../Storage.ts"

/** How long a store that opens waits for transactions that may write messages without their tags. */
const patience = Schedule.max([Schedule.spaced("10 millis"), Schedule.during("2 seconds")])

/**
 * Declares the tags of a schema. Where no message of their types is stored, they are complete; else they are once the store was
 * tagged.
 *
 * @internal
 */
export const declare = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  name: string,
  declared: Declared | undefined
): Effect.fn.Return<{ readonly knownTags: number | undefined; readonly requireTags: RequireTags }, SqlError> {
  const places = declared?.paths ?? []
  let declarations = places.length === 0 ? yield* storage.declaredTags : yield* storage.declareTags(places)
  const isUnsettled = incomplete(declared, declarations).some(({ upTo }) => upTo === undefined)
  if (isUnsettled && !(yield* storage.inTransaction)) { // whose end cannot be waited for in it
    yield* Effect.repeat(storage.settleTags(places), { until: (waitsFor) => waitsFor === 0, schedule: patience }).pipe(
      // Who may not change what is declared may still read and write.
      Effect.catchIf(({ reason }) => reason._tag === "AuthorizationError", () => Effect.void)
    )
    declarations = yield* storage.declaredTags
  }
  const isOpen = incomplete(declared, declarations).length > 0
  let isComplete = !isOpen

  const requireTags: RequireTags = Effect.fnUntraced(function*(queries, declaredTags) {
    if (isComplete) return
    const left = incomplete(declared, yield* declaredTags)
    // A transaction, or a snapshot, may be older than this answer.
    if (left.length === 0 && declaredTags === storage.declaredTags) isComplete = !(yield* storage.inTransaction)
    const asked = left.filter((place) => queries.some((query) => concerns(declared, query, place)))
    if (asked.length === 0) return
    const distinct = (texts: ReadonlyArray<string>) => Array.from(new Set(texts))
    return yield* new TagsIncompleteError({
      store: name,
      tags: distinct(asked.map(({ tag }) => tag)),
      types: distinct(asked.map(({ type }) => type))
    })
  })

  return { knownTags: coversAll(declared, declarations) ? declarations.number : undefined, requireTags }
})

/**
 * The places that a schema declares, as the backend has them.
 *
 * @internal
 */
export const declaredBy = (declared: Declared | undefined, { tags }: Declarations): ReadonlyArray<DeclaredTag> =>
  tags.filter((one) => declared?.paths.some((place) => isSame(place, one)))

/**
 * Those of them that not all messages have yet which were stored before.
 *
 * @internal
 */
export const incomplete = (declared: Declared | undefined, declarations: Declarations): ReadonlyArray<DeclaredTag> =>
  declaredBy(declared, declarations).filter(({ isComplete }) => !isComplete)

/** Whether the messages of a schema have no type that the backend knows more tags of. */
const coversAll = (declared: Declared | undefined, { tags }: Declarations): boolean => {
  if (declared === undefined) return tags.length === 0
  const written = new Set(Array.from(declared.types).flatMap(declared.storedNames))
  return tags.every((one) => !written.has(one.type) || declared.paths.some((place) => isSame(place, one)))
}

const concerns = (declared: Declared | undefined, { tags, types }: TagQuery, { tag, type }: DeclaredTag): boolean => {
  const names = tags.map((one) => one.slice(0, one.indexOf(":")))
  const hasAll = () => names.every((name) => declared?.paths.some((place) => place.type === type && place.tag === name))
  return names.includes(tag) && (types === undefined ? hasAll() : types.includes(type))
}
