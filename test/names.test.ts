/** Names of stores, aggregated streams and subscriptions: how long they may be, and whose objects they must not touch. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Result } from "effect"
import { MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"
import { createDepecheStore } from "./support/depeche.ts"
import { moved } from "./support/links.ts"
import { Moved } from "./support/transfers.ts"

const storeNamed = (name: string) => {
  class Named extends MessageStore.Service<Named>()(`test/names/${name}`, { name, schema: Moved }) {}
  return Named
}

const test = (name: string, body: Effect.Effect<void, unknown, SqlClient.SqlClient>) =>
  it.live(name, () => Effect.provide(body, Layer.fresh(databaseLayer())))

const merged = { patterns: "%", partitioner: Partitioner.constant(1) }

const refusal = (result: Result.Result<unknown, unknown>): string =>
  Result.isSuccess(result) ? "not refused" : `${Object(result.failure)._tag}: ${Object(result.failure).message}`

/** What Python makes of an aggregated stream. */
const createDepecheStream = Effect.fnUntraced(function*(name: string) {
  const sql = yield* SqlClient.SqlClient
  const statements = [
    `create table depeche_stream_${name} (
      message_id uuid not null primary key, origin_stream varchar(255) not null, origin_stream_version integer not null,
      partition integer not null, position integer not null, message_occurred_at timestamp not null,
      origin_stream_global_position integer not null, origin_stream_added_at timestamp not null,
      constraint depeche_stream_${name}_uq unique (partition, position)
    )`,
    `create index on depeche_stream_${name} (origin_stream_global_position)`,
    `create table depeche_stream_${name}_maxpos (partition integer primary key, max_position integer not null)`
  ]
  for (const statement of statements) yield* sql.unsafe(statement).unprepared
})

describe("PostgreSQL", () => {
  describe("names", () => {
    test(
      "may be as long as depeche_db's own objects let them be, and are told apart",
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const names = ["1", "2"].map((last) => `${"long".repeat(9)}_x${last}`)
        for (const name of names) {
          const Store = storeNamed(name)
          assert.lengthOf(name, 39)
          yield* createDepecheStore(name)
          yield* Effect.gen(function*() {
            const store = yield* Store
            yield* store.write("s", [moved(), moved()])
            const stream = yield* store.aggregatedStream({ ...merged, name: `s${name}` })
            assert.include(yield* stream.projector.runOnce, { linked: 2 })
            const subscription = yield* stream.subscription({ name: `st${name}` })
            const handled = yield* Deferred.make<void>()
            yield* Effect.forkScoped(subscription.run(() => Effect.asVoid(Deferred.succeed(handled, undefined))))
            yield* Deferred.await(handled)
          }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Store.layer)))
        }
        const cut = yield* sql<{ readonly name: string }>`
        select relname::text as name from pg_class where relkind = 'r' and relname like 'effect_message%'`
        assert.lengthOf(new Set(cut.map(({ name }) => name)), cut.length)
        assert.isAbove(cut.length, 12)
      })
    )

    test(
      "of a store do not take what another store needs",
      Effect.gen(function*() {
        const Ledger = storeNamed("ledger")
        for (const name of ["ledger_global_seq", "ledger_version_uq", "ledger_pkey", "ledger_global_position_key"]) {
          const Other = storeNamed(name)
          for (const layer of [Other.layer, Other.layerMemory]) {
            const result = yield* Effect.result(Effect.provide(Effect.asVoid(Other), Layer.fresh(layer)))
            assert.include(refusal(result), `InvalidNameError: "${name}" must not end in`)
          }
        }
        yield* Effect.provide(Effect.flatMap(Ledger, (ledger) => ledger.write("s", moved())), Layer.fresh(Ledger.layer))
      })
    )

    test(
      "that Python gave stay, and what they would harm is refused",
      Effect.gen(function*() {
        yield* createDepecheStore("ledger_global_seq")
        const [Ledger, Other] = [storeNamed("ledger"), storeNamed("ledger_global_seq")]
        yield* Effect.provide(Effect.flatMap(Other, (other) => other.write("s", moved())), Layer.fresh(Other.layer))
        for (const layer of [Ledger.layer, Ledger.layerNoMigrations]) {
          const result = yield* Effect.result(Effect.provide(Effect.asVoid(Ledger), Layer.fresh(layer)))
          assert.strictEqual(
            refusal(result),
            "InvalidNameError: \"ledger\" cannot name the store: depeche_msgs_ledger_global_seq is something else in " +
              "this database"
          )
        }
      })
    )

    test(
      "of aggregated streams and subscriptions keep off each other's tables",
      Effect.gen(function*() {
        const Ledger = storeNamed("ledger")
        yield* createDepecheStream("x_maxpos")
        yield* Effect.gen(function*() {
          const ledger = yield* Ledger
          yield* ledger.write("s", [moved(), moved()])
          const pythons = yield* ledger.aggregatedStream({ ...merged, name: "x_maxpos" })
          assert.include(yield* pythons.projector.runOnce, { linked: 2 })
          const refused = yield* Effect.result(ledger.aggregatedStream({ ...merged, name: "x" }))
          assert.strictEqual(
            refusal(refused),
            "InvalidNameError: \"x\" cannot name the aggregated stream: depeche_stream_x_maxpos is something else in " +
              "this database"
          )
          assert.strictEqual((yield* pythons.statistics).messages, 2)
          yield* pythons.drop
          const ours = yield* ledger.aggregatedStream({ ...merged, name: "x" })
          yield* ours.projector.runOnce
          for (const name of ["x_maxpos", "x_uq", "x_pkey"]) {
            const result = yield* Effect.result(ledger.aggregatedStream({ ...merged, name }))
            assert.include(refusal(result), "InvalidNameError")
          }
          yield* ours.subscription({ name: "consumer" })
          assert.include(
            refusal(yield* Effect.result(ours.subscription({ name: "consumer_pkey" }))),
            "InvalidNameError"
          )
          assert.strictEqual((yield* ours.statistics).messages, 2)
        }).pipe(Effect.provide(Layer.fresh(Ledger.layer)))
      })
    )
  })
})
