/**
 * What a message is beside its own fields: an id, a time, a place in a stream, and metadata.
 */
import { Clock, DateTime, Effect, Option, Schema, Tracer } from "effect"
import type { SchemaAST } from "effect"
import { SecureRandom } from "effect/crypto"
import type { KeyEncryption } from "./KeyEncryption.ts"
import * as Personal from "./Personal.ts"

/** The id of a message: a UUID of any version, unique in its store. Case does not matter; it is stored in lower case. */
export const MessageId = Schema.String.check(Schema.isGUID())

// Asking for random bytes costs more than all the rest of an id: they are fetched for many ids, and given out once each.
let randomPool = new Uint8Array(0)
let randomTaken = 0
const takeRandom = (size: number): Uint8Array => {
  if (randomTaken + size > randomPool.length) {
    randomPool = globalThis.crypto.getRandomValues(new Uint8Array(Math.max(size, 4096)))
    randomTaken = 0
  }
  return randomPool.subarray(randomTaken, randomTaken += size)
}

// Without a `SecureRandom` in the context (a plain `new`), ids still rise within this process.
const processRandom = SecureRandom.make(takeRandom)

const nextMessageId = Effect.flatMap(
  Effect.serviceOption(SecureRandom.SecureRandom),
  (random) => Option.getOrElse(random, () => processRandom).uuidV7()
)

/**
 * The two fields that every message has. The constructor fills them in unless they are given: `messageId` (a UUIDv7, rising
 * within the process) and `occurredAt` (the present time).
 *
 * **Details**
 *
 * `new OrderPlaced({ … })` uses the process's clock and randomness; {@link make} uses those of the fiber.
 *
 * **Example**
 *
 * ```ts
 * class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
 *   ...Message.fields,
 *   orderId: Schema.String
 * }) {}
 *
 * new OrderPlaced({ orderId: "1" }).messageId // "0199…"
 * ```
 */
export const fields = {
  messageId: MessageId.pipe(Schema.withConstructorDefault(nextMessageId)),
  occurredAt: Schema.DateTimeUtc.pipe(
    Schema.withConstructorDefault(Effect.map(Clock.currentTimeMillis, DateTime.makeUnsafe))
  )
}

/** A schema of messages whose constructor needs nothing but its input. */
interface Makeable<A, Input> {
  readonly makeEffect: (input: Input) => Effect.Effect<A, unknown>
}

/**
 * Makes a message whose time comes from the fiber's `Clock` (`TestClock`, in tests), and whose id comes from its
 * `SecureRandom`, if one is provided.
 *
 * **Details**
 *
 * Use it inside effects, where `new` would use the process's own clock and randomness: with both services provided,
 * messages are the same in every run. Like `new`, and unlike `makeEffect`, it has no typed failure: input that the schema
 * refuses is a bug, and ends the fiber with a defect.
 *
 * **Example**
 *
 * ```ts
 * const placed = yield* Message.make(OrderPlaced, { orderId: "1" })
 * yield* orders.write("order-1", placed)
 * ```
 */
export const make = <A, Input>(schema: Makeable<A, Input>, input: Input): Effect.Effect<A> =>
  schema.makeEffect(input).pipe(
    Effect.catch((cause) => Effect.die(new Error("Schema validation failed", { cause })))
  )

/** A message that carries {@link fields}. */
export interface Identified {
  readonly messageId: string
  readonly occurredAt: DateTime.DateTime
}

/**
 * What is known about a message beside its content. The store fills in `traceparent`, the W3C trace context of the
 * span that wrote it, and `redactedAt`, the ISO time at which its content was replaced; the other names are conventions, and any
 * further field of JSON is yours.
 */
export interface Metadata {
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly traceparent?: string | undefined
  readonly redactedAt?: string | undefined
  readonly [field: string]: Schema.Json | undefined
}

