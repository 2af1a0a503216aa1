/**
 * Sequences in which messages are deleted and redacted, among everything else that is done with a store, come to the same
 * everywhere: in memory what they come to in a store that remembers nothing, and in a database what they come to in memory.
 *
 * `FORGETTING_SEED` sets another seed than the fixed one, `FORGETTING_RUNS` how many sequences run, in memory and on PostgreSQL; a
 * failure tells the shortest sequence that differs, and its seed.
 */
import { assert, describe, it, layer } from "@effect/vitest"
import { Context, Effect, Equal, Layer, Queue } from "effect"
import { PgliteClient } from "effect-message-store/pglite"
import type { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"
import { ForgettingSequence, material, type Mixed, perform, storeNamed } from "./support/mixing.ts"
import { makeNaive } from "./support/naiveStore.ts"

const seed = Number(process.env["FORGETTING_SEED"] ?? 1)
const runs = process.env["FORGETTING_RUNS"]

const openedInMemory = Effect.gen(function*() {
  const Store = storeNamed("forgetting")
  return yield* Effect.provide(Store, yield* Layer.build(Layer.fresh(Store.layerMemory)))
})
const opened = Effect.fnUntraced(function*(name: string) {
  const Store = storeNamed(name)
  return yield* Effect.provide(Store, yield* Layer.build(Store.layer))
})

/** Without what errors say to people. */
const withoutReasons = (value: unknown): unknown =>
  Array.isArray(value)
    ? value.map(withoutReasons)
    : typeof value === "object" && value !== null
    ? Object.fromEntries(
      Object.entries(value).flatMap(([key, one]) => key === "reason" ? [] : [[key, withoutReasons(one)]])
    )
    : value

const assertSame = (actual: unknown, expected: unknown, where: string) => {
  if (!Equal.equals(actual, expected)) {
    assert.fail(`${JSON.stringify(actual)}\n${where}: ${JSON.stringify(expected)}`)
  }
}

/** Stores that no sequence has at the moment. */
class Free extends Context.Service<Free, Queue.Queue<Mixed>>()("test/Free") {}

const agrees = <E>(
  name: string,
  sql: Layer.Layer<SqlClient.SqlClient, E>,
  options: { readonly runs: number; readonly stores: number }
) => {
  const free = Layer.effect(
    Free,
    Effect.gen(function*() {
      const queue = yield* Queue.unbounded<Mixed>()
      for (let i = 0; i < options.stores; i++) yield* Queue.offer(queue, yield* opened(`forgetting_${i}`))
      return queue
    })
  )
  layer(Layer.provide(free, sql), { excludeTestServices: true, timeout: "1 minute" })(name, (database) => {
    database.effect.prop(
      `agrees with memory on ${options.runs} sequences, from seed ${seed} on`,
      [ForgettingSequence],
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
          assertSame(stored, inMemory, "in memory")
        }).pipe(Effect.scoped),
      { arbitrary: { runs: options.runs, seed, concurrency: options.stores, maxShrinks: 400 }, timeout: 1_200_000 }
    )
  })
}

const inMemoryRuns = Number(runs ?? 1000)

describe("a sequence with deletions and redactions", () => {
  it.live.prop(
    `in memory comes to what it comes to in a store that remembers nothing: on ${inMemoryRuns} sequences, from seed ${seed} on`,
    [ForgettingSequence],
    ([sequence]) =>
      Effect.gen(function*() {
        const given = material()
        const naive = makeNaive()
        const expected = yield* perform(naive.store, sequence, given, naive.truncate)
        const inMemory = yield* perform(yield* openedInMemory, sequence, given)
        assertSame(withoutReasons(inMemory), withoutReasons(expected), "in a naive store")
      }).pipe(Effect.scoped),
    { arbitrary: { runs: inMemoryRuns, seed, maxShrinks: 400 }, timeout: 1_200_000 }
  )

  agrees("PostgreSQL", databaseLayer(), { runs: Number(runs ?? 150), stores: 4 })
  agrees("PGlite", PgliteClient.layer(), { runs: 30, stores: 1 })
})
