/**
 * Aggregated streams: the messages of many streams, merged into numbered partitions.
 *
 * A partition holds messages of any number of streams in one order, at positions 0, 1, 2, …; it is what a subscription
 * reads. The {@link AggregatedStream.projector} links messages to it, some milliseconds after they were written.
 */
import { Array as Arr, Context, DateTime, Effect, Layer, Result, Schedule, Stream } from "effect"

import type { MigrationError } from "effect/sql/Migrator"
import type { SqlError } from "effect/sql/SqlError"
import { follow, type FollowError, type FollowOptions } from "./aggregatedStream/follow.ts"
import { type InvalidArgumentError, InvalidNameError, type SerializationError, type SetupError } from "./errors.ts"
import { inBackground } from "./internal/background.ts"
import { checkPattern, checkWhole, invalid, maximumPartition, outsideTransaction } from "./internal/checks.ts"
import { checkName } from "./internal/names.ts"
import * as Pages from "./internal/pages.ts"
import { isWithin, type PersonalPlaces } from "./internal/personalPaths.ts"
import type { AggregatedMessage } from "./Message.ts"
import type { Partitioner, Path } from "./Partitioner.ts"
import * as Projection from "./Projection.ts"
import * as Projector from "./Projector.ts"
import { decodeRow } from "./Reader.ts"
import type { MessageCodec } from "./Serializer.ts"
import {
  type AggregatedStorage,
  type EncodedLinkedMessage,
  messagesIn,
  type PartitionHead,
  PositionQuery,
  type Storage
} from "./Storage.ts"
import type { Migration } from "./storage/migrations.ts"
import * as Subscription from "./Subscription.ts"

export type { AggregatedMessage, FollowError, FollowOptions, PartitionHead }

/** Options of an aggregated stream. */
export interface Options<in A, out P extends Path = Path> {
  /**
   * Part of the names of the database objects: 1 to 40 of `a-z`, `0-9` and `_`, not beginning with a digit. Not the name
   * of a store.
   */
  readonly name: string
  /**
   * Which streams are merged, by LIKE patterns of their names: `%` any run of characters, `_` any one, `\` the next one
   * literally. A stream that several patterns match is merged once.
   */
  readonly patterns: string | Arr.NonEmptyReadonlyArray<string>
  /**
   * Which partition a message belongs to. Another partitioner needs a `rebuild`: until then the projector fails with a
   * `StreamDefinitionError`. A change inside a function is not noticed: messages linked from then on follow it.
   */
  readonly partitioner: Partitioner<A, P>
}

/** Which messages of a partition are read. */
export interface ReadPartitionOptions {
  /** The first position that is read, included; 0 or more. Default 0. */
  readonly fromPosition?: number | undefined
  /** How many messages are read at most; 0 or more. Default: all. */
  readonly limit?: number | undefined
}

/** How large a stream is, and how far it is behind its store. Global positions are 0 where there is none. */
export interface Statistics {
  /** How many partitions have messages. */
  readonly partitions: number
  /** How many messages were linked, those included that the store no longer has. */
  readonly messages: number
  /**
   * How many messages wait to be linked; 0: none. Messages more than 10,000 ahead of the projector all count, whether or
   * not their streams match.
   */
  readonly waiting: number
  /** The highest global position that is linked. */
  readonly linkedGlobalPosition: number
  /** The global position up to which a projector has looked: messages behind it may be of other streams. */
  readonly scannedGlobalPosition: number
  /** When a projector last looked, up to ten seconds late; undefined if none has. If it is long ago, none is running. */
  readonly scannedAt: DateTime.Utc | undefined
  /** The highest global position of the store's messages. */
  readonly storeGlobalPosition: number
}

