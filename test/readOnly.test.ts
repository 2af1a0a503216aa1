/** A store that is read: it writes nothing, waits for what others have written, and tries again what recovery has cancelled. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Metric, Schema, Stream, Tracer } from "effect"
import { Message, MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { SerializationError, SqlError, UnknownError } from "effect/sql/SqlError"
import { TestClock } from "effect/testing"
import * as MemoryStorage from "../src/memory/storage.ts"
import { Storage } from "../src/Storage.ts"
import { metricsOf, recordingTracer } from "../src/testing/fixture.ts"
import { databaseLayer } from "./support/database.ts"
import { clientNamed } from "./support/processes.ts"

class Placed extends Schema.TaggedClass<Placed>()("Placed", {
  ...Message.fields,
  customer: Message.tag("customer", Schema.String),
  amount: Schema.Int
}) {}
class Orders extends MessageStore.Service<Orders>()("test/ReadOrders", { name: "read_orders", schema: Placed }) {}
class Earlier extends Schema.TaggedClass<Earlier>()("Placed", {
  ...Message.fields,
  customer: Schema.String,
  amount: Schema.Int
}) {}
class Untagged extends MessageStore.Service<Untagged>()("test/Untagged", { name: "read_orders", schema: Earlier }) {}

const placed = (amount: number, customer = "ada") => new Placed({ customer, amount })
const byCustomer = { name: "read_by_customer", patterns: "%", partitioner: Partitioner.constant(0) }

/** Nothing may be written on these connections: as on a standby. */
const standby = clientNamed("standby", { default_transaction_read_only: "on" })
const readOnly = Layer.provide(Orders.layerReadOnly, standby)

const readsAll = Effect.gen(function*() {
  const orders = yield* Orders.ReadOnly
  assert.strictEqual(orders.name, "read_orders")
  for (const name of ["write", "writeAll", "update", "decide", "delete", "redact", "withTransaction", "schedule"]) {
    assert.notProperty(orders, name)
  }
  const amounts = <E>(messages: Stream.Stream<{ readonly message: Placed }, E>) =>
    Effect.map(Stream.runCollect(messages), (all) => all.map(({ message }) => message.amount))
  assert.deepStrictEqual(yield* amounts(orders.read("order-1")), [1, 2])
  assert.deepStrictEqual(yield* amounts(orders.readWildcard("order-%")), [1, 2, 3])
  assert.deepStrictEqual(yield* amounts(orders.readTagged({ customer: "ada" })), [1, 2, 3])
  const { globalPosition = 0, version } = yield* orders.head("order-1")
  assert.strictEqual(version, 2)
  yield* orders.waitFor(globalPosition)
  yield* Effect.scoped(Effect.gen(function*() {
    const reader = yield* orders.reader
    assert.deepStrictEqual(yield* amounts(reader.read("order-2")), [3])
  }))
  const stream = yield* orders.aggregatedStream(byCustomer)
  for (const name of ["projector", "subscription", "projection", "rebuild", "drop"]) assert.notProperty(stream, name)
  assert.deepStrictEqual(yield* amounts(stream.read(0)), [1, 2, 3])
  assert.deepStrictEqual(yield* stream.partitions, [{ partition: 0, position: 2 }])
  assert.strictEqual((yield* stream.statistics).messages, 3)
  assert.deepStrictEqual(
    yield* amounts(Stream.take(stream.follow({ from: "beginning", pollInterval: "10 millis" }), 3)),
    [1, 2, 3]
  )
  return orders
})

const write = Effect.gen(function*() {
  const orders = yield* Orders
  yield* orders.write("order-1", [placed(1), placed(2)])
  yield* orders.write("order-2", placed(3))
  yield* (yield* orders.aggregatedStream(byCustomer)).projector.runOnce
})

