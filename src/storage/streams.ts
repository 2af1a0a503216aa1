/**
 * An aggregated stream of a backend. Its projection keeps these promises:
 *
 * - each message whose stream's name matches is linked once, however its transaction and others overlap;
 * - positions of a partition are dense from 0, and messages of one origin stream are in the order of versions;
 * - a page is linked as a whole or not at all, and the next call, of whatever process, goes on behind it;
 * - one projector works at a time; another waits.
 *
 * A projection works in rounds: a round links what was committed when it began, page by page. A projector asks for a page
 * by `scan`, decides the partitions, and hands them to `link`. A backend that can decide the partitions itself offers
 * `project`, which does both.
 */
import { Data } from "effect"
import type { Array, DateTime, Effect, Scope } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SequenceError, SetupError, StreamDefinitionError } from "../errors.ts"
import type { BuiltIn } from "../Partitioner.ts"
import type { Listener } from "./listeners.ts"
import type { EncodedStoredMessage } from "./messages.ts"
import type { PartitionHead } from "./partitions.ts"
import type { SubscriptionStorage } from "./subscriptions.ts"
import type { VersionStorage } from "./versions.ts"

/** The definition of an aggregated stream. */
export interface StreamDefinition {
  /** A name that `checkName` let pass. */
  readonly name: string
  /** LIKE patterns of the names of the streams whose messages are linked. */
  readonly patterns: Array.NonEmptyReadonlyArray<string>
  /** Absent: a function of the application. */
  readonly partitioner: BuiltIn | undefined
  /**
   * Where the stored JSON of a message has its time, as ISO text, for messages that were not written by this library.
   * Absent: not known.
   */
  readonly timePath?: ReadonlyArray<string> | undefined
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
  /** Whether a page that has messages tells the run of the server that has answered. Default: no. */
  readonly tellsRun?: boolean | undefined
}

/** Asks for a position of each partition. */
export type PositionQuery = Data.TaggedEnum<{
  /** The first message that occurred at that time or later; behind the head if none did. */
  SinceTime: { readonly time: DateTime.Utc }
  /**
   * The first message that has a higher global position; behind the head if none has. Messages linked late may come
   * after messages with higher global positions, so those from here on may have lower ones too.
   */
  AfterGlobalPosition: { readonly globalPosition: number }
  /** The last message that has this global position or a lower one; -1 if none has. */
  UpToGlobalPosition: { readonly globalPosition: number }
}>

/** Constructors and matchers of these queries. */
export const PositionQuery = Data.taggedEnum<PositionQuery>()

/** Progress of a projection after one page. */
export interface ProjectedPage {
  /** How many messages were linked. */
  readonly linked: number
  /** Everything that the round sees is linked up to this global position. */
  readonly position: number
  /** The global position at which the round ends, or at which the last one ended, if nothing is new. */
  readonly target: number
  /** Whether the round began with this page. */
  readonly began: boolean
  /** Whether the round is over. */
  readonly done: boolean
}

/** A message to be linked. */
export interface ScannedMessage extends EncodedStoredMessage {
  /** Whether the backend knows when it occurred. */
  readonly isTimed: boolean
}

/** The new messages of a page, in the order in which they are to be linked. */
export interface ScannedPage {
  readonly messages: ReadonlyArray<ScannedMessage>
  /** The page and its round, in the backend's own form. */
  readonly token: string
  /** Whether this is the last page of the round. */
  readonly done: boolean
}

/** Whether there is a page: something is new. */
export const isScanned = (answer: ScannedPage | ProjectedPage): answer is ScannedPage => "token" in answer

/** The partition of a message. */
export interface Link {
  readonly messageId: string
  readonly partition: number
  /** When it occurred, where the projector knows and the backend does not. */
  readonly occurredAt: DateTime.Utc | undefined
}

/** The progress of a projection; 0 before the first message. */
export interface StreamProgress {
  /** The highest global position that is linked. */
  readonly linked: number
  /** The highest global position that a round has come to. */
  readonly scanned: number
  /** When a projector last looked for new messages: ten seconds late at most. */
  readonly scannedAt: DateTime.Utc | undefined
  /** The highest global position of the store's messages. */
  readonly stored: number
}

/** Why a round cannot begin. */
export type RoundError = StreamDefinitionError | SequenceError | SetupError | SqlError

/** An aggregated stream, and the projection that fills it. */
export interface AggregatedStorage {
  /** Messages that the store does not have any more are left out. */
  readonly readPartition: (
    query: PartitionQuery
  ) => Effect.Effect<{ readonly messages: ReadonlyArray<EncodedLinkedMessage>; readonly more: boolean }, SqlError>
  /** In the order of partitions. */
  readonly partitions: Effect.Effect<ReadonlyArray<PartitionHead>, SqlError>
  /** The ids of the messages that are linked at these places, in any order; places without one are left out. */
  readonly messageIds: (
    places: ReadonlyArray<PartitionHead>
  ) => Effect.Effect<ReadonlyArray<PartitionHead & { readonly messageId: string }>, SqlError>
  /** In the order of partitions. */
  readonly positions: (query: PositionQuery) => Effect.Effect<ReadonlyArray<PartitionHead>, SqlError>
  readonly progress: Effect.Effect<StreamProgress, SqlError>
  /**
   * How many committed messages wait to be linked; 0: none. So that this stays cheap, messages more than 10,000 ahead of
   * the projection all count, whether or not their streams match, and messages that were committed late are looked for
   * among the last 50,000 before.
   */
  readonly waiting: Effect.Effect<number, SqlError>
  /**
   * How long the first message that waits to be linked has been stored, in milliseconds; undefined: none waits. Messages
   * that were committed late are not looked for, nor those more than 10,000 ahead of the projector.
   */
  readonly waitingFor: Effect.Effect<number | undefined, SqlError>
  /**
   * A page of at most `limit` messages, or less where they are large: the first one that is not linked of the round that
   * is under way, else of a new one; or the one behind `after`. If nothing is new, says so.
   */
  readonly scan: (after: string | undefined, limit: number) => Effect.Effect<ScannedPage | ProjectedPage, RoundError>
  /**
   * Links the messages of a page, or those up to the global position `through`: the rest is scanned again. Links
   * nothing if another projector has gone on meanwhile: begin with `scan(undefined)`.
   */
  readonly link: (
    token: string,
    links: ReadonlyArray<Link>,
    through?: number
  ) => Effect.Effect<ProjectedPage | undefined, SqlError>
  /** Scans and links a page with the built-in partitioner of the definition. */
  readonly project?: ((limit: number) => Effect.Effect<ProjectedPage, RoundError>) | undefined
  /**
   * Removes all links; the next projection begins at the beginning, by the definition it is given. Positions
   * begin anew, so that checkpoints of subscriptions are void.
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
  /**
   * Makes what a projection needs, where it does not exist. The name is one that `checkName` let pass; it fails if a
   * projection of another stream has it.
   */
  readonly projection: (
    name: string
  ) => Effect.Effect<VersionStorage, InvalidNameError | SetupError | MigrationError | SqlError>
}