/** The messages of many streams, in numbered partitions. */
export interface AggregatedStream<in out A> extends Subscription.Subscribable<A>, Projection.Projectable<A> {
  /** The one of its options. */
  readonly name: string
  /** The messages of a partition in the order of positions; in pages, with no connection held between them. */
  readonly read: (
    partition: number,
    options?: ReadPartitionOptions
  ) => Stream.Stream<AggregatedMessage<A>, InvalidArgumentError | SerializationError | SqlError>
  /**
   * The messages of all partitions, or of some, as they are linked, until its scope closes: for server-sent events, caches, live
   * views. It stores and claims nothing: every follower gets every message, those of a partition in their order. It misses none
   * while it lives, even if connections are lost. It reads a page of 100 when the page before was taken, and holds no connection
   * in between. Not inside a transaction.
   *
   * **Example**
   *
   * ```ts
   * byCustomer.follow({ from: "now" }).pipe(Stream.map(({ message }) => toEvent(message)))
   * ```
   */
  readonly follow: (options?: FollowOptions) => Stream.Stream<AggregatedMessage<A>, FollowError>
  /** The partitions that have messages, in their order, each with its last position. */
  readonly partitions: Effect.Effect<ReadonlyArray<PartitionHead>, SqlError>
  /**
   * For each partition, the position of the first message that occurred at that time or later; one past its last position if
   * none did. This reads all links of the stream.
   */
  readonly positionsAtTime: (time: DateTime.DateTime) => Effect.Effect<ReadonlyMap<number, number>, SqlError>
  /**
   * For each partition, the last position whose message has this global position or a lower one; -1 if none has. This reads
   * the links from there to the end, or from the beginning, whichever is less.
   */
  readonly positionsAtGlobalPosition: (
    globalPosition: number
  ) => Effect.Effect<ReadonlyMap<number, number>, InvalidArgumentError | SqlError>
  /** How large the stream is, and how far it is behind its store. */
  readonly statistics: Effect.Effect<Statistics, SqlError>
  /** Links new messages. */
  readonly projector: Projector.Projector
  /**
   * Links all messages again, by the patterns and the partitioner that the stream has now. Positions start from 0 again, so
   * every subscription of the stream fails with `StreamRebuiltError` until it is `reset`. Meanwhile readers see the stream
   * grow from empty; writers are not blocked. If it is interrupted, the next run of a projector goes on.
   */
  readonly rebuild: Effect.Effect<Projector.Progress, Projector.ProjectionError>
  /** Removes the stream and its database objects. Its messages stay in the store. */
  readonly drop: Effect.Effect<void, InvalidArgumentError | SqlError>
}

/** Why an aggregated stream cannot be made. */
export type MakeError = InvalidNameError | InvalidArgumentError | SetupError | MigrationError | SqlError

/** Makes aggregated streams: a message store. */
export interface Aggregating<in out A, P extends Path = Path> {
  /**
   * An aggregated stream of this store; makes its database objects where they do not exist.
   *
   * **Example**
   *
   * ```ts
   * const byCustomer = yield* orders.aggregatedStream({
   *   name: "orders_by_customer",
   *   patterns: "order-%",
   *   partitioner: Partitioner.field("customerId", 16)
   * })
   * yield* byCustomer.projector.runOnce
   * ```
   */
  aggregatedStream(options: Options<A, P>): Effect.Effect<AggregatedStream<A>, MakeError>
}