/**
 * Makes a field a tag: messages can be found, and decided on, by its value, whatever stream they are in.
 *
 * **Details**
 *
 * The tag is `name:value`, where the value is the encoded one: a string, a boolean, a whole number (a bigint is one), or an
 * array of them, each element of which is a tag. A field that is absent or null gives none. A message has at most 32 tags, of
 * at most 255 characters each with their names; one that would have more cannot be written. Names have no colon.
 *
 * **Gotchas**
 *
 * Where a type has messages already, run the store's `tagging`: until they have the tag, what asks for it fails with a
 * `TagsIncompleteError`. Writers that do not declare the tag have their messages tagged by the database, or refused.
 *
 * **Example**
 *
 * ```ts
 * class Subscribed extends Schema.TaggedClass<Subscribed>()("Subscribed", {
 *   ...Message.fields,
 *   course: Message.tag("course", Schema.String),
 *   student: Message.tag("student", Schema.String)
 * }) {}
 * ```
 */
export const tag = <S extends Schema.Top>(name: string, schema: S & NotPersonal<S["Type"]>): TagField<S> => {
  if (name === "" || name.includes(":") || name.includes("\0") || !name.isWellFormed()) {
    throw new TypeError(
      `a tag's name must not be empty, and have no colon, NUL or lone surrogate: ${JSON.stringify(name)}`
    )
  }
  return (schema as S).annotate({ [tagAnnotation]: name })
}

/** The schema of a field that is a tag: that of the field. */
export type TagField<S extends Schema.Top> = S["Rebuild"] & IsTag

/** Only for the type checker: there is no such value. */
export interface IsTag {
  readonly "~effect-message-store/Message/Tag"?: true
}

/** What is personal cannot be a tag: tags are stored as they are. */
type NotPersonal<A> = true extends HasPersonal<A> ? "a personal field cannot be a tag" : unknown

type HasPersonal<A> = A extends Personal.Personal<unknown> ? true
  : A extends ReadonlyArray<infer Element> ? HasPersonal<Element>
  : false

/**
 * The annotation of a field that is a tag.
 *
 * @internal
 */
export const tagAnnotation = "effect-message-store/tag"

/** The schema of a personal field; see {@link personal}. */
export interface PersonalField<S extends Schema.Constraint> extends
  Schema.Bottom<
    Personal.Personal<S["Type"]>,
    Personal.Personal<S["Encoded"]>,
    S["DecodingServices"] | KeyEncryption,
    S["EncodingServices"] | KeyEncryption,
    SchemaAST.Declaration,
    PersonalField<S>,
    Personal.Personal<S["Type"]>,
    Personal.Personal<S["Type"]>,
    readonly [S]
  >
{}

/** Whose data a personal field has. */
export interface PersonalOptions {
  /**
   * The name, as it is stored, of the field that identifies the subject: a string or a number beside the personal field, or in
   * one of the objects around it, of which the innermost counts. It is not encrypted, so let it be an id that says nothing
   * about the person. A store whose schema has no such field throws a `TypeError` where it is defined.
   */
  readonly subject: string
}

/**
 * Makes a field personal: it is stored encrypted under a key of its subject, and everybody reads it as
 * {@link Personal.forgotten} once the store was told to `forget` that subject.
 *
 * **Details**
 *
 * AES-256-GCM (NIST SP 800-38D), with a random nonce for each value, bound to the message's id and to the place of the field. In
 * stored JSON the field is a string, which Python's readers see. A store whose schema has such a field needs a `KeyEncryption`.
 * Values that were stored unencrypted, before the field was personal or by other writers, are read as known.
 *
 * **Gotchas**
 *
 * The length of a value shows in what is stored. A partitioner function sees every personal field as forgotten. A personal field
 * cannot be a tag, and cannot be part of a recursive type.
 *
 * **Example**
 *
 * ```ts
 * class Registered extends Schema.TaggedClass<Registered>()("Registered", {
 *   ...Message.fields,
 *   customerId: Schema.String,
 *   email: Message.personal(Schema.String, { subject: "customerId" })
 * }) {}
 *
 * new Registered({ customerId: "c1", email: Personal.known("ada@example.com") })
 * ```
 */
