/** Deletes from a store what an archive has of it. */
import { Array as Arr, Effect, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { ArchiveConflictError, type ArchiveError, type InvalidArgumentError } from "../errors.ts"
import { outsideTransaction } from "../internal/checks.ts"
import type { Storage } from "../Storage.ts"
import type { ArchivedMessage } from "../storage/archive.ts"
import { progress } from "./progress.ts"
import { type Block, read, type Source } from "./read.ts"

/** How far the deletion of what is archived has come. */
export interface DeleteProgress {
  /** How many messages of the archive are not in the store any more. */
  readonly messages: number
  /** How many of them this call has deleted. */
  readonly deleted: number
  /** How many the archive has. */
  readonly total: number
}

/** Why a deletion may fail; beside why its source may. */
export type DeleteError = ArchiveError | ArchiveConflictError | InvalidArgumentError | SqlError

/** Each stream of a transaction has a lock in the database. */
const streamsAtATime = 500

/** A message, and its line in the archive. */
interface Line extends ArchivedMessage {
  readonly line: number
}

/** @internal */
export const make = (storage: Storage["Service"]) =>
<E, R>(
  source: Source<E, R>
): Stream.Stream<DeleteProgress, DeleteError | E, R> =>
  Stream.unwrap(Effect.gen(function*() {
    yield* outsideTransaction(storage, "delete")
    yield* Stream.runDrain(read(source)) // all of it is whole
    return progress(Stream.map(read(source), Arr.of), ([block]) => deleteBlock(storage, block)).pipe(
      Stream.map(({ counted, messages, total }) => ({ messages, deleted: counted, total }))
    )
  }))

const deleteBlock = (storage: Storage["Service"], { line, messages }: Block): Effect.Effect<number, DeleteError> => {
  const lines = Arr.map(messages, (message, i): Line => ({ ...message, line: line + i }))
  const byStream = Object.values(Arr.groupBy(lines, ({ stream }) => stream))
  return Effect.map(
    Effect.forEach(
      Arr.chunksOf(byStream, streamsAtATime),
      (some) => storage.withTransaction(deleteStreams(storage, some))
    ),
    (counts) => counts.reduce((sum, count) => sum + count, 0)
  )
}

const deleteStreams = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  byStream: Arr.NonEmptyReadonlyArray<Arr.NonEmptyReadonlyArray<Line>>
): Effect.fn.Return<number, DeleteError> {
  yield* storage.lockStreams(byStream.map(([{ stream }]) => stream)) // until the commit
  let deleted = 0
  for (const lines of byStream) deleted += yield* deleteStream(storage, lines)
  return deleted
})

/** If what the stream has up to there is in the archive. */
const deleteStream = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  lines: Arr.NonEmptyReadonlyArray<Line>
): Effect.fn.Return<number, DeleteError> {
  const [first] = lines
  const { stream } = first
  const toVersion = Arr.lastNonEmpty(lines).version
  const archived = new Map(lines.map((one) => [one.version, one]))
  const stored = (yield* storage.messageIds({ stream, fromVersion: 1, limit: lines.length }))
    .filter(({ version }) => version <= toVersion)
  for (const { messageId, version } of stored) {
    const one = archived.get(version)
    if (one === undefined) return yield* conflict(first, { reason: "notArchived", firstVersion: version })
    if (one.messageId !== messageId) return yield* conflict(one, { reason: "differs", storedMessageId: messageId })
  }
  if (stored.length === 0) return 0
  const outcome = yield* storage.delete({ stream, toVersion, expectedVersion: undefined })
  return outcome._tag === "Deleted" ? outcome.count : 0 // any version will do
})

const conflict = (
  { line, messageId, stream, version }: Line,
  why: Pick<ArchiveConflictError, "reason"> & Partial<ArchiveConflictError>
) => Effect.fail(new ArchiveConflictError({ line, stream, version, messageId, ...why }))
