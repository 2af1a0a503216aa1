/** What an operator sees of a store, and does to it. */
import type { Effect, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import type { PromoteOptions } from "../Projection.ts"
import type {
  ObjectsVersion,
  ParkedError,
  PartitionStatus,
  ScheduledTotals,
  StreamSummary,
  Vitals
} from "../Storage.ts"
import type { PauseOptions } from "../Subscription.ts"
import type { Start } from "../subscription/start.ts"
import type { PromotionError } from "./actions.ts"
import type { HealthBounds } from "./bounds.ts"
import type {
  AggregatedStreamStatus,
  LinkedMessage,
  LinkedOptions,
  PartitionsOptions,
  ProjectionStatus,
  SubscriptionStatus
} from "./consumers.ts"
import type { MessageDetails } from "./details.ts"
import type { FollowOptions } from "./follow.ts"
import type { Health } from "./health.ts"
import type { Message } from "./messages.ts"
import type { OperatorError } from "./opened.ts"
import type { Page, PageOptions } from "./page.ts"
import type { ParkedMessage, ParkedOptions, WhichParked } from "./parked.ts"
import type { ScheduledMessage, ScheduledOptions } from "./scheduled.ts"
import type { Found, SearchOptions } from "./search.ts"
import type { StreamsOptions } from "./streams.ts"
import type { Trace, TraceOptions } from "./trace.ts"

/** A store at a glance. */
export interface Overview {
  readonly store: string
  readonly objects: ObjectsVersion
  readonly vitals: Vitals
  readonly scheduled: ScheduledTotals
  /** The names of what belongs to it, at most 1,000 of each kind. */
  readonly aggregatedStreams: ReadonlyArray<string>
  readonly subscriptions: ReadonlyArray<string>
  readonly projections: ReadonlyArray<string>
}

/** What an operator sees of a store, and does to it. */
export interface OperatorService {
  /** The name of the store. */
  readonly store: string
  /** What there is, and which transactions have been open for more than a minute. */
  readonly overview: Effect.Effect<Overview, OperatorError>
  /**
   * Whether all is well, and if not, why: each problem with what it is of, and since when.
   *
   * **Example**
   *
   * ```ts
   * const { isHealthy, problems } = yield* operator.health({ age: "1 minute", parked: 10 })
   * ```
   */
  readonly health: (bounds?: HealthBounds) => Effect.Effect<Health, OperatorError>
  /** Streams, with how many messages they have and where they end. */
  readonly streams: (options?: StreamsOptions) => Effect.Effect<Page<StreamSummary>, OperatorError>
  /**
   * Messages by stream, type, tags, correlation, causation, time and global position, the newest first; with nothing asked for,
   * the last ones. A stream alone is read by it, too.
   *
   * **Details**
   *
   * Correlation and causation ids, types, times and patterns have no index, since all writers would pay for it: the search looks at
   * as many messages as the `timeLimit` allows, and `next` goes on from there.
   *
   * **Example**
   *
   * ```ts
   * const { items, next } = yield* operator.search({ type: "OrderPlaced", pattern: "order-%", limit: 20 })
   * ```
   */
  readonly search: (options?: SearchOptions) => Effect.Effect<Found, OperatorError>
  /** A message with its tags, its cause, its places, and what subscriptions have done with it; undefined: there is none. */
  readonly message: (messageId: string) => Effect.Effect<MessageDetails | undefined, OperatorError>
  /** What led to a message, and what came of it; undefined: there is no such message. */
  readonly trace: (messageId: string, options?: TraceOptions) => Effect.Effect<Trace | undefined, OperatorError>
  /**
   * Messages as they are written, those that are committed late included, as long as that is within 30 seconds. It remembers
   * nothing, and holds no connection while it waits.
   */
  readonly follow: (options?: FollowOptions) => Stream.Stream<Message, InvalidArgumentError | SqlError>
  /** Aggregated streams, and how far their projectors have come. */
  readonly aggregatedStreams: (options?: PageOptions) => Effect.Effect<Page<AggregatedStreamStatus>, OperatorError>
  /** The messages of a partition of an aggregated stream. */
  readonly linked: (
    aggregatedStream: string,
    partition: number,
    options?: LinkedOptions
  ) => Effect.Effect<Page<LinkedMessage>, OperatorError>
  /** Subscriptions as a whole, those of projections included. */
  readonly subscriptions: (options?: PageOptions) => Effect.Effect<Page<SubscriptionStatus>, OperatorError>
  /** The partitions of a subscription: how far each is, who has it since when, and why it does not go on. */
  readonly partitions: (
    subscription: string,
    options?: PartitionsOptions
  ) => Effect.Effect<Page<PartitionStatus>, OperatorError>
  /** The dead letters of a subscription. */
  readonly parked: (subscription: string, options?: ParkedOptions) => Effect.Effect<Page<ParkedMessage>, OperatorError>
  /** The same, grouped by errors that are alike in all but numbers and ids; the most frequent first. */
  readonly parkedErrors: (
    subscription: string,
    options?: Pick<PageOptions, "limit">
  ) => Effect.Effect<ReadonlyArray<ParkedError>, OperatorError>
  /** Projections with their versions. */
  readonly projections: (options?: PageOptions) => Effect.Effect<Page<ProjectionStatus>, OperatorError>
  /** Messages that are to be written later, in the order in which they leave; or those that could not be written. */
  readonly scheduled: (options?: ScheduledOptions) => Effect.Effect<Page<ScheduledMessage>, OperatorError>
  /**
   * Has parked messages handled again by the processes of the subscription: all, or those given. Returns how many of them
   * were not requeued before. See `requeue` of a subscription.
   */
  readonly requeue: (subscription: string, which?: WhichParked) => Effect.Effect<number, OperatorError>
  /** Discards parked messages; returns how many. See `discard` of a subscription. */
  readonly discard: (subscription: string, which: WhichParked) => Effect.Effect<number, OperatorError>
  /** Pauses a subscription, or one of its partitions, in all processes. */
  readonly pause: (subscription: string, options?: PauseOptions) => Effect.Effect<void, OperatorError>
  /** Lifts a pause; returns whether there was one. */
  readonly resume: (
    subscription: string,
    options?: { readonly partition?: number | undefined }
  ) => Effect.Effect<boolean, OperatorError>
  /** Begins a subscription again, by default with the first message. See `reset` of a subscription. */
  readonly reset: (subscription: string, start?: Start) => Effect.Effect<void, OperatorError>
  /**
   * Removes all links of an aggregated stream: the projectors that run link all messages again. Returns the subscriptions of the
   * stream, each of which then has to be `reset`.
   */
  readonly rebuild: (aggregatedStream: string) => Effect.Effect<ReadonlyArray<string>, OperatorError>
  /** Shows readers a version of a projection. See `promote` of a projection. Not inside a transaction. */
  readonly promote: (
    projection: string,
    version: number,
    options?: PromoteOptions
  ) => Effect.Effect<void, PromotionError>
  /** Shows readers the lower version that they saw last; returns its number. Not inside a transaction. */
  readonly rollback: (projection: string, options?: PromoteOptions) => Effect.Effect<number, PromotionError>
  /** Drops a version of a projection that is not promoted. Not inside a transaction. */
  readonly dropVersion: (projection: string, version: number) => Effect.Effect<void, PromotionError>
  /** Cancels a scheduled message; returns whether it was still scheduled. */
  readonly cancelScheduled: (key: string) => Effect.Effect<boolean, OperatorError>
}
