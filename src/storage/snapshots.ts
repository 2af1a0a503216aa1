/**
 * Snapshots: what messages came to, kept so that they need not be read again. Nothing depends on them: any of them may be lost,
 * or refused, and is made anew from the messages.
 */
import type { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"

/** What a snapshot is found by. */
export interface SnapshotKey {
  /** The name of the fold. */
  readonly fold: string
  /** What was folded. */
  readonly source: string
  /** Of how it was folded: builds that fold in different ways have snapshots side by side. */
  readonly fingerprint: string
}

/** A state, and where it stands. */
export interface EncodedSnapshot {
  /** JSON text; whoever reads it looks whether it still is. */
  readonly state: string
  /** Of a stream, the version of the last message; of tags, 0. */
  readonly version: number
  /** Of a stream, the global position of the last message; of tags, of each query the last one of its first tag; 0: none. */
  readonly ends: ReadonlyArray<number>
}

/** A stream, or a tag. */
export interface EditionKey {
  readonly of: "stream" | "tag"
  readonly name: string
}

/** A state to be kept, with its key. */
export interface SavedSnapshot extends SnapshotKey, EncodedSnapshot {
  /** What it was made of, in which edition: the stream, or the first tag of each query. */
  readonly madeOf: ReadonlyArray<EditionKey & { readonly edition: number }>
}

/** The snapshots of one store. */
export interface SnapshotStorage {
  /**
   * Keeps a snapshot in place of that of the same key, unless that one stands at higher positions: they are compared from the
   * first to the last, and unless messages that it was made of were deleted or redacted since: then it is not kept, whoever is
   * first. Of each fold and source it leaves one of another fingerprint, the one that was saved last. A store that
   * may not write snapshots (rights) does nothing. Not to be called in a transaction.
   */
  readonly saveSnapshot: (snapshot: SavedSnapshot) => Effect.Effect<void, SqlError>
}
