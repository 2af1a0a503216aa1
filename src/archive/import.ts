/** Messages of an archive into a store. */
import { Array as Arr, Effect, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { ArchiveConflictError, type ArchiveError, type InvalidArgumentError, SerializationError } from "../errors.ts"
import { maximumVersion, outsideTransaction } from "../internal/checks.ts"
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
  Stream.unwrap(Effect.as(
    outsideTransaction(storage, "import"),
    // The next blocks are read and checked while these go in.
    progress(
      Stream.chunks(Stream.buffer(read(source), { capacity: blocksAtATime })),
      (blocks) => importBlocks(storage, blocks)
    ).pipe(
      Stream.map(({ counted, messages, total }) => ({ messages, skipped: counted, total }))
    )
  ))

type Blocks = Arr.NonEmptyReadonlyArray<Block>

/** How many blocks wait at most, and go in with one transaction: its round trips and its way to the disk cost each a part. */
const blocksAtATime = 4

/** How many characters go in with one transaction; a block goes in whatever it has. */
const mostText = 8 * 1024 * 1024

/** Answers how many of the messages were there before. */
const importBlocks = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  blocks: Blocks
): Effect.fn.Return<number, ArchiveConflictError | SqlError> {
  const { fault, sound } = untilFault(blocks)
  let skipped = 0
  let left = sound
  while (Arr.isReadonlyArrayNonEmpty(left)) {
    const outcome = yield* importSome(storage, withFewCharacters(left))
    skipped += outcome.skipped
    left = without(left, outcome.messages)
  }
  return fault === undefined ? skipped : yield* fault
})

/** What comes before the first message that cannot be in a store, and why that cannot. */
const untilFault = (
  blocks: Blocks
): { readonly sound: ReadonlyArray<Block>; readonly fault: ArchiveConflictError | undefined } => {
  for (const [n, block] of blocks.entries()) {
    for (const [i, message] of block.messages.entries()) {
      const reason = whyNot(message)
      if (reason === undefined) continue
      const cause = new SerializationError({ operation: "serialize", reason })
      const messages = block.messages.slice(0, i)
      return {
        sound: [...blocks.slice(0, n), ...Arr.isReadonlyArrayNonEmpty(messages) ? [{ ...block, messages }] : []],
        fault: conflictOf(message, block.line + i, { reason: "refused", cause })
      }
    }
  }
  return { sound: blocks, fault: undefined }
}

/** Values that are encrypted take more than `maximumMessageSize`; readers take no more than this. */
const maximumSize = 15 * 1024 * 1024

/** Why a message cannot be in a store, whatever the database says: nobody could read it, or write behind it. */
const whyNot = ({ addedAt, data, metadata, occurredAt = addedAt, version }: ArchivedMessage): string | undefined => {
  if (version >= maximumVersion) return "its version is the last one that there is"
  if (!isTimeText(addedAt) || (occurredAt !== addedAt && !isTimeText(occurredAt))) return "it has a time that is none"
  if (metadata !== "null" && !metadata.startsWith("{")) return "its metadata is no object"
  const fault = unstorable(metadata, maximumMetadataSize)
  return fault === undefined ? unreadable(data, maximumSize) : `in its metadata: ${fault}`
}

/** The first of them. */
const withFewCharacters = ([first, ...others]: Blocks): Blocks => {
  let { size } = first
  return [first, ...Arr.takeWhile(others, (block) => (size += block.size) <= mostText)]
}

/** What is left of them when so many messages are in. */
const without = ([first, ...others]: Blocks, count: number): ReadonlyArray<Block> => {
  const messages = first.messages.slice(count)
  if (Arr.isReadonlyArrayNonEmpty(messages)) return [{ ...first, messages, line: first.line + count }, ...others]
  return Arr.isReadonlyArrayNonEmpty(others) ? without(others, count - first.messages.length) : []
}

/** If one of them has no place, or the database refuses it, the first block goes in by itself: those before its own have to be in. */
const importSome = (
  storage: Storage["Service"],
  blocks: Blocks
): Effect.Effect<Imported, ArchiveConflictError | SqlError> => {
  const [first, ...others] = blocks
  if (others.length === 0) return importBlock(storage, first)
  return Effect.matchEffect(storage.importStored(Arr.flatMap(blocks, ({ messages }) => messages)), {
    onSuccess: (outcome) => outcome._tag === "Imported" ? Effect.succeed(outcome) : importBlock(storage, first),
    onFailure: (error) => isPermanent(error) ? importBlock(storage, first) : Effect.fail(error)
  })
}

/** If the database refuses them, fewer of them, down to the one that it refuses. */
const importBlock = (
  storage: Storage["Service"],
  { line, messages }: Pick<Block, "line" | "messages">
): Effect.Effect<Imported, ArchiveConflictError | SqlError> =>
  Effect.matchEffect(storage.importStored(messages), {
    onSuccess: (outcome) =>
      outcome._tag === "Imported"
        ? Effect.succeed(outcome)
        : conflict(messages[outcome.index] as ArchivedMessage, line + outcome.index, outcome.refusal), // it is of these
    onFailure: (error) => {
      if (!isPermanent(error)) return Effect.fail(error)
      return messages.length === 1
        ? Effect.fail(conflictOf(messages[0], line, { reason: "refused", cause: error.reason.cause }))
        : importBlock(storage, { line, messages: [messages[0], ...messages.slice(1, messages.length >> 1)] })
    }
  })

type Imported = Extract<ImportOutcome, { readonly _tag: "Imported" }>

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
