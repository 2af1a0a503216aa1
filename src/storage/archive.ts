/**
 * Messages as they are stored, out of a store and into one. A backend keeps these promises:
 *
 * - what comes out is what is stored: nothing is parsed and printed again, or decrypted;
 * - what goes in keeps its id, stream, version, times, data and metadata. It has new global positions, in the order given, and
 *   the tags that are declared, and is in everything else as if it had been appended: its streams and tags are locked, who writes
 *   to them at the same time comes before or after it, listeners are woken, and what is projected from the store has it;
 * - versions of a stream have no gaps, but that it may begin with any version;
 * - what is stored already, the same id at the same version of the same stream, is left out;
 * - a refusal is an outcome, and leaves nothing behind.
 */
import { Data } from "effect"
import type { Array, DateTime, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"

/** A message as it is stored. */
export interface ArchivedMessage {
  readonly stream: string
  readonly version: number
  /** A UUID in lower case. */
  readonly messageId: string
  readonly globalPosition: number
  /** A time as PostgreSQL reads it, up to microseconds: `2026-11-26T03:21:38.123456Z`, or with ` BC` behind it. */
  readonly addedAt: string
  /** As `addedAt`; undefined: the writer has not said. */
  readonly occurredAt: string | undefined
  /** JSON text of an object, or `null`. */
  readonly metadata: string
  /** JSON text. */
  readonly data: string
}

/** A message that comes out; `data` is empty if it is too large to be read. */
export interface ExportedMessage extends ArchivedMessage {
  /** In bytes, of a message that is too large. */
  readonly oversize: number | undefined
}

/** Which messages come out: bounds are included. */
export interface ExportRange {
  /** LIKE. */
  readonly pattern: string
  readonly toVersion: number
  readonly toPosition: number
}

/** Asks for a page of them, in the order of global positions. */
export interface ExportQuery extends ExportRange {
  readonly fromPosition: number
  readonly limit: number
}

/** What is to come out. */
export interface ExportCounts {
  readonly messages: number
  readonly streams: number
  /** The first and the last global position; 0: there are no messages. */
  readonly firstPosition: number
  readonly lastPosition: number
}

/** Why a message cannot go in. */
export type Refusal = Data.TaggedEnum<{
  /** The stream is at a version that is not the one before it. */
  Gap: { readonly actualVersion: number }
  /** The stream begins behind it. */
  Before: { readonly firstVersion: number }
  /** The stream has another message at its version. */
  Differs: { readonly storedMessageId: string }
  /** Its id is stored elsewhere. */
  Elsewhere: { readonly stream: string; readonly version: number }
}>

/** Constructors and matchers of refusals. */
export const Refusal = Data.taggedEnum<Refusal>()

/** The outcome of an import. */
export type ImportOutcome = Data.TaggedEnum<{
  /** The first messages, so many of them, are in, or were: as many as one transaction takes, and at least one. */
  Imported: { readonly messages: number; readonly skipped: number }
  /** None is in because of one of them. */
  Refused: { readonly index: number; readonly refusal: Refusal }
}>

/** Constructors and matchers of outcomes. */
export const ImportOutcome = Data.taggedEnum<ImportOutcome>()

/** The messages of one store, as they are stored. */
export interface ArchiveStorage {
  /**
   * The last global position of all messages; with a time, the last one before the first message that was added then or
   * later. 0: there is none.
   */
  readonly lastPosition: (before: DateTime.Utc | undefined) => Effect.Effect<number, SqlError>
  readonly countStored: (range: ExportRange) => Effect.Effect<ExportCounts, SqlError>
  /** A page ends early with the message that brings it to some megabytes. */
  readonly readStored: (
    query: ExportQuery
  ) => Effect.Effect<{ readonly messages: ReadonlyArray<ExportedMessage>; readonly more: boolean }, SqlError>
  /** Messages in the order of the global positions that they had. */
  readonly importStored: (
    messages: Array.NonEmptyReadonlyArray<ArchivedMessage>
  ) => Effect.Effect<ImportOutcome, SqlError>
}
