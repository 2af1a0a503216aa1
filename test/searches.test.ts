/** What a page takes does not depend on how many messages there are, whatever the planner knows of them. */
import { assert, describe, layer } from "@effect/vitest"
import { Array as Arr, Effect, Layer, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"

class Sold extends Schema.TaggedClass<Sold>()("Sold", {
  ...Message.fields,
  shop: Message.tag("shop", Schema.String),
  day: Message.tag("day", Schema.Int)
}) {}

class Sales extends MessageStore.Service<Sales>()("test/Sales", { name: "sales", schema: Sold }) {}

const total = 6000
const streams = 10

/** How many rows of tables were fetched by indexes, and how many were looked at one after the other, by an effect. */
const fetched = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  const sql = yield* SqlClient.SqlClient
  const counters = Effect.gen(function*() {
    yield* sql`select pg_stat_force_next_flush()`
    yield* sql`select pg_stat_clear_snapshot()`
    const [row] = yield* sql<{ readonly sequential: number; readonly indexed: number }>`
      select sum(seq_tup_read)::int as sequential, sum(coalesce(idx_tup_fetch, 0))::int as indexed
      from pg_stat_user_tables where relname in ('depeche_msgs_sales', 'effect_message_store_tags_sales')`
    return row ?? { sequential: NaN, indexed: NaN }
  })
  const before = yield* counters
  const result = yield* effect
  const after = yield* counters
  return { result, sequential: after.sequential - before.sequential, indexed: after.indexed - before.indexed }
})

const live = { excludeTestServices: true }

// One connection: another one would count later.
const database = databaseLayer({ maxConnections: 1 })

describe("a store that was never analyzed", () => {
  layer(Sales.layer.pipe(Layer.provideMerge(database)), live)("on PostgreSQL", (it) => {
    const filled = Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const sales = yield* Sales
      for (const table of ["depeche_msgs_sales", "effect_message_store_tags_sales"]) {
        yield* sql`alter table ${sql(table)} set (autovacuum_enabled = off)`
      }
      if ((yield* sales.head("0-sales")).version > 0) return sales
      for (const page of Arr.chunksOf(Arr.range(1, total / streams), 100)) {
        yield* sql`select setval('depeche_msgs_sales_global_seq', nextval('depeche_msgs_sales_global_seq') + 2500)`
        yield* sales.writeAll(Arr.makeBy(streams, (i) => ({
          stream: `${i}-sales`,
          messages: Arr.map(page, (day) => new Sold({ shop: i < 5 ? "here" : "there", day }))
        })))
      }
      return sales
    })

    for (const direction of ["forward", "backward"] as const) {
      it.effect(`is read ${direction} by a pattern in pages that look at what they have`, () =>
        Effect.gen(function*() {
          const sales = yield* filled
          // More often than the driver's plans need to become generic ones.
          for (
            const [pattern, count] of Arr.makeBy(3, () => [["%", total], ["%-sales", total], ["_-no", 0]] as const)
              .flat()
          ) {
            const { indexed, result, sequential } = yield* fetched(Effect.scoped(Effect.flatMap(
              sales.reader,
              ({ readWildcard }) => Stream.runCount(readWildcard(pattern, { direction }))
            )))
            assert.deepStrictEqual([result, sequential], [count, 0])
            assert.isBelow(indexed, 2 * total) // a page may look at more than it has, up to a thousand
          }
        }))

      it.effect(`is read ${direction} by tags in pages that look at what they have`, () =>
        Effect.gen(function*() {
          const sales = yield* filled
          const asked = [
            { tags: { shop: "here" }, count: total / 2, each: 2 },
            { tags: { day: 7 }, count: streams, each: 2 },
            { tags: [{ shop: "here" }, { shop: "there" }], count: total, each: 4 }
          ] as const
          for (const { count, each, tags } of Arr.makeBy(3, () => asked).flat()) {
            const { indexed, result, sequential } = yield* fetched(
              Stream.runCount(sales.readTagged(tags, { direction, types: ["Sold"] }))
            )
            assert.deepStrictEqual([result, sequential], [count, 0])
            assert.isBelow(indexed, 1.1 * each * count + 2000)
          }
        }))
    }
  })
})
