/**
 * Decodes and encodes classes, and structs whose fields are not all plain.
 *
 * Effect's compiler makes one function of a struct whose fields are all plain; of any other it makes a walk from field to field. Here
 * the fields that are not plain are left to a struct of their own, in which they are `Unknown`: that one is compiled, and its answer
 * completed field by field.
 *
 * What is refused here is decoded once more by Effect, which says why. So a struct is left to Effect alone if something in it must
 * not run twice for the same data: effects (but those that parse text), declarations of others with parameters (personal fields are such), and
 * what refers to itself, which would be decoded twice at each of its levels.
 */
import { type Effect, Exit, Predicate, Schema, SchemaAST, SchemaParser } from "effect"
import type { Decode } from "effect/schema/SchemaCompiler"
import * as Times from "./compiledTimes.ts"

/** Has Effect compile a schema. */
type Enable = (ast: SchemaAST.AST) => void

/** What has been found out of a node: each is a part of many others, and a class of its own encoding, too. */
const once = <A, Rest extends ReadonlyArray<unknown>>(find: (ast: SchemaAST.AST, ...rest: Rest) => A) => {
  const found = new WeakMap<SchemaAST.AST, { readonly value: A }>()
  return (ast: SchemaAST.AST, ...rest: Rest): A => {
    const known = found.get(ast)
    if (known !== undefined) return known.value
    const value = find(ast, ...rest)
    found.set(ast, { value })
    return value
  }
}

/** Of a node that is such a struct, or is made of one by one transformation, as classes are; undefined: it is Effect's. */
export const decoderOf = once((ast, invalid: symbol, enable: Enable): Decode | undefined => {
  const [link, ...others] = ast.encoding ?? []
  if (link === undefined) {
    return SchemaAST.isObjects(ast) && !isPlain(ast) ? structDecoder(ast, invalid, enable) : undefined
  }
  if (link.transformation._tag !== "Transformation" || others.length > 0) return undefined
  const getter = link.transformation.decode
  if (getter._tag !== "Passthrough" && getter._tag !== "Transform") return undefined
  const itself = copyOf(ast, { encoding: undefined })
  if (!mayRunTwice(link.to) || !mayRunTwice(itself)) return undefined
  const [source, target] = [link.to, itself].map((node) =>
    SchemaAST.isObjects(node) && node.encoding === undefined ? structDecoder(node, invalid, enable) : undefined
  )
  if (source === undefined && target === undefined) return undefined
  const decodeSource = source ?? effectDecoder(link.to, invalid)
  const decodeTarget = target ?? effectDecoder(itself, invalid)
  return (input, options) => {
    const found = decodeSource(input, options)
    if (found === invalid) return invalid
    return decodeTarget(getter._tag === "Passthrough" ? found : getter.transform(found), options)
  }
})

interface Field {
  readonly name: string
  readonly decode: Decode
  /** Whether an absent field has a value all the same, which Effect finds. */
  readonly hasDefault: boolean
}

const structDecoder = (ast: SchemaAST.Objects, invalid: symbol, enable: Enable): Decode | undefined => {
  const { checks, encodingChecks, indexSignatures, propertySignatures } = ast
  if (checks !== undefined || encodingChecks !== undefined || indexSignatures.length > 0) return undefined
  if (propertySignatures.length === 0 || !mayRunTwice(ast)) return undefined
  const others: Array<Field> = []
  const plain: Record<string, Schema.Constraint> = {}
  for (const { name, type } of propertySignatures) {
    if (typeof name !== "string" || name === "__proto__") return undefined
    plain[name] = isPlain(type)
      ? Schema.make<Schema.Codec<unknown>>(type)
      : SchemaAST.isOptional(type)
      ? Schema.optionalKey(Schema.Unknown)
      : Schema.Unknown
    if (isPlain(type)) continue
    const decode = Times.decoderOf(type, invalid) ?? decoderOf(type, invalid, enable) ?? effectDecoder(type, invalid)
    const hasDefault = (type.encoding ?? []).some(({ transformation }) =>
      transformation._tag === "Middleware" || transformation.decode._tag.startsWith("TransformOptional")
    )
    others.push({ name, decode, hasDefault })
  }
  const struct = Schema.Struct(plain).ast
  enable(struct)
  const decodePlain = effectDecoder(struct, invalid)
  return (input, options) => {
    const found = decodePlain(input, options)
    if (found === invalid) return invalid
    const fields = found as Record<string, unknown> // a new object: a struct copies what it keeps
    for (const { decode, hasDefault, name } of others) {
      if (!Object.hasOwn(fields, name)) {
        if (hasDefault) return invalid
        continue
      }
      const value = decode(fields[name], options)
      if (value === invalid) return invalid
      fields[name] = value
    }
    return fields
  }
}