describe("memory", () => {
  it.live("reads the store that is written to", () =>
    Effect.andThen(write, readsAll).pipe(
      Effect.provide(Layer.provideMerge(Orders.layerReadOnlyOnPrimary, Orders.layerMemory))
    ))

  it.effect("waits for a message, and no longer than it should", () =>
    Effect.gen(function*() {
      const orders = yield* Orders.ReadOnly
      const waiting = yield* Effect.forkChild(Effect.result(orders.waitFor(1, { timeout: "2 seconds" })))
      yield* TestClock.adjust("1999 millis")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const waited = yield* Fiber.join(waiting)
      assert.strictEqual(waited._tag === "Failure" ? waited.failure._tag : "", "NotReplicatedError")
      const { spans, tracer } = recordingTracer()
      const found = yield* Effect.forkChild(Effect.provideService(orders.waitFor(1), Tracer.Tracer, tracer))
      yield* TestClock.adjust("1 seconds")
      yield* Orders.use((store) => store.write("order-1", placed(1)))
      yield* TestClock.adjust("50 millis")
      yield* Fiber.join(found)
      assert.deepStrictEqual(spans.map(({ kind, name }) => ({ kind, name })), [{
        kind: "client",
        name: "waitFor read_orders"
      }])
      assert.deepStrictEqual(yield* metricsOf("waitFor"), {
        "messaging.client.operation.duration": 1,
        "messaging.client.operation.duration NotReplicatedError": 1
      })
      for (const position of [-1, 0.5, Number.NaN]) {
        assert.strictEqual((yield* Effect.flip(orders.waitFor(position)))._tag, "InvalidArgumentError")
      }
      assert.strictEqual((yield* Effect.flip(orders.waitFor(1, { timeout: -1 })))._tag, "InvalidArgumentError")
    }).pipe(
      Effect.provideService(Metric.MetricRegistry, new Map()),
      Effect.provide(Layer.provideMerge(Orders.layerReadOnlyOnPrimary, Orders.layerMemory))
    ))

  it.effect("tries again what recovery has cancelled, and tells of it in the end", () =>
    Effect.gen(function*() {
      const canceled = new SqlError({
        reason: new SerializationError({
          cause: { code: "40001" },
          message: "canceling statement due to conflict with recovery",
          operation: "query"
        })
      })
      const broken = new SqlError({
        reason: new UnknownError({ cause: { code: "XX000" }, message: "", operation: "query" })
      })
      let failures: Array<SqlError> = []
      let asked = 0
      const backend: Layer.Layer<Storage> = Layer.effect(
        Storage,
        Effect.map(Storage, (storage) => ({
          ...storage,
          head: (stream: string) =>
            Effect.suspend(() => {
              asked++
              const failure = failures.shift()
              return failure === undefined ? storage.head(stream) : Effect.fail(failure)
            })
        }))
      ).pipe(Layer.provide(MemoryStorage.layer))
      yield* Effect.gen(function*() {
        const orders = yield* Orders.ReadOnly
        const store = yield* Orders
        const ask = Effect.fnUntraced(function*(
          fails: Array<SqlError>,
          within: (head: Effect.Effect<number, unknown>) => Effect.Effect<number, unknown> = (head) => head
        ) {
          failures = fails
          asked = 0
          const asking = yield* Effect.forkChild(Effect.result(within(heads)))
          yield* TestClock.adjust("1 minute")
          const { _tag } = yield* Fiber.join(asking)
          return [_tag, asked]
        })
        const heads = Effect.map(orders.head("order-1"), ({ version }) => version)
        assert.deepStrictEqual(yield* ask([canceled, canceled, canceled]), ["Success", 4])
        assert.deepStrictEqual(yield* ask(Array.from({ length: 100 }, () => canceled)), ["Failure", 8])
        assert.deepStrictEqual(yield* ask([broken]), ["Failure", 1])
        // A transaction is over with its first failure.
        assert.deepStrictEqual(yield* ask([canceled], store.withTransaction), ["Failure", 1])
      }).pipe(
        Effect.provide(Layer.provideMerge(Orders.layerReadOnlyOnPrimary, Layer.provide(Orders.layerStorage, backend)))
      )
    }))
})

