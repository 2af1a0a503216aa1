/**
 * Where the personal fields that a schema declares are in stored messages, and where the subject of each is.
 */
import { SchemaAST } from "effect"
import { personalAnnotation, type PersonalOptions, tagAnnotation } from "../Message.ts"
import { plainAnnotation } from "../Personal.ts"
import { encodedOf, membersOf, typeOf } from "./tagPaths.ts"

/** A step on the way to a value: the name of a field, each element of an array, or each field of a record. */
export type Step = string | typeof eachElement | typeof eachField

export const eachElement = Symbol.for("effect-message-store/eachElement")
export const eachField = Symbol.for("effect-message-store/eachField")

/** The place of a personal field. */
export interface PersonalPlace {
  readonly path: ReadonlyArray<Step>
  /** The field that names the subject, and how many steps of the path lead to the object that has it. */
  readonly subject: { readonly depth: number; readonly name: string }
  /** Whether what is not personal may stand there too: another element of a tuple, or member of a union. */
  readonly isShared: boolean
}

/** The personal fields of a schema. */
export interface PersonalPlaces {
  /** The field of stored messages that names their type. */
  readonly typeField: string
  /** Under each name that a type has in stored messages. */
  readonly byType: ReadonlyMap<string, ReadonlyArray<PersonalPlace>>
}

const personalOf = SchemaAST.resolveAt<PersonalOptions>(personalAnnotation)
const isPlain = SchemaAST.resolveAt<boolean>(plainAnnotation)
const tagOf = SchemaAST.resolveAt<string>(tagAnnotation)

/** Undefined: none. Throws if one is declared where it would not be found, or would not be encrypted. */
export const personalPlacesOf = (
  ast: SchemaAST.AST,
  typeField: string,
  aliases: ReadonlyMap<string, string>
): PersonalPlaces | undefined => {
  const declared = declaredIn(ast)
  if (declared.size === 0) return undefined
  const found = new Set<PersonalOptions>()
  const byType = new Map<string, ReadonlyArray<PersonalPlace>>()
  for (const member of membersOf(ast)) {
    const encoded = encodedOf(member)
    const places = placesOf(encoded, [], [], found).map((place) => ({
      ...place,
      isShared: mayBePlain(encoded, place.path)
    }))
    if (places.length === 0) continue
    const type = typeOf(encoded)
    if (type === undefined) {
      throw new TypeError("a personal field is declared in a message that has no _tag, which names its type")
    }
    const names = [type, ...Array.from(aliases).flatMap(([old, today]) => today === type ? [old] : [])]
    for (const name of names) byType.set(name, [...byType.get(name) ?? [], ...places])
  }
  for (const each of declared) {
    if (found.has(each)) continue
    throw notFound(each)
  }
  return { typeField, byType }
}

/** Whether a path leads to a personal field, or into one. */
export const isWithin = ({ byType }: PersonalPlaces, path: ReadonlyArray<string>): boolean =>
  Array.from(byType.values()).some((places) =>
    places.some((place) =>
      place.path.length <= path.length && place.path.every((step, i) => step === eachField || step === path[i])
    )
  )

interface Enclosing {
  readonly depth: number
  readonly object: SchemaAST.Objects
}

const notFound = ({ subject }: PersonalOptions): TypeError =>
  new TypeError(
    `a personal field of the subject "${subject}" is declared where it is not found in stored messages: neither in a type ` +
      "that refers to itself, nor in one that is stored in another shape than it is declared in"
  )

const placesOf = (
  ast: SchemaAST.AST,
  path: ReadonlyArray<Step>,
  enclosing: ReadonlyArray<Enclosing>,
  found: Set<PersonalOptions>
): ReadonlyArray<Omit<PersonalPlace, "isShared">> => {
  const own = personalOf(ast)
  if (own !== undefined) {
    found.add(own)
    return [{ path, subject: subjectOf(own.subject, path, enclosing) }]
  }
  const encoded = encodedOf(ast)
  if (encoded !== ast) return placesOf(encoded, path, enclosing, found)
  if (SchemaAST.isUnion(ast)) return ast.types.flatMap((member) => placesOf(member, path, enclosing, found))
  if (SchemaAST.isArrays(ast)) {
    return [...ast.elements, ...ast.rest].flatMap((element) =>
      placesOf(element, [...path, eachElement], enclosing, found)
    )
  }
  if (SchemaAST.isSuspend(ast)) {
    for (const each of declaredIn(ast)) throw notFound(each)
  }
  if (!SchemaAST.isObjects(ast)) return []
  const around = [{ depth: path.length, object: ast }, ...enclosing]
  return [
    ...ast.propertySignatures.flatMap(({ name, type }) => placesOf(type, [...path, String(name)], around, found)),
    ...ast.indexSignatures.flatMap(({ type }) => placesOf(type, [...path, eachField], around, found))
  ]
}

