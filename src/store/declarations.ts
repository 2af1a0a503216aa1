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
import type { Declarations, DeclaredTag, Storage, TagPath, TagQuery } from "../Storage.ts"

/** How long a store that opens waits for transactions that may write messages without their tags. */
const patience = Schedule.max([Schedule.spaced("10 millis"), Schedule.during("2 seconds")])

/**
 * Declares the tags of a schema, if it may. Where no message of their types is stored, they are complete; else they are once the store
 * was tagged. A server that takes the place of another may lack what was declared, and what was complete: both are looked at
 * again as soon as it has answered.
 *
 * @internal
 */
export const declare = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  name: string,
  declared: Declared | undefined,
  mayDeclare: boolean
): Effect.fn.Return<
  { readonly knownTags: () => number | undefined; readonly requireTags: RequireTags },
  SqlError
> {
  const places = declared?.paths ?? []
  const look = Effect.gen(function*() {
    const before = places.length === 0 || !mayDeclare ? yield* storage.declaredTags : yield* storage.declareTags(places)
    const isUnsettled = incomplete(declared, before).some(({ upTo }) => upTo === undefined)
    if (!isUnsettled || !mayDeclare || (yield* storage.inTransaction)) return before // whose end cannot be waited for in it
    yield* Effect.repeat(storage.settleTags(places), { until: (waitsFor) => waitsFor === 0, schedule: patience }).pipe(
      // Who may not change what is declared may still read and write.
      Effect.catchIf(({ reason }) => reason._tag === "AuthorizationError", () => Effect.void)
    )
    return yield* storage.declaredTags
  })
  const numberOf = (found: Declarations) => coversAll(declared, found) ? found.number : undefined
  const declarations = yield* look
  let number = numberOf(declarations)
  let run = storage.serverRun()
  let isComplete = missing(declared, declarations).length === 0
  const isCurrent = () => isComplete && run === storage.serverRun()

  const requireAll = Effect.fnUntraced(function*(
    queries: ReadonlyArray<TagQuery>,
    declaredTags: Storage["Service"]["declaredTags"]
  ) {
    // A transaction, or a snapshot, may be older than this answer.
    const isLatest = declaredTags === storage.declaredTags && !(yield* storage.inTransaction)
    const found = yield* isLatest && run !== storage.serverRun() ? look : declaredTags
    const left = missing(declared, found)
    if (isLatest) {
      number = numberOf(found)
      run = storage.serverRun()
      isComplete = left.length === 0
    }
    const asked = left.filter((place) => queries.some((query) => concerns(declared, query, place)))
    if (asked.length === 0) return
    const distinct = (texts: ReadonlyArray<string>) => Array.from(new Set(texts))
    return yield* new TagsIncompleteError({
      store: name,
      tags: distinct(asked.map(({ tag }) => tag)),
      types: distinct(asked.map(({ type }) => type))
    })
  })

  return {
    knownTags: () => number,
    requireTags: (queries, declaredTags) => isCurrent() ? Effect.void : requireAll(queries, declaredTags)
  }
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

/** The same, and those that the backend does not have at all. */
const missing = (declared: Declared | undefined, declarations: Declarations): ReadonlyArray<TagPath> => [
  ...incomplete(declared, declarations),
  ...(declared?.paths ?? []).filter((place) => !declarations.tags.some((one) => isSame(place, one)))
]

/** Whether the messages of a schema have no type that the backend knows more tags of. */
const coversAll = (declared: Declared | undefined, { tags }: Declarations): boolean => {
  if (declared === undefined) return tags.length === 0
  const written = new Set(Array.from(declared.types).flatMap(declared.storedNames))
  return tags.every((one) => !written.has(one.type) || declared.paths.some((place) => isSame(place, one)))
}

const concerns = (declared: Declared | undefined, { tags, types }: TagQuery, { tag, type }: TagPath): boolean => {
  const names = tags.map((one) => one.slice(0, one.indexOf(":")))
  const hasAll = () => names.every((name) => declared?.paths.some((place) => place.type === type && place.tag === name))
  return names.includes(tag) && (types === undefined ? hasAll() : types.includes(type))
}