/** @internal */
export const make = Effect.fnUntraced(function*<A>(
  storage: Storage["Service"],
  codec: MessageCodec<A>,
  time: (message: A) => DateTime.DateTime,
  storeName: string,
  options: Options<A>
): Effect.fn.Return<AggregatedStream<A>, MakeError> {
  const { name, partitioner } = options
  yield* Effect.fromResult(checkName("aggregated stream", name))
  if (name === storeName) return yield* new InvalidNameError({ identifier: name, reason: "is taken by the store" })
  const patterns = yield* Effect.fromResult(checkPatterns(options.patterns))
  yield* Effect.fromResult(checkPartitioner(partitioner, codec.personal))
  const stream = yield* storage.aggregatedStream({
    name,
    patterns,
    partitioner: typeof partitioner === "function" ? undefined : partitioner,
    timePath: pathOf(time)
  })
  const projector = Projector.make(storage, stream, codec, time, name, partitioner)

  return {
    name,
    projector,
    read: (partition, range) => readPartition(storage, stream, codec, partition, range),
    follow: (followOptions) => follow(storage, stream, codec, followOptions),
    partitions: stream.partitions,
    positionsAtTime: (start) =>
      Effect.map(stream.positions(PositionQuery.SinceTime({ time: DateTime.toUtc(start) })), toMap),
    positionsAtGlobalPosition: (position) =>
      Effect.fromResult(checkWhole("globalPosition", position, 0)).pipe(
        Effect.flatMap((globalPosition) => stream.positions(PositionQuery.UpToGlobalPosition({ globalPosition }))),
        Effect.map(toMap)
      ),
    statistics: Effect.gen(function*() {
      const heads = yield* stream.partitions
      const { linked, scanned, scannedAt, stored } = yield* stream.progress
      return {
        partitions: heads.length,
        messages: messagesIn(heads),
        waiting: yield* stream.waiting,
        linkedGlobalPosition: linked,
        scannedGlobalPosition: scanned,
        scannedAt,
        storeGlobalPosition: stored
      }
    }),
    subscription: (subscriptionOptions) => Subscription.make(storage, stream, codec, name, subscriptionOptions),
    projection: (projectionOptions) => Projection.make(storage, stream, codec, name, projectionOptions),
    rebuild: Effect.andThen(outsideTransaction(storage, "rebuild"), Effect.andThen(stream.reset, projector.runOnce)),
    drop: Effect.andThen(outsideTransaction(storage, "drop"), stream.drop)
  }
})

const toMap = (heads: ReadonlyArray<PartitionHead>): ReadonlyMap<number, number> =>
  new Map(heads.map(({ partition, position }) => [partition, position]))

const readPartition = <A>(
  storage: Storage["Service"],
  stream: AggregatedStorage,
  codec: MessageCodec<A>,
  partition: number,
  options: ReadPartitionOptions = {}
): Stream.Stream<AggregatedMessage<A>, InvalidArgumentError | SerializationError | SqlError> => {
  const checked = Result.gen(function*() {
    yield* checkWhole("partition", partition, 0, maximumPartition)
    return {
      from: yield* checkWhole("fromPosition", options.fromPosition ?? 0, 0, maximumPartition),
      to: maximumPartition,
      direction: "forward" as const,
      limit: options.limit === undefined ? Infinity : yield* checkWhole("limit", options.limit, 0)
    }
  })
  return Stream.unwrap(Effect.map(Effect.fromResult(checked), (range) =>
    Pages.read({
      range,
      position: (row: EncodedLinkedMessage) => row.position,
      fetch: ({ from, limit }) => stream.readPartition({ partition, fromPosition: from, limit }),
      decode: (row) =>
        Result.map(decodeRow(codec, row), (stored) => ({ ...stored, partition, position: row.position })),
      inTransaction: storage.inTransaction
    })))
}

/**
 * Which field of a message an accessor reads, or which field of nested objects; undefined if it does anything else. It is
 * called with an object that remembers the names it is asked for.
 */
const pathOf = (accessor: (message: never) => unknown): ReadonlyArray<string> | undefined => {
  const paths = new WeakMap<object, ReadonlyArray<string>>()
  const recorder = (path: ReadonlyArray<string>): object => {
    const recording = new Proxy({}, {
      get: (_, name) => typeof name === "string" && path.length < 10 ? recorder([...path, name]) : undefined
    })
    paths.set(recording, path)
    return recording
  }
  try {
    const path = paths.get(accessor(recorder([]) as never) as object)
    return path?.length === 0 ? undefined : path
  } catch {
    return undefined
  }
}

const checkPatterns = (
  patterns: Options<never>["patterns"]
): Result.Result<Arr.NonEmptyReadonlyArray<string>, InvalidArgumentError> => {
  const all = Arr.dedupe(Arr.ensure(patterns))
  return Arr.isReadonlyArrayNonEmpty(all)
    ? Result.map(Result.all(all.map(checkPattern)), () => all)
    : invalid("patterns", "must have at least one")
}

