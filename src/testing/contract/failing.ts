/** Subscriptions: what becomes of a message whose handler fails. */
import { assert } from "@effect/vitest"
import { Array as Arr, Effect, Schedule, Stream } from "effect"
import { deposit, failsWith, newStream, type Part } from "./fixture.ts"
import { during, failing, positions, recorder, subscribe, until } from "./subscription.ts"

export const failures: Part = (it) => {
  it.effect("parks a message whose handler fails, and goes on", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        for (const failed of [0, 2, 5]) {
          const { make, origin, write } = yield* subscribe({ delivery, batchSize: 4, retry: Schedule.recurs(2) })
          yield* write(0, 6)
          yield* write(1, 3)
          const subscription = yield* make()
          const record = recorder()
          let attempts = 0
          const handler = failing(({ attempt, partition, position }) => {
            const fails = partition === 0 && position === failed
            if (fails) assert.strictEqual(attempt, ++attempts)
            return fails
          }, record)
          yield* during(subscription.run(handler), until(Effect.map(subscription.lag, (lag) => lag === 0)))
          const others = positions(6).filter((position) => position !== failed)
          assert.deepStrictEqual(Arr.dedupe(record.seen(0)), others, `${delivery} ${failed}`)
          if (delivery === "atLeastOnce") assert.deepStrictEqual(record.seen(0), others)
          assert.deepStrictEqual(record.seen(1), positions(3))
          assert.strictEqual(attempts, 3)
          const [parked, ...none] = yield* subscription.parked
          assert.lengthOf(none, 0)
          assert.include(parked, { partition: 0, position: failed, attempts: 3, stream: origin(0) })
          assert.include(parked?.error, "no")
          assert.include((yield* subscription.status)[0], { checkpoint: 5, parked: 1 })
        }
      }
    }))

  it.effect("replays and discards parked messages", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe()
      yield* write(0, 4)
      const subscription = yield* make()
      const record = recorder()
      yield* during(
        subscription.run(failing(() => true, record)),
        until(Effect.map(subscription.lag, (lag) => lag === 0))
      )
      assert.lengthOf(yield* subscription.parked, 4)
      const again = failing(({ position }) => position === 1, record)
      const [first] = yield* subscription.parked
      assert.deepStrictEqual(
        yield* subscription.replay(again, [{ partition: 0, position: first?.position ?? -1 }]),
        { handled: 1, failed: 0 }
      )
      assert.deepStrictEqual(yield* subscription.replay(again), { handled: 2, failed: 1 })
      assert.deepStrictEqual(record.seen(0), [0, 2, 3])
      assert.deepStrictEqual((yield* subscription.parked).map(({ attempts, position }) => [position, attempts]), [[
        1,
        2
      ]])
      assert.isTrue(yield* subscription.discard({ partition: 0, position: 1 }))
      assert.isFalse(yield* subscription.discard({ partition: 0, position: 1 }))
      assert.deepStrictEqual(yield* subscription.replay(again), { handled: 0, failed: 0 })
    }))

  it.effect("skips, halts the partition, or stops, as it is told to", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const run = Effect.fnUntraced(function*(onFailure: "skip" | "haltPartition" | "stop") {
          const { make, write } = yield* subscribe({ delivery, onFailure })
          yield* write(0, 5)
          yield* write(1, 5)
          const subscription = yield* make()
          const record = recorder()
          return {
            record,
            subscription,
            running: subscription.run(failing((d) => d.partition === 0 && d.position === 2, record))
          }
        })
        const skipping = yield* run("skip")
        yield* during(skipping.running, until(Effect.map(skipping.subscription.lag, (lag) => lag === 0)))
        assert.deepStrictEqual(Arr.dedupe(skipping.record.seen(0)), [0, 1, 3, 4])
        assert.lengthOf(yield* skipping.subscription.parked, 0)

        const halting = yield* run("haltPartition")
        yield* during(halting.running, until(Effect.map(halting.subscription.lag, (lag) => lag === 3)))
        assert.deepStrictEqual(Arr.dedupe(halting.record.seen(0)), [0, 1])
        assert.deepStrictEqual(halting.record.seen(1), positions(5))

        const stopping = yield* run("stop")
        yield* failsWith(stopping.running, { _tag: "HandlerError", partition: 0, position: 2, attempts: 1 })
        const [status] = yield* stopping.subscription.status
        assert.include(status, { partition: 0, checkpoint: 1, claimedBy: undefined })
      }
    }))

  it.effect("takes an effect of the handler back with the checkpoint", () =>
    Effect.gen(function*() {
      const { accounts, make, write } = yield* subscribe({ delivery: "transactional", batchSize: 10 })
      const target = newStream()
      yield* write(0, 6)
      const subscription = yield* make()
      let failuresLeft = 1
      yield* during(
        subscription.run((message, { position }) =>
          Effect.gen(function*() {
            if (message._tag === "Deposited") yield* accounts.write(target, deposit(Number(message.amount)))
            if (position === 3 && failuresLeft-- > 0) return yield* Effect.fail("once")
          })
        ),
        until(Effect.map(subscription.lag, (lag) => lag === 0))
      )
      const [parked] = yield* subscription.parked
      assert.include(parked, { position: 3 })
      const amounts = Effect.map(
        Stream.runCollect(accounts.read(target)),
        (messages) => messages.map(({ message }) => message._tag === "Deposited" ? Number(message.amount) : NaN)
      )
      assert.deepStrictEqual(yield* amounts, [1, 2, 3, 5, 6])
      yield* subscription.replay((message) =>
        message._tag === "Deposited" ? accounts.write(target, deposit(Number(message.amount))) : Effect.void
      )
      assert.deepStrictEqual(yield* amounts, [1, 2, 3, 5, 6, 4])
    }))
}
