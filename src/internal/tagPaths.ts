/**
 * Where the tags that a schema declares are in stored messages, as paths: what the database is told, so that it finds the tags of
 * messages whose writers do not know them.
 */
import { SchemaAST } from "effect"
import type { Schema } from "effect"
import { tagAnnotation } from "../Message.ts"

/** The names of fields on the way to a value; null steps into an array. Arrays that no step names are stepped into as well. */
export type Path = ReadonlyArray<string | null>

/** Where a tag of a type of messages may be found. */
export interface TagPath {
  /** The name of the type as it is stored. */
  readonly type: string
  /** The field of stored messages that names their type. */
  readonly typeField: string
  readonly tag: string
  readonly path: Path
  /** Whether a message has the tag in any case: in one that has not, it stood somewhere else when that was written. */
  readonly isRequired: boolean
}

type Found = Pick<TagPath, "tag" | "path" | "isRequired">

/** Of each type the places of its tags; of a type without tags none. Throws if a tag is declared where it would not be found. */
export const tagPathsOf = (ast: SchemaAST.AST): ReadonlyMap<string, ReadonlyArray<Found>> => {
  const members = membersOf(ast).map((member) => {
    const encoded = encodedOf(member)
    return { member, type: typeOf(encoded), places: placesOf(encoded, true) }
  })
  const byType = new Map<string, ReadonlyArray<Found>>()
  for (const { member, places, type } of members) {
    // An older shape of a type need not declare what today's does.
    const ofType = members.filter((other) => other.type === type)
    const found = new Set(ofType.flatMap((other) => other.places.map(({ tag }) => tag)))
    const lost = Array.from(namesIn(member)).find((name) => !found.has(name))
    if (lost !== undefined) {
      throw new TypeError(
        `the tag "${lost}" of ${type ?? "a message"} is declared on ${notFound}`
      )
    }
    if (type === undefined) {
      if (places.length === 0) continue
      throw new TypeError("a tag is declared in a message that has no _tag, which names its type")
    }
    // An older shape that does not declare it has it too, where only the serializer finds it.
    const required = (tag: string) =>
      ofType.map((other) => other.places.filter((place) => place.tag === tag))
        .every((own) => own.length === 0 || own.some((place) => place.isRequired))
    const distinct = new Map([...byType.get(type) ?? [], ...places].map((place) => [keyOf(place), place]))
    byType.set(type, Array.from(distinct.values(), (place) => ({ ...place, isRequired: required(place.tag) })))
  }
  return byType
}

/** The types of messages that a schema knows, as they are stored; undefined if one of them has no name. */
export const typesOf = (ast: SchemaAST.AST): ReadonlySet<string> | undefined => {
  const types = membersOf(ast).map((member) => typeOf(encodedOf(member)))
  return types.every((type) => type !== undefined) ? new Set(types) : undefined
}

/** What tells a place from others of its type. */
export const keyOf = ({ path, tag }: Pick<TagPath, "tag" | "path">): string => JSON.stringify([tag, ...path])

/** Whether two places are the same place of the same type. */
export const isSame = (a: TagPath, b: TagPath): boolean => a.type === b.type && keyOf(a) === keyOf(b)

/** The values at a path. Absent ones and null are none. */
export const valuesAt = (data: Schema.Json | undefined, path: Path, at = 0): ReadonlyArray<Schema.Json> => {
  // A plain loop: this runs for every tag of every message.
  let found = data
  for (; !Array.isArray(found); at++) {
    if (found === undefined || found === null) return none
    const step = path[at]
    if (step === undefined) return [found]
    if (step === null || typeof found !== "object" || !Object.hasOwn(found, step)) return none
    found = (found as Schema.JsonObject)[step]
  }
  const next = path[at] === null ? at + 1 : at
  return (found as ReadonlyArray<Schema.Json>).flatMap((value) => valuesAt(value, path, next))
}

const none: ReadonlyArray<never> = []

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

export const membersOf = (ast: SchemaAST.AST): ReadonlyArray<SchemaAST.AST> =>
  SchemaAST.isUnion(ast) && ast.encoding === undefined ? ast.types.flatMap(membersOf) : [ast]

/** What stands at the far end of an encoding. */
export const encodedOf = (ast: SchemaAST.AST): SchemaAST.AST => {
  const link = ast.encoding?.at(-1)
  return link === undefined ? ast : encodedOf(link.to)
}

const tagOf = SchemaAST.resolveAt<string>(tagAnnotation)

export const typeOf = (ast: SchemaAST.AST): string | undefined => {
  if (!SchemaAST.isObjects(ast)) return undefined
  const type = ast.propertySignatures.find(({ name }) => name === "_tag")?.type
  const literal = type === undefined ? undefined : encodedOf(type)
  return literal !== undefined && SchemaAST.isLiteral(literal) ? String(literal.literal) : undefined
}

/** A field's own annotation counts, and that of its members or elements. */
const placesOf = (ast: SchemaAST.AST, isRequired: boolean): ReadonlyArray<Found> => {
  const encoded = encodedOf(ast)
  const tag = tagOf(ast)
  if (tag !== undefined && isObject(encoded)) throw new TypeError(`the tag "${tag}" is declared on ${notFound}`)
  const isScalar = SchemaAST.isString(encoded) || SchemaAST.isNumber(encoded) || SchemaAST.isBoolean(encoded) ||
    SchemaAST.isLiteral(encoded) || SchemaAST.isEnum(encoded) || SchemaAST.isTemplateLiteral(encoded)
  const own = tag === undefined ? none : [{ tag, path: none, isRequired: isRequired && isScalar }]
  if (SchemaAST.isUnion(encoded)) {
    return [...own, ...encoded.types.flatMap((member) => placesOf(member, false))]
  }
  if (SchemaAST.isArrays(encoded)) {
    const elements = [...encoded.elements, ...encoded.rest].flatMap((element) => placesOf(element, false))
    return [...own, ...elements.map((place) => ({ ...place, path: [null, ...place.path] }))]
  }
  if (!SchemaAST.isObjects(encoded)) return own
  const fields = encoded.propertySignatures.flatMap(({ name, type }) =>
    // What is optional in the stored data alone is written by today's build in any case.
    placesOf(type, isRequired && type.context?.isOptional !== true).map((place) => ({
      ...place,
      path: [String(name), ...place.path]
    }))
  )
  return [...own, ...fields]
}

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