/** Neither the index of an array, nor a name that PostgreSQL cannot hold or that stands for one. */
const isFieldName = (name: string): boolean =>
  name !== "" && !/^\s*[-+]?\d/.test(name) && !/[\0\ufffd]/.test(name) && name.isWellFormed()

const checkPartitioner = (
  partitioner: Partitioner<never>,
  personal: PersonalPlaces | undefined
): Result.Result<unknown, InvalidArgumentError> => {
  if (typeof partitioner === "function") return Result.void
  switch (partitioner._tag) {
    case "Depeche":
      return Result.void
    case "Constant":
      return checkWhole("partition", partitioner.partition, 0, maximumPartition)
    case "StreamName":
      return checkWhole("count", partitioner.count, 1, maximumPartition)
    case "Field":
      if (personal !== undefined && isWithin(personal, partitioner.path)) {
        return invalid("path", "must not name a personal field: what is encrypted says nothing of a message")
      }
      return partitioner.path.length > 0 && partitioner.path.every(isFieldName)
        ? checkWhole("count", partitioner.count, 1, maximumPartition)
        : invalid("path", "must name a field of an object, or the fields on the way to it; none may begin with a digit")
  }
}

/** An aggregated stream as a service: the class is its key, its layers are its static members. */
export interface ServiceClass<in out Self, in out Id extends string, in out A, out Store>
  extends Context.ServiceClass<Self, Id, AggregatedStream<A>>
{
  /** The stream; makes its database objects where they do not exist, if its store's layer does so. */
  readonly layer: Layer.Layer<Self, MakeError, Store>
  /**
   * Keeps the stream up to date for as long as the layer lives. Failures of the projection are logged; `restart` says
   * when it runs again.
   */
  readonly layerProjector: (options?: Projector.LayerOptions) => Layer.Layer<never, never, Self>
  /** What `layer` runs: numbered migrations, each a list of SQL statements to be run in their order in one transaction. */
  readonly migrations: Effect.Effect<ReadonlyArray<Migration>, InvalidNameError>
}

/** The class of a store, as an aggregated stream needs it. */
export interface StoreClass<out Store, in out A, P extends Path = Path> extends Context.Key<Store, Aggregating<A, P>> {
  readonly streamMigrations: (name: string) => Effect.Effect<ReadonlyArray<Migration>, InvalidNameError>
}

type MissingSelf = "Missing `Self` generic - use `class Self extends AggregatedStream.Service<Self>()(…)`"

/**
 * Makes the class of an aggregated stream.
 *
 * **Example**
 *
 * ```ts
 * class OrdersByCustomer extends AggregatedStream.Service<OrdersByCustomer>()("app/OrdersByCustomer", {
 *   store: Orders,
 *   name: "orders_by_customer",
 *   patterns: "order-%",
 *   partitioner: Partitioner.field("customerId", 16)
 * }) {}
 *
 * OrdersByCustomer.layerProjector().pipe(
 *   Layer.provideMerge(OrdersByCustomer.layer),
 *   Layer.provideMerge(Orders.layer)
 * )
 * ```
 */
export const Service = <Self = never>() =>
<const Id extends string, Store, A, P extends Path>(
  id: Id,
  options: Options<A, NoInfer<P>> & { readonly store: StoreClass<Store, A, P> }
): [Self] extends [never] ? MissingSelf : ServiceClass<Self, Id, A, Store> => {
  const Tag = Context.Service<Self, AggregatedStream<A>>()(id)
  const layers = {
    migrations: options.store.streamMigrations(options.name),
    layer: Layer.effect(Tag, Effect.flatMap(options.store, (store) => store.aggregatedStream(options))),
    layerProjector: ({ restart = Schedule.spaced("30 seconds"), ...runOptions }: Projector.LayerOptions = {}) =>
      Layer.effectDiscard(
        Effect.flatMap(
          Tag,
          ({ name, projector }) => inBackground(`the projector of ${name}`, projector.run(runOptions), restart)
        )
      )
  }
  return Object.assign(Tag, layers) as never // what the return type promises
}
