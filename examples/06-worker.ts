/**
 * A worker process with two subscriptions. Start as many as you like: each partition is handled by one of them at a time.
 * It runs until it gets SIGTERM (or Ctrl-C): then it finishes or rolls back what is in hand, frees its partitions, exits.
 *
 *   node --conditions=@effect-message-store/source examples/06-worker.ts
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Runtime, Schedule, Schema } from "effect"
import { AggregatedStream, Handlers, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { layerDatabase } from "./database.ts"

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  customer: Schema.String,
  cents: Schema.Natural
}) {}

class OrderCancelled extends Schema.TaggedClass<OrderCancelled>()("OrderCancelled", {
  ...Message.fields,
  customer: Schema.String
}) {}

const OrderEvent = Schema.Union([OrderPlaced, OrderCancelled])

class Orders extends MessageStore.Service<Orders>()("examples/WorkedOrders", {
  name: "example_worked_orders",
  schema: OrderEvent
}) {}

class ByCustomer extends AggregatedStream.Service<ByCustomer>()("examples/ByCustomer", {
  store: Orders,
  name: "example_by_customer",
  patterns: "order-%",
  partitioner: Partitioner.field("customer", 16)
}) {}

// A subscription begins with the first message there is, unless told otherwise, and remembers how far it has come.
class Invoices extends Subscription.Service<Invoices>()("examples/Invoices", {
  stream: ByCustomer,
  name: "example_invoices"
}) {}

class Mails extends Subscription.Service<Mails>()("examples/Mails", {
  stream: ByCustomer,
  name: "example_mails",
  start: "next"
}) {}

const invoicing = Invoices.layerHandlers({
  OrderPlaced: ({ cents, customer }) => Console.log(`invoice  ${customer}: $${(cents / 100).toFixed(2)}`)
  // OrderCancelled has no handler here: such messages are acknowledged, and that is all.
})

const mailing = Mails.layerHandler(Handlers.around(
  Mails.handlers({
    OrderPlaced: ({ customer }) => Console.log(`mail     ${customer}: thank you`),
    OrderCancelled: ({ customer }) => Console.log(`mail     ${customer}: what a pity`)
  }),
  (handling) => Effect.timeout(handling, "10 seconds") // around each call
))

/** Somebody has to order something. */
const customers = Layer.effectDiscard(Effect.gen(function*() {
  const orders = yield* Orders
  let number = 0
  const order = Effect.gen(function*() {
    const customer = ["Ada", "Grace", "Edsger"][number % 3] ?? "Donald"
    const stream = `order-${crypto.randomUUID()}`
    yield* orders.write(stream, new OrderPlaced({ customer, cents: 100 * ++number }))
    if (number % 4 === 0) yield* orders.write(stream, new OrderCancelled({ customer }))
  })
  yield* Effect.forkScoped(Effect.repeat(order, Schedule.spaced("50 millis")))
}))

const Worker = Layer.mergeAll(ByCustomer.layerProjector(), invoicing, mailing, customers).pipe(
  Layer.provide([Invoices.layer, Mails.layer]),
  Layer.provide(ByCustomer.layer),
  Layer.provide(Orders.layer),
  Layer.provide(layerDatabase())
)

NodeRuntime.runMain(Layer.launch(Worker), {
  // Being told to stop is no failure.
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
})
