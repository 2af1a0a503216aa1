/**
 * The operator's view of a store: what is in it, what happens, and what to put right; without the application's schemas and
 * handlers.
 *
 * **Guarantees**
 *
 * - What there is, is found in the database: aggregated streams, subscriptions and projections need not be named.
 * - Every list is paged, by keyset. Every statement ends within the `statementTimeout`. A search that takes longer than it may
 *   says how far it has come, and goes on from there.
 * - Nothing is made or changed by looking: a role with SELECT alone may look. What it may not do fails with the `SqlError` of
 *   the database, and `health` tells what it could not look at.
 * - What is done (a pause, a requeue, a reset) is honoured by all processes that run, as if one of them had done it.
 *
 * **Gotchas**
 *
 * Inside a transaction the time limits of statements are that transaction's own.
 */
import { Context, Duration, Effect, Layer } from "effect"
import type { MigrationError } from "effect/sql/Migrator"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError, InvalidNameError, SetupError, UnsupportedEngineError } from "./errors.ts"
import { checkDuration } from "./internal/checks.ts"
import type { MessageStore } from "./MessageStore.ts"
import * as Actions from "./operator/actions.ts"
import * as Consumers from "./operator/consumers.ts"
import * as Details from "./operator/details.ts"
import * as Follow from "./operator/follow.ts"
import * as Health from "./operator/health.ts"
import type { OperatorService } from "./operator/interface.ts"
import { typeOfField } from "./operator/messages.ts"
import * as Opened from "./operator/opened.ts"
import * as Parked from "./operator/parked.ts"
import * as Scheduled from "./operator/scheduled.ts"
import * as Search from "./operator/search.ts"
import * as Streams from "./operator/streams.ts"
import * as Traces from "./operator/trace.ts"
import * as PostgresOperator from "./postgres/operator.ts"
import type { PendingMigrations } from "./postgres/operator/migrate.ts"
import * as Migrate from "./postgres/operator/migrate.ts"
import * as PostgresStorage from "./postgres/storage.ts"
import { Storage } from "./Storage.ts"
import { backendOf } from "./store/backends.ts"

export type { PromotionError } from "./operator/actions.ts"
export type { HealthBounds } from "./operator/bounds.ts"
export type {
  AggregatedStreamStatus,
  LinkedMessage,
  LinkedOptions,
  PartitionsOptions,
  ProjectionStatus,
  StreamProgress,
  SubscriptionStatus
} from "./operator/consumers.ts"
export type { HandledState, MessageDetails, MessagePlace } from "./operator/details.ts"
export type { FollowOptions } from "./operator/follow.ts"
export type { Health } from "./operator/health.ts"
export type { OperatorService, Overview } from "./operator/interface.ts"
export type { Message } from "./operator/messages.ts"
export type { OperatorError } from "./operator/opened.ts"
export type { Page, PageOptions } from "./operator/page.ts"
export type { ErrorKind, ParkedMessage, ParkedOptions, WhichParked } from "./operator/parked.ts"
export type { Problem, ProblemKind } from "./operator/problem.ts"
export type { ScheduledMessage, ScheduledOptions } from "./operator/scheduled.ts"
export type { Found, SearchOptions } from "./operator/search.ts"
export type { StreamsOptions } from "./operator/streams.ts"
export type { Trace, TraceOptions } from "./operator/trace.ts"
export type { PendingMigrations } from "./postgres/operator/migrate.ts"
export type { PromoteOptions, VersionStatus } from "./Projection.ts"
export type {
  ObjectsVersion,
  OpenTransaction,
  ParkedError,
  PartitionStatus,
  ScheduledTotals,
  StreamSummary,
  SubscriptionTotals,
  Vitals
} from "./Storage.ts"
export type { Migration } from "./storage/migrations.ts"
export type { PauseOptions, Start } from "./Subscription.ts"

/** How an operator looks. */
export interface OperatorOptions {
  /** How long a statement that only looks may take; a millisecond or more. Default 5 seconds. Those that change something have 30. */
  readonly statementTimeout?: Duration.Input | undefined
  /** The field of stored messages that names their type. Default: `_tag`, `__typename__`, or `type`. */
  readonly typeField?: string | undefined
}

/** The operator of one store. */
export class Operator extends Context.Service<Operator, OperatorService>()("effect-message-store/Operator") {}

/** How long a statement may take that changes something, in milliseconds. */
const actionTimeout = 30_000

/**
 * The operator of the store behind a backend: for backends of your own.
 *
 * **Example**
 *
 * ```ts
 * const operator = yield* Operator.make(yield* Storage.Storage, "orders")
 * ```
 */
