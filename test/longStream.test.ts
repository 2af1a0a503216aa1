/** A stream of 100,000 messages is read in constant memory, while other queries run in the same transaction. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { backends } from "./support/backends.ts"

class Ticked extends Schema.TaggedClass<Ticked>()("Ticked", {
  ...Message.fields,
  count: Schema.Int,
  filling: Schema.String
}) {}

class Ticks extends MessageStore.Service<Ticks>()("test/Ticks", { name: "ticks", schema: Ticked }) {}

const total = 100_000
const batch = 2000

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

/** In MiB, of what is reachable. */
const heap = Effect.sync(() => {
  collectGarbage()
  return process.memoryUsage().heapUsed / 2 ** 20
})

for (const { layer, name } of backends) {
  describe(name, () => {
    it.live("reads 100,000 messages of a stream with the heap flat", () =>
      Effect.gen(function*() {
        const ticks = yield* Ticks
        const filling = "x".repeat(200)
        for (let written = 0; written < total; written += batch) {
          const messages = Array.from({ length: batch }, (_, i) => new Ticked({ count: written + i + 1, filling }))
          yield* ticks.write("long", messages as never, { expectedVersion: written })
        }
        yield* ticks.withTransaction(Effect.gen(function*() {
          let next = 1
          const heaps: Array<number> = []
          yield* ticks.read("long").pipe(Stream.runForEach(({ message, version }) => {
            if (version !== next || message.count !== next) {
              return Effect.die(new Error(`message ${message.count} at version ${version}, not ${next}`))
            }
            next++
            if (version % 10_000 !== 5000) return Effect.void
            return Effect.gen(function*() {
              heaps.push(yield* heap)
              yield* ticks.write("beside", new Ticked({ count: version, filling }))
              assert.strictEqual((yield* ticks.head("beside")).version, heaps.length)
            })
          }))
          assert.strictEqual(next, total + 1)
          const [first = 0] = heaps
          const highest = Math.max(...heaps)
          assert.isBelow(highest - first, 16, `heap in MiB: ${heaps.map((mib) => mib.toFixed(1)).join(" ")}`)
        }))
      }).pipe(Effect.provide(Layer.provide(Ticks.layerStorage, Layer.fresh(layer("ticks"))))), 240_000)
  })
}
