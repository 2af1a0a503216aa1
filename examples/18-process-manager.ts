/**
 * A process manager: what is reserved has to be paid in time, or the reservation expires. It is a transactional subscription,
 * which decides, writes and schedules in the transaction that acknowledges a message: whatever fails, whenever, each step is
 * taken once.
 *
 *   node --conditions=@effect-message-store/source examples/18-process-manager.ts
 */
import { Console, DateTime, type Duration, Effect, Layer, References, Schedule, Schema, Stream } from "effect"
import { AggregatedStream, Fold, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { layerDatabase } from "./database.ts"

class Reserved extends Schema.TaggedClass<Reserved>()("Reserved", {
  ...Message.fields,
  room: Schema.String,
  payBefore: Schema.DateTimeUtc
}) {}
class Paid extends Schema.TaggedClass<Paid>()("Paid", { ...Message.fields, cents: Schema.Int }) {}
class PaymentOverdue extends Schema.TaggedClass<PaymentOverdue>()("PaymentOverdue", { ...Message.fields }) {}
class Confirmed extends Schema.TaggedClass<Confirmed>()("Confirmed", { ...Message.fields }) {}
class Expired extends Schema.TaggedClass<Expired>()("Expired", { ...Message.fields }) {}
class RefundOwed extends Schema.TaggedClass<RefundOwed>()("RefundOwed", { ...Message.fields, cents: Schema.Int }) {}

const BookingEvent = Schema.Union([Reserved, Paid, PaymentOverdue, Confirmed, Expired, RefundOwed])
type BookingEvent = typeof BookingEvent.Type

export class Bookings extends MessageStore.Service<Bookings>()("examples/Bookings", {
  name: "example_bookings",
  schema: BookingEvent
}) {}

export class AllBookings extends AggregatedStream.Service<AllBookings>()("examples/AllBookings", {
  store: Bookings,
  name: "example_all_bookings",
  patterns: "booking-%",
  partitioner: Partitioner.streamName(4) // four workers at a time
}) {}

export class Payments extends Subscription.Service<Payments>()("examples/Payments", {
  stream: AllBookings,
  name: "example_payments",
  delivery: "transactional"
}) {}

/** Where a booking is. */
const booking = Fold.make<BookingEvent>()({
  initial: "open" as "open" | "confirmed" | "expired",
  Confirmed: () => "confirmed" as const,
  Expired: () => "expired" as const
})

/** Each step is a decision on the booking as it is when the step is taken: a payment may come with the deadline. */
const steps = Effect.map(Bookings, (bookings) =>
  Payments.handlers({
    Reserved: ({ payBefore }, { stream }) =>
      Effect.gen(function*() {
        const overdue = yield* Message.make(PaymentOverdue, {})
        yield* bookings.schedule(stream, overdue, { at: payBefore, key: `${stream} payment` })
      }),
    Paid: ({ cents }, { stream }) =>
      Effect.gen(function*() {
        yield* bookings.cancel(`${stream} payment`)
        yield* bookings.update(stream, booking, (state) =>
          state === "open"
            ? Message.make(Confirmed, {})
            : Message.make(RefundOwed, { cents }))
      }),
    PaymentOverdue: (_, { stream }) =>
      bookings.update(stream, booking, (state) => state === "open" ? Message.make(Expired, {}) : [])
  }))

/** All that runs: what links messages, what handles them, and what moves those that are due. */
export const managing = Layer.mergeAll(
  AllBookings.layerProjector(),
  Layer.unwrap(Effect.map(steps, (handler) => Payments.layerHandler(handler))),
  Bookings.layerScheduler()
)

export const reserve = Effect.fn("reserve")(function*(id: string, room: string, within: Duration.Input) {
  const bookings = yield* Bookings
  const payBefore = DateTime.addDuration(yield* DateTime.now, within)
  const reserved = yield* Message.make(Reserved, { room, payBefore })
  yield* bookings.write(`booking-${id}`, reserved, { expectedVersion: 0 })
})

export const pay = Effect.fn("pay")(function*(id: string, cents: number) {
  const bookings = yield* Bookings
  yield* bookings.write(`booking-${id}`, yield* Message.make(Paid, { cents }), { expectedVersion: "exists" })
})

export const eventsOf = Effect.fnUntraced(function*(id: string) {
  const bookings = yield* Bookings
  return (yield* Stream.runCollect(bookings.read(`booking-${id}`))).map(({ message }) => message._tag)
})

const program = Effect.gen(function*() {
  yield* reserve("1", "sea view", "1 hour")
  yield* reserve("2", "garden", "300 millis")
  yield* reserve("3", "attic", "300 millis")
  yield* pay("1", 12_000)
  const isOver = (id: string, end: string) =>
    Effect.repeat(eventsOf(id), { until: (events) => events.at(-1) === end, schedule: Schedule.spaced("20 millis") })
  yield* isOver("2", "Expired")
  yield* pay("2", 9000) // too late
  yield* isOver("2", "RefundOwed")
  yield* isOver("1", "Confirmed")
  yield* isOver("3", "Expired")
  for (const id of ["1", "2", "3"]) yield* Console.log(`booking ${id}: ${(yield* eventsOf(id)).join(", ")}`)
})

if (import.meta.main) {
  const services = Payments.layer.pipe(
    Layer.provideMerge(AllBookings.layer),
    Layer.provideMerge(Bookings.layer),
    Layer.provideMerge(layerDatabase())
  )
  const beginAnew = Effect.gen(function*() {
    yield* truncate(yield* Bookings)
    yield* (yield* AllBookings).rebuild
    yield* (yield* Payments).reset()
  })
  await Effect.runPromise(
    Effect.andThen(beginAnew, Effect.provide(program, managing)).pipe(
      Effect.provide(services),
      Effect.provideService(References.MinimumLogLevel, "Warn")
    )
  )
}