describe("PostgreSQL", () => {
  it.live("reads where nothing may be written", () =>
    Effect.gen(function*() {
      yield* Effect.provide(write, Layer.fresh(Orders.layer))
      yield* Effect.provide(readsAll, readOnly)
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))

  it.live(
    "waits for the message itself: a higher position that is there says nothing of a lower one",
    () =>
      Effect.gen(function*() {
        const orders = yield* Orders
        const taken = yield* Deferred.make<number>()
        const mayCommit = yield* Deferred.make<void>()
        const late = yield* Effect.forkScoped(orders.withTransaction(Effect.gen(function*() {
          const { globalPosition } = yield* orders.write("late", placed(1, "grace"))
          yield* Deferred.succeed(taken, globalPosition)
          yield* Deferred.await(mayCommit)
        })))
        const lower = yield* Deferred.await(taken)
        const higher = (yield* orders.write("early", placed(2))).globalPosition
        assert.isAbove(higher, lower)
        yield* Effect.gen(function*() {
          const replica = yield* Orders.ReadOnly
          yield* replica.waitFor(higher)
          const missing = yield* Effect.flip(replica.waitFor(lower, { timeout: "30 millis" }))
          assert.strictEqual(missing._tag, "NotReplicatedError")
          const waiting = yield* Effect.forkChild(replica.waitFor(lower, { timeout: "20 seconds" }))
          yield* Deferred.succeed(mayCommit, undefined)
          yield* Fiber.join(late)
          yield* Fiber.join(waiting)
          assert.strictEqual((yield* replica.head("late")).globalPosition, lower)
        }).pipe(Effect.provide(readOnly))
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Orders.layer, Layer.fresh(databaseLayer())))),
    30_000
  )

  it.live("makes nothing: it says what is missing", () =>
    Effect.gen(function*() {
      const none = yield* Effect.flip(Effect.provide(Effect.asVoid(Orders.ReadOnly), readOnly))
      assert.strictEqual(none._tag, "SetupError")
      // Declared by nobody yet: what is found by the tag would be less than there is.
      yield* Effect.provide(
        Untagged.use((store) => store.write("order-1", new Earlier({ customer: "ada", amount: 1 }))),
        Layer.fresh(Untagged.layer)
      )
      yield* Effect.gen(function*() {
        const replica = yield* Orders.ReadOnly
        const refused = yield* Effect.flip(Stream.runDrain(replica.readTagged({ customer: "ada" })))
        assert.strictEqual(refused._tag, "TagsIncompleteError")
        assert.strictEqual((yield* Effect.flip(replica.aggregatedStream(byCustomer)))._tag, "SetupError")
        assert.strictEqual(yield* Stream.runCount(replica.read("order-1")), 1)
        const tagging = yield* Effect.forkChild(
          Effect.provide(Orders.use((store) => Stream.runDrain(store.tagging())), Layer.fresh(Orders.layer))
        )
        yield* Fiber.join(tagging)
        assert.strictEqual(yield* Stream.runCount(replica.readTagged({ customer: "ada" })), 1)
      }).pipe(Effect.provide(readOnly))
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))

  it.live("is no store that writes", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.provide(write, Layer.fresh(Orders.layer))
      // Whoever takes the client of a standby for that of the primary is told so by each write, as something that passes.
      const refused = yield* Effect.flip(
        Effect.provide(
          Orders.use((store) => store.write("order-1", placed(4))),
          Layer.provideMerge(Orders.layerNoMigrations, standby)
        )
      )
      assert.strictEqual(refused._tag, "SqlError")
      const [row] = yield* sql<{ readonly count: number }>`select count(*)::int as count from depeche_msgs_read_orders`
      assert.strictEqual(row?.count, 3)
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))
})
