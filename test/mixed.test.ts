/**
 * Sequences of everything that is done with a store come to the same in memory and in a database: every outcome, every read,
 * whatever a decision has seen. `MIXED_SEED` sets another seed than the fixed one; a failure tells the shortest sequence that
 * differs, and its seed.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Context, Effect, Equal, Layer, Queue } from "effect"
import type { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"
import { material, type Mixed, perform, Sequence, storeNamed } from "./support/mixing.ts"
import { pgliteLayer } from "./support/pglite.ts"

const seed = Number(process.env["MIXED_SEED"] ?? 1)

const openedInMemory = Effect.gen(function*() {
  const Store = storeNamed("mixed")
  return yield* Effect.provide(Store, yield* Layer.build(Layer.fresh(Store.layerMemory)))
})
const opened = Effect.fnUntraced(function*(name: string) {
  const Store = storeNamed(name)
  return yield* Effect.provide(Store, yield* Layer.build(Store.layer))
})

/** Stores that no sequence has at the moment. */
class Free extends Context.Service<Free, Queue.Queue<Mixed>>()("test/Free") {}

/** As many sequences at a time as there are stores: each has a store of its own, which it may truncate. */
const agrees = <E>(
  name: string,
  database: Layer.Layer<SqlClient.SqlClient, E>,
  { runs, stores }: { readonly runs: number; readonly stores: number }
) => {
  const free = Layer.effect(
    Free,
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Mixed>()
      for (let i = 0; i < stores; i++) yield* Queue.offer(queue, yield* opened(`mixed_${i}`))
      return queue
    })
  )
  layer(Layer.provide(free, database), { excludeTestServices: true, timeout: "3 minutes" })(name, (it) => {
    it.effect.prop(
      `agrees with memory on ${runs} sequences, from seed ${seed} on`,
      [Sequence],
      ([sequence]) =>
        Effect.gen(function*() {
          const queue = yield* Free
          const given = material()
          const inMemory = yield* perform(yield* openedInMemory, sequence, given)
          const stored = yield* Effect.acquireUseRelease(
            Queue.take(queue),
            (store) => perform(store, sequence, given),
            (store) => Queue.offer(queue, store)
          )
          if (!Equal.equals(stored, inMemory)) {
            assert.fail(`${JSON.stringify(stored)}\nin memory: ${JSON.stringify(inMemory)}`)
          }
        }).pipe(Effect.scoped),
      { arbitrary: { runs, seed, concurrency: stores, maxShrinks: 400 }, timeout: 300_000 }
    )
  })
}

describe("a sequence", () => {
  agrees("PostgreSQL", databaseLayer(), { runs: 2000, stores: 4 })
  agrees("PGlite", pgliteLayer, { runs: 150, stores: 1 })
})
