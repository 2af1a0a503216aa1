/**
 * Writes to the primary, and reads from a standby what was written, once that has it.
 *
 *   DATABASE_URL=postgres://primary/shop STANDBY_URL=postgres://standby/shop node examples/25-standby.ts
 */
import { PgClient } from "@effect/sql-pg"
import { Console, Effect, Layer, Redacted, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { layerDatabase } from "./database.ts"

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  amount: Schema.Int
}) {}
class Orders
  extends MessageStore.Service<Orders>()("examples/Orders", { name: "example_standby", schema: OrderPlaced })
{}

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

const program = Effect.flatMap(place, ({ globalPosition }) => show(globalPosition))

const standbyUrl = process.env["STANDBY_URL"]
const primary = Layer.provideMerge(Orders.layer, layerDatabase())
const standby = standbyUrl
  ? Orders.layerReadOnly.pipe(Layer.provide(PgClient.layer({ url: Redacted.make(standbyUrl) })))
  : Orders.layerReadOnlyOnPrimary

await program.pipe(Effect.provide(Layer.provideMerge(standby, primary)), Effect.runPromise)
