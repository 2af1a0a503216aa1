/**
 * Encodes writes as append items; maps outcomes to positions or errors.
 */
import { Array as Arr, type DateTime, Result } from "effect"
import {
  DuplicateMessageError,
  type InvalidArgumentError,
  OptimisticConcurrencyError,
  type SerializationError
} from "../errors.ts"
import {
  checkDistinct,
  checkExpectedVersion,
  checkMessageId,
  checkSize,
  checkStreamName,
  checkStreams,
  checkTime,
  invalid
} from "../internal/checks.ts"
import type { Answered } from "../internal/handled.ts"
import { checkTags } from "../internal/tags.ts"
import type { ExpectedVersion, MessagePosition, Metadata } from "../Message.ts"
import { encodeMetadata, type MessageCodec } from "../Serializer.ts"
import type { AppendItem, AppendOutcome, EncodedMessage } from "../Storage.ts"

/** A message, or several: at least one. */
export type OneOrMore<A> = A | Arr.NonEmptyReadonlyArray<A>

/** What a write can say beside its messages. */
export interface WriteOptions {
  /** The version the stream has to be at: 0 or more, or `"exists"`. Default: any. */
  readonly expectedVersion?: ExpectedVersion | undefined
  /**
   * Stored with each of the messages. A `traceparent` given here replaces that of the writing span, and in a handler of a
   * subscription a `causationId` or `correlationId` replaces that of the message that is handled; undefined leaves it out.
   */
  readonly metadata?: Metadata | undefined
}

/** One stream's part of a `writeAll`. */
export interface StreamWrite<out A> extends WriteOptions {
  readonly stream: string
  readonly messages: OneOrMore<A>
}

/** Where a message keeps its id and its time; needed only by messages that lack `Message.fields`. */
export interface Accessors<in A> {
  /** A UUID, always the same for the same message. */
  readonly id: (message: A) => string
  /** When what the message tells of happened. */
  readonly time: (message: A) => DateTime.DateTime
}

/** Writes, checked and encoded. */
export type Items = Arr.NonEmptyReadonlyArray<AppendItem>

/** Why writes may be refused before the database is asked. */
export type Invalid = DuplicateMessageError | SerializationError | InvalidArgumentError

/**
 * Checks and encodes all that is to be written, before anything is.
 *
 * @internal
 */
export const makeItems = <A>(codec: MessageCodec<A>, accessors: Accessors<A>, knownTags: () => number | undefined) => {
  // Plain loops: this runs for every message.
  const encodeAll = (
    messages: ReadonlyArray<A>
  ): Result.Result<ReadonlyArray<EncodedMessage>, SerializationError | InvalidArgumentError> => {
    const encoded: Array<EncodedMessage> = []
    for (const message of messages) {
      const messageId = checkMessageId(accessors.id(message))
      if (Result.isFailure(messageId)) return Result.fail(messageId.failure)
      let data: string
      let tagged: EncodedMessage["tagged"]
      if (codec.tags === undefined) {
        const text = codec.encode(message)
        if (Result.isFailure(text)) return Result.fail(text.failure)
        data = text.success
      } else {
        const both = codec.encodeTagged(message)
        if (Result.isFailure(both)) return Result.fail(both.failure)
        data = both.success.data
        tagged = both.success.tagged
      }
      const occurredAt = checkTime(accessors.time(message))
      if (Result.isFailure(occurredAt)) return Result.fail(occurredAt.failure)
      encoded.push({ messageId: messageId.success, occurredAt: occurredAt.success, data, tagged })
    }
    return Result.succeed(encoded)
  }

  const toItem = (
    write: StreamWrite<A>,
    traceparent: string | undefined,
    answered: Answered | undefined
  ): Result.Result<AppendItem, Invalid> => {
    const stream = checkStreamName(write.stream)
    if (Result.isFailure(stream)) return Result.fail(stream.failure)
    const expectedVersion = checkExpectedVersion(write.expectedVersion)
    if (Result.isFailure(expectedVersion)) return Result.fail(expectedVersion.failure)
    const metadata = encodeMetadata(write.metadata, traceparent, answered)
    if (Result.isFailure(metadata)) return Result.fail(metadata.failure)
    const encoded = encodeAll(Arr.ensure(write.messages))
    if (Result.isFailure(encoded)) return Result.fail(encoded.failure)
    const messages = encoded.success
    if (!Arr.isReadonlyArrayNonEmpty(messages)) {
      return invalid("messages", "must not be empty: there is nothing to write")
    }
    const distinct = checkDistinct(messages)
    if (Result.isFailure(distinct)) return Result.fail(distinct.failure)
    return Result.succeed({
      stream: stream.success,
      expectedVersion: expectedVersion.success,
      messages,
      metadata: metadata.success,
      knownTags: knownTags()
    })
  }

  return (
    writes: Arr.NonEmptyReadonlyArray<StreamWrite<A>>,
    traceparent: string | undefined,
    answered?: Answered
  ): Result.Result<Items, Invalid> => {
    const streams = checkStreams(writes)
    if (Result.isFailure(streams)) return Result.fail(streams.failure)
    const items = Result.all(Arr.map(writes, (write) => toItem(write, traceparent, answered)))
    if (Result.isFailure(items)) return Result.fail(items.failure)
    const tags = codec.tags === undefined ? Result.void : checkTags(items.success)
    if (Result.isFailure(tags)) return Result.fail(tags.failure)
    return Result.map(checkSize(items.success), () => items.success)
  }
}

/**
 * The positions written, or why the first item that was refused was refused.
 *
 * @internal
 */
export const toPositions = (
  items: ReadonlyArray<AppendItem>,
  outcomes: ReadonlyArray<AppendOutcome>
): Result.Result<
  ReadonlyArray<MessagePosition>,
  OptimisticConcurrencyError | DuplicateMessageError | SerializationError
> => {
  const positions: Array<MessagePosition> = []
  for (const [i, outcome] of outcomes.entries()) {
    const { expectedVersion = 0, stream } = items[i] as AppendItem
    switch (outcome._tag) {
      case "Written":
        positions.push({ stream, version: outcome.version, globalPosition: outcome.globalPosition })
        break
      case "WrongVersion":
        return Result.fail(
          new OptimisticConcurrencyError({ stream, expectedVersion, actualVersion: outcome.actualVersion })
        )
      case "Duplicate":
        return Result.fail(new DuplicateMessageError({ messageId: outcome.messageId }))
      case "Refused":
        return Result.fail(outcome.error)
      case "Skipped": // the reason is another item's
      case "Unchanged":
      case "Conflict":
      case "Outdated":
      case "WrongIsolation": // of conditions, which a plain write does not have
    }
  }
  return Result.succeed(positions)
}
