/**
 * What operators ask of a backend, beside what the other parts of the port tell. It keeps these promises:
 *
 * - nothing here needs the application's schemas, or handlers;
 * - what there is, is found in the database itself: aggregated streams, subscriptions and projections need not be named;
 * - each call looks at a bounded number of rows, or says where it has come to, and goes on from there;
 * - who may only read, may look.
 */
import type { DateTime, Duration, Effect } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidNameError, SetupError } from "../errors.ts"
import type { Direction, EncodedStoredMessage } from "./messages.ts"
import type { AggregatedStorage, StreamDefinition } from "./streams.ts"
import type { Failure, PartitionStatus, Pause } from "./subscriptions.ts"

/** The number of the migration that made database objects last, and of that which this build knows last. */
export interface ObjectsVersion {
  /** Undefined where nobody has written it down, or this role may not read it. */
  readonly made: number | undefined
  readonly known: number
}

/** The definition of an aggregated stream, as far as it is known: without patterns if nothing was linked yet. */
export type OpenedDefinition = Omit<StreamDefinition, "patterns"> & { readonly patterns: ReadonlyArray<string> }

/** An aggregated stream, as the database tells of it. */
export interface CataloguedStream {
  /** As it was when messages were linked last. */
  readonly definition: OpenedDefinition
  readonly objects: ObjectsVersion
}

/** A subscription, or a projection, and the aggregated stream that it belongs to. */
export interface CataloguedConsumer {
  readonly name: string
  readonly aggregatedStream: string
  readonly objects: ObjectsVersion
}

/** What belongs to a store, each in the order of names. */
export interface Catalogue {
  readonly store: ObjectsVersion
  readonly aggregatedStreams: ReadonlyArray<CataloguedStream>
  readonly subscriptions: ReadonlyArray<CataloguedConsumer>
  readonly projections: ReadonlyArray<CataloguedConsumer>
  /** Tables that tell of others, of this store or another one, and that this role may not read. */
  readonly unreadable: ReadonlyArray<string>
}

/** A stream, and where it ends. */
export interface StreamSummary {
  readonly stream: string
  /** Of its last message. */
  readonly version: number
  /** How many it has: those before `version`, without what was deleted at its beginning. */
  readonly messages: number
  /** Of its last message. */
  readonly globalPosition: number
  /** When that was added. */
  readonly addedAt: DateTime.Utc
}

/** Asks for streams whose names are LIKE `pattern`, in the order of names. */
export interface StreamsQuery {
  readonly pattern: string | undefined
  /** Those behind this name. */
  readonly after: string | undefined
  readonly limit: number
  /** How many names are looked at, at most. */
  readonly scan: number
}

/** Some of what was asked for, and where the look ended. */
export interface Looked<out A, out At> {
  readonly found: ReadonlyArray<A>
  /** What is behind it has not been looked at; undefined: nothing is. */
  readonly reached: At | undefined
}

/** Asks for messages that all of this is true of. */
export interface SearchQuery {
  readonly direction: Direction
  /** The exact name of a stream: it is looked through by versions, which `after` then is one of. */
  readonly stream: string | undefined
  /** A LIKE pattern of names of streams. */
  readonly pattern: string | undefined
  /** Messages that have all of these. */
  readonly tags: ReadonlyArray<string>
  /** Messages in whose JSON text one of these stands as a string. Not more than a hint: others may be found as well. */
  readonly mentions: ReadonlyArray<string>
  readonly correlationId: string | undefined
  readonly causationId: string | undefined
  /** Messages of the correlation, or caused by one of these. */
  readonly related:
    | { readonly correlationId: string | undefined; readonly causationIds: ReadonlyArray<string> }
    | undefined
  /** Global positions, bounds included. */
  readonly fromPosition: number
  readonly toPosition: number
  /** Times at which they were added, bounds included. */
  readonly fromTime: DateTime.Utc | undefined
  readonly toTime: DateTime.Utc | undefined
  /** Goes on behind this, as a look has told that it has reached. */
  readonly after: number | undefined
  readonly limit: number
  /** How many messages are looked at, at most. */
  readonly scan: number
}

/** Where a message is in an aggregated stream. */
export interface LinkedPlace {
  readonly aggregatedStream: string
  readonly partition: number
  readonly position: number
}

/** A subscription as a whole. */
export interface SubscriptionTotals {
  /** Partitions that have messages. */
  readonly partitions: number
  /** Messages that are linked and not acknowledged. */
  readonly lag: number
  /** How long the oldest of them has been stored; undefined: there is none. */
  readonly age: Duration.Duration | undefined
  /** Of partitions, how many are claimed, halted, left to processes that know the next type, or paused by themselves. */
  readonly claimed: number
  readonly halted: number
  readonly unknownType: number
  readonly pausedPartitions: number
  /** Undefined unless the whole subscription is paused. */
  readonly paused: Pause | undefined
  readonly parked: number
  /** Of the parked messages, those that are to be handled again. */
  readonly requeued: number
  /** When a message was acknowledged last; undefined: not known. */
  readonly acknowledgedAt: DateTime.Utc | undefined
  /** What has claimed partitions, at most 100. */
  readonly claimedBy: ReadonlyArray<string>
  /** Whether the stream was rebuilt since it began. */
  readonly isVoid: boolean
}

