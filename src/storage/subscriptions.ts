/**
 * What a subscription remembers. Checkpoints only rise, and only by the claim that was made last; they are written in
 * the transaction that is open, and roll back with it.
 */
import type { DateTime, Effect, Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { StreamRebuiltError } from "../errors.ts"
import type { EncodedStoredMessage } from "./messages.ts"
import type { PartitionHead } from "./partitions.ts"

/** A partition that has messages behind its checkpoint. */
export interface PendingPartition extends PartitionHead {
  /** The position that was acknowledged last; -1: none. */
  readonly checkpoint: number
}

/** The right to handle a partition. Of two claims of a partition, the later one has the higher token. */
export interface Claim {
  readonly partition: number
  readonly token: number
}

/** How claims are held: by the locks of a database session, or for a time, in milliseconds, that is renewed. */
export type ClaimMode = { readonly _tag: "Session" } | { readonly _tag: "Lease"; readonly milliseconds: number }

/** The claims of one consumer. They end with the scope. */
export interface Claims {
  /** None if somebody else has the partition, in this process or another. */
  readonly claim: (partition: number) => Effect.Effect<Claim | undefined, SqlError>
  /** Asks whoever has the partition to give it up when it has had it for a while. */
  readonly want: (partition: number) => Effect.Effect<void, SqlError>
  /** Gives it up; nothing happens if it was lost. */
  readonly release: (claim: Claim) => Effect.Effect<void>
  /** Whether the claim stands: the lock is held or the lease has not ended, and nobody has made a later claim. */
  readonly confirm: (claim: Claim) => Effect.Effect<boolean, SqlError>
  /** Ends when the claim is lost: somebody else may have it. */
  readonly lost: (claim: Claim) => Effect.Effect<void>
}

/** What became of an acknowledgement. `Fenced`: the claim is another's, or the checkpoint is elsewhere. */
export type Advance = "Advanced" | "Wanted" | "Fenced"

/** A message that was put aside. */
export interface ParkedEntry {
  readonly partition: number
  readonly position: number
  readonly messageId: string
  /** Of the failure, as text. */
  readonly error: string
  readonly attempts: number
}

/** A message that was put aside, as the backend has it. */
export interface EncodedParkedMessage extends ParkedEntry {
  readonly parkedAt: DateTime.Utc
  /** Absent if the store has it no more. */
  readonly stored: EncodedStoredMessage | undefined
}

/** How far a subscription has come in a partition. */
export interface PartitionStatus extends PendingPartition {
  /**
   * What holds the claim: an id that each database client of a process makes up when it starts. Undefined if nothing does,
   * or a Python process.
   */
  readonly claimedBy: string | undefined
  /** How many of its messages are parked. */
  readonly parked: number
}

/** The checkpoints, claims and parked messages of one subscription. */
export interface SubscriptionStorage {
  /** Stores where the partitions begin, unless that was done before: once, whoever asks, and however many at once. */
  readonly initialise: <E>(
    positions: Effect.Effect<ReadonlyArray<PartitionHead>, E>
  ) => Effect.Effect<void, E | SqlError>
  /** For one consumer. */
  readonly claims: (mode: ClaimMode) => Effect.Effect<Claims, never, Scope.Scope>
  /** In any order. Fails if the stream's positions are others than those of the checkpoints. */
  readonly pending: Effect.Effect<ReadonlyArray<PendingPartition>, StreamRebuiltError | SqlError>
  /** The position that was acknowledged last; -1: none. */
  readonly checkpoint: (partition: number) => Effect.Effect<number, SqlError>
  /** Moves the checkpoint of the claim's partition, if it is at `from`, `to` is behind it, and the claim is the last one. */
  readonly advance: (claim: Claim, from: number, to: number) => Effect.Effect<Advance, SqlError>
  /** Puts a message aside; the checkpoint is moved by `advance`. */
  readonly park: (entry: ParkedEntry) => Effect.Effect<void, SqlError>
  /** Notes another failure of a message, if it is still parked; whether it was. */
  readonly repark: (entry: ParkedEntry) => Effect.Effect<boolean, SqlError>
  /** All, or those of some places; in the order of partitions and positions. */
  readonly parked: (
    places?: ReadonlyArray<PartitionHead>
  ) => Effect.Effect<ReadonlyArray<EncodedParkedMessage>, SqlError>
  /** Whether it was there. */
  readonly unpark: (partition: number, position: number) => Effect.Effect<boolean, SqlError>
  /** In the order of partitions. */
  readonly status: Effect.Effect<ReadonlyArray<PartitionStatus>, SqlError>
  /** Where the message of this global position is in the aggregated stream, if it is linked. */
  readonly place: (globalPosition: number) => Effect.Effect<PartitionHead | undefined, SqlError>
  /** Forgets all checkpoints and parked messages; `initialise` stores new ones. */
  readonly reset: Effect.Effect<void, SqlError>
  /** Removes the subscription with all that belongs to it. */
  readonly drop: Effect.Effect<void, SqlError>
}
