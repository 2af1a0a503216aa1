/**
 * Schema ⇄ stored JSON: the only place that encodes or decodes.
 *
 * A `MessageSerializer` obeys three laws, which `effect-message-store/testing` checks for any of them:
 *
 * 1. `deserialize(serialize(message))` equals `message`,
 * 2. and is of the same class,
 * 3. `serialize(deserialize(data))` equals `data` as JSON, for data that `serialize` made.
 *
 * Data of an older shape is outside the third law: a schema with transformations, or `aliases`, reads it, and what
 * is written is the present shape.
 */
import { type Effect, Predicate, Result, Schema } from "effect"
import { SerializationError } from "./errors.ts"
import { attempt } from "./internal/attempt.ts"
import * as Compile from "./internal/compile.ts"
import type { Answered } from "./internal/handled.ts"
import { type PersonalPlaces, personalPlacesOf } from "./internal/personalPaths.ts"
import { typesOf } from "./internal/tagPaths.ts"
import { type Declared, declaredIn, type Tagged } from "./internal/tags.ts"
import type { KeyEncryption } from "./KeyEncryption.ts"
import type { Metadata } from "./Message.ts"

export type { PersonalPlace, PersonalPlaces, Step } from "./internal/personalPaths.ts"

/**
 * Turns messages into JSON and back. Failures are values; whatever the failure holds becomes the `cause` of a
 * `SerializationError`.
 *
 * **Example** (written by hand)
 *
 * ```ts
 * const serializer: MessageSerializer<Order> = {
 *   serialize: (order) => Result.succeed({ id: order.id }),
 *   deserialize: (data) => Result.try(() => Order.parse(data))
 * }
 * ```
 */
export interface MessageSerializer<in out A> {
  readonly serialize: (message: A) => Result.Result<Schema.Json, unknown>
  readonly deserialize: (data: Schema.Json) => Result.Result<A, unknown>
  /** The tags that messages have; undefined: none. `fromSchema` reads them off the schema. */
  readonly tags?: Declared | undefined
  /**
   * What tells types that this build does not know from messages that are broken; undefined: nobody can tell. `fromSchema`
   * reads it off the schema.
   */
  readonly types?: MessageTypes | undefined
  /** Where the personal fields are that the store encrypts; undefined: there are none. `fromSchema` reads it off the schema. */
  readonly personal?: PersonalPlaces | undefined
}

/** The types that a serializer knows. */
export interface MessageTypes {
  /** The name of the type of stored data, as it is stored; undefined if it has none. */
  readonly of: (data: Schema.Json) => string | undefined
  /** Whether messages of the type can be decoded, unless they are broken. */
  readonly knows: (type: string) => boolean
}

/**
 * A schema that encodes and decodes without services, those of personal fields aside: of a tagged class or struct, or a union of
 * them.
 */
export type MessageSchema<R extends KeyEncryption = KeyEncryption> = Schema.Constraint & {
  readonly DecodingServices: R
  readonly EncodingServices: R
}

/** How a schema's messages are named in stored JSON. */
export interface SchemaSerializerOptions {
  /**
   * The field of the stored JSON that names the message's type, where the class has `_tag`. Default `"_tag"`. With
   * `"__typename__"`, types are named as depeche_db's PydanticMessageSerializer names them; the other fields are then
   * to be named, and encoded, as the Python models have them.
   */
  readonly typeField?: string | undefined
  /** Type names found in stored data, and the tags that stand for them today: `{ OrderCreated: "OrderPlaced" }`. */
  readonly aliases?: Readonly<Record<string, string>> | undefined
}

/**
 * The serializer of a schema's canonical JSON (`Schema.toCodecJson`): dates as ISO strings, bigints as decimal
 * strings, options and other structures in the forms Effect gives them.
 */
