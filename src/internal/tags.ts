/**
 * What messages can be found by beside their streams: the tags that a schema declares, taken from the encoded message.
 *
 * A tag is `name:value`. The value of a field is its encoded form, a string, a boolean or a whole number; of an array each
 * element gives a tag, and a field that is absent or null gives none. Fields of fields are found as well.
 */
import { Predicate, Result, SchemaAST } from "effect"
import type { Array as Arr, Schema } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import { tagAnnotation, type Tags } from "../Message.ts"
import { invalid } from "./checks.ts"
import { printable } from "./printable.ts"

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
}

/** How many tags a message may have. */
export const maximumTags = 32

/** How many characters (code points) a tag may have, its name included. */
export const maximumTagLength = 255

/** The locks of one write: as for streams, each tag has one. */
const maximumLocks = 500

/** Where tags are in encoded data. */
interface Place {
  readonly tag: string | undefined
  readonly fields: ReadonlyArray<readonly [key: string, place: Place]>
  readonly element: Place | undefined
}

/**
 * Reads what a schema declares; undefined: nothing. Throws if a tag is declared where it would not be found.
 */
export const declaredIn = (
  ast: SchemaAST.AST,
  typeField: string,
  aliases: ReadonlyMap<string, string>
): Declared | undefined => {
  const places = new Map<string, Place>()
  const types = new Set<string>()
  for (const member of membersOf(ast)) {
    const encoded = encodedOf(member)
    const type = typeOf(encoded)
    if (type !== undefined) types.add(type)
    const place = placeOf(encoded)
    const found = new Set(place === undefined ? [] : namesOf(place))
    const lost = Array.from(namesIn(member)).find((name) => !found.has(name))
    if (lost !== undefined) {
      throw new TypeError(
        `the tag "${lost}" of ${type ?? "a message"} is declared on ${notFound}`
      )
    }
    if (place === undefined) continue
    if (type === undefined) throw new TypeError("a tag is declared in a message that has no _tag, which names its type")
    places.set(type, place)
  }
  if (places.size === 0) return undefined
  const byType = new Map(Array.from(places, ([type, place]) => [type, new Set(namesOf(place))]))
  return {
    types,
    byType,
    typeField,
    storedNames: (type) => [type, ...Array.from(aliases).flatMap(([old, today]) => today === type ? [old] : [])],
    tagged: (data) => {
      if (!Predicate.hasProperty(data, typeField)) return Result.succeed(undefined)
      const type = String(data[typeField])
      const place = places.get(type) ?? places.get(aliases.get(type) ?? "")
      if (place === undefined) return Result.succeed(undefined)
      const tags = new Set<string>()
      const fault = collect(place, data, tags)
      if (fault !== undefined) return Result.fail(fault)
      if (tags.size > maximumTags) return Result.fail(`it has ${tags.size} tags, more than ${maximumTags}`)
      const [first, ...others] = tags
      return Result.succeed(first === undefined ? undefined : { type, tags: [first, ...others] })
    }
  }
}

/** Why a tag is refused. */
const notFound =
  "what has no text of its own in stored messages: declare it on a field that is a string, a number, a boolean, or an array of " +
  "them, in its encoded form"

/** Whether what is encoded is an object whatever its value, or an array of objects: neither can be a tag. */
const isObject = (ast: SchemaAST.AST): boolean => {
  const encoded = encodedOf(ast)
  if (SchemaAST.isObjects(encoded)) return true
  const parts = SchemaAST.isUnion(encoded)
    ? encoded.types.filter((member) => !SchemaAST.isNull(member) && !SchemaAST.isUndefined(member))
    : SchemaAST.isArrays(encoded)
    ? [...encoded.elements, ...encoded.rest]
    : []
  return parts.length > 0 && parts.every(isObject)
}

const noPlaces: ReadonlyArray<Place> = []

const membersOf = (ast: SchemaAST.AST): ReadonlyArray<SchemaAST.AST> =>
  SchemaAST.isUnion(ast) && ast.encoding === undefined ? ast.types.flatMap(membersOf) : [ast]

/** What stands at the far end of an encoding. */
const encodedOf = (ast: SchemaAST.AST): SchemaAST.AST => {
  const link = ast.encoding?.at(-1)
  return link === undefined ? ast : encodedOf(link.to)
}

const tagOf = SchemaAST.resolveAt<string>(tagAnnotation)

const typeOf = (ast: SchemaAST.AST): string | undefined => {
  if (!SchemaAST.isObjects(ast)) return undefined
  const type = ast.propertySignatures.find(({ name }) => name === "_tag")?.type
  const literal = type === undefined ? undefined : encodedOf(type)
  return literal !== undefined && SchemaAST.isLiteral(literal) ? String(literal.literal) : undefined
}

/** A field's own annotation counts, and that of its members or elements. */
const placeOf = (ast: SchemaAST.AST): Place | undefined => {
  const tag = tagOf(ast)
  const encoded = encodedOf(ast)
  const members = SchemaAST.isUnion(encoded) ? encoded.types.flatMap((member) => placeOf(member) ?? noPlaces) : noPlaces
  const elements = SchemaAST.isArrays(encoded)
    ? [...encoded.elements, ...encoded.rest].flatMap((element) => placeOf(element) ?? noPlaces)
    : noPlaces
  const fields = SchemaAST.isObjects(encoded)
    ? encoded.propertySignatures.flatMap(({ name, type }): ReadonlyArray<readonly [string, Place]> => {
      const place = placeOf(type)
      return place === undefined ? [] : [[String(name), place]]
    })
    : []
  if (tag !== undefined && isObject(encoded)) throw new TypeError(`the tag "${tag}" is declared on ${notFound}`)
  const place = {
    tag: tag ?? members.find((member) => member.tag !== undefined)?.tag,
    fields: [...fields, ...members.flatMap((member) => member.fields)],
    element: elements[0] ?? members.find(({ element }) => element !== undefined)?.element
  }
  return place.tag === undefined && place.fields.length === 0 && place.element === undefined ? undefined : place
}

