/**
 * Projections: read models with versions, which are rebuilt beside the one that readers see, and take its place at once.
 *
 * A projection handles the messages of an aggregated stream by a transactional subscription, one for each version, and
 * keeps what they come to in tables of its own, one set for each version. Readers see the version that is *promoted*, by
 * views, or by names that they ask for. To change what a handler does, or the shape of its tables, is to give it a higher
 * version.
 *
 * **States of a version**
 *
 * ```
 * building ──→ promoted ⇄ standby ──→ dropped
 *    └───────────────────────┴───────────┘
 * ```
 *
 * - *building*: it was made when the first process of that version began, and handles all messages from the first one on;
 * - *promoted*: it is what readers see; one version is, or none before the first has caught up;
 * - *standby*: another was promoted in its place. Processes of that version that still run go on with it, so that it can be
 *   promoted again (`rollback`) without a rebuild;
 * - *dropped*: by hand, or when it was unused for `keep`. Never the promoted one.
 *
 * **Guarantees**
 *
 * - Every message counts once in each version, whatever fails: handler and checkpoint are one transaction.
 * - Readers never see an empty, a partial or an older read model than they saw: a version is promoted in one transaction,
 *   which finds it level with the promoted one in every partition, while that one is kept from going on. The first version
 *   has to have all that was linked. (With a `lag` allowed, it may be that much older.)
 * - A process may be killed at any point: what it leaves is the old version promoted, or the new one. How that is done on
 *   PostgreSQL, and what readers at REPEATABLE READ have to do, stands in the header of `postgres/versions.ts`.
 * - A version that was rolled back does not promote itself again, in whatever process: by hand alone.
 * - Any number of processes of any versions may run at the same time, as those of a subscription do.
 */
