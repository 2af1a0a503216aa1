/**
 * An aggregated stream of a backend. Its projection keeps these promises:
 *
 * - each message whose stream's name matches is linked once, however its transaction and others overlap;
 * - positions of a partition are dense from 0, and messages of one origin stream are in the order of versions;
 * - a page is linked as a whole or not at all, and the next call goes on behind it, whoever makes it;
 * - one projector works at a time; another waits.
 */
import type { Array, DateTime, Effect, Scope } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError, StreamDefinitionError } from "../errors.ts"
import type { BuiltIn } from "../Partitioner.ts"
import type { Listener } from "./listeners.ts"
import type { EncodedStoredMessage } from "./messages.ts"
import type { PartitionHead } from "./partitions.ts"
import type { SubscriptionStorage } from "./subscriptions.ts"

/** What an aggregated stream is made of. */
export interface StreamDefinition {
  /** A name that `checkName` let pass. */
  readonly name: string
  /** LIKE patterns of the names of the streams that are woven in. */
  readonly patterns: Array.NonEmptyReadonlyArray<string>
  /** Absent: a function of the application. */
  readonly partitioner: BuiltIn | undefined
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

/** An aggregated stream, and the projection that fills it. */
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
  ) => Effect.Effect<SubscriptionStorage, InvalidNameError | SetupError | MigrationError | SqlError>
}
