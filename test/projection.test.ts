/** What is PostgreSQL's own in projecting: who commits when, other clusters, names, and plans. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { failsWith, outsider } from "../src/testing/fixture.ts"
import { assertLinked, fill, hold, inspect, moved, rolledBack, several, test } from "./support/links.ts"
import { Moved, Transfers } from "./support/transfers.ts"

const inSql = { name: "a", patterns: "%", partitioner: Partitioner.constant() }
const inCode = { name: "a", patterns: "%", partitioner: () => 0 }
const definitions = [["in the database", inSql], ["in the application", inCode]] as const

const insertOther = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`insert into other values (1)`
})

describe("PostgreSQL", () => {
  describe("the commit-order race", () => {
    const takesId = ["a message", "another table", "a savepoint that is rolled back", "what is rolled back"] as const

    for (const [where, definition] of definitions) {
      for (const how of takesId) {
        test(`loses nothing when the id is taken by ${how}, partitioned ${where}`, () =>
          Effect.gen(function*() {
            const transfers = yield* Transfers
            const sql = yield* SqlClient.SqlClient
            const stream = yield* transfers.aggregatedStream(definition)
            yield* sql`create table other (n int)`
            const idTaken = Effect.map(
              sql<{ readonly id: string | null }>`select pg_current_xact_id_if_assigned()::text as id`,
              ([row]) => Number(row?.id ?? 0)
            )
            yield* transfers.write("common", several(2))
            const outside = yield* outsider
            const late = transfers.withTransaction(Effect.gen(function*() {
              if (how === "a message") yield* transfers.write("own", moved())
              else if (how === "a savepoint that is rolled back") {
                yield* Effect.ignore(sql.withTransaction(Effect.andThen(insertOther, Effect.fail(0))))
              } else yield* insertOther
              const id = yield* idTaken
              assert.isAbove(id, 0)
              const other = yield* outside(
                transfers.withTransaction(Effect.gen(function*() {
                  yield* transfers.write("early", several(2))
                  return yield* idTaken
                })).pipe(Effect.orDie)
              )
              assert.isAbove(other, id)
              assert.include(yield* outside(stream.projector.runOnce), { linked: 4 })

              yield* transfers.write("common", several(2), { expectedVersion: 2 })
              yield* transfers.write("own", moved())
              yield* transfers.withTransaction(Effect.gen(function*() {
                yield* transfers.write("own", moved())
                yield* Effect.ignore(
                  transfers.withTransaction(
                    Effect.andThen(transfers.write("own", several(2)), Effect.fail(0))
                  )
                )
                yield* transfers.write("common", moved())
              }))
              yield* outside(transfers.write("early", moved()))
              assert.include(yield* outside(stream.projector.runOnce), { linked: 1 })
              assert.include(yield* outside(stream.projector.runOnce), { linked: 0 })
              if (how === "what is rolled back") return yield* Effect.fail("rolled back")
            }))
            const exit = yield* Effect.exit(late)
            const expected = how === "what is rolled back" ? 0 : how === "a message" ? 6 : 5
            assert.strictEqual(Exit.isSuccess(exit), expected > 0)
            assert.include(yield* stream.projector.runOnce, { linked: expected })
            yield* assertLinked("a", 5 + expected)
            yield* transfers.write("own", moved())
            assert.include(yield* stream.projector.runOnce, { linked: 1 })
            assert.include(yield* stream.projector.runOnce, { linked: 0 })
            yield* assertLinked("a", 6 + expected)
          }))
      }
    }
  })

  test("takes no mark that is ahead of the positions given out, whoever takes one at that moment", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      const sql = yield* SqlClient.SqlClient
      yield* transfers.aggregatedStream(inSql)
      const [began, finished] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const taking = yield* Effect.forkScoped(Effect.repeat(
        Effect.andThen(
          sql`select count(nextval('depeche_msgs_transfers_global_seq')) from generate_series(1, 20000)`,
          Deferred.succeed(began, undefined)
        ),
        { until: () => Deferred.isDone(finished) }
      ))
      yield* Deferred.await(began)
      // The mark that a first round would take, again and again: positions only rise.
      const [row] = yield* sql<{ readonly reads: number; readonly falls: number }>`
        select count(*)::int as reads, count(*) filter (where mark < before)::int as falls from (
          select mark, lag(mark) over (order by i) as before from (
            select i, (effect_message_store_round_a(p)).marks[1] as mark
            from generate_series(1, 150000) i, effect_message_store_projection_a p order by i
          ) taken
        ) compared`
      yield* Deferred.succeed(finished, undefined)
      yield* Fiber.join(taking)
      assert.deepStrictEqual(row, { reads: 150000, falls: 0 })
    }))

  describe("a transaction that stays open", () => {
    for (const [where, definition] of definitions) {
      test(`delays its own messages only, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const sql = yield* SqlClient.SqlClient
          const stream = yield* transfers.aggregatedStream(definition)
          const release = yield* hold(transfers.write("late", moved()))
          let looks = 0
          for (let round = 1; round <= 50; round++) {
            yield* transfers.write("early", moved())
            assert.include(yield* stream.projector.runOnce, { linked: 1 })
            const [row] = yield* sql<
              {
                readonly marked: number
                readonly marks: number
                readonly last_mark: bigint
                readonly open: number
                readonly seen: string
                readonly definition: string
              }
            >`select cardinality(marked) as marked, cardinality(marks) as marks, marks[cardinality(marks)] as last_mark,
                (select count(*)::int from pg_snapshot_xip(seen)) as open, seen::text, definition
              from effect_message_store_projection_a`
            if (row === undefined) return assert.fail("no row")
            // Transactions of the whole cluster count: other tests run beside this one.
            assert.isAtLeast(row.open, 1)
            assert.isAtMost(row.marks, row.open + 2)
            assert.strictEqual(row.marked, row.marks)
            // Where the next round would begin to look. Not if any other transaction has ended: that costs a look back.
            yield* transfers.write("early-too", moved())
            const [begun] = yield* rolledBack(sql<
              { readonly reached: string; readonly target: string | null; readonly ended: number }
            >`select round ->> 'from' as reached, round ->> 'target' as target, (
                select count(*)::int from pg_snapshot_xip(${row.seen}::text::pg_snapshot) x
                where pg_visible_in_snapshot(x, (round ->> 'target')::pg_snapshot)
              ) as ended from (
                select token::jsonb as round
                from effect_message_store_scan_a(${row.definition}, '{%}', null, 1000, 1000000) where token is not null
              ) begun`)
            assert.isString(begun?.target)
            if (begun?.ended === 0) {
              looks++
              // Or at the mark of the round before, a message earlier: another test may have taken an id between the last
              // one that ended and this round's.
              assert.isAtLeast(Number(begun.reached), Number(row.last_mark) - 1)
            }
            assert.include(yield* stream.projector.runOnce, { linked: 1 })
          }
          assert.isAbove(looks, 5)
          yield* release
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* assertLinked("a", 101)
          // Once it has been linked, nobody looks back any more.
          yield* transfers.write("early", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
        }))
    }
  })

  describe("in another cluster", () => {
    const restore = Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql`update depeche_msgs_transfers set tx = '900000000000'`
      yield* sql`update effect_message_store_projection_a set identity = 'elsewhere'`
    })

    for (const [where, definition] of definitions) {
      test(`links what was not linked, and what comes, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(30))
          assert.include(yield* stream.projector.runOnce, { linked: 30 })
          yield* transfers.write("s", several(7))
          yield* restore
          assert.include(yield* stream.projector.runOnce, { linked: 7 })
          yield* assertLinked("a", 37)
          for (let i = 0; i < 3; i++) {
            yield* transfers.write("s", moved())
            assert.include(yield* stream.projector.runOnce, { linked: 1 })
            assert.include(yield* stream.projector.runOnce, { linked: 0 })
          }
          yield* restore
          yield* transfers.write("t", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* assertLinked("a", 41)
        }))

      test(`goes on with a round that was half-way, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          yield* fill(4500, 10)
          yield* Stream.runDrain(
            stream.projector.pages.pipe(Stream.takeUntil(({ linked }) => linked > 0))
          )
          const { links } = yield* inspect("a")
          assert.isTrue(links >= 1000 && links < 4500, String(links))
          yield* restore
          yield* transfers.write("s-3", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 4501 - links })
          yield* transfers.write("s-4", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* assertLinked("a", 4502)
        }))

      test(`links what was written there to a stream that is new, or rebuilt, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const sql = yield* SqlClient.SqlClient
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(30))
          yield* stream.projector.runOnce
          yield* restore
          yield* transfers.write("s", several(2))
          const other = yield* transfers.aggregatedStream({ ...definition, name: "b" })
          for (const { name, projector, rebuild } of [stream, other]) {
            if (name === "a") assert.include(yield* rebuild, { linked: 32 })
            else assert.include(yield* projector.runOnce, { linked: 34 })
            const release = yield* hold(transfers.write("late", moved()))
            yield* transfers.write("s", moved())
            assert.include(yield* projector.runOnce, { linked: 1 })
            yield* release
            yield* projector.runOnce
          }
          assert.include(yield* stream.rebuild, { linked: 36 })
          assert.deepStrictEqual(
            yield* sql`select epoch::int from effect_message_store_projection_a`,
            [{ epoch: 30 }]
          )
          yield* other.projector.runOnce
          yield* assertLinked("a", 36)
          yield* assertLinked("b", 36)
        }))

      test(`waits for nobody who has a position already, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(3))
          yield* stream.projector.runOnce
          yield* restore
          const release = yield* hold(transfers.write("late", moved()))
          yield* transfers.write("s", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* release
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* assertLinked("a", 5)
        }))
    }
  })

  for (const [where, definition] of definitions) {
    test(`links messages that the sequence knows nothing of, partitioned ${where}`, () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const sql = yield* SqlClient.SqlClient
        yield* fill(2500, 10)
        yield* sql`select setval('depeche_msgs_transfers_global_seq', 1, false)` // as restored data leaves it
        const stream = yield* transfers.aggregatedStream(definition)
        assert.include(yield* stream.projector.runOnce, { linked: 2500, position: 2500, target: 2500 })
        yield* sql`select setval('depeche_msgs_transfers_global_seq', 2500)`
        yield* transfers.write("s-1", moved())
        assert.include(yield* stream.projector.runOnce, { linked: 1 })
        yield* assertLinked("a", 2501)
      }))
  }

  test("tells where each partition was at any global position", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      const stream = yield* transfers.aggregatedStream({
        ...inCode,
        partitioner: ({ globalPosition }) => globalPosition < 30 ? 0 : globalPosition % 3
      })
      yield* fill(120, 10)
      yield* stream.projector.runOnce
      const linked = yield* Effect.forEach([0, 1, 2], (partition) => Stream.runCollect(stream.read(partition)))
      for (let position = 0; position <= 121; position++) {
        assert.deepStrictEqual(
          Array.from(yield* stream.positionsAtGlobalPosition(position)),
          linked.map((messages, i) => [i, messages.findLastIndex((each) => each.globalPosition <= position)])
        )
      }
    }))

  test("reads no more into the application at a time than a page's bytes", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      const sql = yield* SqlClient.SqlClient
      const stream = yield* transfers.aggregatedStream({ ...inCode, patterns: "large" })
      yield* transfers.write("other", several(10))
      // A mebibyte each that does not compress, the last of them alone larger than a page.
      yield* sql`insert into depeche_msgs_transfers (message_id, global_position, stream, version, message, tx)
        select id, nextval('depeche_msgs_transfers_global_seq'), case when i % 2 = 0 then 'large' else 'none' end, i,
          json_build_object('_tag', 'Moved', 'messageId', id, 'occurredAt', '2026-01-01T00:00:00.000Z', 'amount', i,
            'noise', (select string_agg(sha512((i || '-' || n)::bytea)::text, '') from generate_series(1, size) n)), pg_current_xact_id()
        from (select i, gen_random_uuid() as id, case i when 24 then 50000 else 8192 end as size
          from generate_series(1, 25) i) given`
      yield* transfers.write("large", moved())
      const pages = yield* Stream.runCollect(stream.projector.pages)
      const linked = pages.map((page, i) => page.linked - (pages[i - 1]?.linked ?? 0)).filter((count) => count > 0)
      assert.strictEqual(linked.reduce((sum, count) => sum + count, 0), 13)
      assert.isAtLeast(linked.length, 3)
      assert.isAtMost(Math.max(...linked), 5)
      yield* assertLinked("a", 13, "large")
    }))

  describe("names", () => {
    class Ledger extends MessageStore.Service<Ledger>()("test/Ledger", { name: "ledger", schema: Moved }) {}
    const ledger = Effect.flatMap(Ledger, (store) => store.write("s", moved()))

    test("of stores and aggregated streams are apart, in the whole database", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const refused = (name: string) =>
          failsWith(transfers.aggregatedStream({ ...inSql, name }), { _tag: "InvalidNameError", identifier: name })
        yield* refused("transfers")
        yield* Effect.provide(ledger, Layer.fresh(Ledger.layer))
        yield* refused("ledger")
        assert.include(yield* (yield* transfers.aggregatedStream(inSql)).projector.runOnce, { linked: 0 })
      }))

    test("of an aggregated stream are refused to a store, until it is dropped", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const stream = yield* transfers.aggregatedStream({ ...inSql, name: "ledger" })
        yield* failsWith(Effect.provide(ledger, Layer.fresh(Ledger.layer)), {
          _tag: "InvalidNameError",
          identifier: "ledger"
        })
        yield* stream.drop
        yield* Effect.provide(ledger, Layer.fresh(Ledger.layer))
      }))

    for (const layer of [Ledger.layer, Ledger.layerNoMigrations]) {
      const which = layer === Ledger.layer ? "makes" : "does not make"

      test(`of an aggregated stream are refused to one of another store, which ${which} its objects itself`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          yield* Effect.provide(ledger, Layer.fresh(Ledger.layer))
          yield* transfers.write("s", several(2))
          const stream = yield* transfers.aggregatedStream(inSql)
          yield* Effect.gen(function*() {
            const store = yield* Ledger
            yield* failsWith(store.aggregatedStream(inSql), { _tag: "InvalidNameError", identifier: "a" })
            assert.include(yield* stream.projector.runOnce, { linked: 2 })
            yield* stream.drop
            if (layer === Ledger.layerNoMigrations) return
            const own = yield* store.aggregatedStream(inSql)
            assert.include(yield* own.projector.runOnce, { linked: 1 })
            yield* failsWith(transfers.aggregatedStream(inSql), { _tag: "InvalidNameError", identifier: "a" })
          }).pipe(Effect.provide(Layer.fresh(layer)))
        }))
    }

    test("may be taken by many at once who mean the same stream", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        yield* transfers.write("s", several(40))
        const streams = yield* Effect.all(
          Array.from({ length: 20 }, () => transfers.aggregatedStream(inSql)),
          { concurrency: "unbounded" }
        )
        // Each of its own process, as far as the database can tell.
        const other = Effect.flatMap(Transfers, (store) => store.aggregatedStream({ ...inSql, name: "b" }))
        yield* Effect.all(
          Array.from({ length: 20 }, () => Effect.provide(other, Layer.fresh(Transfers.layer))),
          { concurrency: "unbounded" }
        )
        const linked = yield* Effect.forEach(streams, ({ projector }) => projector.runOnce, {
          concurrency: "unbounded"
        })
        assert.strictEqual(linked.reduce((sum, progress) => sum + progress.linked, 0), 40)
        yield* assertLinked("a", 40)
      }), { maxConnections: 25 })
  })

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
