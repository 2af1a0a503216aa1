/**
 * The port: what a backend offers to a message store, in encoded form.
 *
 * A backend keeps these promises; `effect-message-store/testing` has the suite that checks them:
 *
 * - versions of a stream are 1, 2, 3, … without gaps; global positions are unique and rise within a stream;
 * - items of one `append` that name the same stream are decided in the order given, each on what the ones before it
 *   left; an item that is refused leaves no trace and harms no other (with `atomic`, none is written, and the first
 *   that was refused is the one that is told of);
 * - a refusal is an answer, not a failure: a transaction stays usable;
 * - everything runs inside the transaction that is open in the fiber's context, and commits or rolls back with it.
 */
import { Context, Data } from "effect"
import type { Array, DateTime, Effect, Schema, Scope } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, StreamDefinitionError, StreamRebuiltError } from "./errors.ts"
import type { ExpectedVersion, StreamHead } from "./Message.ts"
import type { BuiltIn } from "./Partitioner.ts"
import type { Listener } from "./Wakeup.ts"

/** A message ready to be stored. */
export interface EncodedMessage {
  /** A UUID in lower case. */
  readonly messageId: string
  readonly occurredAt: DateTime.Utc
  /** JSON text. */
  readonly data: string
}

/** Messages for one stream that are written together or not at all. */
export interface AppendItem {
  readonly stream: string
  readonly expectedVersion: ExpectedVersion | undefined
  /** No id twice. */
  readonly messages: Array.NonEmptyReadonlyArray<EncodedMessage>
  /** JSON text of an object, the same for each message. */
  readonly metadata: string
}

/** What became of an item. `Skipped`: left out because another item of an atomic append is the first that was refused. */
export type AppendOutcome = Data.TaggedEnum<{
  /** The place of the item's last message. */
  Written: { readonly version: number; readonly globalPosition: number }
  WrongVersion: { readonly actualVersion: number }
  Duplicate: { readonly messageId: string }
  Skipped: {}
}>

/** Makes outcomes, and tells them apart. */
export const AppendOutcome = Data.taggedEnum<AppendOutcome>()

/** A row as it was read. */
export interface EncodedStoredMessage {
  readonly messageId: string
  readonly stream: string
  readonly version: number
  readonly globalPosition: number
  readonly addedAt: DateTime.Utc
  readonly data: Schema.Json
  readonly metadata: Schema.JsonObject
}

/** Messages as they were read, and whether there may be more behind them. An empty page has nothing behind it. */
export interface Page {
  readonly messages: ReadonlyArray<EncodedStoredMessage>
  readonly more: boolean
}

/** From the first to the last, or the other way. */
export type Direction = "forward" | "backward"

/** Asks for a page of a stream: at most `limit` messages with `fromVersion <= version <= toVersion`, in `direction`. */
export interface StreamQuery {
  readonly stream: string
  readonly fromVersion: number
  readonly toVersion: number
  readonly direction: Direction
  readonly limit: number
}

/** Asks for a page of all streams whose names are LIKE `pattern`, in the order of global positions, bounds included. */
export interface PatternQuery {
  readonly pattern: string
  readonly fromPosition: number
  readonly toPosition: number
  readonly direction: Direction
  readonly limit: number
}

/** Runs an effect so that what it reads comes from one snapshot. */
export interface Snapshot {
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R>
}

/** What an aggregated stream is made of. */
export interface StreamDefinition {
  /** A name that `checkName` let pass. */
  readonly name: string
  /** LIKE patterns of the names of the streams that are woven in. */
  readonly patterns: Array.NonEmptyReadonlyArray<string>
  /** Absent: a function of the application. */
  readonly partitioner: BuiltIn | undefined
}

/** The last position of a partition. */
export interface PartitionHead {
  readonly partition: number
  readonly position: number
}

/** A message as it was read from a partition. */
export interface EncodedLinkedMessage extends EncodedStoredMessage {
  readonly position: number
}

/** Asks for a page of a partition, in the order of positions. */
export interface PartitionQuery {
  readonly partition: number
  readonly fromPosition: number
  readonly limit: number
}

/** How far a projection has come, page by page. */
export interface ProjectedPage {
  /** How many messages were linked. */
  readonly linked: number
  /** Up to this global position all is linked that the round can see. */
  readonly position: number
  /** Where the round ends, or the last one ended if nothing is new: at a position that no message it sees is behind. */
  readonly target: number
  /** Whether the round, which links what was committed when it began, began with this page. */
  readonly began: boolean
  /** Whether the round is over. */
  readonly done: boolean
}

/** A round that is under way, for those who partition messages themselves. */
export interface Round {
  /** Whether it begins with this. */
  readonly began: boolean
  /** The global position up to which it has come. */
  readonly cursor: number
  /** The global position at which it ends. */
  readonly last: number
  /** What the round links is what the one snapshot sees and the other does not. In the backend's own form. */
  readonly target: string
  readonly seen: string | undefined
  readonly epoch: number
}

/** Whether there is a round, and not a page that says that nothing is new. */
export const isRound = (begun: Round | ProjectedPage): begun is Round => "cursor" in begun

/** The messages that are new to a round, among those behind `from` and up to `to`. */
export interface ScannedPage {
  readonly messages: ReadonlyArray<EncodedStoredMessage>
  readonly from: number
  readonly to: number
  /** Nothing is left to scan. */
  readonly done: boolean
}