export const fromSchema = <S extends MessageSchema>(
  schema: S,
  options?: SchemaSerializerOptions
): MessageSerializer<S["Type"]> => {
  // What personal fields ask for is the store's: to the codec they are written out.
  const codec = Schema.toCodecJson(schema as S & MessageSchema<never>)
  const encode = Schema.encodeUnknownResult(codec)
  const decode = Schema.decodeUnknownResult(codec)
  const typeField = options?.typeField ?? "_tag"
  const aliases = new Map(Object.entries(options?.aliases ?? {}))
  const personal = personalPlacesOf(codec.ast, typeField, aliases)
  const tags = declaredIn(codec.ast, typeField, aliases)
  const known = typesOf(codec.ast)
  const types: MessageTypes | undefined = known && {
    of: (data) => {
      const type = isRecord(data) && Object.hasOwn(data, typeField) ? data[typeField] : undefined
      return Predicate.isString(type) ? type : undefined
    },
    knows: (type) => known.has(aliases.get(type) ?? type)
  }
  if (typeField === "_tag" && aliases.size === 0) {
    return { serialize: encode, deserialize: decode, tags, types, personal }
  }

  const toStored = (data: Schema.Json): Result.Result<Schema.Json, unknown> => {
    if (typeField === "_tag" || !isRecord(data) || !Object.hasOwn(data, "_tag")) return Result.succeed(data)
    if (Object.hasOwn(data, typeField)) {
      return Result.fail(new Error(`the field ${typeField} is taken by the message's type`))
    }
    const { _tag, ...rest } = data
    return Result.succeed({ [typeField]: _tag, ...rest } as Schema.Json)
  }
  const fromStored = (data: Schema.Json): Schema.Json => {
    if (!isRecord(data) || !Object.hasOwn(data, typeField)) return data
    const { [typeField]: type, ...rest } = data
    return { _tag: Predicate.isString(type) ? aliases.get(type) ?? type : type, ...rest } as Schema.Json
  }
  return {
    serialize: (message) => Result.flatMap(encode(message), toStored),
    deserialize: (data) => decode(fromStored(data)),
    tags,
    types,
    personal
  }
}

/**
 * Compiles what encodes and decodes the messages of a schema, for those who use a serializer of {@link fromSchema} on its own: the
 * layers of a store do so themselves (option `compile`). Run it before the serializer is used.
 *
 * **Details**
 *
 * It is Effect's schema compiler, for this schema and its parts alone, whoever uses them. Results and failures are the same.
 * Where code cannot be made of text (a content security policy without `unsafe-eval`, edge runtimes, node's
 * `--disallow-code-generation-from-strings`), all but times is interpreted as before.
 *
 * **Example**
 *
 * ```ts
 * yield* Serializer.compile(OrderEvent)
 * const serializer = Serializer.fromSchema(OrderEvent)
 * ```
 */
export const compile = (schema: MessageSchema): Effect.Effect<void> => Compile.compile(Schema.toCodecJson(schema).ast)

const isRecord = (data: Schema.Json): data is Schema.JsonObject => Predicate.isObject(data)

/**
 * Holds a hand-written serializer to its type: what is not JSON (NaN, undefined, a Date) fails instead of being
 * stored as something else.
 *
 * @internal
 */
export const verified = <A>(serializer: MessageSerializer<A>): MessageSerializer<A> => ({
  serialize: (message) =>
    Result.flatMap(
      serializer.serialize(message),
      (data) => isJson(data) ? Result.succeed(data) : Result.fail(new Error("serialize returned what is not JSON"))
    ),
  deserialize: serializer.deserialize,
  tags: serializer.tags,
  types: serializer.types
})

const isJson = Schema.is(Schema.Json)

/**
 * What a message becomes on its way to the database: JSON text that every backend can hold.
 *
 * @internal
 */
