/**
 * Spans, metrics and lines of the log leave by OpenTelemetry's protocol: to a collector, or to whatever else takes it.
 *
 *   OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 \
 *     node --conditions=@effect-message-store/source examples/26-telemetry.ts
 */
import { Console, Effect, Layer, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { FetchHttpClient } from "effect/http"
import { Otlp, PrometheusMetrics } from "effect/observability"

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  cents: Schema.Int
}) {}

class Orders extends MessageStore.Service<Orders>()("examples/TracedOrders", { name: "orders", schema: OrderPlaced }) {}

class AllOrders extends AggregatedStream.Service<AllOrders>()("examples/TracedAllOrders", {
  store: Orders,
  name: "all_orders",
  patterns: "order-%",
  partitioner: Partitioner.constant()
}) {}

class Invoices extends Subscription.Service<Invoices>()("examples/TracedInvoices", {
  stream: AllOrders,
  name: "invoices",
  retry: Schedule.recurs(1)
}) {}

class NoPrice extends Schema.TaggedError<NoPrice>()("NoPrice", { order: Schema.String }) {}

/** What an HTTP server does in the span of its request: the message remembers by whom it was written. */
const placeOrder = (id: number, cents: number) =>
  Effect.gen(function*() {
    yield* (yield* Orders).write(`order-${id}`, new OrderPlaced({ cents }))
  }).pipe(Effect.withSpan("POST /orders", { kind: "server" }))

const program = Effect.gen(function*() {
  yield* placeOrder(1, 4200)
  yield* placeOrder(2, 0)
  yield* (yield* AllOrders).projector.runOnce
  const { handled, parked } = yield* (yield* Invoices).drain(({ cents }, { stream }) =>
    cents > 0 ? Effect.logInfo(`an invoice of ${cents / 100}`) : new NoPrice({ order: stream })
  )
  yield* Console.log(`${handled} handled, ${parked} parked`)
})

const Telemetry = Otlp.layerJson({
  baseUrl: process.env["OTEL_EXPORTER_OTLP_ENDPOINT"] ?? "http://localhost:4318",
  resource: { serviceName: "shop", serviceVersion: "1.0.0" },
  loggerMergeWithExisting: false // the log goes nowhere else
}).pipe(Layer.provide(FetchHttpClient.layer))

/** Where Prometheus scrapes the process itself: the names that it gives to what comes by OTLP, with units. */
const metricNameMapper = (name: string) => {
  if (name.endsWith(".duration") || name.endsWith(".age")) return `${name}_seconds`
  return /\.(messages|attempts|snapshots)$/.test(name) ? `${name}_total` : name
}
const scraped = PrometheusMetrics.format({ metricNameMapper })

/** Telemetry around everything: all of it is seen. */
const Services = Invoices.layer.pipe(
  Layer.provideMerge(AllOrders.layer),
  Layer.provideMerge(Orders.layerMemory),
  Layer.provideMerge(Telemetry)
)

await program.pipe(
  Effect.andThen(Effect.flatMap(scraped, Console.log)),
  Effect.provide(Services),
  Effect.runPromise
)
