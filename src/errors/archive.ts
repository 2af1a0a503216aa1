/** The tagged errors of archives. */
import { Schema } from "effect"
import { printable } from "../internal/printable.ts"

/**
 * An archive is not what was written: it is cut off, or was altered, or is no archive. What came before the line may be imported;
 * of the line, and of what is behind it, nothing is, and nothing is deleted.
 */
export class ArchiveError extends Schema.TaggedError<ArchiveError>("effect-message-store/errors/ArchiveError")(
  "ArchiveError",
  {
    /** From 1. */
    line: Schema.Natural,
    reason: Schema.String
  }
) {
  override get message() {
    return `line ${this.line} of the archive ${this.reason}: get a whole copy of it, or export again`
  }
}

/**
 * A message of an archive cannot be imported into the store, or not be deleted from it. Of the messages up to 1000 lines before it
 * and of those behind it nothing was changed.
 *
 * - `gap`: its stream is at `actualVersion`, and the versions between are missing: import what comes before first;
 * - `before`: its stream begins with version `firstVersion`, and positions in front of that are behind those of others;
 * - `differs`: its stream has another message (`storedMessageId`) at its version;
 * - `elsewhere`: its id is stored in `storedStream` at `storedVersion`;
 * - `notArchived`: its stream has messages before it, from version `firstVersion` on, that the archive does not have;
 * - `refused`: no store can have it, or the database refuses it, for the reason of `cause`: its metadata is no object, or it lacks
 *   a tag that is declared, say.
 */
export class ArchiveConflictError extends Schema.TaggedError<ArchiveConflictError>(
  "effect-message-store/errors/ArchiveConflictError"
)("ArchiveConflictError", {
  line: Schema.Natural,
  stream: Schema.String,
  version: Schema.Natural,
  messageId: Schema.String,
  reason: Schema.Literals(["gap", "before", "differs", "elsewhere", "notArchived", "refused"]),
  actualVersion: Schema.optionalKey(Schema.Natural),
  firstVersion: Schema.optionalKey(Schema.Natural),
  storedMessageId: Schema.optionalKey(Schema.String),
  storedStream: Schema.optionalKey(Schema.String),
  storedVersion: Schema.optionalKey(Schema.Natural),
  cause: Schema.optionalKey(Schema.Defect())
}) {
  override get message() {
    const which =
      `message ${this.messageId} (stream "${printable(this.stream)}", version ${this.version}), line ${this.line} of ` +
      "the archive,"
    switch (this.reason) {
      case "gap":
        return `${which} has no place in the store: the stream is at version ${this.actualVersion}; import what is between first`
      case "before":
        return `${which} has no place in the store: the stream begins with version ${this.firstVersion} there, and nothing can go ` +
          "in front of that; import it into another store"
      case "differs":
        return `${which} is another one than the store has at that version (${this.storedMessageId}): the stream has another ` +
          "history there"
      case "elsewhere":
        return `${which} is stored already, in stream "${
          printable(this.storedStream ?? "")
        }" at version ${this.storedVersion}`
      case "notArchived":
        return `${which} is not the first that the store has of its stream, which begins with version ${this.firstVersion}: archive ` +
          "what comes before as well"
      case "refused":
        return `${which} cannot be stored: ${
          printable(String((this.cause as Error | undefined)?.message ?? this.cause))
        }`
    }
  }
}
