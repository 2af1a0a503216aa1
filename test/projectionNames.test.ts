/** The names of stores and aggregated streams, which share a schema of the database. */
import { assert, describe } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { MessageStore, Partitioner } from "effect-message-store"
import { failsWith } from "../src/testing/fixture.ts"
import { assertLinked, moved, several, test } from "./support/links.ts"
import { Moved, Transfers } from "./support/transfers.ts"

const inSql = { name: "a", patterns: "%", partitioner: Partitioner.constant() }

describe("PostgreSQL", () => {
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
})
