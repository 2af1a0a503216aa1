/** Those who write beside this library, and the sequence that all take their positions from: nothing is skipped in silence. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Schema } from "effect"
import { Message, MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import type { Connection } from "effect/sql/SqlConnection"
import { databaseLayer } from "./support/database.ts"
import { createDepecheStore } from "./support/depeche.ts"
import { assertLinked, moved, several, test } from "./support/links.ts"
import { Transfers } from "./support/transfers.ts"

const byAll = { name: "all", patterns: "%", partitioner: Partitioner.constant(1) }

class Noted extends Schema.TaggedClass<Noted>()("Noted", { ...Message.fields }) {}
class Ledger extends MessageStore.Service<Ledger>()("test/Ledger", { name: "ledger", schema: Noted }) {}

/** Python's statement, for a session that the test keeps. */
const pythonWrites = (session: Connection) =>
  Effect.suspend(() => {
    const { messageId } = new Noted({})
    const message = JSON.stringify({ _tag: "Noted", messageId, occurredAt: "2026-01-01T00:00:00.000Z" })
    return session.execute(
      "select version from depeche_write_message_ledger($1::uuid, 'python'::varchar, $2::text::json)",
      [messageId, message],
      undefined
    )
  })

describe("PostgreSQL", () => {
  describe("a sequence with a cache", () => {
    it.live("loses it when a store is adopted, and sessions lose what they have in stock", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* createDepecheStore("ledger")
        yield* sql`alter sequence depeche_msgs_ledger_global_seq cache 20`
        const write = pythonWrites(yield* sql.reserve)
        yield* write
        yield* Effect.gen(function*() {
          const ledger = yield* Ledger
          const stream = yield* ledger.aggregatedStream(byAll)
          yield* ledger.write("ours", new Noted({}))
          assert.include(yield* stream.projector.runOnce, { linked: 2 })
          yield* write
          yield* ledger.write("ours", new Noted({}))
          assert.include(yield* stream.projector.runOnce, { linked: 2 })
        }).pipe(Effect.provide(Ledger.layer))
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(databaseLayer()))))

    test("is refused when a store is opened, with what to do", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`alter sequence depeche_msgs_transfers_global_seq cache 20`
        for (const opening of [Transfers.layer, Transfers.layerNoMigrations]) {
          const error = yield* Effect.flip(Effect.provide(Effect.asVoid(Transfers), Layer.fresh(opening)))
          assert.strictEqual(error._tag, "SetupError")
          assert.include(error.message, "alter sequence depeche_msgs_transfers_global_seq cache 1")
        }
        yield* sql`alter sequence depeche_msgs_transfers_global_seq cache 1`
        yield* Effect.provide(Effect.asVoid(Transfers), Layer.fresh(Transfers.layer))
      }))
  })

  describe("a writer that inserts by itself", () => {
    test("is told which function to call, before it takes anything from a projection", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const sql = yield* SqlClient.SqlClient
        const stream = yield* transfers.aggregatedStream(byAll)
        yield* transfers.write("s", several(2))
        const [taken, written] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        // A position first, then another writer and a projection, then an id: as depeche_db does it by itself.
        const foreign = yield* Effect.forkChild(sql.withTransaction(Effect.gen(function*() {
          const [row] = yield* sql<{ readonly position: bigint }>`
            select nextval('depeche_msgs_transfers_global_seq') as position`
          yield* Deferred.succeed(taken, undefined)
          yield* Deferred.await(written)
          yield* sql`insert into depeche_msgs_transfers (message_id, global_position, stream, version, message)
            values (gen_random_uuid(), ${row?.position ?? 0n}, 'foreign', 1, '{}')`
        })))
        yield* Deferred.await(taken)
        yield* transfers.write("s", several(2))
        yield* stream.projector.runOnce
        yield* transfers.write("s", moved())
        yield* stream.projector.runOnce
        yield* Deferred.succeed(written, undefined)
        const error = yield* Effect.flip(Fiber.join(foreign))
        const { code, message } = Object(error.reason.cause)
        assert.strictEqual(code, "P0001")
        assert.strictEqual(
          message,
          "messages are not inserted into depeche_msgs_transfers directly: call depeche_write_message_transfers" +
            "(message_id, stream, message, expected_version)"
        )
        yield* assertLinked("all", 5)
      }))

    test("may bring back rows that were written by a function", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const sql = yield* SqlClient.SqlClient
        yield* transfers.write("s", several(3))
        yield* sql`create table saved as select * from depeche_msgs_transfers`
        yield* sql`update saved set tx = null where version = 1` // from before it was adopted
        yield* sql`truncate depeche_msgs_transfers`
        yield* sql`insert into depeche_msgs_transfers select * from saved`
        yield* transfers.write("s", moved(), { expectedVersion: 3 })
        const stream = yield* transfers.aggregatedStream(byAll)
        assert.include(yield* stream.projector.runOnce, { linked: 4 })
      }))
  })
})
