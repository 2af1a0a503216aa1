/**
 * The bounds of arguments, and calls that are not allowed in a transaction: checked before anything is read or written.
 */
import { DateTime, Duration, Effect, Option, Result, Schema } from "effect"
import { DuplicateMessageError, InvalidArgumentError } from "../errors.ts"
import { type ExpectedVersion, MessageId } from "../Message.ts"
import { printable } from "./printable.ts"

// Limits of the table that this library and Python processes share: varchar(255), int4.
const maximumNameLength = 255
/** A name with each of its characters escaped has twice as many; what is left is for wildcards. */
const maximumPatternLength = 1000
export const maximumVersion = 2_147_483_647
export const maximumPartition = 2_147_483_647

export const invalid = (argument: string, reason: string) => Result.fail(new InvalidArgumentError({ argument, reason }))

/** Checks what was given, if it was. */
export const optional = <A, B>(
  value: A | undefined,
  check: (value: A) => Result.Result<B, InvalidArgumentError>
): Result.Result<B | undefined, InvalidArgumentError> => value === undefined ? Result.succeed(undefined) : check(value)

/** Refuses a call while a transaction is open in the fiber's context. */
export const outsideTransaction = (
  { inTransaction }: { readonly inTransaction: Effect.Effect<boolean> },
  call: string
): Effect.Effect<void, InvalidArgumentError> =>
  Effect.flatMap(
    inTransaction,
    (isOpen) => isOpen ? Effect.fromResult(invalid(call, "must not be called inside a transaction")) : Effect.void
  )

/** A stream name has 1 to 255 characters (code points), none of them NUL or half of a surrogate pair. */
export const checkStreamName = (stream: string): Result.Result<string, InvalidArgumentError> => {
  if (typeof stream !== "string" || stream.length === 0) {
    return invalid("stream", "must be a name of 1 to 255 characters")
  }
  if (stream.length > maximumNameLength && Array.from(stream).length > maximumNameLength) {
    return invalid("stream", `must have at most ${maximumNameLength} characters`)
  }
  if (stream.includes("\0") || !stream.isWellFormed()) {
    return invalid("stream", "must not contain NUL or lone surrogates")
  }
  return Result.succeed(stream)
}

/** A key, of a scheduled message or of parked ones, has 1 to 255 characters, as names of streams have. */
export const checkKey = (key: string): Result.Result<string, InvalidArgumentError> =>
  Result.mapError(checkStreamName(key), ({ reason }) => new InvalidArgumentError({ argument: "key", reason }))

/** A pattern is LIKE's: `%` any run of characters, `_` any one, `\` takes the next one literally. */
export const checkPattern = (pattern: string): Result.Result<string, InvalidArgumentError> => {
  if (typeof pattern !== "string" || pattern.length === 0) return invalid("pattern", "must not be empty")
  if (pattern.length > maximumPatternLength) {
    return invalid("pattern", `must have at most ${maximumPatternLength} characters`)
  }
  if (pattern.includes("\0") || !pattern.isWellFormed()) {
    return invalid("pattern", "must not contain NUL or lone surrogates")
  }
  const escapes = /\\*$/.exec(pattern)?.[0].length ?? 0
  if (escapes % 2 === 1) return invalid("pattern", "must not end with \\: write \\\\ for a backslash")
  return Result.succeed(pattern)
}

/** A `Message.MessageId`. Ids are compared in lower case, as PostgreSQL's uuid does. */
export const checkMessageId = (messageId: string): Result.Result<string, InvalidArgumentError> =>
  isMessageId(messageId)
    ? Result.succeed(messageId.toLowerCase())
    : invalid("messageId", `must be a UUID, not ${printable(String(JSON.stringify(messageId)))}`)

const isMessageId = Schema.is(MessageId)

/** 4714-11-24 BC, where the times of PostgreSQL begin; they end later than those of JavaScript. */
export const earliestTime = DateTime.makeUnsafe("-004713-11-24T00:00:00.000Z")

/** When a message occurred, or is due, as every backend can hold it. */
export const checkTime = (
  time: DateTime.DateTime,
  argument: string = "occurredAt"
): Result.Result<DateTime.Utc, InvalidArgumentError> =>
  time.epochMilliseconds >= earliestTime.epochMilliseconds
    ? Result.succeed(DateTime.isUtc(time) ? time : DateTime.toUtc(time))
    : invalid(argument, "must not be before 24 November 4714 BC, where the times of PostgreSQL begin")

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

