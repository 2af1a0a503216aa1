/** Subscriptions: who may handle a partition, and what is left when they stop. */
import { assert } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Latch, Schedule } from "effect"
import * as Handlers from "../../Handlers.ts"
import { deposits, hurried, type Part } from "../fixture.ts"
import { type Account, during, type Handled, positions, recorder, subscribe, until } from "./fixture.ts"

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

  it.effect("handles what many partitions have in few slots: each in its order, once, by one consumer at a time", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream } = yield* subscribe({ concurrency: 4 })
      const all = positions(60)
      yield* accounts.writeAll(Arr.map(Arr.makeBy(60, origin), (name) => ({ stream: name, messages: deposits(2) })))
      yield* stream.projector.runOnce
      const subscription = yield* make()
      const busy = new Set<number>()
      const record = recorder()
      let most = 0
      const handler = (message: Account, delivery: Handled) =>
        Effect.gen(function*() {
          assert.isFalse(busy.has(delivery.partition))
          busy.add(delivery.partition)
          most = Math.max(most, busy.size)
          yield* Effect.yieldNow
          busy.delete(delivery.partition)
          yield* record.handler(message, delivery)
        })
      yield* during(
        Effect.all([subscription.run(handler), subscription.run(handler)], { concurrency: 2 }),
        until(Effect.map(subscription.lag, (lag) => lag === 0))
      )
      assert.isAtMost(most, 8)
      for (const partition of all) assert.deepStrictEqual(record.seen(partition), positions(2))
      for (const { checkpoint, claimedBy } of yield* subscription.status) {
        assert.deepStrictEqual([checkpoint, claimedBy], [1, undefined])
      }
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
      const { make, write } = yield* subscribe({ batchSize: 10, shutdownTimeout: 0 })
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

  it.effect("lets partitions take turns when there are more than places", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ concurrency: 1, batchSize: 20 })
      yield* write(0, 1000)
      const subscription = yield* make()
      const record = recorder()
      yield* during(
        hurried(subscription.run(Handlers.around(record.handler, Effect.delay("20 millis")))),
        Effect.gen(function*() {
          yield* record.take(1)
          yield* write(1, 1)
          yield* until(Effect.sync(() => record.seen(1).length > 0))
          assert.isBelow(record.seen(0).length, 1000)
          yield* until(Effect.sync(() => record.handled.at(-1)?.partition === 0))
        })
      )
    }))

  it.effect("handles nothing more of a batch whose part it may not acknowledge", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ batchSize: 3, retry: Schedule.recurs(3) })
      yield* write(0, 6)
      const subscription = yield* make()
      const calls: Array<number> = []
      yield* during(
        subscription.run((_, { position }) =>
          Effect.gen(function*() {
            calls.push(position)
            if (position !== 4 || calls.length > 5) return
            yield* Effect.orDie(subscription.reset())
            return yield* Effect.fail("no")
          })
        ),
        until(Effect.sync(() => calls.length === 11))
      )
      assert.deepStrictEqual(calls, [...positions(5), ...positions(6)])
    }))

  it.effect("begins again after a reset while it waits for messages", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ pollInterval: "50 millis" })
      const subscription = yield* make()
      const record = recorder()
      yield* write(0, 4)
      yield* during(
        subscription.run(record.handler),
        Effect.gen(function*() {
          for (const round of [1, 2]) {
            yield* until(Effect.sync(() => record.handled.length === 4 * round))
            yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
            if (round === 1) yield* subscription.reset()
          }
        }).pipe(Effect.timeout("10 seconds")) // long before an idle worker would leave by itself
      )
      assert.deepStrictEqual(record.seen(0), [...positions(4), ...positions(4)])
    }))
}
