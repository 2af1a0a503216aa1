/**
 * Every tagged error of the library.
 *
 * Each carries the data its caller needs to act, and a message that says what to do. Failures of the database
 * itself stay what they are in Effect: `SqlError`, whose `isRetryable` tells whether trying again can help.
 */
import { Schema } from "effect"
import { printable } from "./internal/printable.ts"

export * from "./errors/archive.ts"
export * from "./errors/availability.ts"

const ExpectedVersion = Schema.Union([Schema.Natural, Schema.Literal("exists")])

/** The stream was not at the version that the write expected. Nothing was written; a transaction stays usable. */
export class OptimisticConcurrencyError extends Schema.TaggedError<OptimisticConcurrencyError>(
  "effect-message-store/errors/OptimisticConcurrencyError"
)("OptimisticConcurrencyError", {
  stream: Schema.String,
  expectedVersion: ExpectedVersion,
  actualVersion: Schema.Natural
}) {
  override get message() {
    return `stream "${printable(this.stream)}" is at version ${this.actualVersion}, but the write expected ${
      this.expectedVersion === "exists" ? "it to exist" : `version ${this.expectedVersion}`
    }: read the stream again and decide again`
  }
}

/**
 * Others changed a source of a decision more often than it is retried. Nothing was written; a transaction stays usable.
 * `source` is the name of the source in the decision; the other fields tell the first message that was added to it, if there
 * still is one.
 */
export class DecisionConflictError extends Schema.TaggedError<DecisionConflictError>(
  "effect-message-store/errors/DecisionConflictError"
)("DecisionConflictError", {
  source: Schema.String,
  messageId: Schema.optionalKey(Schema.String),
  globalPosition: Schema.optionalKey(Schema.Natural),
  stream: Schema.optionalKey(Schema.String),
  version: Schema.optionalKey(Schema.Natural)
}) {
  override get message() {
    const change = this.messageId === undefined
      ? ""
      : ` by message ${this.messageId} of stream ${JSON.stringify(this.stream)}, version ${this.version}, at global ` +
        `position ${this.globalPosition}`
    return `"${this.source}" was changed${change} while this was decided: decide again, in another transaction`
  }
}

/**
 * A decision was to be written in a transaction that does not see what others have committed since it began, so that it
 * cannot tell whether what was read still holds. Nothing was written; the transaction stays usable.
 */
export class IsolationError extends Schema.TaggedError<IsolationError>("effect-message-store/errors/IsolationError")(
  "IsolationError",
  {}
) {
  override get message() {
    return "a decision on several streams, or on tags, needs a transaction at READ COMMITTED: at REPEATABLE READ or " +
      "SERIALIZABLE it could be made on what has changed long since"
  }
}

/**
 * Messages that were stored before these tags were declared do not have them yet, so a search by them would miss some. Nothing
 * was read or written. Run the store's `tagging`, or its `layerTagging`, and try again when it is complete.
 */
export class TagsIncompleteError extends Schema.TaggedError<TagsIncompleteError>(
  "effect-message-store/errors/TagsIncompleteError"
)("TagsIncompleteError", {
  store: Schema.String,
  /** The names of the tags. */
  tags: Schema.Array(Schema.String),
  /** The types whose messages do not have them all, as they are stored. */
  types: Schema.Array(Schema.String)
}) {
  override get message() {
    return `messages of the store "${this.store}" that were stored before the tags ${
      printable(this.tags.join(", "))
    } of ${printable(this.types.join(", "))} were declared are not found by them yet: run the store's tagging ` +
      "(layerTagging), and ask again when it is complete"
  }
}

/**
 * Messages that were stored before their tags were declared cannot be given them: they do not decode, or cannot have the tags that
 * they should. The pages before them are tagged; nothing else was changed. Mend the schema, or name those that are to have
 * no tags in the options of `tagging`, and run it again.
 */