const namesOf = (place: Place): ReadonlyArray<string> => [
  ...place.tag === undefined ? [] : [place.tag],
  ...place.fields.flatMap(([, field]) => namesOf(field)),
  ...place.element === undefined ? [] : namesOf(place.element)
]

/** The names of all tags that are declared anywhere in a schema. */
const namesIn = (ast: SchemaAST.AST): ReadonlySet<string> => {
  const names = new Set<string>()
  const seen = new Set<SchemaAST.AST>()
  const visit = (node: SchemaAST.AST): void => {
    if (seen.has(node)) return
    seen.add(node)
    const tag = tagOf(node)
    if (tag !== undefined) names.add(tag)
    for (const link of node.encoding ?? []) visit(link.to)
    if (SchemaAST.isUnion(node)) node.types.forEach(visit)
    else if (SchemaAST.isArrays(node)) [...node.elements, ...node.rest].forEach(visit)
    else if (SchemaAST.isDeclaration(node)) node.typeParameters.forEach(visit)
    else if (SchemaAST.isObjects(node)) {
      for (const { type } of node.propertySignatures) visit(type)
      for (const { type } of node.indexSignatures) visit(type)
    }
  }
  visit(ast)
  return names
}

/** Adds the tags at a place to those of the message, or says why it cannot. */
const collect = (place: Place, data: Schema.Json | undefined, tags: Set<string>): string | undefined => {
  if (data === undefined || data === null) return undefined
  if (Array.isArray(data)) {
    const { element = place } = place
    const each = { ...element, tag: element.tag ?? place.tag }
    for (const value of data as ReadonlyArray<Schema.Json>) {
      const fault = collect(each, value, tags)
      if (fault !== undefined) return fault
    }
    return undefined
  }
  for (const [key, field] of place.fields) {
    const fault = collect(field, Predicate.hasProperty(data, key) ? data[key] as Schema.Json : undefined, tags)
    if (fault !== undefined) return fault
  }
  if (place.tag === undefined) return undefined
  const text = textOf(data)
  if (text === undefined) return `its tag "${place.tag}" is neither a string, nor a boolean, nor a whole number`
  const tag = `${place.tag}:${text}`
  if (tag.length > maximumTagLength && Array.from(tag).length > maximumTagLength) {
    return `its tag "${place.tag}" has more than ${maximumTagLength} characters, its name included`
  }
  tags.add(tag)
  return undefined
}

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
): Result.Result<Arr.NonEmptyReadonlyArray<TagQuery>, InvalidArgumentError> =>
  Result.gen(function*() {
    const given = (Array.isArray(asked) ? asked : [asked]) as ReadonlyArray<Tags>
    const [first, ...others] = given
    if (first === undefined) return yield* invalid("tags", "must not be empty")
    if (types?.length === 0) return yield* invalid("types", "must not be empty: leave them out to ask for all")
    const hasAll = (type: string, one: Tags) => Object.keys(one).every((name) => declared?.byType.get(type)?.has(name))
    const without = types?.find((type) => !given.some((one) => hasAll(type, one)))
    if (without !== undefined) {
      const askedFor = given.map((one) => Object.keys(one).join(", ")).join(" or ")
      const own = Array.from(declared?.byType.get(without) ?? []).join(", ")
      return yield* invalid(
        "types",
        `must have the tags that are asked for (${printable(askedFor)}): ${printable(without)} has ${own || "none"}`
      )
    }
    if (given.length > maximumLocks) return yield* invalid("tags", `must not be more than ${maximumLocks} sets`)
    const check = (one: Tags) => checkQuery(declared, one, types)
    return [yield* check(first), ...yield* Result.all(others.map(check))] as const
  })

const checkQuery = (
  declared: Declared | undefined,
  asked: Tags,
  types: ReadonlyArray<string> | undefined
): Result.Result<TagQuery, InvalidArgumentError> => {
  const names = Object.keys(asked)
  const candidates = types ?? Array.from(declared?.byType.keys() ?? [])
  const having = candidates.filter((type) => names.every((name) => declared?.byType.get(type)?.has(name)))
  if (having.length === 0 && names.length > 0) {
    return invalid(
      "tags",
      `no message type${types === undefined ? "" : " of those"} has the tags ${printable(names.join(", "))}`
    )
  }
  const tags: Array<string> = []
  for (const [name, value] of Object.entries(asked)) {
    const text = textOf(value)
    if (text === undefined) return invalid("tags", `must have strings, booleans or whole numbers as values`)
    const tag = `${name}:${text}`
    if (tag.includes("\0") || !tag.isWellFormed()) return invalid("tags", "must not contain NUL or lone surrogates")
    if (Array.from(tag).length > maximumTagLength) {
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
  const tags = new Set(items.flatMap(({ messages }) => messages.flatMap(({ tagged }) => tagged?.tags ?? [])))
  return tags.size <= maximumLocks
    ? Result.void
    : invalid("messages", `must not have more than ${maximumLocks} different tags in one write: write them in parts`)
}
