/** Deletes messages of streams, and redacts them. */
import { Array as Arr, Clock, DateTime, Effect, Equal, Result } from "effect"
import type { Schema } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import {
  type InvalidArgumentError,
  MessageNotFoundError,
  OptimisticConcurrencyError,
  type SerializationError,
  TagsIncompleteError
} from "../errors.ts"
import {
  checkExpectedVersion,
  checkMessageId,
  checkStreamName,
  checkStreams,
  checkWhole,
  invalid,
  maximumVersion
} from "../internal/checks.ts"
import { printable } from "../internal/printable.ts"
import { declaredTagsOf, isOfType } from "../internal/tags.ts"
import type { Operations } from "../internal/telemetry.ts"
import type { ExpectedVersion, Metadata, StoredMessage, StreamHead } from "../Message.ts"
import { hasPlain } from "../personal/fields.ts"
import { decodeRow } from "../Reader.ts"
import { encodeMetadata, type MessageCodec } from "../Serializer.ts"
import {
  type Declarations,
  DeletionOutcome,
  type EncodedStoredMessage,
  type Redaction,
  type Storage
} from "../Storage.ts"
import type { Accessors } from "./encode.ts"

/** Which messages of a stream are deleted. */
export interface DeleteOptions {
  /**
   * The last version that is deleted, included; 0 or more. Default: the whole stream, as with a version that the stream has not
   * reached.
   */
  readonly toVersion?: number | undefined
  /** The version that the stream must have: 0 or more, or `"exists"`. Default: any. */
  readonly expectedVersion?: ExpectedVersion | undefined
}

/** The head of a stream after a deletion; version 0 if nothing is left. */
export interface Deleted extends StreamHead {
  /** How many messages this call deleted. */
  readonly deleted: number
}

/** Why deleting may fail. */
export type DeleteError = OptimisticConcurrencyError | InvalidArgumentError | SqlError

/** How messages are redacted. */
export interface RedactOptions<in A> {
  /** The metadata of the redacted message, beside the time of its redaction. Default: what it has. */
  readonly metadata?: ((stored: StoredMessage<A>) => Metadata) | undefined
}

/** Why redacting may fail. */
export type RedactError =
  | MessageNotFoundError
  | SerializationError
  | TagsIncompleteError
  | InvalidArgumentError
  | SqlError

/** What takes messages, or their content, away. */
export interface Deleting<in out A> {
  /**
   * Deletes the first messages of a stream, or all of them, in the transaction that is open: to keep them no longer than they may
   * be kept, or when the books are closed. Returns the head of what is left.
   *
   * **Details**
   *
   * What is left keeps its versions and positions, the next message gets the next version, and expected versions mean what they
   * did. If nothing is left, the stream no longer exists: it is at version 0, and the next message begins a new one. Deleting what
   * is not there deletes nothing, so a call may be repeated. With `expectedVersion` it fails with an `OptimisticConcurrencyError`
   * if somebody else has written meanwhile, and nothing is deleted.
   *
   * Snapshots of the stream go in the same transaction. Subscriptions, projectors and readers pass over the messages; what
   * handlers made of them is theirs to delete. It waits for those who write to the stream, and they for it.
   *
   * **Example**
   *
   * ```ts
   * const { version } = yield* accounts.write("account-1", new YearClosed({ balance }))
   * yield* accounts.delete("account-1", { toVersion: version - 1 })
   * ```
   */
  readonly delete: (stream: string, options?: DeleteOptions) => Effect.Effect<Deleted, DeleteError>

  /**
   * Replaces the content of messages in place: they keep their ids, streams, versions, positions and times, and their metadata
   * say when it was replaced (`redactedAt`). All of them are changed, or none, in the transaction that is open. Returns how many
   * were changed. A message that comes out as it was is left alone, so a call may be repeated.
   *
   * **Details**
   *
   * `change` gets each message as it is stored now, and returns what takes its place. That must have the same id and time, and may
   * be of another type of the store. It may have fewer tags, but no new ones, which those who have read by them would have
   * missed. Otherwise it is an `InvalidArgumentError`, and an id that is not stored is a `MessageNotFoundError`; then nothing is
   * changed. The messages of a call may be of at most 500 streams.
   *
   * Snapshots of the streams, and of the tags that the messages had, go in the same transaction. What has been delivered is not
   * delivered again: what handlers made of it is theirs to change. It waits for those who write to the streams, and they for it.
   *
   * **Example**
   *
   * ```ts
   * yield* customers.redact(ids, (registered) => new CustomerRegistered({ ...registered, email: "redacted" }))
   * ```
   */
  readonly redact: (
    messageIds: string | ReadonlyArray<string>,
    change: (message: A, stored: StoredMessage<A>) => A,
    options?: RedactOptions<A>
  ) => Effect.Effect<number, RedactError>
}

/** How many messages are read and changed at once. */
const pageSize = 100

/**
 * @internal
 */
