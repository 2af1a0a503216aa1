/**
 * Exactly once, into a table of your own: with transactional delivery, what a handler writes and how far the subscription
 * has come are one transaction. Whatever fails, at whatever moment, each payment is in the balance once.
 *
 *   node --conditions=@effect-message-store/source examples/07-exactly-once.ts
 */
import { Console, Effect, Layer, Ref, References, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { SqlClient } from "effect/sql"
import { layerDatabase } from "./database.ts"

class Paid extends Schema.TaggedClass<Paid>()("Paid", {
  ...Message.fields,
  cents: Schema.Int
}) {}

class Payments extends MessageStore.Service<Payments>()("examples/Payments", {
  name: "example_payments",
  schema: Paid
}) {}

class AllPayments extends AggregatedStream.Service<AllPayments>()("examples/AllPayments", {
  store: Payments,
  name: "example_all_payments",
  patterns: "account-%",
  partitioner: Partitioner.streamName(4)
}) {}

class Balances extends Subscription.Service<Balances>()("examples/Balances", {
  stream: AllPayments,
  name: "example_balances",
  delivery: "transactional"
}) {}

class PowerCut extends Schema.TaggedError<PowerCut>()("PowerCut", {}) {}

// Not idempotent at all: twice handled would be twice counted.
const addToBalance = Effect.fn("addToBalance")(function*(account: string, cents: number, calls: Ref.Ref<number>) {
  const sql = yield* SqlClient.SqlClient
  const call = yield* Ref.updateAndGet(calls, (count) => count + 1)
  yield* sql`insert into example_balance (account, cents) values (${account}, ${cents})
    on conflict (account) do update set cents = example_balance.cents + excluded.cents`
  // The balance is written, the message not acknowledged yet. At least once, this would be counted again.
  if (call % 7 === 0) return yield* new PowerCut()
})

const program = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const payments = yield* Payments
  const stream = yield* AllPayments
  const balances = yield* Balances
  // So that this example begins anew on a database where it ran before.
  yield* sql`drop table if exists example_balance`
  yield* sql`create table example_balance (account text primary key, cents int not null)`
  yield* truncate(payments)
  yield* stream.rebuild
  yield* balances.reset()

  yield* Effect.forEach(
    Array.from({ length: 60 }, (_, i) => i),
    (i) => payments.write(`account-${i % 3}`, new Paid({ cents: 100 + i })),
    { concurrency: 10 }
  )
  const { globalPosition } = yield* payments.write("account-0", new Paid({ cents: 1 }))
  yield* stream.projector.runOnce

  // Two at once, as two processes would be.
  const calls = yield* Ref.make(0)
  const consume = balances.run((message, delivery) => addToBalance(delivery.stream, message.cents, calls))
  yield* Effect.forkScoped(consume)
  yield* Effect.forkScoped(consume)
  yield* balances.waitUntilProcessed(globalPosition, "1 minute")
  yield* Effect.repeat(balances.lag, { until: (lag) => lag === 0, schedule: Schedule.spaced("20 millis") })

  const rows = yield* sql<{ readonly account: string; readonly cents: number }>`
    select account, cents from example_balance order by account`
  for (const { account, cents } of rows) yield* Console.log(`${account}: ${cents}`)
  yield* Console.log(
    (yield* Ref.get(calls)) > 61 ? "61 payments, in more than 61 calls, each counted once" : "nothing failed"
  )
}).pipe(
  Effect.scoped,
  Effect.provideService(References.MinimumLogLevel, "Error") // each failure would be logged as a warning
)

const Services = Balances.layer.pipe(
  Layer.provideMerge(AllPayments.layer),
  Layer.provideMerge(Payments.layer),
  Layer.provideMerge(layerDatabase())
)

await program.pipe(Effect.provide(Services), Effect.runPromise)
