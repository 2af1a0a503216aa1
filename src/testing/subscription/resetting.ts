/** Subscriptions that are reset while they are at work: everything comes again, and nothing is acknowledged unhandled. */
import { assert } from "@effect/vitest"
import { Effect, Fiber, Latch, Stream } from "effect"
import { ClaimsOption, deposits, newStream, type Part } from "../fixture.ts"
import {
  type Account,
  during,
  failing,
  type Handled,
  newSubscription,
  positions,
  recorder,
  subscribe,
  until
} from "./fixture.ts"

/** A handler that waits at the first message that it gets, and a way to let it go on. */
const held = () => {
  const record = recorder()
  const reached = Latch.makeUnsafe(false)
  const gate = Latch.makeUnsafe(false)
  const handler = (message: Account, delivery: Handled) =>
    Effect.andThen(
      record.handled.length === 0 ? Effect.andThen(reached.open, gate.await) : Effect.void,
      record.handler(message, delivery)
    )
  return { record, reached, gate, handler }
}

export const resetting: Part = (it, { concurrentTransactions }) => {
  for (const delivery of ["atLeastOnce", "transactional"] as const) {
    for (const acknowledge of ["message", "batch"] as const) {
      it.effect(`come again when the first batch is in hand: ${delivery}, by ${acknowledge}`, (context) =>
        Effect.gen(function*() {
          if (delivery === "transactional" && !concurrentTransactions) return context.skip()
          for (const uninterruptible of [false, true]) {
            const { make, write } = yield* subscribe({ delivery, acknowledge })
            yield* write(0, 5)
            const subscription = yield* make()
            const { gate, handler, reached, record } = held()
            yield* during(
              subscription.run((message, handled) =>
                uninterruptible ? Effect.uninterruptible(handler(message, handled)) : handler(message, handled)
              ),
              Effect.gen(function*() {
                yield* reached.await
                yield* subscription.reset()
                yield* gate.open
                yield* until(Effect.sync(() => record.seen(0).at(-1) === 4))
                yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
              })
            )
            // The message that was in hand, or its whole batch, has come twice; nothing has come less than once since.
            const seen = record.seen(0)
            assert.deepStrictEqual(seen.slice(-5), positions(5))
            assert.isAbove(seen.length, 5)
          }
        }))
    }
  }

  it.effect("handle all that a rebuild has linked anew, and what came since", () =>
    Effect.gen(function*() {
      const { make, stream, write } = yield* subscribe()
      yield* write(0, 3)
      const subscription = yield* make()
      const { gate, handler, reached, record } = held()
      yield* during(
        subscription.run((message, delivery) => Effect.uninterruptible(handler(message, delivery))).pipe(
          Effect.retry({ while: ({ _tag }) => _tag === "StreamRebuiltError" })
        ),
        Effect.gen(function*() {
          yield* reached.await
          const inHand = record.handled.length
          yield* stream.rebuild
          yield* subscription.reset()
          yield* write(0, 3)
          yield* gate.open
          yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
          yield* until(Effect.sync(() => record.seen(0).at(-1) === 5))
          assert.strictEqual(inHand, 0)
        })
      )
      assert.deepStrictEqual(record.seen(0).slice(-6), positions(6))
      assert.isAbove(record.handled.length, 6) // those in hand, and all of them again
    }))

  for (const acknowledge of ["message", "batch"] as const) {
    it.effect(`acknowledge nothing of what a rebuild has put in the place of a batch in hand: by ${acknowledge}`, () =>
      Effect.gen(function*() {
        const { accounts } = yield* subscribe()
        const [prefix, name] = [newStream(), newSubscription()]
        let first = 0
        const stream = yield* accounts.aggregatedStream({
          name: `replaced_${name}`,
          patterns: `${prefix}-%`,
          partitioner: (stored) => Number(stored.stream.endsWith("1")) ^ first
        })
        yield* accounts.write(`${prefix}-0`, deposits(3))
        yield* stream.projector.runOnce
        const subscription = yield* stream.subscription({
          name,
          acknowledge,
          concurrency: 1,
          claims: yield* ClaimsOption
        })
        const { gate, handler, reached, record } = held()
        const of = (origin: string) =>
          record.handled.filter((delivery) => delivery.stream === origin).map(({ version }) => version)
        yield* during(
          subscription.run((message, delivery) => Effect.uninterruptible(handler(message, delivery))).pipe(
            Effect.retry({ while: ({ _tag }) => _tag === "StreamRebuiltError" })
          ),
          Effect.gen(function*() {
            yield* reached.await
            first = 1 // the new messages are where those in hand have been
            yield* accounts.write(`${prefix}-1`, deposits(3))
            yield* stream.rebuild
            yield* subscription.reset()
            yield* gate.open
            yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
          })
        )
        assert.deepStrictEqual(of(`${prefix}-1`), [1, 2, 3])
        assert.deepStrictEqual(of(`${prefix}-0`).slice(-3), [1, 2, 3])
      }))
  }

  it.effect("handle a halted partition again", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ onFailure: "haltPartition" })
      yield* write(0, 3)
      const subscription = yield* make()
      const record = recorder()
      let isBroken = true
      yield* during(
        subscription.run(failing(() => isBroken, record)),
        Effect.gen(function*() {
          const halted = Effect.map(subscription.status, ([status]) => status?.halted)
          yield* until(Effect.map(halted, (halt) => halt?.position === 0))
          isBroken = false
          yield* subscription.reset()
          assert.isUndefined(yield* halted)
          yield* Effect.timeout(until(Effect.map(subscription.lag, (lag) => lag === 0)), "10 seconds")
        })
      )
      assert.deepStrictEqual(record.seen(0), positions(3))
    }))

  it.effect("halt no partition at a message that was in hand", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ onFailure: "haltPartition" })
      yield* write(0, 3)
      const subscription = yield* make()
      const record = recorder()
      const [reached, gate] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
      let calls = 0
      yield* during(
        subscription.run((message, delivery) =>
          ++calls === 1
            ? Effect.uninterruptible(reached.open.pipe(Effect.andThen(gate.await), Effect.andThen(Effect.fail("late"))))
            : record.handler(message, delivery)
        ),
        Effect.gen(function*() {
          yield* reached.await
          yield* subscription.reset()
          yield* gate.open
          yield* Effect.timeout(until(Effect.map(subscription.lag, (lag) => lag === 0)), "10 seconds")
        })
      )
      assert.deepStrictEqual(record.seen(0), positions(3))
    }))

  it.effect("undo a reset by their own handler, in its transaction, with what it wrote, and go on", () =>
    Effect.gen(function*() {
      const { accounts, make, write } = yield* subscribe({ delivery: "transactional", batchSize: 2 })
      yield* write(0, 5)
      const subscription = yield* make()
      const target = newStream()
      let resets = 0
      const calls: Array<number> = []
      yield* during(
        subscription.run((_, { position }) =>
          Effect.gen(function*() {
            calls.push(position)
            yield* accounts.write(target, deposits(1))
            if (position === 2 && resets++ === 0) yield* subscription.reset()
          })
        ),
        Effect.timeout(until(Effect.map(subscription.lag, (lag) => lag === 0)), "20 seconds")
      )
      const [status] = yield* subscription.status
      assert.include(status, { checkpoint: 4, parked: 0 })
      // Its own acknowledgement is fenced by the reset, which is rolled back with it; then nothing is reset any more.
      const written = yield* Stream.runCollect(accounts.read(target))
      assert.strictEqual(written.length, 5, calls.join(" "))
    }))

  it.effect("are woken by a reset", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ pollInterval: "1 day" })
      yield* write(0, 4)
      const subscription = yield* make()
      const record = recorder()
      yield* during(
        subscription.run(record.handler),
        Effect.gen(function*() {
          yield* record.take(4)
          yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
          yield* Effect.sleep("20 millis") // idle, most likely: a worker that is not is fenced instead
          yield* subscription.reset()
          yield* Effect.timeout(record.take(4), "10 seconds")
        })
      )
      assert.deepStrictEqual(record.seen(0), [...positions(4), ...positions(4)])
    }))

  it.effect("wait for no acknowledgement that is rolled back", (context) =>
    Effect.gen(function*() {
      if (!concurrentTransactions) return context.skip()
      const { make, write } = yield* subscribe({ delivery: "transactional" })
      yield* write(0, 3)
      const subscription = yield* make()
      const { gate, handler, reached, record } = held()
      const running = yield* Effect.forkChild(subscription.run(handler))
      yield* reached.await
      yield* subscription.reset("next")
      yield* gate.open
      // What is in hand is fenced; nothing is left to handle.
      yield* until(Effect.map(subscription.status, ([status]) => status?.claimedBy === undefined))
      assert.strictEqual(yield* subscription.lag, 0)
      yield* Fiber.interrupt(running)
      assert.deepStrictEqual(record.seen(0), positions(3))
    }))
}
