/**
 * Messages go into streams, and come back out.
 *
 *   node --conditions=@effect-message-store/source examples/01-write-and-read.ts
 */
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

// A message says what happened. `Message.fields` are its id and its time; the constructor fills them in.
class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  customer: Schema.String,
  cents: Schema.Natural
}) {}

class OrderShipped extends Schema.TaggedClass<OrderShipped>()("OrderShipped", {
  ...Message.fields,
  carrier: Schema.String
}) {}

// A store is a service, and this class its key. The name is part of the names of its tables.
class Orders extends MessageStore.Service<Orders>()("examples/Orders", {
  name: "example_orders",
  schema: Schema.Union([OrderPlaced, OrderShipped])
}) {}

const describe = (message: OrderPlaced | OrderShipped): string => {
  switch (message._tag) {
    case "OrderPlaced":
      return `${message.customer} ordered for $${(message.cents / 100).toFixed(2)}`
    case "OrderShipped":
      return `shipped with ${message.carrier}`
  }
}

const program = Effect.gen(function*() {
  const orders = yield* Orders
  yield* truncate(orders) // this example begins anew each time: DATABASE_URL may name a database where it ran before

  // One stream per order. Each message gets the next version of its stream.
  const placed = new OrderPlaced({ customer: "Ada", cents: 4200 })
  const first = yield* orders.write("order-1", placed)
  yield* Console.log(`${first.stream} is at version ${first.version}`)

  // Several messages go in together or not at all; so they do for several streams, with `writeAll`.
  const last = yield* orders.write("order-2", [
    new OrderPlaced({ customer: "Grace", cents: 1999 }),
    new OrderShipped({ carrier: "UPS" })
  ])
  yield* Console.log(`${last.stream} is at version ${last.version}`)

  // Reading gives an Effect stream. What it brings is typed: `stored.message` is an OrderPlaced or an OrderShipped.
  yield* orders.read("order-2").pipe(
    Stream.runForEach((stored) => Console.log(`  version ${stored.version}: ${describe(stored.message)}`))
  )

  // A reader sees the store as it was when the reader was made, whatever is written meanwhile, until its scope closes.
  yield* Effect.gen(function*() {
    const reader = yield* orders.reader
    const count = yield* reader.readWildcard("order-%").pipe(Stream.runCount)
    yield* Console.log(`${count} messages in all orders`)

    const found = yield* reader.getMessageById(placed.messageId)
    yield* Console.log(`message found in ${found.stream}: ${describe(found.message)}`)

    // What can fail is in the types, and is caught by its tag.
    yield* reader.getMessageById("00000000-0000-0000-0000-000000000000").pipe(
      Effect.catchTag("MessageNotFoundError", (error) => Console.log(error.message))
    )
  }).pipe(Effect.scoped)
})

await program.pipe(Effect.provide(Layer.provide(Orders.layer, layerDatabase())), Effect.runPromise)