export const make = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  store: string,
  { statementTimeout = "5 seconds", typeField }: OperatorOptions = {}
): Effect.fn.Return<OperatorService, InvalidArgumentError> {
  const timeout = yield* Effect.fromResult(checkDuration("statementTimeout", statementTimeout, {
    minimum: 1,
    maximum: Number.MAX_SAFE_INTEGER,
    reason: "must be a millisecond or more, and finite"
  }))
  const { operator } = storage
  const typeOf = typeOfField(typeField)
  const opened = Opened.make(operator)
  const milliseconds = Math.ceil(Duration.toMillis(timeout))
  const looking = operator.bounded({ milliseconds, readOnly: true })
  const stepping = operator.bounded({ milliseconds, readOnly: true, stepwise: true })
  const doing = operator.bounded({ milliseconds: actionTimeout, readOnly: false })
  const consumers = Consumers.make(operator, opened, typeOf)
  const parked = Parked.make(storage, operator, opened, typeOf)
  const actions = Actions.make(storage, opened)
  /** Each step of a search is bounded by itself: the search goes on with less at a time when one was ended. */
  const stepwise = {
    ...operator,
    search: (query: Parameters<typeof operator.search>[0]) => stepping(operator.search(query))
  }
  const search = Search.make({ ...stepwise, positionsAt: (times) => stepping(operator.positionsAt(times)) }, typeOf)
  const trace = Traces.make(stepwise, { readByIds: (ids) => looking(storage.readByIds(ids)) }, typeOf)
  const streams = Streams.make({ ...operator, streams: (query) => stepping(operator.streams(query)) })
  const message = Details.make(storage, operator, opened, typeOf)
  const scheduled = Scheduled.make(storage, typeOf)

  return {
    store,
    overview: looking(Effect.gen(function*() {
      const { aggregatedStreams, projections, store: objects, subscriptions } = yield* operator.catalogue
      const names = (all: ReadonlyArray<{ readonly name: string }>) => all.slice(0, 1000).map(({ name }) => name)
      return {
        store,
        objects,
        vitals: yield* operator.vitals(60_000),
        scheduled: yield* operator.scheduledTotals,
        aggregatedStreams: names(aggregatedStreams.map(({ definition }) => definition)),
        subscriptions: names(subscriptions),
        projections: names(projections)
      }
    })),
    health: Health.make(storage, opened, store, looking),
    streams,
    search,
    message: (id) => looking(message(id)),
    trace,
    follow: Follow.make(storage, typeOf, looking),
    aggregatedStreams: (options) => looking(consumers.aggregatedStreams(options)),
    linked: (name, partition, options) => looking(consumers.linked(name, partition, options)),
    subscriptions: (options) => looking(consumers.subscriptions(options)),
    partitions: (name, options) => looking(consumers.partitions(name, options)),
    parked: (name, options) => looking(parked.parked(name, options)),
    parkedErrors: (name, options) => looking(parked.parkedErrors(name, options)),
    projections: (options) => looking(consumers.projections(options)),
    scheduled: (options) => looking(scheduled(options)),
    requeue: (name, which) => doing(parked.requeue(name, which)),
    discard: (name, which) => doing(parked.discard(name, which)),
    pause: (name, options) => doing(actions.pause(name, options)),
    resume: (name, options) => doing(actions.resume(name, options)),
    reset: (name, start) => doing(actions.reset(name, start)),
    rebuild: (name) => doing(actions.rebuild(name)),
    // They have transactions and time limits of their own.
    promote: actions.promote,
    rollback: actions.rollback,
    dropVersion: actions.dropVersion,
    cancelScheduled: (key) => doing(actions.cancelScheduled(key))
  }
})

/**
 * The operator of a store of this process, on whatever backend it is.
 *
 * **Example**
 *
 * ```ts
 * Operator.layerOf(Orders).pipe(Layer.provide(Orders.layerMemory))
 * ```
 */
export const layerOf = <Store, A>(
  store: Context.Key<Store, MessageStore<A>>,
  options?: OperatorOptions
): Layer.Layer<Operator, InvalidArgumentError, Store> =>
  Layer.effect(
    Operator,
    Effect.flatMap(store, (opened) => {
      const storage = backendOf(opened)
      return storage === undefined
        ? Effect.die(new Error("only a store that a layer made has an operator"))
        : make(storage, opened.name, options)
    })
  )

/**
 * The operator of a store in a PostgreSQL database, by the store's name. Fails with a `SetupError` if its database objects are
 * missing, or of an earlier version.
 *
 * **Example**
 *
 * ```ts
 * program.pipe(Effect.provide(Operator.layer("orders")), Effect.provide(PgClient.layer({ url })))
 * ```
 */
export const layer = (
  store: string,
  options?: OperatorOptions
): Layer.Layer<
  Operator,
  InvalidArgumentError | InvalidNameError | SetupError | UnsupportedEngineError | SqlError,
  SqlClient
> =>
  Layer.effect(Operator, Effect.flatMap(Storage, (storage) => make(storage, store, options))).pipe(
    Layer.provide(PostgresStorage.layer(store, { coalesce: false, migrate: false }))
  )

/** The names of the stores that a database has, in the schemas of the search path, at most 1,000. */
export const stores: Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient> = PostgresOperator.stores

/**
 * The migrations of a store, and of all that belongs to it, that have not run yet: those of a new store, if there is none of
 * that name.
 */
export const pendingMigrations: (
  store: string
) => Effect.Effect<ReadonlyArray<PendingMigrations>, InvalidNameError | SqlError, SqlClient> = Migrate.pending

/**
 * Runs the migrations of a store, and of all that belongs to it; returns those that ran. Any number of processes may run at the
 * same time, those of other versions of this library included.
 */
export const migrate: (
  store: string
) => Effect.Effect<
  ReadonlyArray<PendingMigrations>,
  InvalidNameError | SetupError | UnsupportedEngineError | MigrationError | SqlError,
  SqlClient
> = Migrate.migrate
