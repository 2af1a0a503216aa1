/**
 * Two people want the last seat: a write that insists on a version fails if somebody else was faster.
 *
 *   node --conditions=@effect-message-store/source examples/02-optimistic-concurrency.ts
 */
import { Console, Effect, Layer, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

class SeatBooked extends Schema.TaggedClass<SeatBooked>()("SeatBooked", {
  ...Message.fields,
  passenger: Schema.String,
  seat: Schema.Natural
}) {}

class Flights extends MessageStore.Service<Flights>()("examples/Flights", {
  name: "example_flights",
  schema: SeatBooked
}) {}

class FlightFull extends Schema.TaggedError<FlightFull>()("FlightFull", { flight: Schema.String }) {}

const seats = 3

// Read, decide, write. Between reading and writing somebody else may book, and the decision would rest on what is no
// longer true. `expectedVersion` makes that impossible: the write goes through only if nothing came in between.
const bookOnce = Effect.fn("bookOnce")(function*(flight: string, passenger: string) {
  const flights = yield* Flights
  const booked = yield* flights.read(flight).pipe(Stream.runCollect)
  if (booked.length >= seats) return yield* new FlightFull({ flight })
  const seat = booked.length + 1
  yield* flights.write(flight, new SeatBooked({ passenger, seat }), { expectedVersion: booked.length })
  return seat
})

// The answer to a conflict is to read again and decide again. Of those who collide one gets through, so this ends.
const book = (flight: string, passenger: string) =>
  bookOnce(flight, passenger).pipe(
    Effect.tapErrorTag("OptimisticConcurrencyError", () => Console.log("conflict: decide again")),
    Effect.retry({ while: (error) => error._tag === "OptimisticConcurrencyError" })
  )

// `update` is this loop, ready made: it folds the stream into a state, asks for a decision, and writes it. Fibers that
// update the same stream in one process take turns, so that they do not even collide.
const taken = { initial: 0, evolve: (seat: number) => seat + 1 }

const bookByUpdate = Effect.fn("bookByUpdate")(function*(flight: string, passenger: string) {
  const flights = yield* Flights
  return yield* flights.update(flight, taken, (seat) =>
    seat < seats
      ? new SeatBooked({ passenger, seat: seat + 1 })
      : new FlightFull({ flight }))
})

const program = Effect.gen(function*() {
  const flights = yield* Flights
  yield* truncate(flights) // so that this example starts afresh on a database where it ran before

  // A conflict is an error like any other. It says what the version is; nothing was written.
  yield* flights.write("flight-LH454", new SeatBooked({ passenger: "Ada", seat: 1 }), { expectedVersion: 0 })
  yield* flights.write("flight-LH454", new SeatBooked({ passenger: "Grace", seat: 1 }), { expectedVersion: 0 }).pipe(
    Effect.catchTag("OptimisticConcurrencyError", (error) => Console.log(error.message))
  )

  // Five passengers at once for three seats: nobody gets a seat twice, and no seat has two passengers.
  const answers = yield* Effect.forEach(
    ["Barbara", "Edsger", "Frances", "Donald", "Radia"],
    (passenger) =>
      book("flight-UA1", passenger).pipe(
        Effect.map((seat) => `seat ${seat}: ${passenger}`),
        Effect.catchTag("FlightFull", () => Effect.succeed(`no seat for ${passenger}`))
      ),
    { concurrency: "unbounded" }
  )
  yield* Effect.forEach(answers.toSorted(), (answer) => Console.log(answer))

  yield* Effect.forEach(["Margaret", "Dennis"], (passenger) => bookByUpdate("flight-UA2", passenger), {
    concurrency: "unbounded"
  })
  const { version } = yield* flights.head("flight-UA2")
  yield* Console.log(`${version} seats taken, without a conflict`)
})

await program.pipe(Effect.provide(Layer.provide(Flights.layer, layerDatabase())), Effect.runPromise)
