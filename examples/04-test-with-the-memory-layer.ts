/**
 * Code written against the store's service is tested in memory: the same contract, no database, no waiting.
 *
 *   npm test -- test/examples.test.ts -t cancelOrder
 */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { TestClock } from "effect/testing"

// The application. It asks for the store, and does not know on which database.

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", { ...Message.fields }) {}
class OrderCancelled extends Schema.TaggedClass<OrderCancelled>()("OrderCancelled", { ...Message.fields }) {}

class Orders extends MessageStore.Service<Orders>()("examples/CancellableOrders", {
  name: "example_cancellable_orders",
  schema: Schema.Union([OrderPlaced, OrderCancelled])
}) {}

class CannotCancel extends Schema.TaggedError<CannotCancel>()("CannotCancel", { reason: Schema.String }) {}

// `makeEffect` is `new` with the time of the Clock service, which a test can set.
const placeOrder = Effect.fn("placeOrder")(function*(order: string) {
  const orders = yield* Orders
  yield* orders.write(order, yield* OrderPlaced.makeEffect({}), { expectedVersion: 0 })
})

const cancelOrder = Effect.fn("cancelOrder")(function*(order: string) {
  const orders = yield* Orders
  const [placed, cancelled] = yield* orders.read(order).pipe(Stream.runCollect)
  if (placed === undefined) return yield* new CannotCancel({ reason: "no such order" })
  if (cancelled !== undefined) return // to cancel twice is to cancel
  const message = yield* OrderCancelled.makeEffect({})
  if (DateTime.isGreaterThan(message.occurredAt, DateTime.add(placed.message.occurredAt, { hours: 24 }))) {
    return yield* new CannotCancel({ reason: "placed more than a day ago" })
  }
  yield* orders.write(order, message, { expectedVersion: 1 })
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
