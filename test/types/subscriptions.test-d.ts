/** What the types of aggregated streams and subscriptions must be, and what must not compile. */
import { Context, Effect, Schedule, Schema } from "effect"
import type { Layer, Stream } from "effect"
import type {
  InvalidArgumentError,
  PartitionError,
  SequenceError,
  SerializationError,
  SetupError,
  StreamDefinitionError
} from "effect-message-store"
import { AggregatedStream, Handlers, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import type { SqlError } from "effect/sql/SqlError"

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <A, B>(_: Equal<A, B>): void => {}

class Placed extends Schema.TaggedClass<Placed>()("Placed", { ...Message.fields, amount: Schema.Int }) {}
class Shipped extends Schema.TaggedClass<Shipped>()("Shipped", { ...Message.fields, carrier: Schema.String }) {}
const OrderEvent = Schema.Union([Placed, Shipped])
type Order = Placed | Shipped
class Paid extends Schema.TaggedClass<Paid>()("Paid", { ...Message.fields }) {}

class Orders extends MessageStore.Service<Orders>()("test/Orders", { name: "orders", schema: OrderEvent }) {}
class ByCustomer extends AggregatedStream.Service<ByCustomer>()("test/ByCustomer", {
  store: Orders,
  name: "by_customer",
  patterns: ["order-%", "refund-%"],
  partitioner: ({ message }) => message._tag === "Placed" ? message.amount : 0
}) {}
class Invoices extends Subscription.Service<Invoices>()("test/Invoices", { stream: ByCustomer, name: "invoices" }) {}

declare const orders: Orders["Service"]
declare const stream: ByCustomer["Service"]
declare const subscription: Invoices["Service"]

class Mailer extends Context.Service<Mailer, {
  readonly send: (text: string) => Effect.Effect<void, "bounced">
}>()("test/Mailer") {}

// The types say all that can fail, and the class of what is read.
is<
  ReturnType<typeof stream.read>,
  Stream.Stream<Message.AggregatedMessage<Order>, InvalidArgumentError | SerializationError | SqlError>
>(true)
is<
  Effect.Error<typeof stream.projector.runOnce>,
  | PartitionError
  | SerializationError
  | SequenceError
  | SetupError
  | StreamDefinitionError
  | InvalidArgumentError
  | SqlError
>(true)
is<ReturnType<typeof orders.aggregatedStream>, ReturnType<Orders["Service"]["aggregatedStream"]>>(true)
is<Effect.Success<ReturnType<typeof orders.aggregatedStream>>, AggregatedStream.AggregatedStream<Order>>(true)
is<Effect.Success<ReturnType<typeof stream.subscription>>, Subscription.Subscription<Order>>(true)
is<typeof subscription.messages, Stream.Stream<Subscription.Unacknowledged<Order>, Subscription.RunError>>(true)
is<Layer.Services<typeof ByCustomer.layer>, Orders>(true)
is<typeof ByCustomer.migrations, typeof Orders.migrations>(true)
is<Layer.Services<typeof Invoices.layer>, ByCustomer>(true)

// A handler sees the message of its tag; what it needs is what the subscription needs, what it fails with is not.
const byTag = Invoices.handlers({
  Placed: (message, delivery) => {
    is<typeof message, Placed>(true)
    is<typeof delivery, Handlers.Delivery<Placed>>(true)
    return Effect.flatMap(Mailer, ({ send }) => send(`${message.amount}`))
  }
})
is<typeof byTag, Handlers.Handler<Order, "bounced", Mailer>>(true)
const running = subscription.run(byTag)
is<typeof running, Effect.Effect<never, Subscription.RunError, Mailer>>(true)
const layer = Invoices.layerHandler(byTag)
is<typeof layer, Layer.Layer<never, never, Invoices | Mailer>>(true)
const layerByTag = Invoices.layerHandlers({
  Placed: ({ amount }) => Effect.flatMap(Mailer, ({ send }) => send(`${amount}`))
}, {
  restart: Schedule.recurs(3).pipe(
    Schedule.setInputType<Subscription.RunError>(),
    Schedule.while(({ input }) => input._tag === "SqlError")
  )
})
is<typeof layerByTag, Layer.Layer<never, never, Invoices | Mailer>>(true)
const ofInstance = subscription.handlers({ Shipped: ({ carrier }) => Effect.succeed(carrier) })
is<typeof ofInstance, Handlers.Handler<Order>>(true)
const alone = Handlers.make<Order>()({ Placed: ({ amount }) => Effect.succeed(amount) })
is<typeof alone, Handlers.Handler<Order>>(true)
const inBatches = subscription.runBatches((deliveries) => {
  is<(typeof deliveries)[0], Handlers.Delivery<Order>>(true)
  return Effect.void
})
is<typeof inBatches, Effect.Effect<never, Subscription.RunError>>(true)
const timed = Handlers.around(byTag, (handling, { position }) => Effect.as(Effect.timeout(handling, 10), position))
is<Effect.Services<ReturnType<typeof timed>>, Mailer>(true)

// @ts-expect-error -- no such tag
Invoices.handlers({ Paid: () => Effect.void })
// @ts-expect-error -- a handler is an effect
Invoices.handlers({ Placed: () => 1 })
// @ts-expect-error -- no such tag
Invoices.layerHandlers({ Paid: () => Effect.void })
// @ts-expect-error -- messages of another store
void subscription.run((_: Paid) => Effect.void)
// @ts-expect-error -- a partition is a number
void orders.aggregatedStream({ name: "a", patterns: "%", partitioner: ({ stream: name }) => name })
// @ts-expect-error -- messages of another store
void orders.aggregatedStream({ name: "a", patterns: "%", partitioner: (_: Message.StoredMessage<Paid>) => 0 })
void orders.aggregatedStream({ name: "a", patterns: "%", partitioner: Partitioner.field("amount", 8) })
// @ts-expect-error -- no message has such a field
void orders.aggregatedStream({ name: "a", patterns: "%", partitioner: Partitioner.field("amuont", 8) })
// @ts-expect-error -- no pattern
void orders.aggregatedStream({ name: "a", patterns: [], partitioner: Partitioner.constant() })
// @ts-expect-error -- no such policy
void stream.subscription({ name: "a", onFailure: "ignore" })
// @ts-expect-error -- messages of another store
void ((_: AggregatedStream.AggregatedStream<Paid>) => 0)(stream)

const Country = Schema.Struct({ code: Schema.String, founded: Schema.DateTimeUtc })
class Moved extends Schema.TaggedClass<Moved>()("Moved", {
  ...Message.fields,
  address: Schema.Struct({ country: Schema.optional(Country), lines: Schema.Array(Schema.String) }),
  labels: Schema.Record(Schema.String, Schema.String),
  more: Schema.Unknown
}) {}
class Addresses extends MessageStore.Service<Addresses>()("test/Addresses", {
  name: "addresses",
  schema: Schema.Union([Moved, Paid])
}) {}
declare const addresses: Addresses["Service"]
const by = (partitioner: Parameters<typeof addresses.aggregatedStream>[0]["partitioner"]) =>
  void addresses.aggregatedStream({ name: "a", patterns: "%", partitioner })
by(Partitioner.field("_tag", 8))
by(Partitioner.field(["address"], 8))
by(Partitioner.field(["address", "country", "code"], 8))
by(Partitioner.field(["labels", "any"], 8))
by(Partitioner.field(["more", "any", "thing", "at", "all"], 8))
// @ts-expect-error -- a field of a field that is not there
by(Partitioner.field(["address", "county"], 8))
// @ts-expect-error -- nor deeper
by(Partitioner.field(["address", "country", "cod"], 8))
// @ts-expect-error -- text has no fields
by(Partitioner.field(["address", "country", "code", "length"], 8))
// @ts-expect-error -- a time is text
by(Partitioner.field(["address", "country", "founded", "epochMilliseconds"], 8))
// @ts-expect-error -- arrays have no fields
by(Partitioner.field(["address", "lines", "length"], 8))
class ByCountry extends AggregatedStream.Service<ByCountry>()("test/ByCountry", {
  store: Addresses,
  name: "by_country",
  patterns: "%",
  partitioner: Partitioner.field(["address", "country", "code"], 8)
}) {}
is<ByCountry["Service"], AggregatedStream.AggregatedStream<Moved | Paid>>(true)
void AggregatedStream.Service<ByCountry>()("test/ByCounty", {
  store: Addresses,
  name: "by_county",
  patterns: "%",
  // @ts-expect-error -- no such field
  partitioner: Partitioner.field(["address", "county"], 8)
})
// Of a store whose messages a serializer writes, nobody knows the fields; nor where only the messages are known.
declare const written: MessageStore.MessageStore<Paid>
void written.aggregatedStream({ name: "a", patterns: "%", partitioner: Partitioner.field(["any", "thing"], 8) })
const anyStore: MessageStore.MessageStore<Moved | Paid> = addresses
void anyStore.aggregatedStream({ name: "a", patterns: "%", partitioner: Partitioner.field("whatever", 8) })

// @ts-expect-error -- the class itself is missing
class _NoStream extends AggregatedStream.Service()("test/NoSelf", {
  store: Orders,
  name: "x",
  patterns: "%",
  partitioner: Partitioner.constant()
}) {}
// @ts-expect-error -- the class itself is missing
class _NoSubscription extends Subscription.Service()("test/NoSelf", { stream: ByCustomer, name: "x" }) {}
