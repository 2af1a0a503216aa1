/** A projection in memory, as an application tests its own, on a clock that stands still. */
import { assert, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Schema, Stream } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Projection } from "effect-message-store"
import { TestClock } from "effect/testing"

class Paid extends Schema.TaggedClass<Paid>()("Paid", { ...Message.fields, cents: Schema.Int }) {}

class Payments extends MessageStore.Service<Payments>()("test/Payments", { name: "payments", schema: Paid }) {}

class AllPayments extends AggregatedStream.Service<AllPayments>()("test/AllPayments", {
  store: Payments,
  name: "all_payments",
  patterns: "account-%",
  partitioner: Partitioner.streamName(4)
}) {}

class Balances extends Projection.Service<Balances>()("test/Balances", {
  stream: AllPayments,
  name: "balances",
  version: 1,
  model: Projection.state((): ReadonlyMap<string, number> => new Map())
}) {}

const handling = Balances.layerHandler((deliveries, balances) =>
  balances.update((before) => {
    const after = new Map(before)
    for (const { message, stream } of deliveries) after.set(stream, (after.get(stream) ?? 0) + message.cents)
    return after
  })
)

const layer = Layer.merge(AllPayments.layerProjector(), handling).pipe(
  Layer.provideMerge(Balances.layer),
  Layer.provideMerge(AllPayments.layer),
  Layer.provideMerge(Payments.layerMemory)
)

it.effect("keeps balances", () =>
  Effect.gen(function*() {
    const payments = yield* Payments
    const balances = yield* Balances
    yield* payments.write("account-1", new Paid({ cents: 100 }))
    yield* payments.write("account-2", new Paid({ cents: 200 }))
    yield* payments.write("account-1", new Paid({ cents: 1 }))
    const promoted = yield* Effect.forkChild(Stream.runDrain(balances.progress))
    yield* Effect.forkScoped(Effect.forever(Effect.andThen(TestClock.adjust("1 second"), Effect.yieldNow)))
    yield* Fiber.join(promoted)
    const { model } = yield* balances.promoted
    assert.deepStrictEqual(Object.fromEntries(yield* model.get), { "account-1": 101, "account-2": 200 })
    // Read what you wrote.
    const { globalPosition } = yield* payments.write("account-2", new Paid({ cents: 2 }))
    yield* balances.waitUntilProcessed(globalPosition, "1 hour")
    assert.strictEqual((yield* model.get).get("account-2"), 202)
  }).pipe(Effect.provide(layer)))
