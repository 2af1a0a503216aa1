/** Subscriptions that are drained: what there is is handled, and then they end. */
import { assert } from "@effect/vitest"
import { Duration, Effect, Fiber, Latch, Schedule } from "effect"
import { failsWith, onClock, type Part } from "../fixture.ts"
import { during, failing, type Handled, positions, recorder, subscribe, until } from "./fixture.ts"

export const draining: Part = (it, { concurrentTransactions }) => {
  it.effect("handle all there is, end, and say what was done", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { make, write } = yield* subscribe({ delivery, batchSize: 3, concurrency: 2, pollInterval: "1 day" })
        for (const partition of positions(5)) yield* write(partition, 7)
        const subscription = yield* make({ retry: Schedule.recurs(1) })
        const record = recorder()
        const handler = failing(({ partition, position }) => partition === 2 && position === 4, record)
        assert.deepStrictEqual(yield* Effect.timeout(subscription.drain(handler), "20 seconds"), {
          handled: 34,
          failed: 2,
          parked: 1,
          skipped: 0,
          left: 0,
          isCaughtUp: true
        })
        assert.isTrue((yield* subscription.status).every(({ claimedBy }) => claimedBy === undefined))
        for (const partition of positions(5)) {
          if (partition !== 2) assert.deepStrictEqual(record.seen(partition), positions(7))
        }
        const nothing = { handled: 0, failed: 0, parked: 0, skipped: 0, left: 0, isCaughtUp: true }
        assert.deepStrictEqual(yield* subscription.drain(record.handler), nothing)
        assert.strictEqual(yield* subscription.requeue(), 1)
        assert.deepStrictEqual(yield* subscription.drain(record.handler), { ...nothing, handled: 1 })
        assert.deepStrictEqual(yield* subscription.parked, [])
      }
    }))

  it.effect("wait for what other consumers have in hand", (context) =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        // What is in hand keeps its transaction open.
        if (delivery === "transactional" && !concurrentTransactions) return context.skip()
        const { make, write } = yield* subscribe({ delivery })
        yield* write(0, 2)
        const subscription = yield* make()
        const [reached, gate] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
        const record = recorder()
        let isOver = false
        yield* during(
          subscription.run((message, delivered) =>
            reached.open.pipe(Effect.andThen(gate.await), Effect.andThen(record.handler(message, delivered)))
          ),
          Effect.gen(function*() {
            yield* reached.await
            yield* write(1, 3)
            const other = recorder()
            const ending = yield* Effect.forkChild(
              Effect.tap((yield* make()).drain(other.handler), () => Effect.sync(() => isOver = true))
            )
            // The other partition is handled by either of them, and only then could it have ended.
            yield* until(Effect.map(subscription.status, (all) => all.some(({ partition }) => partition === 1)))
            yield* Effect.sleep("50 millis")
            assert.isFalse(isOver)
            yield* gate.open
            const { isCaughtUp, left } = yield* Fiber.join(ending)
            assert.deepStrictEqual({ isCaughtUp, left }, { isCaughtUp: true, left: 0 })
            assert.strictEqual(record.handled.length + other.handled.length, 5)
          })
        )
      }
    }))

  it.effect("end when the time is over, with what they have in hand", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ acknowledge: "message" })
      yield* write(0, 5)
      const subscription = yield* make()
      const isOver = Latch.makeUnsafe(false)
      const day = Duration.days(1)
      const handler = (_: unknown, { position }: Handled) =>
        position === 2 ? Effect.andThen(isOver.open, Effect.sleep("50 millis")) : Effect.void
      const drained = yield* subscription.drain(handler, { for: day }).pipe(onClock((clock) => ({
        sleep: (duration) => Duration.equals(duration, day) ? isOver.await : clock.sleep(duration)
      })))
      assert.include(drained, { handled: 3, left: 2, isCaughtUp: false })
      assert.include((yield* subscription.status)[0], { checkpoint: 2, claimedBy: undefined })
      assert.include(yield* subscription.drain(() => Effect.void, { for: "1 hour" }), { handled: 2, isCaughtUp: true })
    }))

  it.effect("leave what is paused or halted, and stop where they are told to", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ onFailure: "haltPartition" })
      for (const partition of positions(3)) yield* write(partition, 3)
      const subscription = yield* make()
      yield* subscription.pause({ partition: 1 })
      const record = recorder()
      const handler = failing(({ partition, position }) => partition === 2 && position === 1, record)
      const drained = Effect.timeout(subscription.drain(handler), "10 seconds")
      assert.deepInclude(yield* drained, { handled: 4, left: 5, isCaughtUp: true })
      assert.deepInclude(yield* drained, { handled: 0, failed: 1, left: 5, isCaughtUp: true })
      yield* subscription.resume({ partition: 1 })
      assert.deepInclude(yield* drained, { handled: 3, left: 2 })
      const stopping = (yield* make({ onFailure: "stop" })).drain(handler)
      yield* failsWith(stopping, { _tag: "HandlerError", partition: 2, position: 1 })
    }))

  it.effect("are refused inside a transaction, and for no duration", () =>
    Effect.gen(function*() {
      const { accounts, make } = yield* subscribe()
      const subscription = yield* make()
      yield* failsWith(accounts.withTransaction(subscription.drain(() => Effect.void)), {
        _tag: "InvalidArgumentError",
        argument: "drain"
      })
      for (const wrong of ["soon" as never, "-1 seconds" as const]) {
        yield* failsWith(subscription.drain(() => Effect.void, { for: wrong }), {
          _tag: "InvalidArgumentError",
          argument: "for"
        })
      }
    }))
}