/** A length of time within bounds, in milliseconds. */
export const checkDuration = (
  argument: string,
  given: Duration.Input,
  bounds: { readonly minimum: number; readonly maximum?: number; readonly reason: string } = notNegative
): Result.Result<Duration.Duration, InvalidArgumentError> => {
  const duration = Duration.fromInput(given)
  if (Option.isNone(duration)) return invalid(argument, "must be a duration, as \"5 seconds\" or milliseconds")
  const milliseconds = Duration.toMillis(duration.value)
  return milliseconds >= bounds.minimum && milliseconds <= (bounds.maximum ?? Infinity)
    ? Result.succeed(duration.value)
    : invalid(argument, bounds.reason)
}

const notNegative = { minimum: 0, reason: "must not be negative" }

/** How long something waits for a wake-up before it looks for itself. */
export const checkPollInterval = (
  given: Duration.Input = "5 seconds"
): Result.Result<Duration.Duration, InvalidArgumentError> =>
  checkDuration("pollInterval", given, { minimum: 1, reason: "must be a millisecond or more" })

export const checkPartition = (partition: number): Result.Result<number, InvalidArgumentError> =>
  checkWhole("partition", partition, 0, maximumPartition)

/** Text that people write, for people. */
export const checkText = (
  argument: string,
  text: string,
  maximum: number
): Result.Result<string, InvalidArgumentError> =>
  typeof text === "string" && text.length > 0 && text.length <= maximum && !text.includes("\0") && text.isWellFormed()
    ? Result.succeed(text)
    : invalid(argument, `must be text of 1 to ${maximum} characters, without NUL and lone surrogates`)

export const checkExpectedVersion = (
  expected: ExpectedVersion | undefined
): Result.Result<ExpectedVersion | undefined, InvalidArgumentError> =>
  expected === undefined || expected === "exists"
    ? Result.succeed(expected)
    : checkWhole("expectedVersion", expected, 0, maximumVersion)

/** No message twice in one write to a stream. */
export const checkDistinct = (
  messages: ReadonlyArray<{ readonly messageId: string }>
): Result.Result<void, DuplicateMessageError> => {
  if (messages.length === 1) return Result.void
  const seen = new Set<string>()
  for (const { messageId } of messages) {
    if (seen.has(messageId)) return Result.fail(new DuplicateMessageError({ messageId }))
    seen.add(messageId)
  }
  return Result.void
}

/** Each stream has a lock of its own in the database until the write is committed, and the locks of all clients have one table. */
const maximumStreams = 500

/** The streams of one write, or of what is done to messages. */
export const checkStreams = (
  writes: ReadonlyArray<{ readonly stream: string }>,
  argument = "writes",
  verb = "write"
): Result.Result<void, InvalidArgumentError> =>
  writes.length <= maximumStreams || new Set(writes.map(({ stream }) => stream)).size <= maximumStreams
    ? Result.void
    : invalid(argument, `must not be of more than ${maximumStreams} streams: ${verb} them in parts`)

/** The sources of one decision: each stream, and each set of tags, has a lock until the commit. */
export const checkSources = (
  streams: ReadonlyArray<string>,
  tagSets: number
): Result.Result<void, InvalidArgumentError> =>
  new Set(streams).size + tagSets <= maximumStreams
    ? Result.void
    : invalid("sources", `must not have more than ${maximumStreams} streams and sets of tags: decide on fewer`)

// What a single statement carries without trouble, in characters of JSON.
const maximumWriteSize = 256 * 1024 * 1024

/** The JSON of all messages of one write. */
export const checkSize = (
  items: ReadonlyArray<{ readonly messages: ReadonlyArray<{ readonly data: string }> }>
): Result.Result<void, InvalidArgumentError> => {
  let size = 0
  for (const { messages } of items) for (const { data } of messages) size += data.length
  return size <= maximumWriteSize
    ? Result.void
    : invalid(
      "messages",
      `must not have more than ${maximumWriteSize} characters of JSON in one write: write them in parts`
    )
}
