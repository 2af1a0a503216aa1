/**
 * The message store: write, synchronize, read.
 *
 * **Guarantees**
 *
 * - Versions of a stream are 1, 2, 3, … without gaps, whoever writes at the same time; the first ones may have been deleted.
 * - A write goes in as a whole or not at all; one that fails, whatever the reason, leaves nothing behind.
 * - An `OptimisticConcurrencyError` or `DuplicateMessageError` inside a transaction leaves it usable.
 * - Every operation runs in the transaction that is open around it, and commits or rolls back with it.
 * - On PostgreSQL, the writes of concurrent fibers leave in one statement; each has the outcome it would have had alone.
 * - Bad arguments, and messages that cannot be stored, are refused before the database is asked.
 *
 * A write whose answer is lost (the connection breaks) may have been stored. Repeating it is safe: `synchronize` stores
 * only what is missing, and `write` of the same messages fails with `DuplicateMessageError`.
 */
import { Context, Effect, Layer, Result } from "effect"
import type { Scope, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type * as AggregatedStream from "./AggregatedStream.ts"
import type * as Decision from "./Decision.ts"
import type { InvalidArgumentError, MessageIdMismatchError } from "./errors.ts"
import type { Fold } from "./Fold.ts"
import { checkWhole } from "./internal/checks.ts"
import { checkEnding, checkName } from "./internal/names.ts"
import type { KeyEncryption } from "./KeyEncryption.ts"
import * as MemoryStorage from "./memory/storage.ts"
import type { Identified, MessagePosition, StoredMessage, StreamHead, TaggedMessage } from "./Message.ts"
import type { FieldPath, Path } from "./Partitioner.ts"
import * as Migrations from "./postgres/migrations/migrations.ts"
import { run } from "./postgres/migrations/run.ts"
import * as PostgresStorage from "./postgres/storage.ts"
import type * as Reader from "./Reader.ts"
import { Storage } from "./Storage.ts"
import { remember, storageOf } from "./store/backends.ts"
import type { DecideError } from "./store/decide.ts"
import type { Deleted, DeleteError, DeleteOptions, Deleting, RedactError, RedactOptions } from "./store/deleting.ts"
import type { Accessors, OneOrMore, StreamWrite, WriteOptions } from "./store/encode.ts"
import {
  type ForgetError,
  type Forgetting,
  type PersonalOptions,
  type RewrapError,
  settingsOf,
  shred
} from "./store/forget.ts"
import type { OpenError, StoreLayers } from "./store/layers.ts"
import { make } from "./store/make.ts"
import { type AccessorOptions, codecOf, type MessageOptions, type StoreOptions } from "./store/options.ts"
import {
  make as makeReadOnly,
  type ReadOnly,
  type ReadOnlyStore,
  type ReadOnlyStream,
  type WaitForOptions
} from "./store/readOnly.ts"
import { scheduleInBackground, type SchedulerLayerOptions, type Scheduling } from "./store/schedule.ts"
import {
  type TaggingFailure,
  type TaggingLayerOptions,
  type TaggingOptions,
  type TaggingProgress,
  tagInBackground
} from "./store/tagging.ts"
import type { Appended, WriteError } from "./store/update.ts"

export type {
  Accessors,
  Appended,
  DecideError,
  Deleted,
  DeleteError,
  DeleteOptions,
  Deleting,
  ForgetError,
  Forgetting,
  OneOrMore,
  OpenError,
  PersonalOptions,
  ReadOnly,
  ReadOnlyStore,
  ReadOnlyStream,
  RedactError,
  RedactOptions,
  RewrapError,
  SchedulerLayerOptions,
  Scheduling,
  StoreLayers,
  StreamWrite,
  TaggingFailure,
  TaggingLayerOptions,
  TaggingOptions,
  TaggingProgress,
  WaitForOptions,
  WriteError,
  WriteOptions
}
export type { Migration, PayloadType } from "./postgres/migrations/migrations.ts"
export type { AccessorOptions, MessageOptions, StoreOptions }
export type { ScheduledMessage, ScheduledOptions, Scheduler } from "./store/schedule.ts"
export type { ScheduleError, ScheduleOptions, SchedulerOptions } from "./store/schedule.ts"

/** A store of messages of type `A`: streams of them, written with expected versions, read in order. */
export interface MessageStore<in out A, P extends Path = Path>
  extends AggregatedStream.Aggregating<A, P>, Scheduling<A>, Deleting<A>, Forgetting
{
  /** The name of the store, which is part of the names of its database objects. */
  readonly name: string

  /**
   * Appends messages to a stream, all or none, and returns the position of the last.
   *
   * **Details**
   *
   * Fails with `OptimisticConcurrencyError` if the stream is not at `expectedVersion`, with `DuplicateMessageError` if a
   * message with one of the ids is stored already, with `SerializationError` or `InvalidArgumentError` before the database
   * is asked, and with `SqlError` if the database fails. A call takes up to 256 Mi characters of JSON.
   *
   * **Example**
   *
   * ```ts
   * yield* orders.write("order-1", new OrderPlaced({ orderId: "1" }), { expectedVersion: 0 })
   * ```
   */
  readonly write: (
    stream: string,
    messages: OneOrMore<A>,
    options?: WriteOptions
  ) => Effect.Effect<MessagePosition, WriteError>

  /**
   * Appends to several streams, all or nothing, in one round trip. Returns the position of the last message of each
   * part, in the order given; fails as `write` does, with the error of the first part that is refused.
   *
   * **Details**
   *
   * A stream may be named more than once: later parts see what earlier ones wrote. A call writes to at most 500 streams, since
   * each holds a lock in the database until the commit. Two calls that share streams or message ids never deadlock, whatever
   * their order; transactions of several calls can, and then one of them fails with a retryable `SqlError`.
   */
  readonly writeAll: (
    writes: ReadonlyArray<StreamWrite<A>>
  ) => Effect.Effect<ReadonlyArray<MessagePosition>, WriteError>

  /**
   * Makes a stream hold these messages: those already stored are compared by id, the others are appended. Returns
   * the head of the stream.
   *
   * **Details**
   *
   * `expectedVersion` is the version of the stream before the append. It is not checked when nothing is missing, so the
   * call that stored the messages can be repeated as it was. Giving fewer messages than are stored succeeds, and changes
   * nothing. An id that differs fails with `MessageIdMismatchError`. Without `expectedVersion`, a stream that others
   * append to meanwhile is compared again.
   */
  readonly synchronize: (
    stream: string,
    messages: ReadonlyArray<A>,
    options?: WriteOptions
  ) => Effect.Effect<Appended, WriteError | MessageIdMismatchError>

  /**
   * Folds a stream into a state, decides on it, and writes the decision. If somebody else wrote to the stream in between, it
   * reads what was added and decides again.
   *
   * **Details**
   *
   * `decide` gets the state and the version of the stream. It answers with a message, several, or an empty array (to write
   * nothing is a decision too), with an error, or with an effect of one of these. It may run several times, so it should do
   * nothing but decide. Updating the same stream within `decide` is an `InvalidArgumentError`.
   *
   * Updates of one stream take turns in this process, so that only writers in other processes conflict with them. While they
   * wait for each other, each begins with the state that the one before it left, if it has the same `fold` object, and they
   * leave together, in one append: keep the fold in a constant, and let `evolve` return new states. Whatever comes out
   * (messages, none, or a failure) was decided on the stream as it is: the append expects the version that was read, and if
   * it is refused, all of them decide again. The state of a fold with snapshots (`Fold.withSnapshot`) is also remembered
   * between updates, and kept in the store.
   *
   * Inside a transaction there are no turns, and a second conflict (at REPEATABLE READ, for example) is an
   * `OptimisticConcurrencyError`.
   *
   * **Example**
   *
   * ```ts
   * const seatsTaken = Fold.make<FlightEvent>()({ initial: 0, SeatBooked: (taken) => taken + 1 })
   *
   * yield* flights.update("flight-1", seatsTaken, (taken) =>
   *   taken < 3 ? new SeatBooked({ passenger }) : new FlightFull())
   * ```
   */
  readonly update: <S, Answer extends Decision.StreamAnswer<A>>(
    stream: string,
    fold: Fold<S, A>,
    decide: (state: S, version: number) => Answer,
    options?: Pick<WriteOptions, "metadata">
  ) => Effect.Effect<Appended, WriteError | Effect.Error<Answer>, Effect.Services<Answer>>

  /**
   * Decides on several streams, or on messages of given tags, in one consistent view, and writes the decision. If somebody
   * else changed one of these sources in between, it decides again. What `update` is for one stream. Returns the position of
   * the last message of each write, in the order given.
   *
   * **Details**
   *
   * `decide` gets the state of each source by its name. It answers with writes, to streams that were read or to others, with
   * an error, or with an effect of one of these; the writes go in together or not at all. A source that is read and not
   * written to is a condition as well: the decision goes through only if nobody has changed it, and nobody can until it is
   * committed.
   *
   * As with `update`, decisions that share a source take turns in this process and leave together; `decide` may run several
   * times, and cannot decide on the same sources itself; and a decision that writes nothing, or fails, was made on what is
   * true. Inside a transaction there are no turns, and a second conflict fails with a `DecisionConflictError` that names the
   * source and the message that changed it. That transaction has to be at READ COMMITTED, else it is an `IsolationError`.
   *
   * **Example**
   *
   * ```ts
   * yield* shop.decide(
   *   { cart: Decision.stream("cart-1", cart), stock: Decision.stream("stock-7", stock) },
   *   ({ cart, stock }) =>
   *     cart.quantity <= stock ? { stream: "cart-1", messages: new CheckedOut({}) } : new OutOfStock()
   * )
   * ```
   */
  readonly decide: <States, Answer extends Decision.Answer<A>>(
    sources: { readonly [Name in keyof States]: Decision.Source<States[Name], A> },
    decide: (states: { readonly [Name in keyof States]: States[Name] }) => Answer
  ) => Effect.Effect<ReadonlyArray<MessagePosition>, DecideError | Effect.Error<Answer>, Effect.Services<Answer>>

  /**
   * The messages of a stream, in the order of versions, read in pages with no connection held between them. With
   * `tags: true` each message has its tags.
   *
   * **Example**
   *
   * ```ts
   * orders.read("order-1", { direction: "backward", limit: 10 }).pipe(Stream.runCollect)
   * ```
   */
  readonly read: {
    (
      stream: string,
      options: Reader.ReadOptions & Reader.WithTags
    ): Stream.Stream<TaggedMessage<A>, Reader.ReadError>
    (stream: string, options?: Reader.ReadOptions): Stream.Stream<StoredMessage<A>, Reader.ReadError>
  }

  /**
   * The messages that have all of these tags, whatever streams they are in, in the order of global positions. Given several
   * sets of tags, those that have all tags of at least one set.
   *
   * **Example**
   *
   * ```ts
   * courses.readTagged({ course: "c1" }, { types: ["Subscribed"] }).pipe(Stream.runCollect)
   * ```
   */
  readonly readTagged: Reader.Reader<A>["readTagged"]

  /**
   * One consistent view of the store, until the scope closes: outside of a transaction a snapshot, which holds a
   * connection (on PGlite it keeps all writers waiting); inside one, that transaction's view.
   */
  readonly reader: Effect.Effect<Reader.Reader<A>, SqlError, Scope.Scope>

  /**
   * Adds tags to messages that were stored before the tags were declared, while others write. Ends when all messages have
   * them; until then, decisions and reads that ask for these tags fail with `TagsIncompleteError`.
   *
   * **Details**
   *
   * First it waits for the transactions that were open when the tags were declared (a store declares the tags of its schema when
   * it opens), since they may write messages without them. Then it goes through the store in pages of 2,000, and emits its
   * progress after each. It can be interrupted at any time, and goes on where it was; any number of processes may run it.
   *
   * Fails with a `TaggingError` that names the messages which do not decode, or cannot have the tags that they should, and with
   * an `InvalidArgumentError` in a transaction.
   *
   * **Example**
   *
   * ```ts
   * yield* courses.tagging().pipe(
   *   Stream.runForEach(({ position, upTo }) => Effect.log(`tagged up to ${position} of ${upTo}`))
   * )
   * ```
   */
  readonly tagging: (
    options?: TaggingOptions
  ) => Stream.Stream<TaggingProgress, TaggingFailure>

  /** The last position of a stream; version 0 when it has no message. */
  readonly head: (stream: string) => Effect.Effect<StreamHead, InvalidArgumentError | SqlError>

  /**
   * Runs an effect in a transaction: committed when it succeeds, rolled back when it fails or is interrupted. Nested, it
   * is a savepoint. It is `sql.withTransaction` for every backend, memory included; if the connection is lost it fails with
   * an `SqlError`, where `sql.withTransaction` dies.
   */
  readonly withTransaction: <B, E, R>(effect: Effect.Effect<B, E, R>) => Effect.Effect<B, E | SqlError, R>
}

/** A store as a service: the class is its key, its layers are its static members. */
export interface ServiceClass<in out Self, in out Id extends string, in out A, P extends Path = Path, out R = never>
  extends Context.ServiceClass<Self, Id, MessageStore<A, P>>, StoreLayers<Self, A, P, R>
{}

type MissingSelf = "Missing `Self` generic - use `class Self extends MessageStore.Service<Self>()(…)`"

type ServiceResult<Self, Id extends string, A, P extends Path, R> = [Self] extends [never] ? MissingSelf
  : ServiceClass<Self, Id, A, P, R>

/**
 * Makes the class of a store.
 *
 * **Example**
 *
 * ```ts
 * class Orders extends MessageStore.Service<Orders>()("app/Orders", {
 *   name: "orders",
 *   schema: Schema.Union([OrderPlaced, OrderShipped])
 * }) {}
 *
 * const program = Effect.gen(function*() {
 *   const orders = yield* Orders
 *   yield* orders.write("order-1", new OrderPlaced({ orderId: "1" }), { expectedVersion: 0 })
 * })
 *
 * program.pipe(Effect.provide(Orders.layerMemory))
 * ```
 */
export const Service = <Self = never>() =>
// One signature, without overloads: an error then names what is missing.
<const Id extends string, A, Encoded = unknown, R extends KeyEncryption = never>(
  id: Id,
  options: StoreOptions<NoInfer<A>> & MessageOptions<A, Encoded, R> & AccessorOptions<A>
): ServiceResult<Self, Id, A, FieldPath<Encoded>, R> => {
  const { cachedStates = 1000, coalesce, name, payload } = options
  Result.getOrThrow(checkWhole("cachedStates", cachedStates, 0))
  const personal = Result.getOrThrow(settingsOf(options.personal))
  const { codec, compiled } = codecOf<A, Encoded, R>(options)
  // Given wherever the fields may be missing: their type sees to it.
  const given: Partial<Accessors<A>> = options
  const accessors: Accessors<A> = {
    id: given.id ?? ((message) => (message as Identified).messageId),
    time: given.time ?? ((message) => (message as Identified).occurredAt)
  }

  const Tag = Context.Service<Self, MessageStore<A>>()(id)
  /** Decrypts and encrypts what is personal, before the backend. */
  const shredded = Effect.gen(function*() {
    yield* Effect.fromResult(checkName("store", name))
    const backend = yield* Storage
    return {
      backend,
      ...codec.personal === undefined
        ? { storage: backend, shredding: undefined }
        : yield* shred(backend, codec.personal, personal)
    }
  })
  const interpreted = Layer.effect(
    Tag,
    Effect.gen(function*() {
      const { backend, shredding, storage } = yield* shredded
      // Operators see what is stored: not what is personal in it.
      return remember(yield* make(storage, codec, accessors, name, cachedStates, shredding), backend, storage)
    })
  )
  const ReadOnlyTag = Context.Service<ReadOnly<Self>, ReadOnlyStore<A>>(`${id}/ReadOnly`)
  const readOnly = (storage: Storage["Service"]) => makeReadOnly(storage, codec, accessors.time, name)
  const layerStorage = Layer.provide(interpreted, Layer.effectDiscard(compiled))
  const layers = {
    layer: Layer.provide(layerStorage, PostgresStorage.layer(name, { coalesce })).pipe(
      Layer.provide(Layer.effectDiscard(run(name, { payload })))
    ),
    layerNoMigrations: Layer.provide(layerStorage, PostgresStorage.layer(name, { coalesce, migrate: false })),
    layerMemory: Layer.provide(interpreted, MemoryStorage.layer).pipe(
      Layer.provide(Layer.effectDiscard(Effect.fromResult(checkEnding("store", name))))
    ),
    layerStorage,
    ReadOnly: ReadOnlyTag,
    layerReadOnly: Layer.provide(
      Layer.effect(ReadOnlyTag, Effect.flatMap(Effect.andThen(compiled, shredded), ({ storage }) => readOnly(storage))),
      PostgresStorage.layer(name, { coalesce: false, migrate: false, listens: false })
    ),
    layerReadOnlyOnPrimary: Layer.effect(
      ReadOnlyTag,
      Effect.flatMap(Tag, (store) => readOnly(storageOf(store as object)))
    ),
    layerTagging: (how?: TaggingLayerOptions) =>
      Layer.effectDiscard(Effect.flatMap(Tag, (store) => tagInBackground(store, how))),
    layerScheduler: (how?: SchedulerLayerOptions) =>
      Layer.effectDiscard(Effect.flatMap(Tag, (store) => scheduleInBackground(store, how))),
    migrations: Effect.fromResult(Migrations.forStore(name, { payload })),
    streamMigrations: (stream: string) => Effect.fromResult(Migrations.forStream(name, stream)),
    subscriptionMigrations: (subscription: string) => Effect.fromResult(Migrations.forSubscription(subscription))
  }
  return Object.assign(Tag, layers) as never // what the return type promises; in memory no statement fails
}
