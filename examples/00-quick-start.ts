import { PgClient } from "@effect/sql-pg"
import { Console, Effect, Layer, Redacted, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { PgliteClient } from "effect-message-store/pglite"

// What can happen to an order. Message.fields adds an id and a time; the constructor fills them in.
class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  orderId: Schema.String,
  amount: Schema.BigInt
}) {}
class OrderShipped extends Schema.TaggedClass<OrderShipped>()("OrderShipped", {
  ...Message.fields,
  orderId: Schema.String
}) {}

// The store: a service, with its layers.
class Orders extends MessageStore.Service<Orders>()("app/Orders", {
  name: "orders",
  schema: Schema.Union([OrderPlaced, OrderShipped])
}) {}

const program = Effect.gen(function*() {
  const orders = yield* Orders
  const orderId = crypto.randomUUID()
  const stream = `order-${orderId}`

  // Only if the stream is empty; then whatever its version.
  yield* orders.write(stream, new OrderPlaced({ orderId, amount: 4200n }), { expectedVersion: 0 })
  yield* orders.write(stream, new OrderShipped({ orderId }))

  yield* orders.read(stream).pipe(
    Stream.runForEach(({ message, version }) => Console.log(version, message._tag, message.occurredAt))
  )
})

// PostgreSQL where DATABASE_URL names one, else a PostgreSQL inside this process.
const url = process.env["DATABASE_URL"]
const Database = url ? PgClient.layer({ url: Redacted.make(url) }) : PgliteClient.layer()

program.pipe(Effect.provide(Orders.layer.pipe(Layer.provide(Database))), Effect.runPromise)
