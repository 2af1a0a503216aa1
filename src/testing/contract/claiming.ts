/** Subscriptions: who may handle a partition, and what is left when they stop. */
import { assert } from "@effect/vitest"
import { Deferred, Effect, Fiber, Latch } from "effect"
import type { Part } from "./fixture.ts"
import { type Account, during, type Handled, positions, recorder, subscribe, until } from "./subscription.ts"

export const claiming: Part = (it) => {
  it.effect("gives a partition to one consumer at a time, and to another when it is done", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ concurrency: 2 })
      const subscription = yield* make()
      for (const partition of [0, 1, 2, 3]) yield* write(partition, 3)
      const busy = new Set<number>()
      const gate = Latch.makeUnsafe(false)
      const record = recorder()
      let most = 0
      const handler = (message: Account, delivery: Handled) =>
        Effect.gen(function*() {
          assert.isFalse(busy.has(delivery.partition))
          busy.add(delivery.partition)
          most = Math.max(most, busy.size)
          yield* gate.await
          busy.delete(delivery.partition)
          yield* record.handler(message, delivery)
        })
      yield* during(
        Effect.all([subscription.run(handler), subscription.run(handler)], { concurrency: 2 }),
        Effect.gen(function*() {
          yield* until(Effect.sync(() => busy.size === 4))
          assert.lengthOf((yield* subscription.status).filter(({ claimedBy }) => claimedBy !== undefined), 4)
          yield* gate.open
          yield* record.take(12)
        })
      )
      assert.strictEqual(most, 4)
      for (const partition of [0, 1, 2, 3]) assert.deepStrictEqual(record.seen(partition), positions(3))
    }))

  it.effect("finds free partitions behind many that are claimed", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ concurrency: 25 })
      const subscription = yield* make()
      for (let partition = 0; partition < 21; partition++) yield* write(partition, 2)
      const gate = Latch.makeUnsafe(false)
      const blocked = new Set<number>()
      const record = recorder()
      yield* during(
        subscription.run((message, delivery) =>
          Effect.gen(function*() {
            blocked.add(delivery.partition)
            yield* gate.await
            yield* record.handler(message, delivery)
          })
        ),
        Effect.gen(function*() {
          yield* until(Effect.sync(() => blocked.size === 21))
          const free = recorder()
          yield* write(21, 4)
          // Whichever of the two gets it, nobody waits for the others.
          yield* during(
            subscription.run(free.handler),
            until(Effect.sync(() => free.seen(21).length === 4 || blocked.has(21)))
          )
          yield* gate.open
          yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
        })
      )
    }))

  it.effect("acknowledges what was handled when it is interrupted, and leaves no claim", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ batchSize: 10 })
      yield* write(0, 10)
      const subscription = yield* make()
      const reached = yield* Deferred.make<void>()
      const running = yield* Effect.forkChild(
        subscription.run((_, { position }) =>
          position < 4 ? Effect.void : Effect.andThen(Deferred.succeed(reached, undefined), Effect.never)
        )
      )
      yield* Deferred.await(reached)
      yield* Fiber.interrupt(running)
      const [status] = yield* subscription.status
      assert.include(status, { checkpoint: 3, claimedBy: undefined })
      const record = recorder()
      yield* during(subscription.run(record.handler), record.take(6))
      assert.deepStrictEqual(record.seen(0), positions(6, 4))
    }))
}