export const personal = <S extends Schema.Constraint>(
  schema: S & NoTag<S>,
  { subject }: PersonalOptions
): PersonalField<S> => {
  if (typeof subject !== "string" || subject === "") {
    throw new TypeError("a personal field needs the name of the field that names its subject")
  }
  // It needs keys: that what its type says is the store's business.
  return Personal.schema<S>(schema).annotate({
    [Personal.plainAnnotation]: false,
    [personalAnnotation]: { subject }
  }) as never
}

/** A tag is stored as it is. */
type NoTag<S> = keyof IsTag extends keyof S ? "a tag cannot be personal" : unknown

/**
 * Says that a subject was forgotten. A store can write this message when it forgets somebody (`notice` in its options), so that
 * projections delete what they keep of that subject.
 *
 * **Example**
 *
 * ```ts
 * class Customers extends MessageStore.Service<Customers>()("app/Customers", {
 *   name: "customers",
 *   schema: Schema.Union([Registered, Message.SubjectForgotten]),
 *   personal: {
 *     notice: (subject) => ({ stream: subject, messages: new Message.SubjectForgotten({ subject }) })
 *   }
 * }) {}
 * ```
 */
export class SubjectForgotten extends Schema.TaggedClass<SubjectForgotten>()("SubjectForgotten", {
  ...fields,
  subject: Schema.String
}) {}

/**
 * The annotation of a field that is personal: an object of its own for each.
 *
 * @internal
 */
export const personalAnnotation = "effect-message-store/personal"

/** Names and values of tags, as they are encoded: `{ course: "c1", student: "s1" }` asks for messages that have both. */
export interface Tags {
  readonly [name: string]: string | number | bigint | boolean
}

/**
 * The version that a stream must have for a write to go through: a whole number from 0 (no message yet) to
 * 2147483647, or `"exists"` (any but 0). A write without one is appended whatever the version is.
 */
export type ExpectedVersion = number | "exists"

/** Where a message stands: `version` in its stream (from 1, without gaps), `globalPosition` in its store (with gaps). */
export interface MessagePosition {
  readonly stream: string
  readonly version: number
  readonly globalPosition: number
}

/** The last position of a stream. A stream without messages is at version 0 and has no global position. */
export interface StreamHead {
  readonly stream: string
  readonly version: number
  readonly globalPosition: number | undefined
}

/** A message as it was read: with its place, the time it was added at, and its metadata. */
export interface StoredMessage<out A> extends MessagePosition {
  readonly messageId: string
  /** When the store took it: the start of the writing transaction, in milliseconds' precision. */
  readonly addedAt: DateTime.Utc
  readonly message: A
  readonly metadata: Metadata
}

/** A message as it was read with `{ tags: true }`. */
export interface TaggedMessage<out A> extends StoredMessage<A> {
  /** What it can be found by, as the schema declares it (see {@link tag}): `name:value` each, none twice. */
  readonly tags: ReadonlyArray<string>
}

/** A message in a partition of an aggregated stream. */
export interface AggregatedMessage<out A> extends StoredMessage<A> {
  readonly partition: number
  /** From 0, without gaps. */
  readonly position: number
}

/**
 * The W3C trace context of a span: version 00, https://www.w3.org/TR/trace-context/#traceparent-header.
 *
 * @internal
 */
export const toTraceparent = (span: Option.Option<Tracer.AnySpan>): string | undefined =>
  Option.isSome(span) && /^[0-9a-f]{32}$/.test(span.value.traceId) && /^[0-9a-f]{16}$/.test(span.value.spanId)
    ? `00-${span.value.traceId}-${span.value.spanId}-${span.value.sampled ? "01" : "00"}`
    : undefined

/** Of any version but `ff`; ids of zeros alone name nothing. */
const context = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})$/

/**
 * The span that a W3C trace context names, if it is one: metadata may hold anything.
 *
 * @internal
 */
export const fromTraceparent = (traceparent: unknown): Tracer.ExternalSpan | undefined => {
  if (typeof traceparent !== "string") return undefined
  const [, traceId, spanId, flags] = context.exec(traceparent) ?? []
  return traceId === undefined || spanId === undefined
    ? undefined
    : Tracer.externalSpan({ traceId, spanId, sampled: (Number.parseInt(flags ?? "0", 16) & 1) === 1 })
}
