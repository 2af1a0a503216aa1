/** Departures and delays of each airport, kept in a table by a subscription: each flight counts once, whatever happens. */
import { Array, Effect, Layer, Schedule, Schema } from "effect"
import { AggregatedStream, type Handlers, Partitioner, Subscription } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { type FlightDeparted, Flights } from "./flights.ts"
import * as Report from "./report.ts"

/** All airports, merged into 8 partitions. */
export class Departures extends AggregatedStream.Service<Departures>()("demo/Departures", {
  store: Flights,
  name: "demo_departures",
  patterns: "airport-%",
  partitioner: Partitioner.streamName(8)
}) {}

export class Delays extends Subscription.Service<Delays>()("demo/Delays", {
  stream: Departures,
  name: "demo_delays",
  delivery: "transactional",
  batchSize: 250
}) {}

const createTable = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  sql`create table if not exists demo_airport_delays (
    stream text primary key, departures int not null, delay int not null
  )`)

type Flight = Handlers.Delivery<FlightDeparted>

/** In the transaction that acknowledges these flights. */
const count = Effect.fnUntraced(function*(flights: Array.NonEmptyReadonlyArray<Flight>) {
  const sql = yield* SqlClient.SqlClient
  const totals: Report.Totals = new Map()
  for (const { message, stream } of flights) Report.add(totals, stream, message)
  const streams = Array.dedupe(Array.map(flights, ({ stream }) => stream))
  const rows = Array.map(streams, (stream) => ({ stream, ...totals.get(stream) }))
  yield* sql`insert into demo_airport_delays as so_far ${sql.insert(rows)} on conflict (stream) do update
    set departures = so_far.departures + excluded.departures, delay = so_far.delay + excluded.delay`
})

const Row = Schema.Struct({ stream: Schema.String, departures: Schema.Natural, delay: Schema.Int })

export const readTable = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql`select stream, departures, delay from demo_airport_delays`
  const totals: Report.Totals = new Map()
  for (const { delay, departures, stream } of yield* Schema.decodeUnknownEffect(Schema.Array(Row))(rows)) {
    totals.set(stream, { departures, delay })
  }
  return totals
})

/** Waits until every flight that is stored now is in the table. */
export const upToDate = Effect.gen(function*() {
  const departures = yield* Departures
  const delays = yield* Delays
  yield* departures.projector.runOnce
  yield* Effect.repeat(delays.lag, { until: (lag) => lag === 0, schedule: Schedule.spaced("20 millis") })
})

/** What a worker process would launch. Here it runs beside the writing. */
export const layerWorker = Layer.mergeAll(Departures.layerProjector(), Delays.layerBatchHandler(count)).pipe(
  Layer.provideMerge(Delays.layer),
  Layer.provideMerge(Departures.layer),
  Layer.provide(Layer.effectDiscard(createTable))
)
