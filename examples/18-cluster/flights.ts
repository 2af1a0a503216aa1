/**
 * Flights whose commands go to entities of a cluster: those of one flight to one process, which has its state in memory.
 * `runner.ts` is such a process.
 */
import { Effect, Schema } from "effect"
import { Decider, Fold, Message, MessageStore } from "effect-message-store"
import { ClusterSchema, Entity } from "effect/cluster"
import { Rpc } from "effect/rpc"

class SeatBooked extends Schema.TaggedClass<SeatBooked>()("SeatBooked", {
  ...Message.fields,
  passenger: Schema.String
}) {}

export class Flights extends MessageStore.Service<Flights>()("examples/ClusterFlights", {
  name: "example_cluster_flights",
  schema: SeatBooked
}) {}

export class FlightFull extends Schema.TaggedError<FlightFull>()("FlightFull", {}) {}

export const seats = 20

// The ids of the commands that have booked a seat. A fold with a snapshot is remembered by the process that has decided on it.
const bookings = Fold.withSnapshot(
  Fold.make<SeatBooked>()({
    initial: [] as ReadonlyArray<string>,
    SeatBooked: (sofar, { messageId }) => [...sofar, messageId]
  }),
  { name: "bookings", schema: Schema.Array(Schema.String) }
)

interface Book {
  readonly id: string
  readonly passenger: string
}

// A command whose answer was lost comes again: the message has the id of the command, which so is carried out once.
export const booking = Decider.make(bookings, ({ id, passenger }: Book, sofar) => {
  if (sofar.includes(id)) return []
  return sofar.length < seats ? new SeatBooked({ messageId: id, passenger }) : new FlightFull()
})

// A command is kept in the cluster's storage until it is answered, and two of one id are one.
const BookSeat = Rpc.make("BookSeat", {
  payload: { id: Message.MessageId, passenger: Schema.String },
  success: Schema.Natural,
  error: FlightFull,
  primaryKey: ({ id }) => id
}).annotate(ClusterSchema.Persisted, true)

export const Flight = Entity.make("Flight", [BookSeat])

// The cluster sends the commands of a flight to one runner. Should two believe that it is theirs, the version that `update`
// expects lets one of them through, and the other decides again.
export const layerFlight = Flight.toLayer(Effect.gen(function*() {
  const flights = yield* Flights
  const { entityId } = yield* Entity.CurrentAddress
  return Flight.of({
    BookSeat: ({ payload }) =>
      flights.update(`flight-${entityId}`, booking, (sofar) => booking.decide(payload, sofar)).pipe(
        Effect.map(({ version }) => version),
        // What the database refuses ends the entity: it begins anew, with this command.
        Effect.catchIf((error) => error._tag !== "FlightFull", Effect.die)
      )
  })
}))
