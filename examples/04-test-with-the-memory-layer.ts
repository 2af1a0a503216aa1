/**
 * Code written against the store's service is tested in memory: the same contract, no database, no waiting.
 *
 *   npm test -- test/examples.test.ts -t cancelOrder
 */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Layer, Schema, Stream } from "effect"
import { AggregatedStream, Handlers, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { TestClock } from "effect/testing"

// The application. It asks for the store, and does not know on which database.

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", { ...Message.fields }) {}
class OrderCancelled extends Schema.TaggedClass<OrderCancelled>()("OrderCancelled", { ...Message.fields }) {}
class RefundRequested extends Schema.TaggedClass<RefundRequested>()("RefundRequested", { ...Message.fields }) {}

const OrderEvent = Schema.Union([OrderPlaced, OrderCancelled, RefundRequested])

class Orders extends MessageStore.Service<Orders>()("examples/CancellableOrders", {
  name: "example_cancellable_orders",
  schema: OrderEvent
}) {}

class AllOrders extends AggregatedStream.Service<AllOrders>()("examples/AllOrders", {
  store: Orders,
  name: "example_all_orders",
  patterns: "order-%",
  partitioner: Partitioner.streamName(4)
}) {}

class Refunding extends Subscription.Service<Refunding>()("examples/Refunding", {
  stream: AllOrders,
  name: "example_refunding"
}) {}

class CannotCancel extends Schema.TaggedError<CannotCancel>()("CannotCancel", { reason: Schema.String }) {}

// `Message.make` is `new` with the time of the Clock service, which a test can set.
const placeOrder = Effect.fn("placeOrder")(function*(order: string) {
  const orders = yield* Orders
  yield* orders.write(order, yield* Message.make(OrderPlaced, {}), { expectedVersion: 0 })
})

const cancelOrder = Effect.fn("cancelOrder")(function*(order: string) {
  const orders = yield* Orders
  const [placed, cancelled] = yield* orders.read(order).pipe(Stream.runCollect)
  if (placed === undefined) return yield* new CannotCancel({ reason: "no such order" })
  if (cancelled !== undefined) return // to cancel twice is to cancel
  const message = yield* Message.make(OrderCancelled, {})
  if (DateTime.isGreaterThan(message.occurredAt, DateTime.add(placed.message.occurredAt, { hours: 24 }))) {
    return yield* new CannotCancel({ reason: "placed more than a day ago" })
  }
  yield* orders.write(order, message, { expectedVersion: 1 })
})

// What comes of a message is a message again. It says which one it was caused by.
const refund = Handlers.make<typeof OrderEvent.Type>()({
  OrderCancelled: Effect.fn("refund")(function*(_, { messageId, stream }) {
    const orders = yield* Orders
    yield* orders.write(stream, yield* Message.make(RefundRequested, {}), { metadata: { causationId: messageId } })
  })
})

// Its tests. Each provides a layer, and with it a store that is empty.

const eventsOf = (order: string) =>
  Effect.gen(function*() {
    const orders = yield* Orders
    return yield* orders.read(order).pipe(Stream.map((stored) => stored.message._tag), Stream.runCollect)
  })

describe("cancelOrder", () => {
  it.effect("cancels an order that was placed today, once", () =>
    Effect.gen(function*() {
      yield* placeOrder("order-1")
      yield* TestClock.adjust("23 hours")
      yield* cancelOrder("order-1")
      yield* cancelOrder("order-1")
      assert.deepStrictEqual(yield* eventsOf("order-1"), ["OrderPlaced", "OrderCancelled"])
    }).pipe(Effect.provide(Orders.layerMemory)))

  it.effect("refuses after a day, and writes nothing", () =>
    Effect.gen(function*() {
      yield* placeOrder("order-1")
      yield* TestClock.adjust("25 hours")
      const error = yield* Effect.flip(cancelOrder("order-1"))
      assert.deepStrictEqual(error, new CannotCancel({ reason: "placed more than a day ago" }))
      assert.deepStrictEqual(yield* eventsOf("order-1"), ["OrderPlaced"])
    }).pipe(Effect.provide(Orders.layerMemory)))
})

describe("refund", () => {
  const layer = Refunding.layer.pipe(Layer.provideMerge(AllOrders.layer), Layer.provideMerge(Orders.layerMemory))

  it.live("is requested for an order that was cancelled", () =>
    Effect.gen(function*() {
      const orders = yield* Orders
      const all = yield* AllOrders
      const refunding = yield* Refunding
      yield* placeOrder("order-1")
      yield* cancelOrder("order-1")
      const { globalPosition = 0 } = yield* orders.head("order-1")

      yield* all.projector.runOnce
      yield* Effect.raceFirst(refunding.run(refund), refunding.waitUntilProcessed(globalPosition, "10 seconds"))
      assert.deepStrictEqual(yield* eventsOf("order-1"), ["OrderPlaced", "OrderCancelled", "RefundRequested"])
    }).pipe(Effect.provide(layer)))
})
