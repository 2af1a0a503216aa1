/**
 * What messages can be found by beside their streams: the tags that a schema declares, taken from the encoded message.
 *
 * A tag is `name:value`. The value of a field is its encoded form, a string, a boolean or a whole number; of an array each
 * element gives a tag, and a field that is absent or null gives none. Fields of fields are found as well.
 */
import { Array as Arr, Predicate, Result } from "effect"
import type { Schema, SchemaAST } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import type { Tags } from "../Message.ts"
import { invalid } from "./checks.ts"
import { printable } from "./printable.ts"
import { type TagPath, tagPathsOf, valuesAt } from "./tagPaths.ts"

/** What a message is found by: the name of its type, as it is stored, and its tags, none twice. */
export interface Tagged {
  readonly type: string
  readonly tags: Arr.NonEmptyReadonlyArray<string>
}

/** Asks for messages that have all of these tags, and one of the types if there are any. */
export interface TagQuery {
  /** The first one is locked. */
  readonly tags: Arr.NonEmptyReadonlyArray<string>
  readonly types: ReadonlyArray<string> | undefined
}

/** The tags that a schema declares. */
export interface Declared {
  /** All types, those without tags included. */
  readonly types: ReadonlySet<string>
  /** Of each type the names of its tags. */
  readonly byType: ReadonlyMap<string, ReadonlySet<string>>
  /** The tags of an encoded message, if it has any; or why it cannot have them. */
  readonly tagged: (data: Schema.Json) => Result.Result<Tagged | undefined, string>
  /** The field of stored data that names the type. */
  readonly typeField: string
  /** The names that a type has in stored data. */
  readonly storedNames: (type: string) => ReadonlyArray<string>
  /** Where the tags are in stored data, under each name that their types have there. */
  readonly paths: ReadonlyArray<TagPath>
}

/** How many tags a message may have. */
export const maximumTags = 32

/** How many characters (code points) a tag may have, its name included. */
export const maximumTagLength = 255

/** The locks of one write: as for streams, each tag has one. */
const maximumLocks = 500

/**
 * Reads what a schema declares; undefined: nothing. Throws if a tag is declared where it would not be found.
 */
export const declaredIn = (
  ast: SchemaAST.AST,
  typeField: string,
  aliases: ReadonlyMap<string, string>
): Declared | undefined => {
  const places = tagPathsOf(ast)
  const byType = new Map(
    Array.from(places, ([type, found]) => [type, new Set(found.map(({ tag }) => tag))] as const)
      .filter(([, names]) => names.size > 0)
  )
  if (byType.size === 0) return undefined
  const storedNames = (type: string) => [
    type,
    ...Array.from(aliases).flatMap(([old, today]) => today === type ? [old] : [])
  ]
  const paths = Array.from(places).flatMap(([today, found]) =>
    storedNames(today).flatMap((type) => found.map((place): TagPath => ({ ...place, type, typeField })))
  )
  return {
    types: new Set(places.keys()),
    byType,
    typeField,
    storedNames,
    paths,
    tagged: (data) => {
      if (!Predicate.hasProperty(data, typeField)) return Result.succeed(undefined)
      const type = String(data[typeField])
      const found = places.get(type) ?? places.get(aliases.get(type) ?? "")
      return found === undefined ? Result.succeed(undefined) : tagsAt(found, type, data)
    }
  }
}

/** The tags that a message of a type has at given places, if it has any; or why it cannot have them. */
export const tagsAt = (
  places: ReadonlyArray<Pick<TagPath, "tag" | "path">>,
  type: string,
  data: Schema.Json
): Result.Result<Tagged | undefined, string> => {
  const found: Array<string> = []
  for (const { path, tag: name } of places) {
    for (const value of valuesAt(data, path)) {
      const text = textOf(value)
      if (text === undefined) {
        return Result.fail(`its tag "${name}" is neither a string, nor a boolean, nor a whole number`)
      }
      const tag = `${name}:${text}`
      if (tag.length > maximumTagLength && Array.from(tag).length > maximumTagLength) {
        return Result.fail(`its tag "${name}" has more than ${maximumTagLength} characters, its name included`)
      }
      found.push(tag)
    }
  }
  // Of a few, a look at all those before costs less than a set.
  const tags = found.length > maximumTags
    ? Array.from(new Set(found))
    : found.filter((tag, i) => found.indexOf(tag) === i)
  if (tags.length > maximumTags) return Result.fail(`it has ${tags.length} tags, more than ${maximumTags}`)
  return Result.succeed(Arr.isReadonlyArrayNonEmpty(tags) ? { type, tags } : undefined)
}

/** Whether stored data is of the type that a tag is declared of. */
export const isOfType = ({ type, typeField }: TagPath, data: unknown): boolean =>
  Predicate.hasProperty(data, typeField) && String(data[typeField]) === type

