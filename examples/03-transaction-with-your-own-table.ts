/**
 * Your own table and the store change together or not at all: the store writes in the transaction that is open.
 *
 *   node --conditions=@effect-message-store/source examples/03-transaction-with-your-own-table.ts
 */
import { Console, Effect, Layer, Schema } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { SqlClient } from "effect/sql"
import { layerDatabase } from "./database.ts"

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  product: Schema.String,
  quantity: Schema.Natural
}) {}

class Orders extends MessageStore.Service<Orders>()("examples/StockOrders", {
  name: "example_stock_orders",
  schema: OrderPlaced
}) {}

class PaymentDeclined extends Schema.TaggedError<PaymentDeclined>()("PaymentDeclined", { order: Schema.String }) {}

const charge = (order: string, card: string) =>
  card === "expired" ? Effect.fail(new PaymentDeclined({ order })) : Effect.void

const placeOrder = Effect.fn("placeOrder")(function*(order: string, quantity: number, card: string) {
  const sql = yield* SqlClient.SqlClient
  const orders = yield* Orders
  // The table is written first, then the store. The payment fails after both.
  yield* sql`update example_stock set quantity = quantity - ${quantity} where product = 'lamp'`
  yield* orders.write(order, new OrderPlaced({ product: "lamp", quantity }), { expectedVersion: 0 })
  yield* charge(order, card)
})

const report = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const orders = yield* Orders
  const stock = yield* sql<{ readonly quantity: number }>`select quantity from example_stock where product = 'lamp'`
  const first = yield* orders.head("order-1")
  const second = yield* orders.head("order-2")
  yield* Console.log(`  stock ${stock[0]?.quantity}; order-1 at version ${first.version}, order-2 at ${second.version}`)
})

const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const orders = yield* Orders
  // So that this example begins anew on a database where it ran before.
  yield* sql`drop table if exists example_stock`
  yield* sql`create table example_stock (product text primary key, quantity int not null)`
  yield* sql`insert into example_stock (product, quantity) values ('lamp', 10)`
  yield* truncate(orders)

  yield* sql.withTransaction(placeOrder("order-1", 3, "valid"))
  yield* Console.log("order-1: committed")
  yield* report

  yield* sql.withTransaction(placeOrder("order-2", 5, "expired")).pipe(
    Effect.catchTag("PaymentDeclined", (error) => Console.log(`${error.order}: payment declined, rolled back`))
  )
  yield* report
})

// `provideMerge`: the program needs the store, and for its own table the SqlClient as well. Both use the same one.
await program.pipe(Effect.provide(Layer.provideMerge(Orders.layer, layerDatabase())), Effect.runPromise)