/** Asks for partitions of a subscription, in their order. */
export interface PartitionsQuery {
  /** Those behind this one. */
  readonly after: number | undefined
  readonly limit: number
  /** Leaves out those with which all is well: nothing to be handled, nothing parked, paused or halted. */
  readonly onlyUnfinished: boolean
}

/** Parked messages whose errors are alike: in all but numbers and ids. */
export interface ParkedError {
  readonly tag: Failure["tag"]
  /** With `#` where the messages have numbers and ids. */
  readonly message: string
  readonly count: number
  readonly firstParkedAt: DateTime.Utc
  readonly lastParkedAt: DateTime.Utc
}

/** A transaction that is open for long. */
export interface OpenTransaction {
  readonly since: DateTime.Utc
  /** The process id of its session; undefined: it is prepared. */
  readonly pid: number | undefined
  /** The name of its application, or that of the prepared transaction. */
  readonly name: string
  /** As PostgreSQL has it: `"idle in transaction"`, say. */
  readonly state: string
}

/** How a store and its database are. */
export interface Vitals {
  /** About how many messages the store has; undefined: nobody has counted yet. */
  readonly messages: number | undefined
  /** The highest global position of a message; 0: none. */
  readonly lastPosition: number
  /** What messages and their indexes take, in bytes; undefined in memory. */
  readonly bytes: number | undefined
  /** The clock of the backend. */
  readonly now: DateTime.Utc
  /** The transactions that are open for longer than asked, the oldest first, at most 20. */
  readonly transactions: ReadonlyArray<OpenTransaction>
  /** Whether the role sees those of other roles. */
  readonly seesAllTransactions: boolean
  /** The sessions of the server, and how many there may be; undefined in memory. */
  readonly sessions: { readonly open: number; readonly maximum: number } | undefined
}

/** Scheduled messages as a whole. */
export interface ScheduledTotals {
  readonly waiting: number
  /** Those that cannot be written, and wait no more. */
  readonly refused: number
  /** How long the first one that waits is overdue, if it is. */
  readonly overdue: Duration.Duration | undefined
}

/** What operators ask about one store. */
export interface OperatorStorage {
  /**
   * Runs an effect whose statements are ended when they take longer, each; one that only reads cannot write. In a
   * transaction that is open, its bounds hold. `stepwise` says that the statements look at the next rows of an order: what they
   * take must not depend on how many there are behind these.
   */
  readonly bounded: (options: {
    readonly milliseconds: number
    readonly readOnly: boolean
    readonly stepwise?: boolean
  }) => <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
  readonly catalogue: Effect.Effect<Catalogue, SqlError>
  /** An aggregated stream that is there. Makes and changes nothing. */
  readonly open: (
    definition: OpenedDefinition
  ) => Effect.Effect<AggregatedStorage, InvalidNameError | SetupError | MigrationError | SqlError>
  readonly streams: (query: StreamsQuery) => Effect.Effect<Looked<StreamSummary, string>, SqlError>
  readonly search: (query: SearchQuery) => Effect.Effect<Looked<EncodedStoredMessage, number>, SqlError>
  /**
   * Global positions outside of which no message was added at these times, unless by a transaction that was open for more
   * than an hour.
   */
  readonly positionsAt: (
    times: { readonly from: DateTime.Utc | undefined; readonly to: DateTime.Utc | undefined }
  ) => Effect.Effect<{ readonly from: number; readonly to: number }, SqlError>
  /** The places of a message in these aggregated streams. */
  readonly places: (
    messageId: string,
    aggregatedStreams: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<LinkedPlace>, SqlError>
  readonly totals: (consumer: CataloguedConsumer) => Effect.Effect<SubscriptionTotals, SqlError>
  readonly partitions: (
    consumer: CataloguedConsumer,
    query: PartitionsQuery
  ) => Effect.Effect<ReadonlyArray<PartitionStatus>, SqlError>
  /** The most frequent first. */
  readonly parkedErrors: (
    consumer: CataloguedConsumer,
    limit: number
  ) => Effect.Effect<ReadonlyArray<ParkedError>, SqlError>
  readonly scheduledTotals: Effect.Effect<ScheduledTotals, SqlError>
  /** With the transactions that are open for longer than so many milliseconds. */
  readonly vitals: (openFor: number) => Effect.Effect<Vitals, SqlError>
}
