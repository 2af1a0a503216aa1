/** What the types of folds and deciders must be, and what must not compile. */
import { Context, Effect, Schema } from "effect"
import { Decider, Fold, Message, MessageStore } from "effect-message-store"
import type { Scenario } from "effect-message-store/testing"

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <A, B>(_: Equal<A, B>): void => {}

class Placed extends Schema.TaggedClass<Placed>()("Placed", { ...Message.fields, id: Schema.String }) {}
class Shipped extends Schema.TaggedClass<Shipped>()("Shipped", { ...Message.fields }) {}
class Paid extends Schema.TaggedClass<Paid>()("Paid", { ...Message.fields }) {}
type Order = Placed | Shipped

class Orders extends MessageStore.Service<Orders>()("test/Orders", {
  name: "orders",
  schema: Schema.Union([Placed, Shipped])
}) {}
class Payments extends MessageStore.Service<Payments>()("test/Payments", { name: "payments", schema: Paid }) {}

declare const orders: Orders["Service"]
declare const payments: Payments["Service"]
class Full extends Schema.TaggedError<Full>()("Full", {}) {}

// A case sees the state, and the message of its tag; the fold names the messages that it has cases for.
const length = Fold.make<Order>()({
  initial: 0,
  Placed: (sum, placed) => {
    is<typeof placed, Placed>(true)
    is<typeof sum, number>(true)
    return sum + placed.id.length
  }
})
is<Fold.State<typeof length>, number>(true)
is<Fold.Message<typeof length>, Placed>(true)
const ids = Fold.make<Order>()({
  initial: [] as ReadonlyArray<string>,
  Placed: (sofar, { id }) => [...sofar, id],
  Shipped: () => []
})
is<Fold.State<typeof ids>, ReadonlyArray<string>>(true)
is<Fold.Message<typeof ids>, Order>(true)
const byHand: Fold.Fold<number, Paid> = { initial: 0, evolve: (sum) => sum + 1 }
is<Fold.Message<typeof byHand>, Paid>(true)

// @ts-expect-error -- no such tag
Fold.make<Order>()({ initial: 0, Nope: (sum) => sum })
// @ts-expect-error -- another state
Fold.make<Order>()({ initial: 0, Placed: () => "x" })

// A fold by tags takes the messages of any store, one by hand those of its type.
void orders.update("s", length, (sum) => Effect.succeed(new Placed({ id: `${sum}` })))
void payments.update("s", byHand, () => Effect.succeed([]))
// @ts-expect-error -- messages of another store
void orders.update("s", byHand, () => Effect.succeed([]))

// A fold with snapshots is the fold that it was, and says what it keeps; the schema is of its state.
const keptLength = Fold.withSnapshot(length, { name: "length", schema: Schema.Number })
is<typeof keptLength extends typeof length ? true : false, true>(true)
is<Fold.State<typeof keptLength>, number>(true)
is<Fold.Message<typeof keptLength>, Placed>(true)
void orders.update("s", keptLength, (sum) => Effect.succeed(new Placed({ id: `${sum}` })))
void Fold.withSnapshot(byHand, { name: "byHand", schema: Schema.Number, version: 2, every: 10 }).snapshot.every
const keptPlacing = Decider.make(keptLength, (id: string, sum) => sum > 3 ? [] : new Placed({ id }))
is<typeof keptPlacing.snapshot, Fold.Snapshot<number>>(true)
void orders.update("s", keptPlacing, (sum) => keptPlacing.decide("x", sum))
// @ts-expect-error -- not the schema of its state
void Fold.withSnapshot(length, { name: "length", schema: Schema.String })
// @ts-expect-error -- a schema that needs services
void Fold.withSnapshot(length, { name: "length", schema: null as unknown as Schema.Codec<number, number, Prices> })
// @ts-expect-error -- without a name
void Fold.withSnapshot(length, { schema: Schema.Number })

// A decider says what it writes, how it refuses, and what it needs.
class Prices extends Context.Service<Prices, { readonly max: number }>()("test/Prices") {}
const placing = Decider.make(length, ({ id }: { readonly id: string }, sum) => {
  is<typeof sum, number>(true)
  return sum > 3 ? new Full() : new Placed({ id })
})
const placed = orders.update("s", placing, (sum) => placing.decide({ id: "x" }, sum))
is<Effect.Error<typeof placed>, Full | MessageStore.WriteError>(true)
is<typeof placing extends Decider.Decider<number, { readonly id: string }, Placed, Full> ? true : false, true>(true)
const shipping = Decider.make(
  ids,
  (_: "ship", sofar) =>
    Effect.map(Prices, ({ max }) => sofar.length < max ? [new Shipped({}), new Placed({ id: "" })] : [])
)
const shipped = orders.update("s", shipping, (sofar) => shipping.decide("ship", sofar))
is<typeof shipped, Effect.Effect<MessageStore.Appended, MessageStore.WriteError, Prices>>(true)
// @ts-expect-error -- not a command of this decider
void placing.decide("ship", 0)
// @ts-expect-error -- writes messages of another store
void payments.update("s", placing, (sum) => placing.decide({ id: "x" }, sum))

// Its scenarios are given the messages of its fold, and refuse with its errors.
declare const of: typeof Scenario.of
const { given } = of(placing)
const then = given(new Placed({ id: "1" })).when({ id: "2" })
is<ReturnType<typeof then.thenWrites>, Effect.Effect<void>>(true)
void then.thenFails(new Full())
is<typeof then, Scenario.Then<Placed, Full, never>>(true)
// @ts-expect-error -- a message that the fold does not name
void given(new Paid({}))
// @ts-expect-error -- the decider writes no such message
void then.thenWrites(new Shipped({}))
// @ts-expect-error -- the decider never fails so
void then.thenFails(new Error("other"))

// So are those on a store: its messages, the errors of what is done, and the services that it needs beside the store.
declare const on: typeof Scenario.on
const onOrders = on(Orders, (id: string, count: number) =>
  Effect.gen(function*() {
    const { max } = yield* Prices
    if (count > max) return yield* new Full()
    yield* Effect.orDie((yield* Orders).write(id, new Placed({ id })))
  }))
const thenOnOrders = onOrders.given({ stream: "s", messages: [new Placed({ id: "1" }), new Shipped({})] }).when("s", 2)
is<typeof thenOnOrders, Scenario.Then<Scenario.InStream<Placed | Shipped>, Full, Prices>>(true)
is<typeof thenOnOrders.thenNothing, Effect.Effect<void, never, Prices>>(true)
// @ts-expect-error -- a message of another store
void onOrders.given({ stream: "s", messages: new Paid({}) })
// @ts-expect-error -- not what it is called with
void onOrders.given().when("s")
// @ts-expect-error -- it never fails so
void thenOnOrders.thenFails(new Error("other"))
