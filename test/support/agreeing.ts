/** Sequences come in a database to what they come to in memory. */
import { assert, layer } from "@effect/vitest"
import { Context, Effect, Equal, Layer, Queue, type Schema } from "effect"
import type { SqlClient } from "effect/sql"
import { material, type Mixed, perform, storeNamed } from "./mixing.ts"

/** A store in memory, for one sequence. */
export const openedInMemory = Effect.gen(function*() {
  const Store = storeNamed("mixed")
  return yield* Effect.provide(Store, yield* Layer.build(Layer.fresh(Store.layerMemory)))
})

const opened = Effect.fnUntraced(function*(name: string) {
  const Store = storeNamed(name)
  return yield* Effect.provide(Store, yield* Layer.build(Store.layer))
})

export const assertSame = (actual: unknown, expected: unknown, where: string) => {
  if (!Equal.equals(actual, expected)) {
    assert.fail(`${JSON.stringify(actual)}\n${where}: ${JSON.stringify(expected)}`)
  }
}

/** Stores that no sequence has at the moment. */
class Free extends Context.Service<Free, Queue.Queue<Mixed>>()("test/Free") {}

/** As many sequences at a time as there are stores: each has a store of its own, which it may truncate. */
export const agrees = <E>(
  name: string,
  database: Layer.Layer<SqlClient.SqlClient, E>,
  { runs, seed, sequences, stores, timeout }: {
    readonly sequences: Schema.Schema<Parameters<typeof perform>[1]>
    readonly runs: number
    readonly seed: number
    readonly stores: number
    /** In milliseconds. */
    readonly timeout: number
  }
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
      [sequences],
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
      { arbitrary: { runs, seed, concurrency: stores, maxShrinks: 400 }, timeout }
    )
  })
}