export const make = <A>(
  storage: Storage["Service"],
  operation: Operations,
  codec: MessageCodec<A>,
  accessors: Accessors<A>,
  store: string
): Deleting<A> => {
  /** In this order. */
  const read = (messageIds: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<EncodedStoredMessage>, RedactError> =>
    Effect.flatMap(storage.readByIds(messageIds), (rows) => {
      const found = new Map(rows.map((row) => [row.messageId, row]))
      return Effect.fromResult(Result.all(messageIds.map((messageId) => {
        const row = found.get(messageId)
        return row === undefined ? Result.fail(new MessageNotFoundError({ messageId })) : Result.succeed(row)
      })))
    })

  /** What a message becomes; undefined: it is that already. */
  const redacted = (
    row: EncodedStoredMessage,
    change: (message: A, stored: StoredMessage<A>) => A,
    metadataOf: (stored: StoredMessage<A>) => Metadata,
    declarations: Declarations,
    at: DateTime.Utc
  ): Result.Result<Redaction | undefined, RedactError> =>
    Result.gen(function*() {
      const stored = yield* decodeRow(codec, row)
      const before = stored.message
      const after = change(before, stored)
      const { messageId, stream } = row
      if ((yield* checkMessageId(accessors.id(after))) !== messageId) {
        return yield* invalid("change", `must keep the id of message ${messageId}`)
      }
      if (accessors.time(after).epochMilliseconds !== accessors.time(before).epochMilliseconds) {
        return yield* invalid("change", `must keep the time of message ${messageId}`)
      }
      const { data, tagged } = yield* codec.encodeTagged(after)
      const metadata = metadataOf(stored)
      const metadataNow = yield* encodeMetadata(metadata, undefined)
      const isSame = Result.getOrUndefined(codec.encode(before)) === data &&
        Equal.equals(unredacted(row.metadata), unredacted(JSON.parse(metadataNow))) &&
        !hasPlain(codec.personal, row.data) // which is encrypted now
      if (isSame) return undefined

      const had = new Set([
        ...Result.getOrElse(codec.tagsOf(before), () => []),
        ...declaredTagsOf(declarations.tags, row.data)
      ])
      const has = new Set([...tagged?.tags ?? [], ...declaredTagsOf(declarations.tags, JSON.parse(data))])
      const gained = Array.from(has).find((tag) => !had.has(tag))
      if (gained !== undefined) {
        return yield* invalid(
          "change",
          `must not give message ${messageId} the tag "${printable(gained)}": what was read by it would not be all`
        )
      }
      const lostTags = Array.from(had).filter((tag) => !has.has(tag))
      // Whoever gives it its tags may have read it before.
      const incomplete = declarations.tags.filter((place) => !place.isComplete && isOfType(place, row.data))
      if (lostTags.length > 0 && incomplete.length > 0) {
        const [tags, types] = [incomplete.map(({ tag }) => tag), incomplete.map(({ type }) => type)]
        return yield* Result.fail(
          new TagsIncompleteError({ store, tags: Arr.dedupe(tags), types: Arr.dedupe(types) })
        )
      }
      return {
        messageId,
        stream,
        data,
        metadata: yield* encodeMetadata({ ...metadata, redactedAt: DateTime.formatIso(at) }, undefined),
        tags: Array.from(had),
        lostTags
      }
    })

  const deleting = operation("delete")
  const redacting = operation("redact")
  return {
    delete: Effect.fn(deleting.spanName, deleting.spanOptions)(function*(stream: string, options?: DeleteOptions) {
      yield* Effect.fromResult(checkStreamName(stream))
      const toVersion = yield* Effect.fromResult(
        checkWhole("toVersion", options?.toVersion ?? maximumVersion, 0, maximumVersion)
      )
      const expectedVersion = yield* Effect.fromResult(checkExpectedVersion(options?.expectedVersion))
      const deleted = Effect.flatMap(
        storage.delete({ stream, toVersion, expectedVersion }),
        DeletionOutcome.$match({
          Deleted: ({ count, head }) => Effect.succeed({ ...head, deleted: count }),
          WrongVersion: ({ actualVersion }) =>
            Effect.fail(
              new OptimisticConcurrencyError({ stream, expectedVersion: expectedVersion ?? 0, actualVersion })
            )
        })
      )
      return yield* deleting.observe(deleted)
    }),

    redact: Effect.fn(redacting.spanName, redacting.spanOptions)(function*(
      messageIds: string | ReadonlyArray<string>,
      change: (message: A, stored: StoredMessage<A>) => A,
      options?: RedactOptions<A>
    ): Effect.fn.Return<number, RedactError> {
      const given = yield* Effect.fromResult(Result.all(Arr.ensure(messageIds).map(checkMessageId)))
      if (given.length === 0) return 0
      const pages = Arr.chunksOf(Arr.dedupe(given), pageSize)
      const metadataOf = options?.metadata ?? ((stored: StoredMessage<A>) => stored.metadata)
      return yield* redacting.observe(storage.withTransaction(Effect.gen(function*() {
        const streams = new Set<string>()
        for (const page of pages) for (const { stream } of yield* read(page)) streams.add(stream)
        const named = Array.from(streams, (stream) => ({ stream }))
        yield* Effect.fromResult(checkStreams(named, "messageIds", "redact"))
        yield* storage.lockStreams(Array.from(streams))
        const declarations = yield* storage.declaredTags
        const at = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
        let count = 0
        for (const page of pages) {
          // Under the locks they are what they are.
          const rows = yield* read(page)
          const redactions = yield* Effect.fromResult(
            Result.all(rows.map((row) => redacted(row, change, metadataOf, declarations, at)))
          )
          const changed = redactions.flatMap((one) => one ?? [])
          count += changed.length
          if (Arr.isArrayNonEmpty(changed)) yield* storage.redact(changed)
        }
        return count
      })))
    })
  }
}

const unredacted = ({ redactedAt: _, ...metadata }: Schema.JsonObject): Schema.JsonObject => metadata