export class TaggingError extends Schema.TaggedError<TaggingError>("effect-message-store/errors/TaggingError")(
  "TaggingError",
  {
    store: Schema.String,
    /** Of one page, in the order of global positions; at most 100. */
    messages: Schema.Array(Schema.Struct({
      messageId: Schema.String,
      stream: Schema.String,
      version: Schema.Natural,
      reason: Schema.String
    }))
  }
) {
  override get message() {
    const [first] = this.messages
    return `${this.messages.length} messages of the store "${this.store}" cannot be tagged, the first of which is ${
      first?.messageId ?? "none"
    } of stream "${printable(first?.stream ?? "")}" at version ${first?.version ?? 0}: ${
      first?.reason ?? ""
    }. Mend the schema, or pass them over with \`tagging({ without: [...] })\``
  }
}

/** A message of this id is already stored, or was given twice. Nothing was written; a transaction stays usable. */
export class DuplicateMessageError extends Schema.TaggedError<DuplicateMessageError>(
  "effect-message-store/errors/DuplicateMessageError"
)("DuplicateMessageError", { messageId: Schema.String }) {
  override get message() {
    return `message ${this.messageId} is already stored: to repeat a write whose answer was lost, use synchronize`
  }
}

/** `synchronize` found another message in the stream than the one it was given for that version. Nothing was written. */
export class MessageIdMismatchError extends Schema.TaggedError<MessageIdMismatchError>(
  "effect-message-store/errors/MessageIdMismatchError"
)("MessageIdMismatchError", {
  stream: Schema.String,
  version: Schema.Natural,
  storedMessageId: Schema.String,
  givenMessageId: Schema.String
}) {
  override get message() {
    return `stream "${printable(this.stream)}" holds message ${this.storedMessageId} at version ${this.version}, ` +
      `not ${this.givenMessageId}: the stream was changed by others since these messages were put together`
  }
}

/** No message of this id is stored, or none that the reader's snapshot can see. */
export class MessageNotFoundError extends Schema.TaggedError<MessageNotFoundError>(
  "effect-message-store/errors/MessageNotFoundError"
)("MessageNotFoundError", { messageId: Schema.String }) {
  override get message() {
    return `no message ${this.messageId} in this store`
  }
}

/**
 * A message that cannot be stored (the schema rejects it; it holds NUL or a lone surrogate; it is too large or too
 * deeply nested), or stored data that does not decode. Where it was read from is known: `stream`, `version`.
 */
export class SerializationError extends Schema.TaggedError<SerializationError>(
  "effect-message-store/errors/SerializationError"
)("SerializationError", {
  operation: Schema.Literals(["serialize", "deserialize"]),
  reason: Schema.String,
  stream: Schema.optionalKey(Schema.String),
  version: Schema.optionalKey(Schema.Natural),
  messageId: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    const place = [
      this.messageId === undefined ? "" : ` ${this.messageId}`,
      this.stream === undefined ? "" : ` of stream "${printable(this.stream)}"`,
      this.version === undefined ? "" : ` at version ${this.version}`
    ].join("")
    return `cannot ${this.operation} message${place}: ${this.reason}`
  }
}

/**
 * Personal data cannot be encrypted or decrypted: the `cause` of a `SerializationError`, and what `forget` and `rewrapKeys` fail
 * with. Such data is never read as `Forgotten`: only data whose key was forgotten is.
 *
 * - `wrappingKey`: this process does not have the key that wraps the data key, or has another one under its id;
 * - `unavailable`: what wraps data keys, or keeps them, cannot be reached;
 * - `tampered`: what is stored was not encrypted for this field of this message, or was changed since;
 * - `lost`: the data key is not where keys are kept, though nobody has forgotten it: an older backup was restored, say, or an archive
 *   was imported without them;
 * - `forgotten`: the subject is forgotten, and nothing is written for it;
 * - `noSubject`: the message does not say whose data it has.
 */