/** Whether something that is not personal may stand at the end of a path. */
const mayBePlain = (ast: SchemaAST.AST, path: ReadonlyArray<Step>): boolean => {
  if (personalOf(ast) !== undefined) return false
  const encoded = encodedOf(ast)
  if (encoded !== ast) return mayBePlain(encoded, path)
  if (SchemaAST.isUnion(ast)) return ast.types.some((member) => mayBePlain(member, path))
  const [step, ...rest] = path
  if (step === undefined) return !SchemaAST.isNull(ast) && !SchemaAST.isUndefined(ast)
  if (SchemaAST.isArrays(ast)) {
    return step === eachElement && [...ast.elements, ...ast.rest].some((element) => mayBePlain(element, rest))
  }
  if (!SchemaAST.isObjects(ast)) return SchemaAST.isUnknown(ast) || SchemaAST.isAny(ast) || SchemaAST.isSuspend(ast)
  const named = step === eachField ? ast.propertySignatures : ast.propertySignatures.filter(({ name }) => name === step)
  const others = step === eachField || (step !== eachElement && named.length === 0) ? ast.indexSignatures : []
  return [...named, ...others].some(({ type }) => mayBePlain(type, rest))
}

const subjectOf = (
  name: string,
  path: ReadonlyArray<Step>,
  enclosing: ReadonlyArray<Enclosing>
): PersonalPlace["subject"] => {
  const field = `the personal field "${path.map((step) => typeof step === "string" ? step : "*").join(".")}"`
  for (const { depth, object } of enclosing) {
    const named = object.propertySignatures.find((each) => each.name === name)
    if (named === undefined) continue
    if (personalOf(named.type) !== undefined || !isText(named.type)) {
      throw new TypeError(
        `${field} has the subject "${name}", which must be a string or a number, in its encoded form, and not personal`
      )
    }
    return { depth, name }
  }
  throw new TypeError(
    `${field} has the subject "${name}", which is no field beside it, or around it, by the names that are stored`
  )
}

const isText = (ast: SchemaAST.AST): boolean => {
  const encoded = encodedOf(ast)
  return SchemaAST.isString(encoded) || SchemaAST.isNumber(encoded) || SchemaAST.isTemplateLiteral(encoded) ||
    SchemaAST.isLiteral(encoded) || SchemaAST.isEnum(encoded) ||
    (SchemaAST.isUnion(encoded) && encoded.types.every(isText))
}

/** All that are declared anywhere in a schema. */
const declaredIn = (ast: SchemaAST.AST): ReadonlySet<PersonalOptions> => {
  const declared = new Set<PersonalOptions>()
  const seen = new Set<SchemaAST.AST>()
  const visit = (node: SchemaAST.AST, tag: string | undefined, isInside: boolean): void => {
    const own = personalOf(node)
    const within = tag ?? tagOf(node)
    if (own !== undefined && isInside) {
      throw new TypeError(
        `a personal field of the subject "${own.subject}" is part of another personal field: make one of them personal`
      )
    }
    if (own !== undefined) declared.add(own)
    else if (isPlain(node) === true) {
      throw new TypeError("Personal.schema encrypts nothing: in messages a field is made personal by Message.personal")
    }
    if (within !== undefined && (own !== undefined || isInside)) {
      throw new TypeError(`the tag "${within}" is personal: tags are stored as they are`)
    }
    if (seen.has(node) && within === undefined && !isInside) return
    if (seen.has(node) && SchemaAST.isSuspend(node)) return
    seen.add(node)
    const next = (child: SchemaAST.AST) => visit(child, within, isInside || own !== undefined)
    for (const link of node.encoding ?? []) next(link.to)
    if (SchemaAST.isUnion(node)) node.types.forEach(next)
    else if (SchemaAST.isArrays(node)) [...node.elements, ...node.rest].forEach(next)
    else if (SchemaAST.isDeclaration(node)) node.typeParameters.forEach(next)
    else if (SchemaAST.isSuspend(node)) next(node.thunk())
    else if (SchemaAST.isObjects(node)) {
      for (const { type } of node.propertySignatures) next(type)
      for (const { type } of node.indexSignatures) next(type)
    }
  }
  visit(ast, undefined, false)
  return declared
}