/** The tags that stored data has where they are declared, by whatever build; those that it cannot have are left out. */
export const declaredTagsOf = (places: ReadonlyArray<TagPath>, data: Schema.Json): ReadonlyArray<string> =>
  Arr.dedupe(
    places.filter((place) => isOfType(place, data)).flatMap((place) => {
      const found = tagsAt([place], place.type, data)
      return Result.isSuccess(found) ? found.success?.tags ?? [] : []
    })
  )

const textOf = (value: unknown): string | undefined =>
  Predicate.isString(value)
    ? value
    : Predicate.isBoolean(value) || Predicate.isBigInt(value) ||
        (Predicate.isNumber(value) && Number.isSafeInteger(value))
    ? String(value)
    : undefined

/** What is asked for by names and values of tags, and by types. */
export const checkQueries = (
  declared: Declared | undefined,
  asked: Tags | Arr.NonEmptyReadonlyArray<Tags>,
  types: ReadonlyArray<string> | undefined
): Result.Result<Arr.NonEmptyReadonlyArray<TagQuery>, InvalidArgumentError> => {
  const given = (Array.isArray(asked) ? asked : [asked]) as ReadonlyArray<Tags>
  const [first, ...others] = given
  if (first === undefined) return invalid("tags", "must not be empty")
  if (types?.length === 0) return invalid("types", "must not be empty: leave them out to ask for all")
  const hasAll = (type: string, one: Tags) => Object.keys(one).every((name) => declared?.byType.get(type)?.has(name))
  const without = types?.find((type) => !given.some((one) => hasAll(type, one)))
  if (without !== undefined) {
    const askedFor = given.map((one) => Object.keys(one).join(", ")).join(" or ")
    const own = Array.from(declared?.byType.get(without) ?? []).join(", ")
    return invalid(
      "types",
      `must have the tags that are asked for (${printable(askedFor)}): ${printable(without)} has ${own || "none"}`
    )
  }
  if (given.length > maximumLocks) return invalid("tags", `must not be more than ${maximumLocks} sets`)
  // Plain loops: this runs for every decision.
  const checked = checkQuery(declared, first, types)
  if (Result.isFailure(checked)) return Result.fail(checked.failure)
  const queries: Arr.NonEmptyArray<TagQuery> = [checked.success]
  for (const one of others) {
    const other = checkQuery(declared, one, types)
    if (Result.isFailure(other)) return Result.fail(other.failure)
    queries.push(other.success)
  }
  return Result.succeed(queries)
}

const checkQuery = (
  declared: Declared | undefined,
  asked: Tags,
  types: ReadonlyArray<string> | undefined
): Result.Result<TagQuery, InvalidArgumentError> => {
  const names = Object.keys(asked)
  const candidates = types ?? Array.from(declared?.byType.keys() ?? [])
  const having = candidates.filter((type) => names.every((name) => declared?.byType.get(type)?.has(name)))
  if (having.length === 0 && names.length > 0) {
    const own = candidates.map((type) =>
      `${type} has ${Array.from(declared?.byType.get(type) ?? []).join(", ") || "none"}`
    )
    return invalid(
      "tags",
      `must be tags of one message type, and none has ${printable(names.join(", "))}: ${
        printable(own.join("; ")) || "the schema declares no tags"
      }`
    )
  }
  const tags: Array<string> = []
  for (const [name, value] of Object.entries(asked)) {
    const text = textOf(value)
    if (text === undefined) return invalid("tags", `must have strings, booleans or whole numbers as values`)
    const tag = `${name}:${text}`
    if (tag.includes("\0") || !tag.isWellFormed()) return invalid("tags", "must not contain NUL or lone surrogates")
    if (tag.length > maximumTagLength && Array.from(tag).length > maximumTagLength) {
      return invalid("tags", `must have at most ${maximumTagLength} characters each, their names included`)
    }
    tags.push(tag)
  }
  const [first, ...others] = tags
  if (first === undefined) return invalid("tags", "must not be empty: of all messages nothing can be locked")
  return Result.succeed({
    tags: [first, ...others],
    types: types === undefined ? undefined : having.flatMap((type) => declared?.storedNames(type) ?? [])
  })
}

/** The tags of one write. */
export const checkTags = (
  items: ReadonlyArray<{ readonly messages: ReadonlyArray<{ readonly tagged?: Tagged | undefined }> }>
): Result.Result<void, InvalidArgumentError> => {
  let count = 0
  for (const { messages } of items) for (const { tagged } of messages) count += tagged?.tags.length ?? 0
  if (count <= maximumLocks) return Result.void
  const tags = new Set(items.flatMap(({ messages }) => messages.flatMap(({ tagged }) => tagged?.tags ?? [])))
  return tags.size <= maximumLocks
    ? Result.void
    : invalid("messages", `must not have more than ${maximumLocks} different tags in one write: write them in parts`)
}
