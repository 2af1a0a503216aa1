/** What the types of decisions must be, and what must not compile. */
import { Context, Effect, Schema, type Stream } from "effect"
import { Decision, Fold, Message, MessageStore, type Reader } from "effect-message-store"

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <A, B>(_: Equal<A, B>): void => {}

class Added extends Schema.TaggedClass<Added>()("Added", { ...Message.fields, product: Schema.String }) {}
class Reserved extends Schema.TaggedClass<Reserved>()("Reserved", { ...Message.fields }) {}
class Paid extends Schema.TaggedClass<Paid>()("Paid", { ...Message.fields }) {}

class Shop
  extends MessageStore.Service<Shop>()("test/Shop", { name: "shop", schema: Schema.Union([Added, Reserved]) })
{}

declare const shop: Shop["Service"]
class OutOfStock extends Schema.TaggedError<OutOfStock>()("OutOfStock", {}) {}
class Prices extends Context.Service<Prices, { readonly max: number }>()("test/Prices") {}

const cart = Fold.make<Added>()({
  initial: [] as ReadonlyArray<string>,
  Added: (sofar, { product }) => [...sofar, product]
})
const stock = Fold.make<Added | Reserved>()({ initial: 7, Reserved: (sofar) => sofar - 1 })
const paid: Fold.Fold<number, Paid> = { initial: 0, evolve: (sum) => sum + 1 }

const sources = { cart: Decision.stream("cart-1", cart), stock: Decision.stream("stock-7", stock) }

// States by name; errors and requirements are those of the answer.
const decided = shop.decide(sources, (states) => {
  is<typeof states, { readonly cart: ReadonlyArray<string>; readonly stock: number }>(true)
  return states.stock > 0 ? { stream: "stock-7", messages: new Reserved({}) } : new OutOfStock()
})
is<typeof decided, Effect.Effect<ReadonlyArray<Message.MessagePosition>, MessageStore.DecideError | OutOfStock>>(true)

const priced = shop.decide(sources, ({ stock: left }) =>
  Effect.map(
    Prices,
    ({ max }) => left < max ? [{ stream: "cart-1", messages: [new Added({ product: "x" }), new Reserved({})] }] : []
  ))
is<typeof priced, Effect.Effect<ReadonlyArray<Message.MessagePosition>, MessageStore.DecideError, Prices>>(true)

const plain = shop.decide({ stock: Decision.stream("stock-7", stock) }, () => [])
is<typeof plain, Effect.Effect<ReadonlyArray<Message.MessagePosition>, MessageStore.DecideError>>(true)

// On one stream as well: a message, none, or an error; as it is, or by an effect.
const updated = shop.update("stock-7", stock, (left) => left > 0 ? new Reserved({}) : new OutOfStock())
is<typeof updated, Effect.Effect<MessageStore.Appended, MessageStore.WriteError | OutOfStock>>(true)
const byEffect = shop.update(
  "stock-7",
  stock,
  (left) => left > 9 ? [] : Effect.map(Prices, ({ max }) => left < max ? [new Reserved({})] : [])
)
is<typeof byEffect, Effect.Effect<MessageStore.Appended, MessageStore.WriteError, Prices>>(true)
// @ts-expect-error -- a message of another store
void shop.update("stock-7", stock, () => new Paid({}))

// @ts-expect-error -- messages of another store
void shop.decide({ paid: Decision.stream("s", paid) }, () => [])
// @ts-expect-error -- messages of another store
void shop.decide(sources, () => ({ stream: "s", messages: new Paid({}) }))
// @ts-expect-error -- no such source
void shop.decide(sources, ({ carts }) => carts)
// @ts-expect-error -- neither writes nor an effect
void shop.decide(sources, () => "stock-7")
// @ts-expect-error -- the conditions are what was read
void shop.decide(sources, () => ({ stream: "cart-1", messages: new Reserved({}), expectedVersion: 3 }))

class Tagged extends Schema.TaggedClass<Tagged>()("Tagged", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  at: Schema.optionalKey(Message.tag("at", Schema.DateTimeUtc))
}) {}
class Courses extends MessageStore.Service<Courses>()("test/Courses", {
  name: "courses",
  schema: Schema.Union([Tagged, Added])
}) {}
declare const courses: Courses["Service"]

// A tag changes nothing of its field's type; what is read is of the types that are asked for.
is<Tagged["course"], string>(true)
const allTagged = courses.readTagged({ course: "c1" })
is<typeof allTagged, Stream.Stream<Message.StoredMessage<Tagged | Added>, Reader.ReadTaggedError>>(true)
const ofType = courses.readTagged([{ course: "c1" }, { course: 7n }], { types: ["Tagged"], limit: 1 })
is<typeof ofType, Stream.Stream<Message.StoredMessage<Tagged>, Reader.ReadTaggedError>>(true)

// Messages have their tags if they are asked for, and only then.
const withTags = courses.readTagged({ course: "c1" }, { types: ["Tagged"], tags: true })
is<typeof withTags, Stream.Stream<Message.TaggedMessage<Tagged>, Reader.ReadTaggedError>>(true)
const readTags = courses.read("s", { tags: true, limit: 1 })
is<typeof readTags, Stream.Stream<Message.TaggedMessage<Tagged | Added>, Reader.ReadError>>(true)
const readPlain = courses.read("s", { tags: false, limit: 1 })
is<typeof readPlain, Stream.Stream<Message.StoredMessage<Tagged | Added>, Reader.ReadError>>(true)
declare const reader: Reader.Reader<Tagged | Added>
const byId = Effect.map(reader.getMessageById("", { tags: true }), ({ tags }) => tags)
is<Effect.Success<typeof byId>, ReadonlyArray<string>>(true)
const byIds = reader.getMessagesByIds([""], { tags: true })
is<Effect.Success<typeof byIds>, ReadonlyArray<Message.TaggedMessage<Tagged | Added>>>(true)
// @ts-expect-error -- they were not asked for
void Effect.map(reader.getMessageById(""), ({ tags }) => tags)

const taken = Fold.make<Tagged>()({ initial: 0, Tagged: (sofar) => sofar + 1 })
const subscribed = courses.decide(
  { taken: Decision.tagged({ course: "c1" }, taken), also: Decision.stream("s", taken) },
  (states) => {
    is<typeof states, { readonly taken: number; readonly also: number }>(true)
    return { stream: "s", messages: new Tagged({ course: "c1" }) }
  }
)
is<typeof subscribed, Effect.Effect<ReadonlyArray<Message.MessagePosition>, MessageStore.DecideError>>(true)

// @ts-expect-error -- a tag has a value
void courses.readTagged({ course: undefined })
// @ts-expect-error -- no tags at all
void courses.readTagged([])
// @ts-expect-error -- messages of another store
void courses.decide({ paid: Decision.tagged({ course: "c1" }, paid) }, () => [])
