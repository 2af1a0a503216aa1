/**
 * The data keys of subjects, wrapped. Whatever keeps them keeps these promises:
 *
 * - a subject has one key at a time, whoever adds one at the same time;
 * - a key that was forgotten is not given out any more, and that it was is remembered: its id keeps naming the subject, and a new
 *   key has a higher generation;
 * - everything runs in the transaction that is open, if what keeps the keys takes part in it, and rolls back with it. Then what
 *   `current` has found there stays so until it ends: `forget` waits, and it waits for `forget`.
 */
import type { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { PersonalDataError } from "../errors.ts"
import type { WrappedKey } from "../KeyEncryption.ts"

/** The last key of a subject. */
export interface SubjectKey {
  /** 1 to 255 characters. Empty: that of snapshots, which are nobody's. */
  readonly subject: string
  /** A UUID in lower case: what is encrypted names it, and not the subject. */
  readonly id: string
  /** 1, 2, 3, …: each key of the subject has one. 0: it never had any, and is forgotten. */
  readonly generation: number
  /** Undefined: it is forgotten. */
  readonly wrapped: WrappedKey | undefined
}

/** A key that is to be wrapped anew. */
export interface Rewrapped extends SubjectKey {
  readonly wrapped: WrappedKey
  readonly before: WrappedKey
}

/** Why keys cannot be had: failures of the database, or `unavailable`. */
export type SubjectKeyError = SqlError | PersonalDataError

/** The keys of the subjects of one store, or of several. */
export interface SubjectKeyStorage {
  /** The last keys of ids; ids that nobody has are left out. */
  readonly get: (ids: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<SubjectKey>, SubjectKeyError>
  /** The last keys of subjects, to encrypt under; subjects that have none are left out. */
  readonly current: (subjects: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<SubjectKey>, SubjectKeyError>
  /**
   * Adds keys: the first ones of their subjects, or those of the generation behind one that is forgotten. One that another is
   * faster than is left out. `current` gives what has been added at once, or another one that was faster.
   */
  readonly add: (keys: ReadonlyArray<SubjectKey>) => Effect.Effect<void, SubjectKeyError>
  /** Removes the keys of subjects, and remembers that; answers what they are now. Of a subject without one that is remembered, too. */
  readonly forget: (
    subjects: ReadonlyArray<{ readonly subject: string; readonly id: string }>
  ) => Effect.Effect<ReadonlyArray<SubjectKey>, SubjectKeyError>
  /** Keys that another key than this one has wrapped, behind an id, in the order of ids. */
  readonly wrappedByOthers: (
    query: { readonly keyId: string; readonly after: string; readonly limit: number }
  ) => Effect.Effect<ReadonlyArray<SubjectKey>, SubjectKeyError>
  /** Replaces the wrapped form of keys that still have the one before; answers how many. */
  readonly rewrap: (keys: ReadonlyArray<Rewrapped>) => Effect.Effect<number, SubjectKeyError>
}
