/**
 * Scheduled messages, as a backend keeps them. It keeps these promises:
 *
 * - what is scheduled, replaced and cancelled is so in the transaction that is open, and rolls back with it;
 * - a message is moved into its stream once, in the transaction that forgets it, whatever process does so, and not before
 *   its time by the clock of the backend;
 * - messages of one stream leave in the order of their times, and of the order in which they were scheduled where those are
 *   the same; a stream that others have locked holds up no other.
 */
import type { DateTime, Effect, Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { SerializationError } from "../errors.ts"
import type { Listener } from "./listeners.ts"
import type { EncodedMessage, EncodedStoredMessage } from "./messages.ts"

/** A message that is to be written later. */
export interface ScheduledEntry {
  /** Of two entries with the same key the later one takes the place of the other. */
  readonly key: string
  readonly at: DateTime.Utc
  readonly stream: string
  readonly message: EncodedMessage
  /** JSON text of an object. */
  readonly metadata: string
  /** As of an `AppendItem`. */
  readonly knownTags: number | undefined
}

/** A scheduled message, as it is listed. */
export interface ListedEntry
  extends
    Pick<ScheduledEntry, "key" | "at" | "stream">,
    Pick<EncodedStoredMessage, "messageId" | "data" | "metadata" | "unreadable">
{
  /** Of messages that are due at the same time, the lower one leaves first. */
  readonly order: number
  /** Why it could not be written; undefined if it waits. */
  readonly refused: string | undefined
}

/** Asks for scheduled messages, in the order in which they leave. */
export interface ScheduledQuery {
  /** Those that could not be written, or those that wait. */
  readonly isRefused: boolean
  /** Those behind this one. */
  readonly after: Pick<ListedEntry, "at" | "order"> | undefined
  readonly limit: number
}

/** A scheduled message that cannot be written: a tag was declared since, say, that it does not have. It stays, and waits no more. */
export interface RefusedEntry {
  readonly key: string
  readonly reason: string
}

/** The outcome of a move. */
export interface Moved {
  /** How many messages were written to their streams. */
  readonly moved: number
  /** The ids of messages that were there already, and were not written again. */
  readonly duplicates: ReadonlyArray<string>
  readonly refused: ReadonlyArray<RefusedEntry>
  /** Whether more may be due, beside those of streams that others have locked. */
  readonly more: boolean
  /** Milliseconds until the next is due: 0 if one waits for its stream; undefined if none is scheduled. */
  readonly next: number | undefined
}

/** The scheduled messages of one store. */
export interface ScheduleStorage {
  /** Fails with a `SerializationError` for a message that cannot be encrypted. */
  readonly schedule: (entry: ScheduledEntry) => Effect.Effect<void, SerializationError | SqlError>
  /** Whether it was scheduled. */
  readonly cancel: (key: string) => Effect.Effect<boolean, SqlError>
  /** A page of them: at most `limit`, and fewer if they are large; whether there are more. */
  readonly scheduled: (
    query: ScheduledQuery
  ) => Effect.Effect<{ readonly entries: ReadonlyArray<ListedEntry>; readonly more: boolean }, SqlError>
  /** Moves some of those that are due. Undefined if another process is about it. */
  readonly moveDue: Effect.Effect<Moved | undefined, SqlError>
  /** Is woken when messages have been scheduled. */
  readonly listenScheduled: Effect.Effect<Listener, never, Scope.Scope>
}
