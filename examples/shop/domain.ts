/**
 * What happens in a shop, and its rules: nothing is sold that is not in stock, and no customer gets more than ten pieces. A
 * rule is about all orders of a product, or of a customer, whatever streams they are in: tags find them.
 */
import { Effect, Schema } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"

export const ProductId = Schema.String.check(Schema.isPattern(/^[a-z0-9-]{1,40}$/))
/** A line for people to read: neither control characters, nor halves of characters, which PostgreSQL cannot store. */
export const Line = Schema.String.check(Schema.isPattern(/^(?! )[^\p{Cc}\p{Cs}]{1,60}(?<! )$/u))
export const Quantity = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))

const product = Message.tag("product", ProductId)

export class ProductAdded extends Schema.TaggedClass<ProductAdded>()("ProductAdded", {
  ...Message.fields,
  product,
  name: Line,
  cents: Schema.Natural
}) {}

export class StockReceived extends Schema.TaggedClass<StockReceived>()("StockReceived", {
  ...Message.fields,
  product,
  quantity: Quantity
}) {}

export class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  order: Schema.String,
  product,
  customer: Message.tag("customer", Line),
  quantity: Quantity
}) {}

const ShopEvent = Schema.Union([ProductAdded, StockReceived, OrderPlaced])
export type ShopEvent = typeof ShopEvent.Type

export class Shop
  extends MessageStore.Service<Shop>()("examples/WebShop", { name: "example_web_shop", schema: ShopEvent })
{}

/** The errors say with which status they are told over HTTP. */
export class ProductExists extends Schema.TaggedError<ProductExists>()("ProductExists", { product: ProductId }, {
  httpApiStatus: 409
}) {}
export class UnknownProduct extends Schema.TaggedError<UnknownProduct>()("UnknownProduct", { product: ProductId }, {
  httpApiStatus: 404
}) {}
export class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", { left: Schema.Natural }, {
  httpApiStatus: 409
}) {}
export class LimitReached extends Schema.TaggedError<LimitReached>()("LimitReached", { left: Schema.Natural }, {
  httpApiStatus: 422
}) {}
export const Rule = Schema.Union([ProductExists, UnknownProduct, OutOfStock, LimitReached])
export type Rule = typeof Rule.Type

export const limit = 10

const isKnown = Fold.make<ShopEvent>()({ initial: false, ProductAdded: () => true })

/** How many pieces are left; undefined while nobody has added the product. */
const stock = Fold.make<ShopEvent>()({
  initial: undefined as number | undefined,
  ProductAdded: () => 0,
  StockReceived: (left = 0, { quantity }) => left + quantity,
  OrderPlaced: (left = 0, { quantity }) => left - quantity
})

const ordered = Fold.make<ShopEvent>()({ initial: 0, OrderPlaced: (sum, { quantity }) => sum + quantity })

const streamOf = (id: string) => `product-${id}`

export const addProduct = Effect.fn("addProduct")(function*(
  added: { readonly product: string; readonly name: string; readonly cents: number; readonly quantity: number }
) {
  const shop = yield* Shop
  return yield* shop.update(streamOf(added.product), isKnown, (known) =>
    known
      ? Effect.fail(new ProductExists(added))
      : Effect.succeed([new ProductAdded(added), new StockReceived(added)]))
})

export const receiveStock = Effect.fn("receiveStock")(function*(id: string, quantity: number) {
  const shop = yield* Shop
  return yield* shop.update(streamOf(id), isKnown, (known) =>
    known
      ? Effect.succeed(new StockReceived({ product: id, quantity }))
      : Effect.fail(new UnknownProduct({ product: id })))
})

/**
 * One decision on two things: the stock of the product, and what the customer has ordered. It goes through only if both are
 * as they were read, and else is made again: orders of other products by other customers do not wait for it.
 */
export const placeOrder = Effect.fn("placeOrder")(function*(
  placed: { readonly product: string; readonly customer: string; readonly quantity: number }
) {
  const shop = yield* Shop
  const order = crypto.randomUUID()
  const [position] = yield* shop.decide(
    {
      left: Decision.tagged({ product: placed.product }, stock),
      had: Decision.tagged({ customer: placed.customer }, ordered)
    },
    ({ had, left }) => {
      if (left === undefined) return Effect.fail(new UnknownProduct(placed))
      if (had + placed.quantity > limit) return Effect.fail(new LimitReached({ left: limit - had }))
      if (left < placed.quantity) return Effect.fail(new OutOfStock({ left }))
      return Effect.succeed({ stream: `order-${order}`, messages: new OrderPlaced({ ...placed, order }) })
    }
  )
  return position
})
