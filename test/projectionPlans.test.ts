/** The plans of what projects, made while tables were empty. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Partitioner } from "effect-message-store"
import { assertLinked, fill, hold, moved, several, test } from "./support/links.ts"
import { Transfers } from "./support/transfers.ts"

const inSql = { name: "a", patterns: "%", partitioner: Partitioner.constant() }
const inCode = { name: "a", patterns: "%", partitioner: () => 0 }
const definitions = [["in the database", inSql], ["in the application", inCode]] as const

describe("PostgreSQL", () => {
  describe("plans", () => {
    const total = 200_000

    for (const [where, definition] of definitions) {
      test(`made on empty tables do not scan them as they grow, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          // One connection for all, so that statistics are complete when it has sent its own; and one elsewhere.
          const sql = yield* PgClient.PgClient
          const elsewhere = yield* Layer.build(
            Layer.fresh(Layer.provideMerge(Transfers.layer, PgClient.layer(sql.config)))
          )
          const stream = yield* transfers.aggregatedStream(definition)
          // Nobody but this session looks at the tables, or makes it plan anew.
          for (const table of ["depeche_msgs_transfers", "depeche_stream_a", "depeche_stream_a_maxpos"]) {
            yield* sql`alter table ${sql(table)} set (autovacuum_enabled = false)`
          }
          // More often than a custom plan is tried, on messages that are rolled back.
          for (let i = 0; i < 12; i++) {
            yield* Effect.ignore(
              transfers.withTransaction(Effect.andThen(transfers.write("s", moved()), Effect.fail(0)))
            )
            assert.include(yield* stream.projector.runOnce, { linked: 0 })
          }
          yield* fill(total, 100)
          yield* sql`insert into depeche_stream_a
            select message_id, stream, version, 0, row_number() over (order by global_position) - 1,
              occurred_at, global_position, added_at from depeche_msgs_transfers`
          yield* sql`insert into depeche_stream_a_maxpos values (0, ${total - 1})`
          // A mark below whatever other tests have open: none of it has a position here.
          yield* sql`update effect_message_store_projection_a set seen = pg_current_snapshot(), target = null,
            marked = array['3'::xid8, pg_current_xact_id()], marks = array_fill(${BigInt(total)}::bigint, array[2])`
          // A late transaction makes the next round look back, and look links up.
          const release = yield* Effect.provide(
            hold(Effect.flatMap(Transfers, (store) => store.write("late", moved()))),
            elsewhere
          )
          yield* transfers.write("early", several(500))
          assert.include(yield* stream.projector.runOnce, { linked: 500 })
          yield* release

          const statistics = Effect.andThen(
            sql`select pg_stat_force_next_flush()`,
            Effect.map(
              sql<{ readonly scans: number; readonly tuples: number }>`
                select (select sum(seq_scan)::int from pg_stat_user_tables
                    where relname in ('depeche_msgs_transfers', 'depeche_stream_a')) as scans,
                  (select sum(idx_tup_read)::int from pg_stat_user_indexes
                    where relname in ('depeche_msgs_transfers', 'depeche_stream_a')) as tuples`,
              ([row]) => row ?? assert.fail("no row")
            )
          )
          const before = yield* statistics
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          for (let i = 0; i < 3; i++) {
            yield* transfers.write("new", moved())
            assert.include(yield* stream.projector.runOnce, { linked: 1 })
          }
          const after = yield* statistics
          assert.strictEqual(after.scans, before.scans)
          assert.isBelow(after.tuples - before.tuples, 10_000)
          yield* assertLinked("a", total + 504)
        }), { maxConnections: 1 })
    }
  })
})