export class PersonalDataError extends Schema.TaggedError<PersonalDataError>(
  "effect-message-store/errors/PersonalDataError"
)("PersonalDataError", {
  reason: Schema.Literals(["wrappingKey", "unavailable", "tampered", "lost", "forgotten", "noSubject"]),
  /** Of the wrapping key. */
  keyId: Schema.optionalKey(Schema.String),
  subject: Schema.optionalKey(Schema.String),
  /** Where in the stored JSON it is. */
  field: Schema.optionalKey(Schema.String),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    const field = this.field === undefined ? "a personal field" : `the personal field ${printable(this.field)}`
    const subject = this.subject === undefined ? "the subject" : `the subject "${printable(this.subject)}"`
    switch (this.reason) {
      case "wrappingKey":
        return `data keys are wrapped by the key "${
          printable(this.keyId ?? "")
        }", which this process does not have, or has ` +
          "wrongly: give its KeyEncryption that key as well"
      case "unavailable":
        return "the keys of personal data cannot be reached: try again"
      case "tampered":
        return `${field} was not encrypted for this message and this field, or was changed since`
      case "lost":
        return `${field} is encrypted by a key that is not where keys are kept, though nobody has forgotten it: restore the ` +
          "keys, or copy them from the store that the message was imported from"
      case "forgotten":
        return `${subject} is forgotten: nothing personal is written for it, unless the store has whenForgotten: "newKey"`
      case "noSubject":
        return `the message does not say whose ${field} is: its subject must be a string of 1 to 255 characters, or a number`
    }
  }
}

/**
 * An argument out of its bounds, or a call that is not allowed inside a transaction. Refused before anything was read or
 * written.
 */
