/**
 * A rule about two streams: what is ordered has to be in stock, and nothing is ordered while the shop is closed. It is tested
 * by given, when, then, as it is.
 *
 *   npm test -- test/examples.test.ts -t shop
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schema } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"
import { Scenario } from "effect-message-store/testing"

class Ordered extends Schema.TaggedClass<Ordered>()("Ordered", { ...Message.fields, quantity: Schema.Natural }) {}
class Delivered extends Schema.TaggedClass<Delivered>()("Delivered", { ...Message.fields, quantity: Schema.Natural }) {}
class ShopClosed extends Schema.TaggedClass<ShopClosed>()("ShopClosed", { ...Message.fields }) {}

const ShopEvent = Schema.Union([Ordered, Delivered, ShopClosed])

class Shop extends MessageStore.Service<Shop>()("examples/Shop", { name: "example_shop", schema: ShopEvent }) {}

const left = Fold.make<typeof ShopEvent.Type>()({
  initial: 0,
  Delivered: (sum, { quantity }) => sum + quantity,
  Ordered: (sum, { quantity }) => sum - quantity
})
const isClosed = Fold.make<typeof ShopEvent.Type>()({ initial: false, ShopClosed: () => true })

class CannotOrder extends Schema.TaggedError<CannotOrder>()("CannotOrder", { reason: Schema.String }) {}

// Both streams are read in one view. The order goes through only if nobody has delivered, ordered, or closed the shop in
// between: `shop` is a condition, though nothing is written to it.
const order = Effect.fn("order")(function*(product: string, quantity: number) {
  const shop = yield* Shop
  yield* shop.decide(
    { stock: Decision.stream(`product-${product}`, left), closed: Decision.stream("shop", isClosed) },
    ({ closed, stock }) => {
      if (closed) return new CannotOrder({ reason: "the shop is closed" })
      if (stock < quantity) return new CannotOrder({ reason: `${stock} left` })
      return { stream: `product-${product}`, messages: new Ordered({ quantity }) }
    }
  )
})

// Each scenario has a store of its own, in memory. Ids and times of messages do not count.
describe("a shop", () => {
  const { given } = Scenario.on(Shop, order)
  const delivered = { stream: "product-lamp", messages: new Delivered({ quantity: 10 }) }
  const ordered = (quantity: number) => ({ stream: "product-lamp", messages: new Ordered({ quantity }) })

  it.effect("sells what it has", () => given(delivered, ordered(4)).when("lamp", 6).thenWrites(ordered(6)))

  it.effect("sells nothing that it does not have", () =>
    given(delivered, ordered(4)).when("lamp", 7).thenFails(new CannotOrder({ reason: "6 left" })))

  it.effect("sells nothing while it is closed", () =>
    given(delivered, { stream: "shop", messages: new ShopClosed({}) })
      .when("lamp", 1)
      .thenFails(new CannotOrder({ reason: "the shop is closed" })))
})

describe("a shop with three customers at once", () => {
  it.effect("sells to two of them what it has", () =>
    Effect.gen(function*() {
      const shop = yield* Shop
      yield* shop.write("product-lamp", new Delivered({ quantity: 10 }))
      const orders = yield* Effect.forEach([4, 4, 4], (quantity) => Effect.result(order("lamp", quantity)), {
        concurrency: "unbounded"
      })
      assert.lengthOf(orders.filter(Result.isSuccess), 2)
      assert.strictEqual((yield* shop.head("product-lamp")).version, 3)
      yield* shop.write("shop", new ShopClosed({}))
      assert.deepInclude(yield* Effect.flip(order("lamp", 1)), { reason: "the shop is closed" })
    }).pipe(Effect.provide(Shop.layerMemory)))
})
