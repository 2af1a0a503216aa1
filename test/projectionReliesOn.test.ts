/** What a projection relies on (the sequence, its rights, the identity of the table), and what it does where that fails. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { failsWith } from "../src/testing/fixture.ts"
import { assertLinked, fill, hold, moved, several, test } from "./support/links.ts"
import { Transfers } from "./support/transfers.ts"

const inSql = { name: "a", patterns: "%", partitioner: Partitioner.constant() }
const inCode = { name: "a", patterns: "%", partitioner: () => 0 }
const definitions = [["in the database", inSql], ["in the application", inCode]] as const

const sequence = "depeche_msgs_transfers_global_seq"

describe("PostgreSQL", () => {
  describe("a projection relies on a sequence", () => {
    for (const [where, definition] of definitions) {
      test(`without a cache: it refuses to go on until it has none, and misses nothing, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const sql = yield* SqlClient.SqlClient
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(3))
          yield* stream.projector.runOnce
          yield* sql`alter sequence ${sql(sequence)} cache 20`
          // Two sessions with stocks of positions, of which the first takes low ones after the second's high ones.
          const release = yield* hold(transfers.write("t", several(2)))
          yield* transfers.write("u", several(2))
          const { message } = yield* Effect.flip(stream.projector.runOnce)
          assert.include(message, `alter sequence ${sequence} cache 1`)
          yield* failsWith(stream.projector.runOnce, { _tag: "SequenceError", aggregatedStream: "a", sequence })
          yield* release
          yield* transfers.write("t", several(2))
          yield* failsWith(stream.projector.runOnce, { _tag: "SequenceError" })
          yield* sql`alter sequence ${sql(sequence)} cache 1`
          yield* transfers.write("u", several(2))
          yield* stream.projector.runOnce
          yield* assertLinked("a", 11)
          yield* Effect.forEach(["s", "t", "u"], (name) => transfers.write(name, moved()), { concurrency: 3 })
          assert.include(yield* stream.projector.runOnce, { linked: 3 })
          yield* assertLinked("a", 14)
        }))

      test(`that this role may read, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const sql = yield* PgClient.PgClient
          yield* transfers.write("s", several(3))
          yield* transfers.aggregatedStream(definition)
          const role = `projector_${globalThis.crypto.randomUUID().replaceAll("-", "")}`
          yield* sql`create role ${sql(role)} login password 'secret'`
          yield* Effect.addFinalizer(() =>
            Effect.ignore(Effect.andThen(sql`drop owned by ${sql(role)}`, sql`drop role ${sql(role)}`))
          )
          yield* sql`grant all on all tables in schema public to ${sql(role)}`
          const client = PgClient.layer({ ...sql.config, username: role, password: Redacted.make("secret") })
          yield* Effect.gen(function*() {
            const there = yield* Transfers
            const stream = yield* there.aggregatedStream(definition)
            yield* failsWith(stream.projector.runOnce, { _tag: "SequenceError", aggregatedStream: "a", sequence })
            assert.include(
              (yield* Effect.flip(stream.projector.runOnce)).message,
              `grant select on sequence ${sequence}`
            )
            yield* sql`grant select on sequence ${sql(sequence)} to ${sql(role)}`
            assert.include(yield* stream.projector.runOnce, { linked: 3 })
          }).pipe(Effect.provide(Layer.fresh(Layer.provideMerge(Transfers.layerNoMigrations, client))))
          yield* assertLinked("a", 3)
        }))

      test(`that is not set back: then it looks at all messages again, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const sql = yield* SqlClient.SqlClient
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(3))
          yield* sql`select setval(${sequence}, 1000)`
          yield* transfers.write("s", moved())
          yield* stream.projector.runOnce
          yield* sql`select setval(${sequence}, 100)`
          yield* transfers.write("s", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* transfers.write("s", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
        }))
    }
  })

  describe("what was seen of a table is known of that table alone:", () => {
    /** Messages of another cluster, whose transactions had low ids, as a dump brings them. */
    const arrive = (table: string) =>
      Effect.flatMap(
        SqlClient.SqlClient,
        (sql) =>
          sql`insert into ${sql(table)} (message_id, global_position, stream, version, message, occurred_at, tx)
          select gen_random_uuid(), 10 + i, 'elsewhere', i,
            '{"_tag":"Moved","messageId":"00000000-0000-4000-8000-000000000000","occurredAt":"2026-01-01T00:00:00Z","amount":1}',
            '2026-01-01T00:00:00Z', '10'
          from generate_series(1, 9) i`
      )

    const restores = [
      ["restored into a new table", (sql: SqlClient.SqlClient) =>
        Effect.gen(function*() {
          yield* sql`create table restored (like depeche_msgs_transfers including all)`
          yield* sql`insert into restored select * from depeche_msgs_transfers`
          yield* arrive("restored")
          yield* sql`drop table depeche_msgs_transfers`
          yield* sql`alter table restored rename to depeche_msgs_transfers`
        })],
      ["loaded again into the same one", (sql: SqlClient.SqlClient) =>
        Effect.gen(function*() {
          yield* sql`create table kept as table depeche_msgs_transfers`
          yield* sql`truncate depeche_msgs_transfers`
          yield* sql`insert into depeche_msgs_transfers select * from kept`
          yield* arrive("depeche_msgs_transfers")
        })]
    ] as const

    for (const [where, definition] of definitions) {
      for (const [how, restore] of restores) {
        test(`messages written elsewhere and ${how} are linked, partitioned ${where}`, () =>
          Effect.gen(function*() {
            const transfers = yield* Transfers
            const sql = yield* SqlClient.SqlClient
            const stream = yield* transfers.aggregatedStream(definition)
            yield* transfers.write("s", several(5))
            yield* stream.projector.runOnce
            yield* sql.withTransaction(restore(sql))
            yield* sql`select setval(${sequence}, 100)`
            assert.include(yield* stream.statistics, { messages: 5, waiting: 9 })
            assert.include(yield* stream.projector.runOnce, { linked: 9 })
            yield* transfers.write("s", several(2))
            assert.include(yield* stream.projector.runOnce, { linked: 2 })
            assert.include(yield* stream.projector.runOnce, { linked: 0 })
            yield* assertLinked("a", 16)
          }))
      }
    }
  })

  test("what waits is counted exactly as far as it is near, and never as nothing", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      const sql = yield* SqlClient.SqlClient
      const stream = yield* transfers.aggregatedStream({ ...inSql, patterns: "mine%" })
      const waiting = Effect.map(stream.statistics, (told) => told.waiting)
      yield* fill(100, 10, "mine")
      yield* stream.projector.runOnce
      yield* fill(9_000, 10, "others")
      assert.strictEqual(yield* waiting, 0)
      yield* fill(500, 10, "mine-too")
      assert.strictEqual(yield* waiting, 500)
      // Behind 10,000 messages, all count.
      yield* fill(20_000, 10, "many-others")
      assert.strictEqual(yield* waiting, 500 + 19_500)
      yield* stream.projector.runOnce
      assert.strictEqual(yield* waiting, 0)
      // Where Python links, and no projector of ours looks, links count all the same.
      yield* fill(2_000, 10, "mine-later")
      yield* sql`insert into depeche_stream_a
        select message_id, stream, version, 0, (select max_position from depeche_stream_a_maxpos)
            + row_number() over (order by global_position), occurred_at, global_position, added_at
        from depeche_msgs_transfers where stream like 'mine-later%' and version <= 150`
      assert.strictEqual(yield* waiting, 500)
    }))
})