export interface MessageCodec<A> {
  readonly encode: (message: A) => Result.Result<string, SerializationError>
  /** The same, with the tags of the message. */
  readonly encodeTagged: (message: A) => Result.Result<EncodedWithTags, SerializationError>
  readonly tags: Declared | undefined
  /** The type that stored data names. */
  readonly typeOf: (data: Schema.Json) => string | undefined
  /** The tags that a message has if it is written today; or why it cannot have any. */
  readonly tagsOf: (message: A) => Result.Result<ReadonlyArray<string>, string>
  /** The same, of stored data. */
  readonly tagsToday: (data: Schema.Json) => Result.Result<ReadonlyArray<string>, string>
  readonly decode: (data: Schema.Json, place: Place) => Result.Result<A, SerializationError>
  readonly types: MessageTypes | undefined
  readonly personal: PersonalPlaces | undefined
}

interface EncodedWithTags {
  readonly data: string
  readonly tagged: Tagged | undefined
}

interface Place {
  readonly stream: string
  readonly version: number
  readonly messageId: string
}

/** How large the JSON of a message may be, in bytes: rows stay below the 16 MiB that `@effect/sql-pg` reads at once. */
export const maximumMessageSize = 8 * 1024 * 1024

/** How large the JSON of a write's metadata may be, in bytes: it is stored with every message. */
export const maximumMetadataSize = 64 * 1024

/** How many arrays and objects may be nested in each other. */
export const maximumDepth = 500

const tooDeep = `it nests more than ${maximumDepth} arrays and objects`

/** @internal */
export const makeCodec = <A>(serializer: MessageSerializer<A>): MessageCodec<A> => {
  const tagsOf: MessageCodec<A>["tagsOf"] = (message) => {
    if (serializer.tags === undefined) return Result.succeed([])
    const encoded = attempt(() => serializer.serialize(message))
    if (Result.isFailure(encoded)) return Result.fail(`it does not encode: ${String(encoded.failure)}`)
    const tagged = serializer.tags.tagged(encoded.success)
    if (Result.isFailure(tagged)) return Result.fail(tagged.failure)
    const tags = tagged.success?.tags ?? []
    return tags.some((tag) => tag.includes("\0") || !tag.isWellFormed())
      ? Result.fail("a tag of it has NUL or a lone surrogate, which PostgreSQL cannot store")
      : Result.succeed(tags)
  }

  return {
    encode: (message) => {
      const text = attempt(() => Result.map(serializer.serialize(message), (data) => JSON.stringify(data)))
      if (Result.isFailure(text)) return refuse("it does not encode", text.failure)
      const fault = unstorable(text.success, maximumMessageSize)
      return fault === undefined ? Result.succeed(text.success) : refuse(fault)
    },
    encodeTagged: (message) => {
      const encoded = attempt(() =>
        Result.map(serializer.serialize(message), (data) => ({ data: JSON.stringify(data), value: data }))
      )
      if (Result.isFailure(encoded)) return refuse("it does not encode", encoded.failure)
      const { data, value } = encoded.success
      const fault = unstorable(data, maximumMessageSize)
      if (fault !== undefined) return refuse(fault)
      const tagged = serializer.tags?.tagged(value) ?? Result.succeed(undefined)
      return Result.isFailure(tagged) ? refuse(tagged.failure) : Result.succeed({ data, tagged: tagged.success })
    },
    tags: serializer.tags,
    types: serializer.types,
    personal: serializer.personal,
    tagsOf,
    typeOf: (data) => {
      const typeField = serializer.tags?.typeField ?? ""
      return Predicate.hasProperty(data, typeField) ? String(data[typeField]) : undefined
    },
    tagsToday: (data) => {
      const message = attempt(() => serializer.deserialize(data))
      return Result.isFailure(message)
        ? Result.fail(`the stored data does not decode: ${String(message.failure)}`)
        : tagsOf(message.success)
    },
    decode: (data, { messageId, stream, version }) => {
      const message = attempt(() => serializer.deserialize(data))
      if (Result.isSuccess(message)) return Result.succeed(message.success)
      const place = { stream, version, messageId }
      const reason = "the stored data does not decode"
      return Result.fail(new SerializationError({ operation: "deserialize", reason, ...place, cause: message.failure }))
    }
  }
}

