/**
 * Messages, as a backend stores and reads them. It keeps these promises:
 *
 * - versions of a stream are 1, 2, 3, … without gaps, of which the first may have been deleted; global positions are unique, rise
 *   within a stream, and are given once;
 * - items of one `append` that name the same stream are decided in the order given, each after the
 *   effects of the ones before it; an item that is refused leaves no trace and does not affect the others (with `atomic`,
 *   none is written, and only the first refusal is reported);
 * - a refusal is an outcome, not a failure: a transaction stays usable;
 * - while an append waits for its commit, nobody else writes to its streams, writes its tags, or adds what its conditions
 *   ask about: whoever sees a message of a tag, sees all messages of that tag at lower global positions;
 * - who shares nothing waits for nobody: appends that write to other streams and other tags, and those that only ask about
 *   the same ones;
 * - who deletes or redacts messages of a stream waits for those who write to it, and they for it; a view that was opened before
 *   still has them as they were. What is kept of messages that are gone (tags, snapshots) goes in the same transaction, in which the *editions* of their
 *   stream and tags rise: whoever has seen the one before is told so by the conditions of what is appended.
 */
import { Data } from "effect"
import type { Array, DateTime, Effect, Schema, Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { PersonalDataError, SerializationError } from "../errors.ts"
import type { Tagged, TagQuery } from "../internal/tags.ts"
import type { ExpectedVersion, StreamHead } from "../Message.ts"
import type { Listener } from "./listeners.ts"
import type { EncodedSnapshot, SnapshotKey } from "./snapshots.ts"

export type { Tagged, TagQuery } from "../internal/tags.ts"

/** A message ready to be stored. */
export interface EncodedMessage {
  /** A UUID in lower case. */
  readonly messageId: string
  readonly occurredAt: DateTime.Utc
  /** JSON text. */
  readonly data: string
  /** What it can be found by, beside its stream; absent: nothing. */
  readonly tagged?: Tagged | undefined
}

/**
 * That no message which the query asks for stands behind a global position. The position has to be the last one that was
 * seen of the query's first tag, whatever type and other tags that message had: only of a single tag is all that comes
 * later behind what was seen.
 */
export interface TagCondition extends TagQuery {
  readonly after: number
  /** And that no message of the first tag was deleted or redacted since the tag was in this edition. Absent: any will do. */
  readonly edition?: number | undefined
}

/** Messages for one stream that are written together or not at all, and only if the conditions hold. */
export interface AppendItem {
  readonly stream: string
  readonly expectedVersion: ExpectedVersion | undefined
  /**
   * Where the message of `expectedVersion`, a number above 0, was seen: the stream is at the wrong version if another one has
   * that version now. Absent: any message will do.
   */
  readonly expectedPosition?: number | undefined
  /**
   * With `expectedPosition`: the edition of the stream that was seen. It is at the wrong version if messages of it were deleted
   * or redacted since. Absent: any will do.
   */
  readonly expectedEdition?: number | undefined
  /** No id twice. None: only a condition, that the stream is as expected. */
  readonly messages: ReadonlyArray<EncodedMessage>
  /** JSON text of an object, the same for each message. */
  readonly metadata: string
  /** Which declaration of tags the writer knows; absent: none, so that the backend looks for all tags that are declared. */
  readonly knownTags?: number | undefined
  /** Of an atomic append, those of its items ask about what others add. Absent: none. */
  readonly conditions?: ReadonlyArray<TagCondition> | undefined
}

/** The outcome of an item. */
export type AppendOutcome = Data.TaggedEnum<{
  /** The place of the item's last message. */
  Written: { readonly version: number; readonly globalPosition: number }
  /** The conditions of an item without messages hold. */
  Unchanged: { readonly version: number }
  WrongVersion: { readonly actualVersion: number }
  /** The first message that was added, and the index of the condition that it breaks. */
  Conflict: { readonly condition: number; readonly messageId: string; readonly globalPosition: number }
  /** Messages of the tag of a condition were deleted or redacted. */
  Outdated: { readonly condition: number }
  Duplicate: { readonly messageId: string }
  /** The open transaction does not see what others have committed since it began: nothing can be said of conditions. */
  WrongIsolation: {}
  /** It cannot be encrypted. */
  Refused: { readonly error: SerializationError }
  /** Left out because another item of an atomic append is the first that was refused. */
  Skipped: {}
}>

/** Constructors and matchers of outcomes. */
export const AppendOutcome = Data.taggedEnum<AppendOutcome>()

/** The first messages of a stream are to be deleted. */
export interface Deletion {
  readonly stream: string
  /** The last version that is deleted; one that the stream has not come to: all are. */
  readonly toVersion: number
  readonly expectedVersion: ExpectedVersion | undefined
}

/** The outcome of a deletion. */
export type DeletionOutcome = Data.TaggedEnum<{
  Deleted: {
    readonly count: number
    /** Of the stream, behind it. */
    readonly head: StreamHead
  }
  WrongVersion: { readonly actualVersion: number }
}>

/** Constructors and matchers of these outcomes. */
export const DeletionOutcome = Data.taggedEnum<DeletionOutcome>()

/** A message is to have other content, at its place. */
export interface Redaction extends Pick<EncodedMessage, "messageId" | "data"> {
  readonly stream: string
  /** JSON text of an object. */
  readonly metadata: string
  /** The tags that it has had, and those of them that it loses. */
  readonly tags: ReadonlyArray<string>
  readonly lostTags: ReadonlyArray<string>
}

/** A row as it was read. */
export interface EncodedStoredMessage {
  readonly messageId: string
  readonly stream: string
  readonly version: number
  readonly globalPosition: number
  readonly addedAt: DateTime.Utc
  /** Nobody else has this value: it may be changed in place. */
  readonly data: Schema.Json
  readonly metadata: Schema.JsonObject
  /** In bytes, of a message that is too large to be read: `data` is null. */
  readonly oversize?: number | undefined
  /** Why a message cannot be decrypted, if so. */
  readonly unreadable?: PersonalDataError | undefined
}

/**
 * A page of messages, and whether more may follow. Nothing follows an empty page. A page ends early with the message that
 * brings it to some megabytes, so that pages of large messages do not fill the memory.
 */
export interface Page {
  readonly messages: ReadonlyArray<EncodedStoredMessage>
  readonly more: boolean
  /** What the messages stand behind, if a snapshot was asked for. */
  readonly snapshot?: EncodedSnapshot | undefined
  /** Of the stream, if it was asked for. */
  readonly edition?: number | undefined
  /** Where the first tags of the queries that were asked for end, if no query has a last position. */
  readonly ends?: Pick<Ends, "tags" | "editions"> | undefined
}

/** From the first to the last, or from the last to the first. */
export type Direction = "forward" | "backward"

/** Asks for a page of a stream: at most `limit` messages with `fromVersion <= version <= toVersion`, in `direction`. */
export interface StreamQuery {
  readonly stream: string
  readonly fromVersion: number
  readonly toVersion: number
  readonly direction: Direction
  readonly limit: number
  /**
   * Begins behind this snapshot, and gives it with the page: if it is there, is not behind `toVersion`, and its last message
   * is still where it was. Asked for only forward, and from the first version on; `limit` is more than 1.
   */
  readonly snapshot?: SnapshotKey | undefined
  /** Whether the page tells the edition of the stream. */
  readonly withEdition?: boolean | undefined
}

/** Asks for a page of all streams whose names are LIKE `pattern`, in the order of global positions, bounds included. */
export interface PatternQuery {
  readonly pattern: string
  readonly fromPosition: number
  readonly toPosition: number
  readonly direction: Direction
  readonly limit: number
}

/**
 * Asks for a page of messages that one of the queries asks for, in the order of global positions, bounds included. Each
 * query may have a position that its messages stand behind, and all of them have a last position, or none: then the page tells
 * where their tags end. What is read up to there, whenever that is, is one consistent view with the page.
 */
export interface TaggedQuery {
  readonly queries: Array.NonEmptyReadonlyArray<
    TagQuery & { readonly upTo?: number | undefined; readonly after?: number | undefined }
  >
  readonly fromPosition: number
  readonly toPosition: number
  readonly direction: Direction
  readonly limit: number
}

/** Where streams and tags end. */
export interface Ends {
  readonly heads: ReadonlyArray<StreamHead>
  /** The last global position of each tag; 0: no message has it. */
  readonly tags: ReadonlyArray<number>
  /**
   * Of the streams, then of the tags: a number that rises by one whenever messages of them are deleted or redacted, and is another
   * one altogether where messages that were read may be lost, as after a failover.
   */
  readonly editions: ReadonlyArray<number>
  /** Of each key its snapshot, as it was at that moment: whether its messages still stand has not been looked at. */
  readonly snapshots: ReadonlyArray<EncodedSnapshot | undefined>
}

/** The messages of one store. */
export interface MessageStorage {
  /** Outcomes in the order of the items. */
  readonly append: (
    items: Array.NonEmptyReadonlyArray<AppendItem>,
    options: { readonly atomic: boolean }
  ) => Effect.Effect<ReadonlyArray<AppendOutcome>, SqlError>
  readonly readStream: (query: StreamQuery) => Effect.Effect<Page, SqlError>
  readonly readPattern: (query: PatternQuery) => Effect.Effect<Page, SqlError>
  readonly readTagged: (query: TaggedQuery) => Effect.Effect<Page, SqlError>
  /**
   * The ends of streams and tags at one moment: what is read up to them is one consistent view, whenever it is read. With
   * them come snapshots.
   */
  readonly ends: (
    streams: ReadonlyArray<string>,
    tags: ReadonlyArray<string>,
    snapshots?: ReadonlyArray<SnapshotKey>
  ) => Effect.Effect<Ends, SqlError>
  /** In any order; ids that are not stored are left out. */
  readonly readByIds: (
    messageIds: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<EncodedStoredMessage>, SqlError>
  /** The ids of a stream's messages from a version on, in the order of versions, at most `limit`. */
  readonly messageIds: (
    page: { readonly stream: string; readonly fromVersion: number; readonly limit: number }
  ) => Effect.Effect<ReadonlyArray<{ readonly version: number; readonly messageId: string }>, SqlError>
  readonly head: (stream: string) => Effect.Effect<StreamHead, SqlError>
  readonly delete: (deletion: Deletion) => Effect.Effect<DeletionOutcome, SqlError>
  /**
   * Waits for those who write to these streams, delete or redact, and keeps others from it until the transaction ends that is
   * open.
   */
  readonly lockStreams: (streams: ReadonlyArray<string>) => Effect.Effect<void, SqlError>
  /**
   * In a transaction in which the streams were locked, and the messages read. Fails with a `SerializationError` for a message that
   * cannot be encrypted.
   */
  readonly redact: (
    redactions: Array.NonEmptyReadonlyArray<Redaction>
  ) => Effect.Effect<void, SerializationError | SqlError>
  /** Removes every message; positions go on rising. */
  readonly truncate: Effect.Effect<void, SqlError>
  /** Is woken when messages have been committed. */
  readonly listen: Effect.Effect<Listener, never, Scope.Scope>
}
