/**
 * The departures of all airports, merged into partitions by airline: many streams become a few, each in one order.
 *
 *   node --conditions=@effect-message-store/source examples/05-aggregated-stream.ts
 */
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

class FlightDeparted extends Schema.TaggedClass<FlightDeparted>()("FlightDeparted", {
  ...Message.fields,
  flight: Schema.String,
  airline: Schema.String
}) {}

class Airports extends MessageStore.Service<Airports>()("examples/Airports", {
  name: "example_airports",
  schema: FlightDeparted
}) {}

// Streams whose names match belong to it. An airline's messages go into one partition, of three: computed in the database.
class ByAirline extends AggregatedStream.Service<ByAirline>()("examples/ByAirline", {
  store: Airports,
  name: "example_by_airline",
  patterns: "airport-%",
  partitioner: Partitioner.field("airline", 3)
}) {}

const depart = Effect.fn("depart")(function*(airport: string, flight: string) {
  const airports = yield* Airports
  yield* airports.write(`airport-${airport}`, new FlightDeparted({ flight, airline: flight.slice(0, 2) }))
})

const program = Effect.gen(function*() {
  const airports = yield* Airports
  const byAirline = yield* ByAirline
  // So that this example begins anew on a database where it ran before.
  yield* truncate(airports)
  yield* byAirline.rebuild

  yield* depart("FRA", "LH400")
  yield* depart("SFO", "UA58")
  yield* depart("FRA", "UA59")
  yield* depart("MUC", "LH452")
  yield* depart("SFO", "LH455")
  yield* depart("LHR", "BA286")

  // The projector links what is new. `ByAirline.layerProjector()` does so all the time.
  const { linked } = yield* byAirline.projector.runOnce
  yield* Console.log(`${linked} messages linked`)

  // Each partition has positions from 0 without gaps. Each airport's departures stay in their order.
  for (const head of yield* byAirline.partitions) {
    yield* Console.log(`partition ${head.partition}, last position ${head.position}`)
    yield* byAirline.read(head.partition).pipe(
      Stream.runForEach(({ message, position, stream, version }) =>
        Console.log(`  ${position}: ${message.flight} from ${stream}, version ${version}`)
      )
    )
  }
})

const Services = ByAirline.layer.pipe(Layer.provideMerge(Airports.layer), Layer.provide(layerDatabase()))

await program.pipe(Effect.provide(Services), Effect.runPromise)