/**
 * The JSON text of metadata, with the traceparent of the writing span, and with what a handler's write says of the message
 * that it answers, unless it has its own. Fields that are undefined are left out.
 *
 * @internal
 */
export const encodeMetadata = (
  metadata: Metadata | undefined,
  traceparent: string | undefined,
  answered?: Answered
): Result.Result<string, SerializationError> => {
  if (metadata === undefined && answered === undefined) {
    return Result.succeed(traceparent === undefined ? "{}" : `{"traceparent":"${traceparent}"}`)
  }
  const given = Object.fromEntries(
    Object.entries({ traceparent, ...answered, ...metadata }).filter(([, value]) => value !== undefined)
  )
  if (!isJson(given)) return refuse("its metadata is not JSON")
  // JSON.stringify fails with what nests some thousand arrays and objects.
  const text = Result.try(() => JSON.stringify(given))
  if (Result.isFailure(text)) return refuse(`in its metadata: ${tooDeep}`)
  const fault = unstorable(text.success, maximumMetadataSize)
  return fault === undefined ? Result.succeed(text.success) : refuse(`in its metadata: ${fault}`)
}

const refuse = (reason: string, cause?: unknown): Result.Result<never, SerializationError> =>
  Result.fail(
    new SerializationError({ operation: "serialize", reason, ...(cause === undefined ? {} : { cause }) })
  )

/**
 * Why PostgreSQL's json and jsonb do not both hold this text, if so. `JSON.stringify` writes a lone surrogate as an escape.
 *
 * @internal
 */
export const unstorable = (text: string, maximumSize: number): string | undefined =>
  text.includes("\\u") && unstorableEscape.test(text)
    ? "a string in it holds NUL or a lone surrogate, which PostgreSQL cannot store"
    : unreadable(text, maximumSize)

/**
 * Why readers do not take this text, if so.
 *
 * @internal
 */
export const unreadable = (text: string, maximumSize: number): string | undefined => {
  if (text.length * 3 > maximumSize && byteLength(text) > maximumSize) {
    return `its JSON has more than ${maximumSize} bytes`
  }
  // jsonb prints numbers without exponents: `1e+308` with 309 digits.
  if (text.length * mostDigits > maximumSize && printedLength(text) > maximumSize) {
    return `its numbers make it more than ${maximumSize} bytes, printed without exponents as jsonb does`
  }
  if (text.length > 2 * maximumDepth && depth(text) > maximumDepth) {
    return tooDeep
  }
  return undefined
}

/** How many times its length `1e+308`, with a comma, is printed at. */
const mostDigits = 48

const printedLength = (text: string): number => {
  let length = byteLength(text)
  let inString = false
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (code === 0x22 /* " */) inString = !inString
    else if (inString && code === 0x5c /* \\ */) at++
    else if (!inString && (code === 0x65 || code === 0x45) /* e E */) {
      exponent.lastIndex = at + 1
      length += Math.abs(Number(exponent.exec(text)?.[0] ?? 0)) // none: it is that of "true" or "false"
    }
  }
  return length
}

const exponent = /[-+]?\d+/y

// An escape counts where an even number of backslashes comes before it.
const unstorableEscape = /(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/

const byteLength = (text: string): number => new TextEncoder().encode(text).length

const depth = (text: string): number => {
  let deepest = 0
  let open = 0
  let inString = false
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    if (inString) {
      if (code === 0x5c /* \ */) at++
      else if (code === 0x22 /* " */) inString = false
    } else if (code === 0x22) inString = true
    else if (code === 0x5b || code === 0x7b /* [ { */) deepest = Math.max(deepest, ++open)
    else if (code === 0x5d || code === 0x7d /* ] } */) open--
  }
  return deepest
}
