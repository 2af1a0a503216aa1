/**
 * Writes to the primary, and reads from a standby what was written, once that has it.
 *
 *   DATABASE_URL=postgres://primary/shop STANDBY_URL=postgres://standby/shop node examples/25-standby.ts
 */
import { PgClient } from "@effect/sql-pg"
import { Console, Effect, Layer, Redacted, Schema, Stream } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner } from "effect-message-store"
import { layerDatabase } from "./database.ts"

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  amount: Schema.Int
}) {}
class Orders
  extends MessageStore.Service<Orders>()("examples/Orders", { name: "example_standby", schema: OrderPlaced })
{}

// What defines the aggregated stream, for both: the class that links and handles, and whoever reads a standby.
const allOrders = { name: "example_standby_all", patterns: "order-%", partitioner: Partitioner.constant() } as const
class AllOrders extends AggregatedStream.Service<AllOrders>()("examples/AllOrders", { store: Orders, ...allOrders }) {}

const count = Effect.gen(function*() {
  const replica = yield* Orders.ReadOnly
  const stream = yield* replica.aggregatedStream(allOrders)
  return (yield* stream.statistics).messages
})

const place = Effect.gen(function*() {
  const orders = yield* Orders
  return yield* orders.write("order-1", new OrderPlaced({ amount: 25 }))
})

const show = Effect.fn("show")(function*(globalPosition: number) {
  const replica = yield* Orders.ReadOnly
  yield* replica.waitFor(globalPosition, { timeout: "2 seconds" }).pipe(
    Effect.catchTag("NotReplicatedError", (error) => Console.log(error.message)) // what it has is shown all the same
  )
  yield* replica.read("order-1").pipe(
    Stream.runForEach(({ message, version }) => Console.log(`${version}: ${message.amount}`))
  )
})

const program = Effect.gen(function*() {
  const { globalPosition } = yield* place
  yield* show(globalPosition)
  yield* (yield* AllOrders).projector.runOnce
  yield* Console.log(`linked: ${yield* count}`)
})

const standbyUrl = process.env["STANDBY_URL"]
const primary = AllOrders.layer.pipe(Layer.provideMerge(Orders.layer), Layer.provideMerge(layerDatabase()))
const standby = standbyUrl
  ? Orders.layerReadOnly.pipe(Layer.provide(PgClient.layer({ url: Redacted.make(standbyUrl) })))
  : Orders.layerReadOnlyOnPrimary

await program.pipe(Effect.provide(Layer.provideMerge(standby, primary)), Effect.runPromise)