import { Context, Effect, Layer, Predicate, Result, Schedule } from "effect"
import type { Array as Arr, Duration, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import {
  type InvalidArgumentError,
  type InvalidNameError,
  NotProcessedError,
  type SetupError,
  type StreamRebuiltError,
  VersionError
} from "./errors.ts"
import type { Delivery } from "./Handlers.ts"
import { inBackground } from "./internal/background.ts"
import { checkWhole, invalid, outsideTransaction } from "./internal/checks.ts"
import { checkName, checkTableName, highestVersion } from "./internal/names.ts"
import { isTransient, retryTransient } from "./internal/transient.ts"
import * as Migrations from "./postgres/migrations/migrations.ts"
import * as ByHand from "./projection/byHand.ts"
import type { PromoteOptions } from "./projection/byHand.ts"
import { type Model, state, type TableNames, tables } from "./projection/model.ts"
import { keepOf, type Options, type PromotionMode, promotionOf } from "./projection/options.ts"
import { type Progress, progressOf, statusOf, type VersionState, type VersionStatus } from "./projection/progress.ts"
import { supervise, type Supervised } from "./projection/supervisor.ts"
import type { MessageCodec } from "./Serializer.ts"
import { type AggregatedStorage, type State, type Storage, subscriptionOf, tableOf } from "./Storage.ts"
import * as Subscription from "./Subscription.ts"
import { waitUntilProcessed } from "./subscription/processed.ts"

export { state, tables }
export type { Model, Options, Progress, PromoteOptions, PromotionMode, State, TableNames, VersionState, VersionStatus }

/** Handles a batch of messages of one partition, in their order, in the transaction that acknowledges them. */
export interface Handler<in A, in M, out E = never, out R = never> {
  (deliveries: Arr.NonEmptyReadonlyArray<Delivery<A>>, model: M): Effect.Effect<unknown, E, R>
}

/** What readers see. */
export interface Promoted<out M> {
  readonly version: number
  /** Of that version: while it is another one than that of this process, it may have another shape. */
  readonly model: M
}

/** Why `run` ends. A `VersionError` says that the version was dropped. */
export type RunError = Subscription.RunError | VersionError

/** Why a promotion fails. */
export type PromotionError = VersionError | SetupError | InvalidArgumentError | SqlError

/** A read model of an aggregated stream, in the version of this process. */
export interface Projection<in out A, out M> {
  readonly name: string
  readonly version: number
  /** What this version is kept in, promoted or not. */
  readonly model: M
  /** The subscription of this version: its status, its lag, its dead letters. Do not run it. */
  readonly subscription: Subscription.Subscription<A>
  /**
   * Handles messages for this version as they come, promotes it when it is time, and drops what is unused, until it is
   * interrupted. Not inside a transaction.
   *
   * **Example**
   *
   * ```ts
   * yield* balances.run((deliveries, { balances }) => addAll(balances, deliveries))
   * ```
   */
  readonly run: <E, R>(handler: Handler<A, M, E, R>) => Effect.Effect<never, RunError, R>
  /**
   * The version that readers see, and what it is kept in: for readers that do not use views. Inside a transaction, it is the version
   * that is promoted there, whatever is promoted meanwhile. Fails as long as no version was promoted.
   */
  readonly promoted: Effect.Effect<Promoted<M>, VersionError | SqlError>
  /** All versions, in their order. */
  readonly status: Effect.Effect<ReadonlyArray<VersionStatus>, SqlError>
  /**
   * The progress of this version, now and every second, until it is promoted, or is on standby: to be shown, or to be
   * waited for with `Stream.runDrain`. One that is halted may go on. In any process.
   */
  readonly progress: Stream.Stream<Progress, VersionError | SqlError>
  /**
   * Shows readers a version, by default this one; it may be lower than the one they see. Fails with reason `behind` if it lacks
   * messages that they may have seen. Not inside a transaction.
   */
  readonly promote: (version?: number, options?: PromoteOptions) => Effect.Effect<void, PromotionError>
  /**
   * Shows readers the lower version that they saw last; returns its number. That version has to be level with the present one, so
   * processes of its own must have kept it up to date; start them again if they have not. The version that is left does not
   * promote itself again: `promote` does. Rolling back twice goes back further, or fails with reason `noneBefore`. Not inside a
   * transaction.
   */
  readonly rollback: (options?: PromoteOptions) => Effect.Effect<number, PromotionError>
  /**
   * Drops a version with its tables and checkpoints; fails if it is promoted. Processes that still run it end their work on
   * it. Not inside a transaction.
   */
  readonly drop: (version: number) => Effect.Effect<void, VersionError | InvalidArgumentError | SqlError>
  /** Removes the projection: its versions, their tables, and the views of readers. Not while it runs, nor in a transaction. */
  readonly dropAll: Effect.Effect<void, InvalidArgumentError | SqlError>
  /**
   * Waits until the version that readers see has the message of a global position, such as `write` returns: to read your own
   * writes. Fails with a `NotProcessedError` when the timeout is over.
   */
  readonly waitUntilProcessed: (
    globalPosition: number,
    timeout: Duration.Input
  ) => Effect.Effect<void, NotProcessedError | StreamRebuiltError | InvalidArgumentError | SqlError>
}

/** Why a projection cannot be made. */
export type MakeError = Subscription.MakeError

/** Can be projected: an aggregated stream. */
export interface Projectable<in out A> {
  /** A projection of this stream. Makes its version, with the tables, where it does not exist. */
  readonly projection: <M, E, R>(options: Options<M, E, R>) => Effect.Effect<Projection<A, M>, MakeError | E, R>
}

/** @internal */
export const make = Effect.fnUntraced(function*<A, M, E, R>(
  storage: Storage["Service"],
  stream: AggregatedStorage,
  codec: MessageCodec<A>,
  streamName: string,
  options: Options<M, E, R>
): Effect.fn.Return<Projection<A, M>, MakeError | E, R> {
  const { kept } = options.model
  const name = yield* Effect.fromResult(checkName("projection", options.name))
  const version = yield* Effect.fromResult(checkWhole("version", options.version, 1, highestVersion))
  const promotion = yield* Effect.fromResult(promotionOf(options.promotion ?? "automatic"))
  const keep = yield* Effect.fromResult(keepOf(options.keep))
  const tableNames = kept._tag === "Tables" ? kept.tables : []
  yield* Effect.fromResult(Result.all(tableNames.map((table) => checkTableName(name, table))))
  if (kept._tag === "Tables" && tableNames.length === 0) {
    return yield* Effect.fromResult(invalid("tables", "must have at least one"))
  }
  const projected = yield* stream.projection(name)
  if (kept._tag === "Value" && projected.state === undefined) {
    return yield* Effect.fromResult(
      invalid("model", "must be tables: a state in memory would not outlive its process, as checkpoints do")
    )
  }

  const namesIn = (of: number): TableNames<string> =>
    Object.fromEntries(tableNames.map((table) => [table, tableOf(table, of)]))
  yield* Effect.retry(
    projected.register(version, tableNames, kept._tag === "Tables" ? kept.create(namesIn(version)) : Effect.void),
    {
      schedule: retryTransient,
      // Another process makes a version, or promotes one, for longer than a lock is waited for.
      while: (error) => Predicate.isTagged(error, "SqlError") && isTransient(error as SqlError),
      times: 5
    }
  )
  const modelOf = (of: number): M => (kept._tag === "Tables" ? namesIn(of) : projected.state?.(of, kept.initial)) as M // what its maker said
  const model = modelOf(version)
  const subscription = yield* Subscription.make(storage, stream, codec, streamName, {
    ...options,
    name: subscriptionOf(name, version),
    start: "beginning",
    delivery: "transactional",
    acknowledge: "batch",
    onFailure: options.onFailure ?? "haltPartition"
  })
  const ofVersion = yield* stream.subscription(subscriptionOf(name, version))
  const supervised: Supervised = { name, version, projected, stream }
  const self = Effect.succeed(supervised)

  const status = statusOf(stream, projected)

  return {
    name,
    version,
    model,
    subscription,
    run: (handler) =>
      Effect.raceFirst(
        subscription.runBatches((deliveries) => handler(deliveries, model)).pipe(
          // What fails because the tables are gone says so.
          Effect.catchTag("SqlError", (error) =>
            Effect.flatMap(
              Effect.orElseSucceed(projected.use(version), () => true),
              (isThere): Effect.Effect<never, SqlError | VersionError> =>
                Effect.fail(isThere ? error : new VersionError({ projection: name, version, reason: "missing" }))
            ))
        ),
        supervise(supervised, { promotion, keep })
      ),
    promoted: Effect.flatMap(projected.promoted, (promoted) =>
      promoted === undefined
        ? Effect.fail(new VersionError({ projection: name, reason: "nonePromoted" }))
        : Effect.succeed({ version: promoted, model: modelOf(promoted) })),
    status,
    progress: progressOf(Effect.flatMap(status, (versions) => {
      const found = versions.find((each) => each.version === version)
      return found === undefined
        ? Effect.fail(new VersionError({ projection: name, version, reason: "missing" }))
        : Effect.succeed(found)
    })),
    promote: (given = version, promoteOptions) => ByHand.promote(storage, self, given, promoteOptions),
    rollback: (promoteOptions) => ByHand.rollback(storage, self, promoteOptions),
    drop: (given) => ByHand.drop(storage, self, given),
    dropAll: Effect.andThen(outsideTransaction(storage, "dropAll"), projected.dropAll),
    waitUntilProcessed: (globalPosition, timeout) =>
      waitUntilProcessed(
        name,
        {
          ...ofVersion,
          checkpoint: (partition) =>
            Effect.flatMap(projected.promoted, (promoted) =>
              promoted === undefined ? Effect.succeed(-1) : projected.checkpoint(promoted, partition))
        },
        globalPosition,
        timeout
      ).pipe(
        // No subscription has the name of the projection.
        Effect.catchTag("NotProcessedError", (error) =>
          Effect.flatMap(projected.promoted, (promoted) =>
            Effect.fail(
              promoted === undefined
                ? error
                : new NotProcessedError({ ...error, subscription: subscriptionOf(name, promoted) })
            )))
      )
  }
})

/** How a layer runs its projection. */
export interface HandlerLayerOptions {
  /**
   * When it runs again after it failed; the schedule's input is the error. Default: every 30 seconds, but not after a
   * `HandlerError` (of `onFailure: "stop"`) or a `VersionError` (the version was dropped). Each failure is logged.
   */
  readonly restart?: Schedule.Schedule<unknown, RunError> | undefined
}

/** A projection as a service: the class is its key, its layers are its static members. */
export interface ServiceClass<in out Self, in out Id extends string, in out A, out M, out E, out R>
  extends Context.ServiceClass<Self, Id, Projection<A, M>>
{
  /** The projection; makes its version where it does not exist. For readers, too. */
  readonly layer: Layer.Layer<Self, MakeError | E, R>
  /** Handles messages for this version, and promotes it, while the layer lives. */
  readonly layerHandler: <E2, R2>(
    handler: Handler<A, M, E2, R2>,
    options?: HandlerLayerOptions
  ) => Layer.Layer<never, never, Self | R2>
  /** What `layer` runs on PostgreSQL for all versions: numbered migrations, each a list of statements. */
  readonly migrations: Effect.Effect<ReadonlyArray<Migrations.Migration>, InvalidNameError>
  /** What it runs for the subscription of this version. The tables are made by the model. */
  readonly subscriptionMigrations: Effect.Effect<ReadonlyArray<Migrations.Migration>, InvalidNameError>
}

type MissingSelf = "Missing `Self` generic - use `class Self extends Projection.Service<Self>()(…)`"

/**
 * Makes the class of a projection.
 *
 * **Example**
 *
 * ```ts
 * class Balances extends Projection.Service<Balances>()("app/Balances", {
 *   stream: AllPayments,
 *   name: "balances",
 *   version: 2,
 *   model: Projection.tables(["balances"], ({ balances }) => createBalances(balances))
 * }) {}
 *
 * Balances.layerHandler((deliveries, { balances }) => addAll(balances, deliveries)).pipe(
 *   Layer.provide(Balances.layer)
 * )
 * ```
 */
export const Service = <Self = never>() =>
<const Id extends string, From, A, M, E, R>(
  id: Id,
  options: Options<M, E, R> & { readonly stream: Context.Key<From, Projectable<A>> }
): [Self] extends [never] ? MissingSelf : ServiceClass<Self, Id, A, M, E, From | R> => {
  const Tag = Context.Service<Self, Projection<A, M>>()(id)
  const statics = {
    layer: Layer.effect(Tag, Effect.flatMap(options.stream, (stream) => stream.projection(options))),
    layerHandler: <E2, R2>(
      handler: Handler<A, M, E2, R2>,
      { restart = defaultRestart }: HandlerLayerOptions = {}
    ) =>
      Layer.effectDiscard(
        Effect.flatMap(Tag, ({ name, run, version }) =>
          inBackground(`version ${version} of projection ${name}`, run(handler), restart))
      ),
    migrations: Effect.suspend(() => Effect.fromResult(Migrations.forProjection(options.name))),
    subscriptionMigrations: Effect.suspend(() =>
      Effect.fromResult(Migrations.forSubscription(subscriptionOf(options.name, options.version)))
    )
  }
  return Object.assign(Tag, statics) as never // what the return type promises
}

const defaultRestart: Schedule.Schedule<unknown, RunError> = Schedule.while(
  Schedule.spaced("30 seconds").pipe(Schedule.setInputType<RunError>()),
  ({ input }) => input._tag !== "HandlerError" && input._tag !== "VersionError"
)
