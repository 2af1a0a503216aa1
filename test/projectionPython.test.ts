/** Projecting a store and an aggregated stream that Python's depeche_db works on as well. */
import { assert, describe } from "@effect/vitest"
import { Effect, Fiber, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { createDepecheStore } from "./support/depeche.ts"
import { assertLinked, blocked, fill, hold, inspect, moved, several, test } from "./support/links.ts"
import { until } from "./support/processes.ts"
import {
  createDepecheStream,
  definitions,
  hear,
  inSql,
  python,
  pythonReads,
  pythonWrites
} from "./support/pythonProjector.ts"
import { Moved, Transfers } from "./support/transfers.ts"

describe("PostgreSQL", () => {
  describe("a store that Python reads", () => {
    for (const [where, definition] of definitions) {
      test(`has a message behind every link, whatever is deleted and redacted, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          const messages = several(6)
          yield* transfers.write("s", messages)
          yield* python(4)
          assert.include(yield* stream.projector.runOnce, { linked: 2 })
          yield* transfers.delete("s", { toVersion: 3 })
          yield* transfers.redact(
            messages.at(-1)?.messageId ?? "",
            (message) => message._tag === "Moved" ? new Moved({ ...message, amount: 77 }) : message
          )
          assert.deepStrictEqual((yield* pythonReads(0)).map(([position]) => position), [3, 4, 5])
          assert.deepStrictEqual((yield* pythonReads(5)).map(([, amount]) => amount), [77])
          // It writes on behind what is left, by its own function.
          yield* pythonWrites("s")
          const [head] = yield* sql<{ readonly version: number }>`
            select max(version) as version from depeche_msgs_transfers where stream = 's'`
          assert.strictEqual(head?.version, 7)

          // Deleted, and not committed: no projector links it meanwhile, and Python's gives way.
          const commit = yield* hold(transfers.delete("s", { toVersion: 7 }))
          const refused = yield* Effect.flip(python(10))
          assert.deepInclude<object>(Object(refused.reason.cause), { code: "55P03" })
          const projecting = yield* Effect.forkChild(stream.projector.runOnce)
          yield* blocked("effect_message_store_")
          yield* commit
          assert.include(yield* Fiber.join(projecting), { linked: 0 })
          yield* python(10)
          assert.deepStrictEqual(yield* pythonReads(0), [])
          yield* pythonWrites("s")
          yield* python(10)
          assert.deepStrictEqual((yield* pythonReads(0)).map(([position]) => position), [6])
          assert.include(yield* stream.projector.runOnce, { linked: 0 })
        }))
    }
  })

  describe("a projector beside Python's", () => {
    for (const [where, definition] of definitions) {
      test(`goes on behind what that one has linked, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(10))
          yield* python(4)
          assert.include(yield* stream.projector.runOnce, { linked: 6 })
          yield* assertLinked("a", 10)
          for (let round = 1; round <= 5; round++) {
            yield* transfers.write("s", several(4))
            yield* transfers.write("t", several(4))
            if (round > 2) yield* python(round)
            assert.include(yield* stream.projector.runOnce, { linked: round > 2 ? 8 - round : 8 })
            assert.include(yield* stream.projector.runOnce, { linked: 0 })
            yield* assertLinked("a", 10 + 8 * round)
          }
          yield* transfers.write("s", several(3))
          yield* python(3)
          assert.include(yield* stream.projector.runOnce, { linked: 0 })
          yield* transfers.write("s", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* assertLinked("a", 54)
        }))

      test(`goes on behind it in the middle of a round, and of a late transaction, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          yield* fill(3500, 10)
          yield* Stream.runDrain(stream.projector.pages.pipe(Stream.takeUntil(({ linked }) => linked > 0)))
          const { links } = yield* inspect("a")
          assert.isTrue(links >= 1000 && links < 2500, String(links))
          yield* python(300)
          assert.include(yield* stream.projector.runOnce, { linked: 3200 - links })
          yield* assertLinked("a", 3500)
          const release = yield* hold(transfers.write("late", several(3)))
          yield* transfers.write("early", several(3))
          assert.include(yield* stream.projector.runOnce, { linked: 3 })
          yield* release
          yield* transfers.write("early", moved())
          yield* python(2)
          assert.include(yield* stream.projector.runOnce, { linked: 2 })
          yield* assertLinked("a", 3507)
        }))

      test(`waits for that one's lock, and holds it itself, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const sql = yield* SqlClient.SqlClient
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(10))
          const release = yield* hold(sql`lock table depeche_stream_a in exclusive mode`)
          const waiting = yield* Effect.forkScoped(stream.projector.runOnce)
          const first = yield* blocked("effect_message_store_")
          // One statement, which waits; none is sent again and again.
          for (let look = 0; look < 100; look++) {
            assert.deepStrictEqual(yield* blocked("effect_message_store_"), first)
          }
          assert.lengthOf(first, 1)
          yield* transfers.write("s", moved()) // writers wait for nobody
          yield* release
          assert.isAtLeast((yield* Fiber.join(waiting)).linked, 10)
          yield* stream.projector.runOnce

          // A page that is stopped when it has linked, and before it ends.
          yield* transfers.write("s", moved())
          const releaseMaxima = yield* hold(sql`lock table depeche_stream_a_maxpos in share mode`)
          const linking = yield* Effect.forkScoped(stream.projector.runOnce)
          yield* blocked("effect_message_store_")
          const error = yield* Effect.flip(python(1))
          assert.strictEqual(Object(error.reason.cause).code, "55P03")
          yield* releaseMaxima
          assert.include(yield* Fiber.join(linking), { linked: 1 })
          yield* python(1)
          yield* assertLinked("a", 12)
        }))

      for (const made of ["here", "by depeche_db"]) {
        test(`links what Python writes to a store made ${made}, partitioned ${where}`, () =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            if (made !== "here") {
              for (
                const statement of [
                  "drop table depeche_msgs_transfers, effect_message_store_migrations_transfers",
                  "drop sequence depeche_msgs_transfers_global_seq",
                  "drop function depeche_write_message_transfers"
                ]
              ) yield* sql.unsafe(statement)
              const { messageId } = moved()
              const message = { _tag: "Moved", messageId, occurredAt: "2026-01-01T00:00:00.000Z", amount: 1 }
              yield* createDepecheStore("transfers", [{ message_id: messageId, stream: "s", version: 1, message }])
            } else yield* pythonWrites("s")
            yield* Effect.gen(function*() {
              const transfers = yield* Transfers
              const stream = yield* transfers.aggregatedStream(definition)
              yield* transfers.write("s", moved(), { expectedVersion: 1 })
              yield* pythonWrites("s")
              assert.include(yield* stream.projector.runOnce, { linked: 3 })
              // Python's transaction has its id, and then its position, late.
              const release = yield* hold(Effect.andThen(pythonWrites("late"), pythonWrites("later")))
              yield* pythonWrites("s")
              yield* transfers.write("s", moved(), { expectedVersion: 4 })
              assert.include(yield* stream.projector.runOnce, { linked: 2 })
              yield* release
              assert.include(yield* stream.projector.runOnce, { linked: 2 })
              yield* assertLinked("a", 7)
              assert.lengthOf(yield* Stream.runCollect(stream.read(7)), 7)
            }).pipe(Effect.provide(Layer.fresh(Transfers.layer)))
          }))
      }
    }
  })

  for (const made of ["here", "by depeche_db"]) {
    test(`Python's projector wakes who listens to a stream made ${made}, once a statement; ours does so after the commit`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const transfers = yield* Transfers
        if (made !== "here") yield* createDepecheStream
        const stream = yield* transfers.aggregatedStream(inSql)
        const subscription = yield* stream.subscription({ name: "listening", pollInterval: "1 day" })
        let handled = 0
        yield* Effect.forkScoped(subscription.run(() => Effect.sync(() => handled++)))
        const heard = yield* hear("depeche_a_messages")
        yield* until(
          "it listens",
          Effect.map(sql`select pg_notify('depeche_a_messages', '{}')`, () => heard.length > 0)
        )
        // What was sent until it listened is heard first.
        const told = Effect.sync(() => heard.filter((each) => "partition" in each))

        yield* transfers.write("s", several(250))
        yield* python(150, 7)
        yield* python(100, 8)
        yield* until("both are heard", Effect.map(told, ({ length }) => length >= 2))
        yield* until("the subscription is woken", Effect.sync(() => handled === 250))
        const ids = yield* sql<{ readonly id: string }>`select message_id::text as id from depeche_stream_a
          where (partition, position) in ((7, 149), (8, 99)) order by partition`
        assert.deepStrictEqual(yield* told, [
          { message_id: ids[0]?.id, partition: 7, position: 149 },
          { message_id: ids[1]?.id, partition: 8, position: 99 }
        ])

        yield* transfers.write("s", several(3))
        yield* stream.projector.runOnce
        yield* until("ours is heard", Effect.map(told, ({ length }) => length >= 3))
        yield* sql`select pg_notify('depeche_a_messages', '{"partition":"the end"}')`
        yield* until("the end is heard", Effect.map(told, (all) => all.at(-1)?.["partition"] === "the end"))
        assert.deepStrictEqual(
          (yield* told).slice(2).map(({ partition, position }) => [partition, position]),
          [[7, 152], ["the end", undefined]]
        )
        // Python would call it for each row.
        const rowTriggers = yield* sql`select tgname from pg_trigger
          where tgrelid = 'depeche_stream_a'::regclass and not tgisinternal and tgtype & 1 = 1`
        assert.deepStrictEqual(rowTriggers, [])
      }))
  }

  test("takes the indexes of an adopted stream that are there, and leaves nothing of it when it is dropped", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const transfers = yield* Transfers
      yield* createDepecheStream
      const stream = yield* transfers.aggregatedStream(inSql)
      const [indexes] = yield* sql<{ readonly count: number }>`select count(*)::int as count from pg_indexes
        where tablename = 'depeche_stream_a' and indexdef like '%(origin_stream_global_position)'`
      assert.deepStrictEqual(indexes, { count: 1 })
      yield* stream.drop
      assert.deepStrictEqual(
        yield* sql`select relname::text as name from pg_class where relname like '%stream\_a%'
          union all select proname::text from pg_proc where proname like '%stream%\_a'`,
        []
      )
    }))

  test("goes on behind an older depeche_db's links, which had no _maxpos", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const transfers = yield* Transfers
      yield* transfers.write("s", several(6))
      yield* createDepecheStream
      yield* sql`drop table depeche_stream_a_maxpos`
      yield* sql`insert into depeche_stream_a
        select message_id, stream, version, 7, version - 1, occurred_at at time zone 'UTC', global_position,
          added_at at time zone 'UTC' from depeche_msgs_transfers where version <= 4`
      const stream = yield* transfers.aggregatedStream(inSql)
      assert.include(yield* stream.projector.runOnce, { linked: 2 })
      yield* assertLinked("a", 6)
    }))
})