/** What Effect answers at once; `invalid` for all else. */
const effectDecoder = (ast: SchemaAST.AST, invalid: symbol): Decode => {
  const decode = SchemaParser.decodeUnknownEffect(Schema.make<Schema.Codec<unknown>>(ast))
  return (input, options) => {
    const decoded: Effect.Effect<unknown, unknown> = decode(input, options)
    return Exit.isExit(decoded) && Exit.isSuccess(decoded) ? decoded.value : invalid
  }
}

/** Whether values stay as they are: what Effect makes one function of. */
const isPlain = once((ast): boolean =>
  ast.encoding === undefined && !SchemaAST.isDeclaration(ast) && !SchemaAST.isSuspend(ast) &&
  partsOf(ast).every((part) => isPlain(part))
)

/** Whether nobody notices if it decodes the same data twice. */
const mayRunTwice = once((ast): boolean => {
  if (SchemaAST.isSuspend(ast)) return false
  if (SchemaAST.isDeclaration(ast) && !isPure(ast)) return false
  return partsOf(ast).every((part) => mayRunTwice(part)) &&
    (ast.encoding ?? []).every(({ to, transformation }) =>
      transformation._tag === "Transformation" && mayRunTwice(to) &&
      (!transformation.decode._tag.endsWith("Effect") || parsers.has(transformation.decode))
    )
})

/** Of Effect's effects those that parse text, or print it. */
const parsers: ReadonlySet<unknown> = new Set(
  [Schema.BigInt, Schema.BigDecimal, Schema.DateTimeUtc, Schema.DateTimeZoned, Schema.Duration, Schema.URL].flatMap(
    (schema) =>
      (Schema.toCodecJson(schema as Schema.Codec<unknown>).ast.encoding ?? []).flatMap(({ transformation }) =>
        transformation._tag === "Transformation" ? [transformation.decode, transformation.encode] : []
      )
  )
)

/** A check of a value, a class, or a collection of Effect's. */
const isPure = ({ annotations, typeParameters }: SchemaAST.Declaration): boolean => {
  if (typeParameters.length === 0 || Predicate.hasProperty(annotations, "~constructor")) return true
  const representation = annotations?.["representation"]
  return Predicate.hasProperty(representation, "id") && String(representation.id).startsWith("effect/schema/")
}

/** What a node is made of, its encodings aside. */
export const partsOf = (ast: SchemaAST.AST): ReadonlyArray<SchemaAST.AST> => {
  if (SchemaAST.isUnion(ast)) return ast.types
  if (SchemaAST.isArrays(ast)) return [...ast.elements, ...ast.rest]
  if (SchemaAST.isDeclaration(ast)) return ast.typeParameters
  if (SchemaAST.isSuspend(ast)) return [ast.thunk()]
  if (SchemaAST.isTemplateLiteral(ast)) return ast.parts
  if (!SchemaAST.isObjects(ast)) return []
  return [
    ...ast.propertySignatures.map(({ type }) => type),
    ...ast.indexSignatures.flatMap(({ parameter, type }) => [parameter, type])
  ]
}

/** Another node that says the same, but for what is given. */
export const copyOf = <Node extends SchemaAST.AST>(ast: Node, changes?: Pick<SchemaAST.AST, "encoding">): Node =>
  Object.assign(Object.create(Object.getPrototypeOf(ast)), ast, changes)
