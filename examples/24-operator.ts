/**
 * An operator looks at a store without its schemas and handlers: finds out why a message was not handled, and has it handled
 * again by the process that runs.
 *
 *   node --conditions=@effect-message-store/source examples/24-operator.ts
 */
import { Console, Effect, Layer, References, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Operator, Partitioner, Subscription } from "effect-message-store"

class Ordered extends Schema.TaggedClass<Ordered>()("Ordered", { ...Message.fields, paper: Schema.String }) {}

class Invoiced extends Schema.TaggedClass<Invoiced>()("Invoiced", Message.fields) {}

class Orders extends MessageStore.Service<Orders>()("examples/OperatedOrders", {
  name: "orders",
  schema: Schema.Union([Ordered, Invoiced])
}) {}

class AllOrders extends AggregatedStream.Service<AllOrders>()("examples/OperatedAllOrders", {
  store: Orders,
  name: "all_orders",
  patterns: "order-%",
  partitioner: Partitioner.constant()
}) {}

class Invoices extends Subscription.Service<Invoices>()("examples/OperatedInvoices", {
  stream: AllOrders,
  name: "invoices",
  retry: Schedule.recurs(0)
}) {}

class NoPaper extends Schema.TaggedError<NoPaper>()("NoPaper", { order: Schema.Int }) {
  override get message() {
    return `order ${this.order} cannot be printed`
  }
}

/** What the application does, until the printer is out of paper. */
let paper = false
const print = (id: number) =>
  Effect.gen(function*() {
    if (!paper) return yield* new NoPaper({ order: id })
    yield* (yield* Orders).write(`invoice-${id}`, new Invoiced({}))
  })

const look = Effect.gen(function*() {
  const operator = yield* Operator.Operator
  const { isHealthy, problems } = yield* operator.health()
  for (const { message, of } of problems) yield* Console.log(`${of}: ${message}`)
  if (isHealthy) yield* Console.log("all is well")
})

const program = Effect.gen(function*() {
  const operator = yield* Operator.Operator
  const orders = yield* Orders
  const { projector } = yield* AllOrders
  const invoices = yield* Invoices
  for (const id of [1, 2]) yield* orders.write(`order-${id}`, new Ordered({ paper: "A4" }))
  yield* projector.runOnce
  yield* Effect.forkScoped(invoices.run((_, { stream }) => print(Number(stream.slice(6)))))
  yield* Effect.repeat(invoices.lag, { until: (lag) => lag === 0, schedule: Schedule.spaced("10 millis") })

  yield* look
  for (const { count, message, tag } of yield* operator.parkedErrors("invoices")) {
    yield* Console.log(`${count} × ${tag}: ${message}`)
  }
  paper = true
  yield* Console.log(`requeued: ${yield* operator.requeue("invoices")}`)
  yield* Effect.repeat(invoices.parked, { until: (left) => left.length === 0, schedule: Schedule.spaced("10 millis") })
  yield* look

  const { items: [newest] } = yield* operator.search({ type: "Invoiced", limit: 1 })
  const trace = yield* operator.trace(newest?.messageId ?? "")
  yield* Console.log((trace?.messages ?? []).map(({ stream, type }) => `${type} in ${stream}`).join(" → "))
}).pipe(
  Effect.scoped,
  Effect.provideService(References.MinimumLogLevel, "None") // each failure would be logged, and each parked message
)

const Services = Operator.layerOf(Orders).pipe(
  Layer.provideMerge(Invoices.layer),
  Layer.provideMerge(AllOrders.layer),
  Layer.provideMerge(Orders.layerMemory)
)

await program.pipe(Effect.provide(Services), Effect.runPromise)
