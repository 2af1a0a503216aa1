/** Subscriptions that are interrupted: what is in hand is finished within a time, and nothing more is begun. */
import { assert } from "@effect/vitest"
import { Effect, Fiber, Latch, Schedule } from "effect"
import type { Part } from "../fixture.ts"
import { type Handled, positions, subscribe, until } from "./fixture.ts"

export const stopping: Part = (it) => {
  for (const delivery of ["atLeastOnce", "transactional"] as const) {
    for (const acknowledge of ["message", "batch"] as const) {
      it.effect(`finish the message in hand, and acknowledge it: ${delivery}, by ${acknowledge}`, () =>
        Effect.gen(function*() {
          for (const uninterruptible of [false, true]) {
            const { make, write } = yield* subscribe({ delivery, acknowledge, retry: Schedule.forever })
            const partitions = delivery === "transactional" ? 1 : 4
            for (const partition of positions(partitions)) yield* write(partition, 5)
            const subscription = yield* make()
            const calls: Array<number> = []
            const gate = Latch.makeUnsafe(false)
            const handler = (_: unknown, { position }: Handled) =>
              Effect.andThen(
                Effect.sync(() => calls.push(position)),
                position === 1 ? gate.await : Effect.void
              )
            const running = yield* Effect.forkChild(
              subscription.run((message, handled) =>
                uninterruptible ? Effect.uninterruptible(handler(message, handled)) : handler(message, handled)
              )
            )
            yield* until(Effect.sync(() => calls.length === 2 * partitions))
            const interrupting = yield* Effect.forkChild(Fiber.interrupt(running), { startImmediately: true })
            yield* Effect.sleep("20 millis")
            yield* gate.open
            yield* Fiber.join(interrupting)
            assert.lengthOf(calls, 2 * partitions)
            for (const status of yield* subscription.status) {
              assert.include(status, { checkpoint: 1, claimedBy: undefined, parked: 0 })
            }
          }
        }))
    }
  }

  it.effect("finish the batch in hand of a batch handler", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ batchSize: 3 })
      yield* write(0, 9)
      const subscription = yield* make()
      const reached = Latch.makeUnsafe(false)
      const gate = Latch.makeUnsafe(false)
      const running = yield* Effect.forkChild(
        subscription.runBatches(() => Effect.andThen(reached.open, gate.await))
      )
      yield* reached.await
      const interrupting = yield* Effect.forkChild(Fiber.interrupt(running), { startImmediately: true })
      yield* gate.open
      yield* Fiber.join(interrupting)
      assert.include((yield* subscription.status)[0], { checkpoint: 2, claimedBy: undefined })
    }))

  it.effect("interrupt a handler that takes too long", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ shutdownTimeout: "50 millis" })
      yield* write(0, 3)
      const subscription = yield* make()
      const reached = Latch.makeUnsafe(false)
      let interrupted = 0
      const running = yield* Effect.forkChild(
        subscription.run((_, { position }) =>
          position === 0
            ? Effect.void
            : Effect.onInterrupt(Effect.andThen(reached.open, Effect.never), () => Effect.sync(() => interrupted++))
        )
      )
      yield* reached.await
      yield* Fiber.interrupt(running)
      assert.strictEqual(interrupted, 1)
      assert.include((yield* subscription.status)[0], { checkpoint: 0, claimedBy: undefined })
    }))

  it.effect("leave a message that waits for its next attempt", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ retry: Schedule.spaced("1 day"), shutdownTimeout: "1 day" })
      yield* write(0, 3)
      const subscription = yield* make()
      const reached = Latch.makeUnsafe(false)
      const running = yield* Effect.forkChild(
        subscription.run((_, { position }) =>
          position === 0 ? Effect.void : Effect.andThen(reached.open, Effect.fail("no"))
        )
      )
      yield* reached.await
      yield* Fiber.interrupt(running)
      assert.include((yield* subscription.status)[0], { checkpoint: 0, parked: 0, claimedBy: undefined })
    }))
}
