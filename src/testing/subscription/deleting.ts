/** Subscriptions to streams of which messages are deleted, or redacted. */
import { assert } from "@effect/vitest"
import { Effect, Latch } from "effect"
import { deposit, Deposited, failsWith, type Part } from "../fixture.ts"
import { type Account, during, positions, recorder, subscribe, until } from "./fixture.ts"

const caughtUp = <E>(subscription: { readonly lag: Effect.Effect<number, E> }) =>
  Effect.timeout(until(Effect.map(subscription.lag, (lag) => lag === 0)), "20 seconds")

export const deleting: Part = (it) => {
  it.effect("pass over what was deleted, count only what they handle, and are behind nothing", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        for (const acknowledge of ["message", "batch"] as const) {
          const { accounts, make, origin, stream, write } = yield* subscribe({ delivery, acknowledge, batchSize: 3 })
          // At the beginning, all, and at the end: no partition has another message behind it.
          for (const [partition, count] of [6, 5, 4].entries()) yield* write(partition, count)
          const { globalPosition } = yield* write(3, 2)
          yield* accounts.delete(origin(0), { toVersion: 4 })
          yield* accounts.delete(origin(1))
          // A stream of the same partition, which goes on.
          yield* accounts.write(`${origin(2)}-2`, [deposit(), deposit()])
          yield* stream.projector.runOnce
          yield* accounts.delete(`${origin(2)}-2`)
          yield* accounts.delete(origin(3))
          const subscription = yield* make()
          const record = recorder()
          assert.deepStrictEqual(yield* Effect.timeout(subscription.drain(record.handler), "20 seconds"), {
            handled: 6,
            failed: 0,
            parked: 0,
            skipped: 0,
            left: 0,
            isCaughtUp: true
          })
          assert.deepStrictEqual([0, 1, 2, 3].map(record.seen), [[4, 5], [], [0, 1, 2, 3], []])
          assert.strictEqual(yield* subscription.lag, 0)
          const status = yield* subscription.status
          assert.deepStrictEqual(status.map(({ age, checkpoint, position }) => [checkpoint, position, age]), [
            [5, 5, undefined],
            [4, 4, undefined],
            [5, 5, undefined],
            [1, 1, undefined]
          ])
          // Nobody handles it any more.
          yield* failsWith(subscription.waitUntilProcessed(globalPosition, "10 millis"), {
            _tag: "NotProcessedError",
            isLinked: false
          })
        }
      }
    }))

  it.effect("pass over what is deleted while they run, and go on with what comes", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe({ batchSize: 2, pollInterval: "20 millis" })
      const subscription = yield* make()
      const record = recorder()
      const [reached, gate] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
      yield* write(0, 6)
      yield* during(
        subscription.run((message, delivered) =>
          delivered.position === 1
            ? reached.open.pipe(Effect.andThen(gate.await), Effect.andThen(record.handler(message, delivered)))
            : record.handler(message, delivered)
        ),
        Effect.gen(function*() {
          yield* reached.await
          // The message that is in hand, and all behind it.
          yield* accounts.delete(origin(0))
          yield* gate.open
          yield* caughtUp(subscription)
          assert.deepStrictEqual(record.seen(0), [0, 1])
          // While the worker is idle.
          yield* accounts.write(origin(0), [deposit(), deposit()])
          yield* accounts.delete(origin(0), { toVersion: 1 })
          yield* stream.projector.runOnce
          yield* caughtUp(subscription)
          yield* write(0, 1)
          yield* caughtUp(subscription)
          assert.deepStrictEqual(record.seen(0), [0, 1, 6, 7])
        })
      )
    }))

  it.effect("pass over nothing that is there, in a partition that is paused", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, write } = yield* subscribe({ pollInterval: "20 millis" })
      const subscription = yield* make()
      const record = recorder()
      yield* write(0, 4)
      yield* accounts.delete(origin(0), { toVersion: 3 })
      yield* subscription.pause()
      yield* during(
        subscription.run(record.handler),
        Effect.gen(function*() {
          yield* until(Effect.map(subscription.status, ([status]) => status?.paused !== undefined))
          assert.strictEqual((yield* subscription.status)[0]?.checkpoint, -1)
          yield* subscription.resume()
          yield* caughtUp(subscription)
        })
      )
      assert.deepStrictEqual(record.seen(0), [3])
    }))

  it.effect("list a parked message that was deleted, until it is discarded; what waits behind it is handled then", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, write } = yield* subscribe({ onFailure: "parkStream" })
      const subscription = yield* make()
      yield* write(0, 3)
      yield* write(1, 1)
      yield* during(subscription.run(() => Effect.fail("no")), caughtUp(subscription))
      yield* accounts.delete(origin(0), { toVersion: 1 })
      const look = Effect.map(
        subscription.parked,
        (all) => all.map(({ error, partition, position, version }) => [partition, position, version, error.tag])
      )
      const behind = "ParkedBehind"
      const [first, ...others] = yield* look
      assert.deepStrictEqual([first?.slice(0, 3), ...others.map((one) => one.slice(0, 3))], [
        [0, 0, undefined],
        [0, 1, 2],
        [0, 2, 3],
        [1, 0, 1]
      ])
      assert.strictEqual(others[0]?.[3], behind)
      // There is nothing that a handler could be given, and nothing comes before what is behind it.
      const record = recorder()
      const places = [{ partition: 0, position: 0 }]
      assert.deepStrictEqual(yield* subscription.replay(record.handler, places), { handled: 0, failed: 1 })
      assert.strictEqual((yield* look)[0]?.[3], "MessageNotFoundError")
      assert.strictEqual(yield* subscription.requeue([...places, { partition: 1, position: 0 }]), 4)
      yield* Effect.timeout(subscription.drain(record.handler), "20 seconds")
      assert.deepStrictEqual(record.handled.map(({ partition }) => partition), [1])
      assert.isTrue(yield* subscription.discard({ partition: 0, position: 0 }))
      yield* Effect.timeout(subscription.drain(record.handler), "20 seconds")
      assert.deepStrictEqual(record.seen(0), [1, 2])
      assert.deepStrictEqual(yield* subscription.parked, [])
    }))

  it.effect("wake who runs to handle what is requeued, though the last message of every partition was deleted", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe({ pollInterval: "1 day" })
      const subscription = yield* make({ onFailure: "park" })
      yield* write(0, 2)
      yield* during(subscription.run(() => Effect.fail("no")), caughtUp(subscription))
      const last = `${origin(1)}-0`
      const record = recorder()
      yield* during(
        subscription.run(record.handler),
        Effect.gen(function*() {
          yield* accounts.write(last, deposit())
          yield* stream.projector.runOnce
          yield* Effect.timeout(record.take(1), "10 seconds")
          yield* caughtUp(subscription)
          yield* accounts.delete(last)
          assert.strictEqual(yield* subscription.requeue(), 2)
          yield* Effect.timeout(record.take(2), "10 seconds")
        })
      )
      assert.deepStrictEqual(record.seen(0), [2, 0, 1])
    }))

  it.effect("goes on behind a message at which it was halted, once that is deleted", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, write } = yield* subscribe({ onFailure: "haltPartition" })
      const subscription = yield* make()
      yield* write(0, 2)
      const isHalted = Effect.map(subscription.status, ([status]) => status?.halted !== undefined)
      yield* during(subscription.run(() => Effect.fail("no")), until(isHalted))
      yield* accounts.delete(origin(0))
      const record = recorder()
      assert.include(yield* Effect.timeout(subscription.drain(record.handler), "20 seconds"), { handled: 0, left: 0 })
      assert.isFalse(yield* isHalted)
      yield* write(0, 1)
      yield* subscription.drain(record.handler)
      assert.deepStrictEqual(record.seen(0), [2])
    }))

  it.effect("deliver a redacted message as it is now, once, and replay it so", () =>
    Effect.gen(function*() {
      const { accounts, make, stream, origin } = yield* subscribe()
      const subscription = yield* make()
      const [first, second] = [deposit(1), deposit(2)]
      yield* accounts.write(origin(0), [first, second])
      const redact = (amount: bigint) =>
        accounts.redact(
          first.messageId,
          (message: Account) => message._tag === "Deposited" ? new Deposited({ ...message, amount }) : message
        )
      const seen: Array<bigint> = []
      const handler = (message: Account) => {
        seen.push((message as Deposited).amount)
        return message.messageId === first.messageId ? Effect.fail("no") : Effect.void
      }
      yield* redact(10n)
      yield* stream.projector.runOnce
      assert.include(yield* stream.statistics, { messages: 2, waiting: 0 })
      assert.include(yield* subscription.drain(handler), { handled: 1, parked: 1 })
      yield* redact(20n)
      assert.include(yield* stream.projector.runOnce, { linked: 0 })
      assert.include(yield* subscription.drain(handler), { handled: 0 })
      assert.deepStrictEqual(yield* subscription.replay(handler), { handled: 0, failed: 1 })
      assert.deepStrictEqual(seen, [10n, 2n, 20n])
      const [parked] = yield* subscription.parked
      assert.deepInclude(parked?.message, { amount: 20n })
      assert.isString(parked?.metadata?.redactedAt)
    }))

  it.effect("are level with what is left", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, write } = yield* subscribe({ batchSize: 100 })
      for (const partition of positions(3)) yield* write(partition, 150)
      for (const partition of positions(2)) yield* accounts.delete(origin(partition), { toVersion: 120 - partition })
      yield* accounts.delete(origin(2), { expectedVersion: 150 })
      const record = recorder()
      assert.include(yield* (yield* make()).drain(record.handler), { handled: 61, left: 0 })
      assert.deepStrictEqual([record.seen(0), record.seen(1)], [positions(30, 120), positions(31, 119)])
    }))
}