export class InvalidArgumentError extends Schema.TaggedError<InvalidArgumentError>(
  "effect-message-store/errors/InvalidArgumentError"
)("InvalidArgumentError", {
  argument: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.argument} ${this.reason}`
  }
}

/** A name (of a store, an aggregated stream, a subscription) that cannot be part of names of database objects, or is taken. */
export class InvalidNameError extends Schema.TaggedError<InvalidNameError>(
  "effect-message-store/errors/InvalidNameError"
)("InvalidNameError", { identifier: Schema.String, reason: Schema.String }) {
  override get message() {
    return `"${printable(this.identifier)}" ${this.reason}`
  }
}

/**
 * The database objects of a store, an aggregated stream or a subscription are missing, are of an earlier version, cannot be
 * made or opened by this role, or are not as the library needs them; row-level security may hide messages from a role that projects or
 * handles them; or a subscription claims by session behind a pooler that shares
 * sessions out by transaction. The reason says what to do.
 */
export class SetupError extends Schema.TaggedError<SetupError>("effect-message-store/errors/SetupError")("SetupError", {
  identifier: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `"${this.identifier}" ${this.reason}`
  }
}

/**
 * The messages linked so far follow other patterns, or another partitioner, than the stream has now. Nothing was linked:
 * rebuild the stream and reset its subscriptions, since positions change, or give it another name.
 */
export class StreamDefinitionError extends Schema.TaggedError<StreamDefinitionError>(
  "effect-message-store/errors/StreamDefinitionError"
)("StreamDefinitionError", { aggregatedStream: Schema.String, stored: Schema.String, given: Schema.String }) {
  override get message() {
    return `aggregated stream "${this.aggregatedStream}" was built by ${
      printable(this.stored)
    }, and is now defined by ${printable(this.given)}: ` +
      "rebuild it and reset its subscriptions, since positions change, or use another name"
  }
}

/**
 * The sequence of the store's global positions cannot be relied on: it has a cache or does not rise, or this role may not
 * read it. Nothing was linked; `reason` says what to do, and what has waited is linked then.
 */
export class SequenceError extends Schema.TaggedError<SequenceError>("effect-message-store/errors/SequenceError")(
  "SequenceError",
  { aggregatedStream: Schema.String, sequence: Schema.String, reason: Schema.String }
) {
  override get message() {
    return `the projector of "${this.aggregatedStream}" cannot begin: the sequence ${this.sequence} ${this.reason}`
  }
}

/**
 * The aggregated stream was rebuilt since the subscription began, so that the checkpoints name positions of other
 * messages. Nothing was handled: `reset` the subscription, to begin at the beginning or wherever it should.
 */
export class StreamRebuiltError extends Schema.TaggedError<StreamRebuiltError>(
  "effect-message-store/errors/StreamRebuiltError"
)("StreamRebuiltError", { subscription: Schema.String }) {
  override get message() {
    return `the aggregated stream of subscription "${this.subscription}" was rebuilt, or dropped and made again, since the ` +
      "subscription began: reset the subscription"
  }
}

/**
 * A partitioner threw, or returned something other than a whole number from 0 to 2147483647. The messages before this one are linked,
 * this one and those behind it are not.
 */
export class PartitionError extends Schema.TaggedError<PartitionError>("effect-message-store/errors/PartitionError")(
  "PartitionError",
  {
    aggregatedStream: Schema.String,
    messageId: Schema.String,
    stream: Schema.String,
    version: Schema.Natural,
    reason: Schema.String,
    cause: Schema.optionalKey(Schema.Defect())
  }
) {
  override get message() {
    return `the partitioner of "${this.aggregatedStream}" ${this.reason} for message ${this.messageId} of stream ` +
      `"${printable(this.stream)}" at version ${this.version}: fix it, and the projection goes on from there`
  }
}

/**
 * A handler failed for the last time, and `onFailure` is `"stop"`. The message is not acknowledged: it is delivered again when
 * the subscription runs again.
 */
export class HandlerError extends Schema.TaggedError<HandlerError>("effect-message-store/errors/HandlerError")(
  "HandlerError",
  {
    subscription: Schema.String,
    partition: Schema.Natural,
    position: Schema.Natural,
    messageId: Schema.String,
    attempts: Schema.Natural,
    cause: Schema.Defect()
  }
) {
  override get message() {
    return `subscription "${this.subscription}" stopped at message ${this.messageId}, position ${this.position} of ` +
      `partition ${this.partition}: its handler failed, at attempt ${this.attempts} for the last time`
  }
}

/**
 * `waitUntilProcessed` timed out. A message that is not linked belongs to no stream that matches, was rolled back, or waits for
 * a projector; one that is linked waits for a worker, or for the messages before it.
 */
export class NotProcessedError extends Schema.TaggedError<NotProcessedError>(
  "effect-message-store/errors/NotProcessedError"
)("NotProcessedError", {
  subscription: Schema.String,
  globalPosition: Schema.Natural,
  /** Whether the aggregated stream has the message. */
  isLinked: Schema.Boolean,
  /** In milliseconds. */
  waited: Schema.Number
}) {
  override get message() {
    return `subscription "${this.subscription}" has not processed the message at global position ${this.globalPosition} ` +
      `within ${this.waited} ms: ${
        this.isLinked
          ? "it is linked, so look at the subscription's status and lag"
          : "it is not linked, so look whether its stream matches the aggregated stream and a projector is running"
      }`
  }
}

/**
 * A version of a projection is not there, or is not what the call needs it to be. Nothing was changed.
 *
 * - `missing`: there is no such version, or it was dropped;
 * - `nonePromoted`: no version was promoted yet, so that there is nothing to be read;
 * - `noneBefore`: no lower version was promoted before, so that there is none to go back to;
 * - `promoted`: it is what readers see, and cannot be dropped;
 * - `behind`: it would show readers less than they have seen, by so many messages.
 */
export class VersionError extends Schema.TaggedError<VersionError>("effect-message-store/errors/VersionError")(
  "VersionError",
  {
    projection: Schema.String,
    version: Schema.optionalKey(Schema.Natural),
    reason: Schema.Literals(["missing", "nonePromoted", "noneBefore", "promoted", "behind"]),
    behind: Schema.optionalKey(Schema.Natural)
  }
) {
  override get message() {
    const version = `version ${this.version} of projection "${this.projection}"`
    switch (this.reason) {
      case "missing":
        return `there is no ${version}: it was never made, or was dropped`
      case "nonePromoted":
        return `projection "${this.projection}" has no promoted version: the first is promoted when it has caught up`
      case "noneBefore":
        return `projection "${this.projection}" has no lower version that was promoted before, so there is none to go back to: promote a version by its number`
      case "promoted":
        return `${version} is what readers see: promote another one before it is dropped`
      case "behind":
        return `${version} is ${this.behind} messages behind: run a process of that version until it has caught up, or allow a lag`
    }
  }
}
