/**
 * A handler that writes to a table needs a database in its test too: PGlite is one, in the process of the test.
 *
 *   npm test -- test/examples.test.ts -t sales
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { PgliteClient } from "effect-message-store/pglite"
import { SqlClient } from "effect/sql"

class Sold extends Schema.TaggedClass<Sold>()("Sold", {
  ...Message.fields,
  product: Schema.String,
  cents: Schema.Int
}) {}

class Shop extends MessageStore.Service<Shop>()("examples/Shop", { name: "example_shop", schema: Sold }) {}

class Sales extends AggregatedStream.Service<Sales>()("examples/Sales", {
  store: Shop,
  name: "example_sales",
  patterns: "sale-%",
  partitioner: Partitioner.field("product", 4)
}) {}

class Turnover extends Subscription.Service<Turnover>()("examples/Turnover", {
  stream: Sales,
  name: "example_turnover",
  delivery: "transactional"
}) {}

// What the handler writes and the checkpoint are one transaction: the SqlClient is the one that the store has.
const addUp = Effect.fn("addUp")(function*({ cents, product }: Sold) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`insert into example_sums (product, cents) values (${product}, ${cents})
    on conflict (product) do update set cents = example_sums.cents + excluded.cents`
})

const createTable = Layer.effectDiscard(Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create table if not exists example_sums (product text primary key, cents int not null)`
}))

describe("sales", () => {
  const layer = Layer.mergeAll(Turnover.layer, createTable).pipe(
    Layer.provideMerge(Sales.layer),
    Layer.provideMerge(Shop.layer),
    Layer.provideMerge(PgliteClient.layer())
  )

  it.live("are added up by product", () =>
    Effect.gen(function*() {
      const shop = yield* Shop
      const sales = yield* Sales
      const turnover = yield* Turnover
      const sql = yield* SqlClient.SqlClient

      yield* shop.write("sale-1", [
        new Sold({ product: "lamp", cents: 4200 }),
        new Sold({ product: "bulb", cents: 300 })
      ])
      yield* shop.write("sale-2", new Sold({ product: "lamp", cents: 100 }))
      yield* sales.projector.runOnce
      // It runs until every message has been processed, and is interrupted then.
      const processed = Effect.repeat(turnover.lag, {
        until: (lag) => lag === 0,
        schedule: Schedule.spaced("20 millis")
      })
      yield* Effect.raceFirst(turnover.run(addUp), processed)

      assert.deepStrictEqual(yield* sql`select product, cents from example_sums order by product`, [
        { product: "bulb", cents: 300 },
        { product: "lamp", cents: 4300 }
      ])
    }).pipe(Effect.provide(layer)))
})
