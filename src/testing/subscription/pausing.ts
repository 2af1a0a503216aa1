/** Subscriptions that are paused: nothing is handled, by any consumer, until they are resumed. */
import { assert } from "@effect/vitest"
import { Effect, Latch, Schedule } from "effect"
import { failsWith, hurried, type Part } from "../fixture.ts"
import { during, type Handled, positions, recorder, subscribe, until } from "./fixture.ts"

export const pausing: Part = (it, { concurrentTransactions }) => {
  for (const delivery of ["atLeastOnce", "transactional"] as const) {
    it.effect(`finish the batch in hand, and begin no other: ${delivery}`, (context) =>
      Effect.gen(function*() {
        // What is in hand keeps its transaction open.
        if (delivery === "transactional" && !concurrentTransactions) return context.skip()
        const { make, write } = yield* subscribe({ delivery, batchSize: 2 })
        yield* write(0, 6)
        const subscription = yield* make()
        const record = recorder()
        const [reached, gate] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
        const handler = (message: Parameters<typeof record.handler>[0], delivered: Handled) =>
          delivered.partition === 0 && delivered.position === 0
            ? reached.open.pipe(Effect.andThen(gate.await), Effect.andThen(record.handler(message, delivered)))
            : record.handler(message, delivered)
        const statuses = Effect.map(subscription.status, (all) => all.find(({ partition }) => partition === 0))
        yield* during(
          Effect.all([subscription.run(handler), (yield* make()).run(handler)], { concurrency: 2 }),
          Effect.gen(function*() {
            yield* reached.await
            yield* subscription.pause({ partition: 0 })
            yield* gate.open
            yield* until(Effect.map(statuses, (status) => status?.claimedBy === undefined))
            assert.deepStrictEqual(record.seen(0), [0, 1])
            assert.include(yield* statuses, { checkpoint: 1 })
            // Others go on, and whoever looks for their messages sees those of this one.
            for (let round = 1; round <= 10; round++) {
              yield* write(1, 2)
              yield* until(Effect.sync(() => record.seen(1).length === 2 * round))
            }
            assert.deepStrictEqual(record.seen(0), [0, 1])
            assert.isTrue(yield* subscription.resume({ partition: 0 }))
            yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
          })
        )
        assert.deepStrictEqual(record.seen(0), positions(6))
      }))
  }

  it.effect("stay so for those who come later, and tell why", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ pollInterval: "1 day" })
      yield* write(0, 2)
      const subscription = yield* make()
      const pause = Effect.map(subscription.status, ([status]) => status?.paused)
      assert.isUndefined(yield* pause)
      yield* subscription.pause({ reason: "out of paper", by: "Ada" })
      const first = yield* pause
      assert.include(first, { reason: "out of paper", by: "Ada" })
      yield* subscription.pause({ partition: 0, reason: "another" })
      yield* subscription.pause({ by: "Grace" })
      assert.deepStrictEqual(yield* pause, { ...first, reason: undefined, by: "Grace" } as typeof first)
      yield* subscription.reset()
      const again = yield* make()
      const record = recorder()
      yield* during(
        again.run(record.handler),
        Effect.gen(function*() {
          yield* write(1, 1) // in a partition that nobody has paused by itself
          assert.isTrue(yield* subscription.resume())
          assert.isFalse(yield* subscription.resume())
          yield* Effect.timeout(until(Effect.sync(() => record.handled.length > 0)), "10 seconds")
          assert.deepInclude(yield* pause, { reason: "another", by: undefined })
          assert.deepStrictEqual([record.seen(0), record.seen(1)], [[], [0]])
          assert.isTrue(yield* again.resume({ partition: 0 }))
          yield* Effect.timeout(record.take(2), "10 seconds")
        })
      )
      assert.isUndefined(yield* pause)
      assert.deepStrictEqual(record.seen(0), positions(2))
    }))

  it.effect("leave the claims that they have, though there is nothing to handle", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ pollInterval: "1 day" })
      yield* write(0, 1)
      const subscription = yield* make()
      const claimedBy = Effect.map(subscription.status, ([status]) => status?.claimedBy)
      const record = recorder()
      yield* during(
        subscription.run(record.handler),
        Effect.gen(function*() {
          yield* record.take(1)
          yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
          assert.isDefined(yield* claimedBy)
          yield* subscription.pause()
          yield* Effect.timeout(until(Effect.map(claimedBy, (by) => by === undefined)), "10 seconds")
        })
      )
    }))

  it.effect("end a batch that takes long, and a message that is tried again and again", () =>
    Effect.gen(function*() {
      for (const acknowledge of ["message", "batch"] as const) {
        for (const fails of [false, true]) {
          const { make, write } = yield* subscribe({ acknowledge, retry: Schedule.spaced("10 millis") })
          yield* write(0, 100)
          const subscription = yield* make()
          let calls = 0
          yield* during(
            hurried(subscription.run((_, { position }) =>
              Effect.andThen(
                Effect.sync(() => calls++),
                fails && position === 1 ? Effect.fail("no") : Effect.sleep("100 millis")
              )
            )),
            Effect.gen(function*() {
              yield* until(Effect.sync(() => calls > 2))
              yield* subscription.pause()
              const over = until(Effect.map(subscription.status, ([status]) => status?.claimedBy === undefined))
              yield* Effect.timeout(over, "5 seconds")
              const [status] = yield* subscription.status
              // All that was handled is acknowledged.
              assert.strictEqual(status?.checkpoint, fails ? 0 : calls - 1)
              assert.strictEqual(status?.parked, 0)
            })
          )
        }
      }
    }))

  it.effect("are not paused by a transaction that is rolled back", () =>
    Effect.gen(function*() {
      const { accounts, make, write } = yield* subscribe()
      yield* write(0, 1)
      const subscription = yield* make()
      const rolledBack = accounts.withTransaction(Effect.andThen(subscription.pause(), Effect.fail("no")))
      assert.strictEqual(yield* Effect.flip(rolledBack), "no")
      const record = recorder()
      yield* during(subscription.run(record.handler), record.take(1))
      yield* subscription.pause()
      const lifting = accounts.withTransaction(Effect.andThen(subscription.resume(), Effect.fail("no")))
      assert.strictEqual(yield* Effect.flip(lifting), "no")
      assert.isDefined((yield* subscription.status)[0]?.paused)
    }))

  it.effect("refuse what is no partition, and no text", () =>
    Effect.gen(function*() {
      const { make } = yield* subscribe()
      const subscription = yield* make()
      for (const partition of [-1, 0.5, NaN, 2 ** 31]) {
        yield* failsWith(subscription.pause({ partition }), { _tag: "InvalidArgumentError", argument: "partition" })
        yield* failsWith(subscription.resume({ partition }), { _tag: "InvalidArgumentError", argument: "partition" })
      }
      for (const text of ["", "a\0b", "\ud800", "x".repeat(1001)]) {
        yield* failsWith(subscription.pause({ reason: text }), { _tag: "InvalidArgumentError", argument: "reason" })
        yield* failsWith(subscription.pause({ by: text }), { _tag: "InvalidArgumentError", argument: "by" })
      }
      assert.isFalse(yield* subscription.resume())
    }))
}
