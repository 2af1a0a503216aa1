/**
 * What a message is beside its own fields: an id, a time, a place in a stream, and metadata.
 */
import { Clock, DateTime, Effect, Option, Result, Schema } from "effect"
import { SecureRandom } from "effect/crypto"
import { InvalidArgumentError } from "./errors.ts"
import type { ExpectedVersion as ExpectedVersionSchema } from "./errors.ts"

/** The id of a message: a UUID of any version, unique in its store. Case does not matter; it is stored in lower case. */
export const MessageId = Schema.String.check(Schema.isGUID())

// Without a `SecureRandom` in the context (a plain `new`), ids still rise within this process.
const processRandom = SecureRandom.make((size) => globalThis.crypto.getRandomValues(new Uint8Array(size)))

const nextMessageId = Effect.flatMap(
  Effect.serviceOption(SecureRandom.SecureRandom),
  (random) => Option.getOrElse(random, () => processRandom).uuidV7()
)

/**
 * The two fields every message has, filled in by the constructor where they are not given: `messageId` (a UUIDv7,
 * rising within the process) and `occurredAt` (the present, from the `Clock`).
 *
 * **Details**
 *
 * `new OrderPlaced({ … })` takes the process's clock and randomness. `OrderPlaced.makeEffect({ … })` takes those of
 * the fiber: under `TestClock`, and with a `SecureRandom` service given, messages are the same in every run.
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

/** A message that carries {@link fields}. */
export interface Identified {
  readonly messageId: string
  readonly occurredAt: DateTime.DateTime
}

/**
 * What is known about a message beside its content. The store fills in `traceparent`, the W3C trace context of the
 * span that wrote it; the other names are conventions, and any further field of JSON is yours.
 */
export interface Metadata {
  readonly correlationId?: string | undefined
  readonly causationId?: string | undefined
  readonly traceparent?: string | undefined
  readonly [field: string]: Schema.Json | undefined
}

/**
 * The version a stream has to be at for a write to go through: a whole number from 0 (no message yet) to
 * 2147483647, or `"exists"` (any but 0). A write that gives none is appended whatever the version.
 */
export type ExpectedVersion = typeof ExpectedVersionSchema.Type

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

// Limits of the table that stores and Python processes share: varchar(255), int4.
const maximumNameLength = 255
export const maximumVersion = 2_147_483_647

const invalid = (argument: string, reason: string) => Result.fail(new InvalidArgumentError({ argument, reason }))

/** A stream name has 1 to 255 characters (code points), none of them NUL or half of a surrogate pair. */
export const checkStreamName = (stream: string): Result.Result<string, InvalidArgumentError> => {
  if (typeof stream !== "string" || stream.length === 0) return invalid("stream", "must be a name of 1 to 255 characters")
  if (stream.length > maximumNameLength && Array.from(stream).length > maximumNameLength) {
    return invalid("stream", `must have at most ${maximumNameLength} characters`)
  }
  if (stream.includes("\0") || !stream.isWellFormed()) return invalid("stream", "must not contain NUL or lone surrogates")
  return Result.succeed(stream)
}

/** A pattern is LIKE's: `%` any run of characters, `_` any one, `\` takes the next one literally. */
export const checkPattern = (pattern: string): Result.Result<string, InvalidArgumentError> => {
  if (typeof pattern !== "string" || pattern.length === 0) return invalid("pattern", "must not be empty")
  if (pattern.includes("\0") || !pattern.isWellFormed()) return invalid("pattern", "must not contain NUL or lone surrogates")
  const escapes = /\\*$/.exec(pattern)?.[0].length ?? 0
  if (escapes % 2 === 1) return invalid("pattern", "must not end with \\: write \\\\ for a backslash")
  return Result.succeed(pattern)
}

/** Ids are compared in lower case, as PostgreSQL's uuid does. */
export const checkMessageId: (messageId: string) => Result.Result<string, InvalidArgumentError> = (messageId) =>
  isMessageId(messageId)
    ? Result.succeed(messageId.toLowerCase())
    : invalid("messageId", `must be a UUID, not ${JSON.stringify(messageId)}`)

const isMessageId = Schema.is(MessageId)

/** A whole number within bounds: versions, positions, limits. */
export const checkWhole = (
  argument: string,
  value: number,
  minimum: number,
  maximum: number = Number.MAX_SAFE_INTEGER
): Result.Result<number, InvalidArgumentError> =>
  Number.isInteger(value) && value >= minimum && value <= maximum
    ? Result.succeed(value)
    : invalid(argument, `must be a whole number from ${minimum} to ${maximum}, not ${value}`)

export const checkExpectedVersion = (
  expected: ExpectedVersion | undefined
): Result.Result<ExpectedVersion | undefined, InvalidArgumentError> =>
  expected === undefined || expected === "exists"
    ? Result.succeed(expected)
    : checkWhole("expectedVersion", expected, 0, maximumVersion)
