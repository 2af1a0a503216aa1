/**
 * Messages stay as they were written; the schema that reads them changes. A renamed type, a renamed field, an added field,
 * and a shape that is another: old messages come back as today's classes, and what is written has today's shape.
 *
 *   node --conditions=@effect-message-store/source examples/12-schema-evolution.ts
 */
import { Console, Effect, Layer, Schema, SchemaTransformation, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { layerDatabase } from "./database.ts"

// Last year's build.

class OrderCreated extends Schema.TaggedClass<OrderCreated>()("OrderCreated", {
  ...Message.fields,
  client: Schema.String,
  dollars: Schema.Finite
}) {}

class ParcelSent extends Schema.TaggedClass<ParcelSent>()("ParcelSent", {
  ...Message.fields,
  parcel: Schema.String
}) {}

class LastYear extends MessageStore.Service<LastYear>()("examples/LastYear", {
  name: "example_evolving",
  schema: Schema.Union([OrderCreated, ParcelSent])
}) {}

// Today's build, on the same store.

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  customer: Schema.String,
  cents: Schema.Int,
  // An added field: messages that were written without it are read with the default.
  channel: Schema.String.pipe(Schema.withDecodingDefaultKey(Effect.succeed("web")))
}) {}

// Another shape: what the old fields are called and hold, and how today's follow from them.
const OrderPlacedInDollars = Schema.Struct({
  ...Message.fields,
  _tag: Schema.tag("OrderPlaced"),
  client: Schema.String,
  dollars: Schema.Finite
}).pipe(
  Schema.decodeTo(
    OrderPlaced,
    SchemaTransformation.transform({
      decode: ({ client, dollars, ...rest }) => ({ ...rest, customer: client, cents: Math.round(dollars * 100) }),
      // The way back is never taken: what is written has today's shape.
      encode: ({ cents, customer, ...rest }) => ({ ...rest, client: customer, dollars: cents / 100 })
    })
  )
)

class ParcelShipped extends Schema.TaggedClass<ParcelShipped>()("ParcelShipped", {
  ...Message.fields,
  trackingNumber: Schema.String
}) {}

class Today extends MessageStore.Service<Today>()("examples/Today", {
  name: "example_evolving",
  // A renamed type: the name that is stored, and the tag that stands for it today.
  aliases: { OrderCreated: "OrderPlaced", ParcelSent: "ParcelShipped" },
  schema: Schema.Union([
    OrderPlaced, // the first that fits is what is written
    OrderPlacedInDollars,
    // A renamed field whose stored name stays: `parcel` in the database, `trackingNumber` in the code.
    ParcelShipped.pipe(Schema.encodeKeys({ trackingNumber: "parcel" }))
  ])
}) {}

const program = Effect.gen(function*() {
  const lastYear = yield* LastYear
  const today = yield* Today

  const stream = `order-${crypto.randomUUID()}`
  yield* lastYear.write(stream, [
    new OrderCreated({ client: "Ada", dollars: 41.99 }),
    new ParcelSent({ parcel: "1Z999" })
  ])
  yield* today.write(stream, [
    new OrderPlaced({ customer: "Grace", cents: 1999, channel: "shop" }),
    new ParcelShipped({ trackingNumber: "1Z111" })
  ])

  yield* today.read(stream).pipe(Stream.runForEach(({ message, version }) => {
    switch (message._tag) {
      case "OrderPlaced":
        return Console.log(`${version}: ${message.customer} ordered for ${message.cents} cents, by ${message.channel}`)
      case "ParcelShipped":
        return Console.log(`${version}: parcel ${message.trackingNumber}`)
    }
  }))
})

const Services = Layer.mergeAll(LastYear.layer, Today.layer).pipe(Layer.provide(layerDatabase()))

await program.pipe(Effect.provide(Services), Effect.runPromise)