/**
 * An aggregated stream of a backend. Its projection keeps these promises:
 *
 * - each message whose stream's name matches is linked once, however its transaction and others overlap;
 * - positions of a partition are dense from 0, and messages of one origin stream are in the order of versions;
 * - a page is linked as a whole or not at all, and the next call goes on behind it, whoever makes it;
 * - one projector works at a time; another waits.
 */
export interface AggregatedStorage {
  /** Messages that the store does not have any more are left out. */
  readonly readPartition: (
    query: PartitionQuery
  ) => Effect.Effect<{ readonly messages: ReadonlyArray<EncodedLinkedMessage>; readonly more: boolean }, SqlError>
  /** In the order of partitions. */
  readonly partitions: Effect.Effect<ReadonlyArray<PartitionHead>, SqlError>
  /** Of each partition the first position whose message occurred at that time or later; behind the head if none did. */
  readonly positionsAtTime: (time: DateTime.Utc) => Effect.Effect<ReadonlyArray<PartitionHead>, SqlError>
  /** Of each partition the last position whose message has this global position or a lower one; -1 if none has. */
  readonly positionsAtGlobalPosition: (position: number) => Effect.Effect<ReadonlyArray<PartitionHead>, SqlError>
  /**
   * Of each partition the first position whose message has a higher global position than this; behind the head if none
   * has. What is linked late may be behind messages with higher ones: those from here on may have lower ones too.
   */
  readonly positionsAfterGlobalPosition: (position: number) => Effect.Effect<ReadonlyArray<PartitionHead>, SqlError>
  /** The highest global position that is linked, and the highest that the store has given out; 0: none. */
  readonly progress: Effect.Effect<{ readonly linked: number; readonly stored: number }, SqlError>
  /** Scans and links a page with the built-in partitioner. */
  readonly project: (limit: number) => Effect.Effect<ProjectedPage, StreamDefinitionError | SqlError>
  /** The round that is under way, else a new one; if nothing is new, a page that says so. */
  readonly beginRound: Effect.Effect<Round | ProjectedPage, StreamDefinitionError | SqlError>
  /** A page of at most `limit` messages, or less where they are large. */
  readonly scan: (round: Round, from: number, limit: number) => Effect.Effect<ScannedPage, SqlError>
  /** Links what was scanned; nothing if somebody else has gone on meanwhile: the round has to be asked for again. */
  readonly link: (
    round: Round,
    page: Omit<ScannedPage, "messages">,
    links: ReadonlyArray<{ readonly messageId: string; readonly partition: number }>
  ) => Effect.Effect<ProjectedPage | undefined, SqlError>
  /**
   * Removes all links; the next projection begins at the beginning, by the definition it is given. Checkpoints of
   * subscriptions are of other positions from then on.
   */
  readonly reset: Effect.Effect<void, SqlError>
  /** Removes the stream with all that belongs to it. */
  readonly drop: Effect.Effect<void, SqlError>
  /** Is woken when messages have been linked. */
  readonly listen: Effect.Effect<Listener, never, Scope.Scope>
  /**
   * Makes what a subscription needs, where it does not exist. The name is one that `checkName` let pass; it fails if a
   * subscription to another stream has it.
   */
  readonly subscription: (
    name: string
  ) => Effect.Effect<SubscriptionStorage, InvalidNameError | MigrationError | SqlError>
}

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

/**
 * What a subscription remembers. Checkpoints only rise, and only by the claim that was made last; they are written in
 * the transaction that is open, and roll back with it.
 */
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

/** A backend of one store. */
export class Storage extends Context.Service<Storage, {
  /** Outcomes in the order of the items. */
  readonly append: (
    items: Array.NonEmptyReadonlyArray<AppendItem>,
    options: { readonly atomic: boolean }
  ) => Effect.Effect<ReadonlyArray<AppendOutcome>, SqlError>
  readonly readStream: (query: StreamQuery) => Effect.Effect<Page, SqlError>
  readonly readPattern: (query: PatternQuery) => Effect.Effect<Page, SqlError>
  /** In any order; ids that are not stored are left out. */
  readonly readByIds: (
    messageIds: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<EncodedStoredMessage>, SqlError>
  /** The ids of a stream's messages from a version on, in the order of versions, at most `limit`. */
  readonly messageIds: (
    page: { readonly stream: string; readonly fromVersion: number; readonly limit: number }
  ) => Effect.Effect<ReadonlyArray<string>, SqlError>
  readonly head: (stream: string) => Effect.Effect<StreamHead, SqlError>
  /** Removes every message; positions go on rising. */
  readonly truncate: Effect.Effect<void, SqlError>
  /** Commits on success, rolls back on failure and interruption; nests. */
  readonly withTransaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
  /** Whether a transaction is open in the fiber's context. */
  readonly inTransaction: Effect.Effect<boolean>
  /** One view until the scope closes; inside a transaction, that transaction's view. */
  readonly snapshot: Effect.Effect<Snapshot, SqlError, Scope.Scope>
  /** Is woken when messages have been committed. */
  readonly listen: Effect.Effect<Listener, never, Scope.Scope>
  /** Makes what an aggregated stream needs, where it does not exist. */
  readonly aggregatedStream: (
    definition: StreamDefinition
  ) => Effect.Effect<AggregatedStorage, InvalidNameError | MigrationError | SqlError>
}>()("effect-message-store/Storage") {}
