/**
 * What the layers would run, as a script for those who run migrations themselves. Processes use `layerNoMigrations` then.
 *
 *   node --conditions=@effect-message-store/source examples/15-print-migrations.ts > migrations.sql
 */
import { Console, Effect, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  customer: Schema.String
}) {}

class Orders extends MessageStore.Service<Orders>()("examples/MigratedOrders", {
  name: "orders",
  schema: OrderPlaced
}) {}

class ByCustomer extends AggregatedStream.Service<ByCustomer>()("examples/MigratedByCustomer", {
  store: Orders,
  name: "by_customer",
  patterns: "order-%",
  partitioner: Partitioner.field("customer", 16)
}) {}

class Invoices extends Subscription.Service<Invoices>()("examples/MigratedInvoices", {
  stream: ByCustomer,
  name: "invoices"
}) {}

const toScript = (of: string, migrations: ReadonlyArray<MessageStore.Migration>) =>
  migrations
    .map(({ id, name, statements }) => `-- ${of} ${id}: ${name}\nbegin;\n${statements.join(";\n\n")};\ncommit;\n`)
    .join("\n")

const program = Effect.gen(function*() {
  yield* Console.log(toScript("orders", yield* Orders.migrations))
  yield* Console.log(toScript("by_customer", yield* ByCustomer.migrations))
  yield* Console.log(toScript("invoices", yield* Invoices.migrations))
})

await Effect.runPromise(program)
