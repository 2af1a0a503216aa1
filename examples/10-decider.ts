/**
 * A decider: rules as plain functions, tested by given, when, then without a store, and then run on one.
 *
 *   npm test -- test/examples.test.ts -t flight
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import { Decider, Fold, Message, MessageStore } from "effect-message-store"
import { FoldLaws, Scenario } from "effect-message-store/testing"

class FlightScheduled extends Schema.TaggedClass<FlightScheduled>()("FlightScheduled", {
  ...Message.fields,
  seats: Schema.Natural
}) {}
class SeatBooked extends Schema.TaggedClass<SeatBooked>()("SeatBooked", {
  ...Message.fields,
  passenger: Schema.String
}) {}
class SeatReleased extends Schema.TaggedClass<SeatReleased>()("SeatReleased", {
  ...Message.fields,
  passenger: Schema.String
}) {}

const FlightEvent = Schema.Union([FlightScheduled, SeatBooked, SeatReleased])

class Flights extends MessageStore.Service<Flights>()("examples/DecidedFlights", {
  name: "example_decided_flights",
  schema: FlightEvent
}) {}

// What the messages of a flight come to. A fold has a case for each type that matters to it, and leaves out the others.
const Flight = Schema.Struct({ seats: Schema.Natural, passengers: Schema.Array(Schema.String) })
type Flight = typeof Flight.Type

const flight = Fold.make<typeof FlightEvent.Type>()({
  initial: { seats: 0, passengers: [] } as Flight,
  FlightScheduled: (state, { seats }) => ({ ...state, seats }),
  SeatBooked: (state, { passenger }) => ({ ...state, passengers: [...state.passengers, passenger] }),
  SeatReleased: (state, { passenger }) => ({
    ...state,
    passengers: state.passengers.filter((name) => name !== passenger)
  })
})

// What it comes to is kept every 100 messages: a decision begins with the last snapshot, and reads what was added since.
const keptFlight = Fold.withSnapshot(flight, { name: "flight", schema: Flight, version: 1, every: 100 })

// What may be asked of a flight, and what it answers: messages, none, or a refusal.
type Command = { readonly book: string } | { readonly release: string }

class FlightFull extends Schema.TaggedError<FlightFull>()("FlightFull", { seats: Schema.Natural }) {}

const booking = Decider.make(keptFlight, (command: Command, { passengers, seats }) => {
  if ("release" in command) {
    return passengers.includes(command.release) ? new SeatReleased({ passenger: command.release }) : []
  }
  if (passengers.includes(command.book)) return [] // to book twice is to book
  return passengers.length < seats ? new SeatBooked({ passenger: command.book }) : new FlightFull({ seats })
})

// On a store, it decides on a stream: again, if somebody else wrote in between.
const decide = Effect.fn("decide")(function*(stream: string, command: Command) {
  const flights = yield* Flights
  return yield* flights.update(stream, booking, (state) => booking.decide(command, state))
})

// Whatever messages there are: no state is changed in place, and a snapshot and the rest give what all messages give.
FoldLaws.suite("flight", booking, FlightEvent)

// Its rules are tested without a store. Ids and times of messages do not count.
describe("a flight", () => {
  const { given } = Scenario.of(booking)
  const scheduled = new FlightScheduled({ seats: 2 })
  const booked = (passenger: string) => new SeatBooked({ passenger })

  it.effect("has a seat for a passenger", () => given(scheduled).when({ book: "Ada" }).thenWrites(booked("Ada")))

  it.effect("has no seat when it is full", () =>
    given(scheduled, booked("Ada"), booked("Grace")).when({ book: "Radia" }).thenFails(new FlightFull({ seats: 2 })))

  it.effect("has a seat again when one was released", () =>
    given(scheduled, booked("Ada"), booked("Grace"), new SeatReleased({ passenger: "Ada" }))
      .when({ book: "Radia" })
      .thenWrites(booked("Radia")))

  it.effect("releases no seat that nobody has", () => given(scheduled).when({ release: "Ada" }).thenNothing)
})

describe("a flight in a store", () => {
  it.effect("gives its seats to two of ten passengers", () =>
    Effect.gen(function*() {
      const flights = yield* Flights
      yield* flights.write("flight-1", new FlightScheduled({ seats: 2 }))
      const bookings = Array.from({ length: 10 }, (_, i) => decide("flight-1", { book: `passenger ${i}` }))
      const results = yield* Effect.forEach(bookings, Effect.result, { concurrency: "unbounded" })
      assert.lengthOf(results.filter(({ _tag }) => _tag === "Success"), 2)
      const messages = yield* Stream.runCollect(flights.read("flight-1"))
      assert.deepStrictEqual(messages.map(({ message }) => message._tag), [
        "FlightScheduled",
        "SeatBooked",
        "SeatBooked"
      ])
    }).pipe(Effect.provide(Flights.layerMemory)))
})
