/** What the types of decisions must be, and what must not compile. */
import { Context, Effect, Schema } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"

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
