/**
 * A read model with versions: a new one is built beside the one that readers see, and takes its place when it is level with
 * it. In an application there is one class, whose version is raised; here yesterday's build and today's run side by side, as
 * they do during a deploy.
 *
 *   node --conditions=@effect-message-store/source examples/17-projection.ts
 */
import { Console, Effect, Layer, References, Schema, Stream } from "effect"
import { AggregatedStream, type Handlers, Message, MessageStore, Partitioner, Projection } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { SqlClient } from "effect/sql"
import { layerDatabase } from "./database.ts"

class Paid extends Schema.TaggedClass<Paid>()("Paid", { ...Message.fields, cents: Schema.Int }) {}

class Payments extends MessageStore.Service<Payments>()("examples/Payments", {
  name: "example_paid",
  schema: Paid
}) {}

class AllPayments extends AggregatedStream.Service<AllPayments>()("examples/AllPayments", {
  store: Payments,
  name: "example_all_paid",
  patterns: "account-%",
  partitioner: Partitioner.streamName(4)
}) {}

class Yesterday extends Projection.Service<Yesterday>()("examples/Yesterday", {
  stream: AllPayments,
  name: "example_balances",
  version: 1,
  model: Projection.tables(
    ["balances"],
    ({ balances }) =>
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`create table ${sql(balances)} (account text primary key, cents int not null)`
      )
  )
}) {}

const yesterday = Yesterday.layerHandler((deliveries, { balances }) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      Effect.forEach(deliveries, ({ message, stream }) =>
        sql`insert into ${sql(balances)} as b (account, cents) values (${stream}, ${message.cents})
        on conflict (account) do update set cents = b.cents + excluded.cents`)
  )
)

class Balances extends Projection.Service<Balances>()("examples/Balances", {
  stream: AllPayments,
  name: "example_balances",
  version: 2, // it counts payments, too
  model: Projection.tables(
    ["balances"],
    ({ balances }) =>
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) =>
          sql`create table ${sql(balances)} (account text primary key, payments int not null, cents int not null)`
      )
  )
}) {}

const addAll = Effect.fn("addAll")(function*(balances: string, deliveries: ReadonlyArray<Handlers.Delivery<Paid>>) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`insert into ${sql(balances)} as b (account, payments, cents)
    select account, count(*), sum(cents)
    from unnest(${deliveries.map(({ stream }) => stream)}::text[], ${
    deliveries.map(({ message }) => message.cents)
  }::int[])
      paid(account, cents)
    group by account
    on conflict (account) do update set payments = b.payments + excluded.payments, cents = b.cents + excluded.cents`
})

const handling = Balances.layerHandler((deliveries, { balances }) => addAll(balances, deliveries))

/** Readers know no versions: they ask a view. */
const report = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql`select * from balances order by account`
  for (const row of rows) yield* Console.log(`  ${JSON.stringify(row)}`)
})

const program = Effect.gen(function*() {
  const payments = yield* Payments
  const pay = (count: number) =>
    Effect.forEach(
      Array.from({ length: count }, (_, i) => i),
      (i) => payments.write(`account-${i % 2}`, new Paid({ cents: 100 + i }))
    )
  const paid = yield* pay(20)
  const before = yield* Yesterday
  yield* Stream.runDrain(before.progress)
  // It is promoted as soon as it has what was there when its process began.
  yield* before.waitUntilProcessed(Math.max(...paid.map(({ globalPosition }) => globalPosition)), "10 seconds")
  yield* Console.log("version 1 is what readers see")
  yield* report

  // Today's build begins.
  yield* Effect.gen(function*() {
    const balances = yield* Balances
    const last = yield* Stream.runLast(balances.progress)
    yield* Console.log(last._tag === "Some" ? `version 2 is at ${last.value.percentage} %` : "nothing to be done")
    yield* report

    const { globalPosition } = yield* payments.write("account-0", new Paid({ cents: 1 }))
    yield* balances.waitUntilProcessed(globalPosition, "10 seconds") // to read what one has written
    yield* report

    // Something is wrong with it. Yesterday's build still runs, so that its version has the last payment too.
    yield* before.subscription.waitUntilProcessed(globalPosition, "10 seconds")
    yield* Console.log(`back to version ${yield* balances.rollback()}`)
    yield* report
  }).pipe(Effect.provide(Layer.provideMerge(handling, Balances.layer)))
})

/** So that this example begins anew on a database where it ran before. */
const beginAnew = Effect.gen(function*() {
  yield* truncate(yield* Payments)
  yield* (yield* AllPayments).rebuild
  yield* (yield* Yesterday).dropAll
}).pipe(Effect.provide(Yesterday.layer))

const stores = AllPayments.layer.pipe(
  Layer.provideMerge(Payments.layer),
  Layer.provideMerge(layerDatabase())
)

await Effect.runPromise(
  Effect.andThen(
    beginAnew,
    Effect.provide(
      program,
      Layer.fresh(Layer.mergeAll(AllPayments.layerProjector(), Layer.provideMerge(yesterday, Yesterday.layer)))
    )
  ).pipe(
    Effect.provide(stores),
    Effect.provideService(References.MinimumLogLevel, "Warn")
  )
)
