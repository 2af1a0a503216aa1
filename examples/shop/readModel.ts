/**
 * What pages show: a read model with a version, in two tables. All messages of a product are in one partition, in the order
 * in which they were decided on; so products are there before they are ordered.
 */
import { DateTime, Effect } from "effect"
import { AggregatedStream, type Handlers, Partitioner, Projection } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { Shop, type ShopEvent } from "./domain.ts"

export class ByProduct extends AggregatedStream.Service<ByProduct>()("examples/ByProduct", {
  store: Shop,
  name: "example_web_shop_by_product",
  patterns: ["product-%", "order-%"],
  partitioner: Partitioner.field("product", 8)
}) {}

export class ShopView extends Projection.Service<ShopView>()("examples/ShopView", {
  stream: ByProduct,
  name: "example_shop_view",
  version: 1, // raise it to change the tables, or what is kept in them
  model: Projection.tables(
    ["example_shop_products", "example_shop_orders"],
    Effect.fn(function*({ example_shop_orders: orders, example_shop_products: products }) {
      const sql = yield* SqlClient.SqlClient
      yield* sql`create table ${sql(products)} (
        product text primary key, name text not null, cents bigint not null, stock bigint not null default 0
      )`
      yield* sql`create table ${sql(orders)} (
        id text primary key, product text not null, customer text not null, quantity int not null,
        placed_at timestamptz not null
      )`
      yield* sql`create index on ${sql(orders)} (customer, placed_at)`
    })
  )
}) {}

interface Tables {
  readonly example_shop_products: string
  readonly example_shop_orders: string
}

const handle = Effect.fn("ShopView.handle")(
  function*(message: ShopEvent, { example_shop_orders: orders, example_shop_products: products }: Tables) {
    const sql = yield* SqlClient.SqlClient
    switch (message._tag) {
      case "ProductAdded":
        return yield* sql`insert into ${sql(products)} ${
          sql.insert({
            product: message.product,
            name: message.name,
            cents: message.cents
          })
        }`
      case "StockReceived":
        return yield* sql`update ${sql(products)} set stock = stock + ${message.quantity}
          where product = ${message.product}`
      case "OrderPlaced":
        yield* sql`update ${sql(products)} set stock = stock - ${message.quantity} where product = ${message.product}`
        return yield* sql`insert into ${sql(orders)} ${
          sql.insert({
            id: message.order,
            product: message.product,
            customer: message.customer,
            quantity: message.quantity,
            placed_at: DateTime.toDateUtc(message.occurredAt)
          })
        }`
    }
  }
)

/** In the transaction that acknowledges them: each message counts once. */
export const handleAll = (deliveries: ReadonlyArray<Handlers.Delivery<ShopEvent>>, tables: Tables) =>
  Effect.forEach(deliveries, ({ message }) => handle(message, tables), { discard: true })

export const readProducts = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const { model } = yield* (yield* ShopView).promoted
  return yield* sql<{ product: string; name: string; cents: number; stock: number }>`
    select product, name, cents::float8 as cents, stock::float8 as stock
    from ${sql(model.example_shop_products)} order by name, product`
})

export const readOrders = Effect.fn("readOrders")(function*(customer: string) {
  const sql = yield* SqlClient.SqlClient
  const { model } = yield* (yield* ShopView).promoted
  return yield* sql<{ id: string; name: string; quantity: number }>`
    select o.id, p.name, o.quantity
    from ${sql(model.example_shop_orders)} o join ${sql(model.example_shop_products)} p using (product)
    where o.customer = ${customer} order by o.placed_at desc, o.id limit 20`
})
