/**
 * A rule about two streams: what is ordered has to be in stock, and nothing is ordered while the shop is closed.
 *
 *   node --conditions=@effect-message-store/source examples/16-several-streams.ts
 */
import { Console, Effect, Layer, Schema } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

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

const program = Effect.gen(function*() {
  const shop = yield* Shop
  yield* truncate(shop) // so that this example starts afresh on a database where it ran before

  yield* shop.write("product-lamp", new Delivered({ quantity: 10 }))
  const orders = Effect.forEach([4, 4, 4], (quantity) =>
    order("lamp", quantity).pipe(
      Effect.as(`${quantity} lamps ordered`),
      Effect.catchTag("CannotOrder", ({ reason }) => Effect.succeed(`no lamps: ${reason}`))
    ), { concurrency: "unbounded" })
  for (const answer of (yield* orders).toSorted()) yield* Console.log(answer)

  yield* shop.write("shop", new ShopClosed({}))
  yield* order("lamp", 1).pipe(Effect.catchTag("CannotOrder", ({ reason }) => Console.log(`no lamps: ${reason}`)))
})

await program.pipe(Effect.provide(Layer.provide(Shop.layer, layerDatabase())), Effect.runPromise)
