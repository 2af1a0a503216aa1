/** Projecting in another cluster than the one that gave messages their positions. */
import { assert, describe } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { assertLinked, fill, hold, inspect, moved, several, test } from "./support/links.ts"
import { Transfers } from "./support/transfers.ts"

const inSql = { name: "a", patterns: "%", partitioner: Partitioner.constant() }
const inCode = { name: "a", patterns: "%", partitioner: () => 0 }
const definitions = [["in the database", inSql], ["in the application", inCode]] as const

describe("PostgreSQL", () => {
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
})
