/**
 * The state of a subscription: checkpoints, claims, and parked messages. A backend keeps these promises:
 *
 * - checkpoints only rise, and only by the claim that was made last; a reset fences every claim that was made before it;
 * - an acknowledgement is either before a reset, and undone by it, or after it, and refused;
 * - a claim excludes others until it is released or lost; each claim of a partition has a higher token than the one before;
 * - everything but claims is written in the transaction that is open, and rolls back with it.
 */
import type { DateTime, Duration, Effect, Schema, Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { SetupError, StreamRebuiltError } from "../errors.ts"
import type { EncodedStoredMessage } from "./messages.ts"
import type { PartitionHead } from "./partitions.ts"
import type { EncodedLinkedMessage, PartitionQuery } from "./streams.ts"

/** A partition that has messages behind its checkpoint, or parked ones that are requeued, or is paused. */
export interface PendingPartition extends PartitionHead {
  /** The position that was acknowledged last; -1: none. */
  readonly checkpoint: number
  /** Whether it is halted at a message behind the checkpoint. */
  readonly isHalted: boolean
  /** The type of the message behind the checkpoint, if a process that did not know it has left it to others. */
  readonly unknownType: string | undefined
  /** Whether it, or the subscription, is paused. */
  readonly isPaused: boolean
  /** Whether some of its parked messages are requeued. */
  readonly hasRequeued: boolean
}

/** A partition and its fencing token, which an acknowledgement names. The later of two claims has the higher token. */
export interface ClaimToken {
  readonly partition: number
  readonly token: number
  /**
   * Where tokens may be given once more, as by a server that takes the place of another: which run of which server gave this one.
   * There alone it stands. Absent: anywhere.
   */
  readonly run?: number | undefined
}

/** The right to handle a partition, until its scope closes or it is lost. */
export interface Claim extends ClaimToken {
  /** Ends when the claim is lost: another consumer may have the partition. */
  readonly lost: Effect.Effect<void>
  /**
   * Whether the claim stands: the lock is held or the lease has not ended, and nothing has fenced it; and if so, whether
   * its partition is paused.
   */
  readonly confirm: Effect.Effect<Confirmation, SqlError>
}

/** Whether a claim stands. */
export type Confirmation = "Confirmed" | "Paused" | "Fenced"

/** How claims are held: by the locks of a database session, or for a time, in milliseconds, that is renewed. */
export type ClaimMode = { readonly _tag: "Session" } | { readonly _tag: "Lease"; readonly milliseconds: number }

/** The claims of one consumer. */
export interface Claims {
  /**
   * Undefined if another consumer has the partition, in this process or another. A `SetupError`: claims of this kind cannot be held. With `ask`, that consumer is asked to
   * yield it once it has had it for a while.
   */
  readonly claim: (
    partition: number,
    options?: { readonly ask?: boolean | undefined }
  ) => Effect.Effect<Claim | undefined, SetupError | SqlError, Scope.Scope>
  /** Whether consumers that cannot ask may want a partition: those of depeche_db, which try the same locks. */
  readonly othersCannotAsk: boolean
}

/** The outcome of an acknowledgement. `Fenced`: there was a later claim or a reset, or the checkpoint is elsewhere. */
export type Advance = "Advanced" | "Wanted" | "Fenced"

/** A failure as JSON, as it is stored with a parked message: about 20,000 characters at most. */
export interface Failure {
  /** The error's `_tag`, else its name, else the type of what was thrown. */
  readonly tag: string
  readonly message: string
  /** The error's own fields, as far as they are JSON: a typed error's. */
  readonly fields?: Schema.JsonObject | undefined
  /** The error's own `cause`. */
  readonly cause?: Failure | undefined
  readonly stack?: string | undefined
}

/** A message that is to be parked. */
export interface ParkedEntry {
  readonly partition: number
  readonly position: number
  readonly messageId: string
  readonly error: Failure
  readonly attempts: number
  /** Messages with the same key are parked behind it, and handled again in their order. Absent: none. */
  readonly key?: string | undefined
}

/**
 * What became of a message that should be parked behind others. `Free`: none of its key is parked any more. `Requeued`: there
 * are too many, which workers are to handle; `Full`: too many, which nobody handles.
 */
export type ParkedBehind = "Parked" | "Free" | "Requeued" | "Full"

/** A parked message, as the backend has it. */
export interface EncodedParkedMessage extends ParkedEntry {
  readonly parkedAt: DateTime.Utc
  /** When it was requeued; undefined if it is not to be handled again. */
  readonly requeuedAt: DateTime.Utc | undefined
  /** Undefined if the store does not have it any more. */
  readonly stored: EncodedStoredMessage | undefined
}

/** Asks for parked messages, in the order of partitions and positions. */
export interface ParkedQuery {
  /** Absent: all. */
  readonly places?: ReadonlyArray<PartitionHead> | undefined
  /** Those behind this place. */
  readonly after?: PartitionHead | undefined
  /** Whether those with the keys of these places are meant as well. */
  readonly withTheirKeys?: boolean | undefined
  /** Those whose last failure is like this: see `alike`. Absent: all. */
  readonly error?: Pick<Failure, "tag" | "message"> | undefined
  /** Absent: no limit. */
  readonly limit?: number | undefined
}

/** Which parked messages are requeued. */
export interface Requeue {
  readonly places?: ReadonlyArray<PartitionHead> | undefined
  readonly messageIds?: ReadonlyArray<string> | undefined
  readonly keys?: ReadonlyArray<{ readonly partition: number; readonly key: string }> | undefined
}

/** Where a partition was halted, and why: by `onFailure: "haltPartition"`. */
export interface Halt {
  /** Of the message that could not be handled, and is not acknowledged. */
  readonly position: number
  readonly messageId: string
  readonly error: Failure
  readonly attempts: number
  readonly since: DateTime.Utc
}

/** A message that was left to others by a process that does not know its type: the partition goes on where that is known. */
export interface UnknownType {
  /** As it is stored. */
  readonly type: string
  readonly position: number
  readonly messageId: string
  /** When it was left for the first time. */
  readonly since: DateTime.Utc
}

/** Since when a partition is paused, or its whole subscription, and what whoever paused it has said. */
export interface Pause {
  readonly since: DateTime.Utc
  readonly reason: string | undefined
  readonly by: string | undefined
}

/** The progress of a subscription in a partition. */
export interface PartitionStatus extends PartitionHead {
  /** The position that was acknowledged last; -1: none. */
  readonly checkpoint: number
  /** When a message was acknowledged last; undefined: none was, or by a Python process. */
  readonly acknowledgedAt: DateTime.Utc | undefined
  /**
   * What holds the claim: host and process id, and the label that the subscription was given, as in
   * `"web-3:4711 blue"`. Undefined if it is free, or claimed by a Python process.
   */
  readonly claimedBy: string | undefined
  /** Since when. */
  readonly claimedAt: DateTime.Utc | undefined
  /** How long the first message behind the checkpoint has been stored; undefined if there is none. */
  readonly age: Duration.Duration | undefined
  /** How many of its messages are parked. */
  readonly parked: number
  /** How many of these are requeued: workers are to handle them again. */
  readonly requeued: number
  /** Undefined unless the partition is halted. It stays so until the message is acknowledged, by whoever tries again. */
  readonly halted: Halt | undefined
  /** Undefined unless the next message is of a type that a process did not know, and nobody has handled it since. */
  readonly unknownType: UnknownType | undefined
  /** Undefined unless the partition is paused, or the whole subscription is: that comes first. */
  readonly paused: Pause | undefined
}

/** The checkpoints, claims and parked messages of one subscription. */
export interface SubscriptionStorage {
  /** Stores where the partitions begin, unless that is stored: once, however many processes do this at once. */
  readonly initialise: <E>(
    positions: Effect.Effect<ReadonlyArray<PartitionHead>, E>
  ) => Effect.Effect<void, E | SqlError>
  /** For one consumer, until the scope closes. `status` shows the label. */
  readonly claims: (mode: ClaimMode, label: string | undefined) => Effect.Effect<Claims, never, Scope.Scope>
  /**
   * A page of a partition, as `readPartition` of the stream has it. Empty while the partition is paused: a read that begins
   * after a pause was committed finds nothing.
   */
  readonly read: (
    query: PartitionQuery
  ) => Effect.Effect<{ readonly messages: ReadonlyArray<EncodedLinkedMessage>; readonly more: boolean }, SqlError>
  /**
   * What who has claimed a partition begins with: the position that was acknowledged last, or -1, and the page behind it, as
   * `read` has it. A page that is empty though there are more is to be read by itself.
   */
  readonly begin: (
    query: Pick<PartitionQuery, "partition" | "limit">
  ) => Effect.Effect<
    { readonly checkpoint: number; readonly messages: ReadonlyArray<EncodedLinkedMessage>; readonly more: boolean },
    SqlError
  >
  /** In any order. Fails if the stream was rebuilt since the checkpoints were stored. */
  readonly pending: Effect.Effect<ReadonlyArray<PendingPartition>, StreamRebuiltError | SqlError>
  /** The position that was acknowledged last; -1: none. */
  readonly checkpoint: (partition: number) => Effect.Effect<number, SqlError>
  /** The end of a partition, if the store has none of the messages any more that are linked behind a position; else undefined. */
  readonly endOfGone: (behind: PartitionHead) => Effect.Effect<number | undefined, SqlError>
  /** Moves the checkpoint of the claim's partition, if it is at `from`, `to` is behind it, and the claim is not fenced. */
  readonly advance: (claim: ClaimToken, from: number, to: number) => Effect.Effect<Advance, SqlError>
  /**
   * Parks a message, or notes another failure of a parked one: it, and those with its key, are not requeued any more; the checkpoint is moved by `advance`. With
   * `onlyIfParked`, nothing happens to one that is not parked any more. Whether it is parked now.
   */
  readonly park: (
    entry: ParkedEntry,
    options?: { readonly onlyIfParked?: boolean | undefined }
  ) => Effect.Effect<boolean, SqlError>
  /**
   * Parks a message behind those of its partition that have its key, if there are some, and at most `limit - 1`; requeued if
   * the first of them is. Waits for whoever is taking that one away; what is full stays so until the end of the transaction.
   */
  readonly parkBehind: (
    entry: ParkedEntry & { readonly key: string },
    limit: number
  ) => Effect.Effect<ParkedBehind, SqlError>
  /** The keys of the parked messages of a partition. */
  readonly parkedKeys: (partition: number) => Effect.Effect<ReadonlyArray<string>, SqlError>
  /** Whether a message is parked, and none with its key before it. */
  readonly isFirstParked: (place: PartitionHead) => Effect.Effect<boolean, SqlError>
  /**
   * Whether the message was parked. Not with `ifFirst` where one with its key is parked before it. A partition that was halted
   * because no more messages could be parked behind it goes on: listeners of the stream are woken.
   */
  readonly unpark: (
    place: PartitionHead,
    options?: { readonly ifFirst?: boolean | undefined }
  ) => Effect.Effect<boolean, SqlError>
  readonly parked: (query: ParkedQuery) => Effect.Effect<ReadonlyArray<EncodedParkedMessage>, SqlError>
  /**
   * Has parked messages handled again by workers: all, or those of some places, ids and keys, with all that have the keys of
   * these. How many that were not requeued yet. Partitions that were halted because no more messages could be parked behind
   * these go on. After the commit, listeners of the stream are woken.
   */
  readonly requeue: (which: Requeue | undefined) => Effect.Effect<number, SqlError>
  /**
   * The first message of a partition that is requeued, and has none with its key before it; none while the partition is
   * paused.
   */
  readonly requeued: (partition: number) => Effect.Effect<EncodedParkedMessage | undefined, SqlError>
  /**
   * Notes that the partition is halted at a message, or, with the message's type, that it is left to processes that know
   * that, unless the claim is fenced. Whether it is noted.
   */
  readonly halt: (claim: ClaimToken, entry: ParkedEntry, unknownType?: string) => Effect.Effect<boolean, SqlError>
  /**
   * Pauses a partition, or the subscription; one that is paused stays so since then, and takes the new reason. After the
   * commit, listeners of the stream are woken, here and by `resume`.
   */
  readonly pause: (
    partition: number | undefined,
    why: { readonly reason: string | undefined; readonly by: string | undefined }
  ) => Effect.Effect<void, SqlError>
  /** Lifts a pause; whether there was one. Of the subscription and of a partition, each is lifted by itself. */
  readonly resume: (partition: number | undefined) => Effect.Effect<boolean, SqlError>
  /** The highest age of all partitions, in milliseconds. */
  readonly age: Effect.Effect<number | undefined, SqlError>
  /** In the order of partitions. */
  readonly status: Effect.Effect<ReadonlyArray<PartitionStatus>, SqlError>
  /**
   * Where the message of this global position is in the aggregated stream, if it is linked. Fails if the stream was rebuilt
   * since the checkpoints were stored.
   */
  readonly place: (
    globalPosition: number
  ) => Effect.Effect<PartitionHead | undefined, StreamRebuiltError | SqlError>
  /**
   * Forgets all checkpoints, parked messages and halts, and fences every claim; `initialise` stores new checkpoints. What
   * is paused stays so.
   * After the commit, listeners of the stream are woken.
   */
  readonly reset: Effect.Effect<void, SqlError>
  /** Removes the subscription with all that belongs to it. */
  readonly drop: Effect.Effect<void, SqlError>
}
