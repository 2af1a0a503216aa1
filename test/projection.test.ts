/** What is PostgreSQL's own in projecting: who commits when, and where positions and pages end. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Stream } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { outsider } from "../src/testing/fixture.ts"
import { assertLinked, fill, hold, moved, rolledBack, several, test } from "./support/links.ts"
import { Transfers } from "./support/transfers.ts"

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
})
