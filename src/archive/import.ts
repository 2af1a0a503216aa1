/** Messages of an archive into a store. */
import { Array as Arr, Effect, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { ArchiveConflictError, type ArchiveError, type InvalidArgumentError, SerializationError } from "../errors.ts"
import { invalid } from "../internal/checks.ts"
import { isTimeText } from "../internal/timeText.ts"
import { isPermanent } from "../internal/transient.ts"
import { maximumMetadataSize, unreadable, unstorable } from "../Serializer.ts"
import type { Storage } from "../Storage.ts"
import { type ArchivedMessage, type ImportOutcome, Refusal } from "../storage/archive.ts"
import { progress } from "./progress.ts"
import { type Block, read, type Source } from "./read.ts"

/** How far an import has come. */
export interface ImportProgress {
  /** How many messages of the archive are in the store. */
  readonly messages: number
  /** How many of them were there before. */
  readonly skipped: number
  /** How many the archive has. */
  readonly total: number
}

/** Why an import may fail; beside why its source may. */
export type ImportError = ArchiveError | ArchiveConflictError | InvalidArgumentError | SqlError

/** @internal */
export const make = (storage: Storage["Service"]) =>
<E, R>(
  source: Source<E, R>
): Stream.Stream<ImportProgress, ImportError | E, R> =>
  Stream.unwrap(Effect.map(
    storage.inTransaction,
    (inTransaction): Stream.Stream<ImportProgress, ImportError | E, R> =>
      inTransaction
        ? Stream.fromEffect(Effect.fromResult(invalid("import", "must not be called inside a transaction")))
        // The next block is read and checked while this one goes in.
        : progress(Stream.buffer(read(source), { capacity: 1 }), (block) => importBlock(storage, block)).pipe(
          Stream.map(({ counted, messages, total }) => ({ messages, skipped: counted, total }))
        )
  ))

/** Answers how many messages of the block were there before. */
const importBlock = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  { line, messages }: Block
): Effect.fn.Return<number, ArchiveConflictError | SqlError> {
  const faults = messages.map(whyNot)
  const end = faults.findIndex((fault) => fault !== undefined)
  let skipped = 0
  let left: ReadonlyArray<ArchivedMessage> = messages.slice(0, end < 0 ? messages.length : end)
  let first = line
  while (Arr.isReadonlyArrayNonEmpty(left)) {
    const outcome = yield* importSome(storage, left, first)
    if (outcome._tag === "Refused") {
      const message = left[outcome.index] as ArchivedMessage // it is of these
      return yield* conflict(message, first + outcome.index, outcome.refusal)
    }
    skipped += outcome.skipped
    left = left.slice(outcome.messages)
    first += outcome.messages
  }
  const [refused, reason] = [messages[end], faults[end]]
  if (refused === undefined || reason === undefined) return skipped
  const cause = new SerializationError({ operation: "serialize", reason })
  return yield* Effect.fail(conflictOf(refused, first, { reason: "refused", cause }))
})

/** Values that are encrypted take more than `maximumMessageSize`; readers take no more than this. */
const maximumSize = 15 * 1024 * 1024

/** Why a message cannot be in a store, whatever the database says: nobody could read it. */
const whyNot = ({ addedAt, data, metadata, occurredAt = addedAt }: ArchivedMessage): string | undefined => {
  if (!isTimeText(addedAt) || (occurredAt !== addedAt && !isTimeText(occurredAt))) return "it has a time that is none"
  if (metadata !== "null" && !metadata.startsWith("{")) return "its metadata is no object"
  const fault = unstorable(metadata, maximumMetadataSize)
  return fault === undefined ? unreadable(data, maximumSize) : `in its metadata: ${fault}`
}

/** If the database refuses them, fewer of them, down to the one that it refuses. */
const importSome = (
  storage: Storage["Service"],
  messages: Arr.NonEmptyReadonlyArray<ArchivedMessage>,
  line: number
): Effect.Effect<ImportOutcome, ArchiveConflictError | SqlError> =>
  Effect.catchIf(storage.importStored(messages), isPermanent, (error) =>
    messages.length === 1
      ? Effect.fail(conflictOf(messages[0], line, { reason: "refused", cause: error.reason.cause }))
      : importSome(storage, [messages[0], ...messages.slice(1, messages.length >> 1)], line))

type Conflict = Pick<ArchiveConflictError, "reason"> & Partial<ArchiveConflictError>

const conflictOf = (
  { messageId, stream, version }: ArchivedMessage,
  line: number,
  why: Conflict
): ArchiveConflictError => new ArchiveConflictError({ line, stream, version, messageId, ...why })

const conflict = (message: ArchivedMessage, line: number, refusal: Refusal) =>
  Effect.fail(conflictOf(
    message,
    line,
    Refusal.$match(refusal, {
      Gap: ({ actualVersion }): Conflict => ({ reason: "gap", actualVersion }),
      Before: ({ firstVersion }): Conflict => ({ reason: "before", firstVersion }),
      Differs: ({ storedMessageId }): Conflict => ({ reason: "differs", storedMessageId }),
      Elsewhere: ({ stream, version }): Conflict => ({
        reason: "elsewhere",
        storedStream: stream,
        storedVersion: version
      })
    })
  ))
