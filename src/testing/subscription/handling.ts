/** Subscriptions: what is handled, in which order, and what is remembered of it. */
import { assert } from "@effect/vitest"
import { DateTime, Effect, Fiber, Latch, Stream } from "effect"
import type { Options, Unacknowledged } from "../../Subscription.ts"
import { deposit, deposits, failsWith, outsider, type Part } from "../fixture.ts"
import { during, newSubscription, positions, recorder, subscribe, until } from "./fixture.ts"

export const handling: Part = (it, { concurrentTransactions }) => {
  it.effect("handles what there is and what comes, each partition in order", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe()
      for (const partition of [0, 1, 2]) yield* write(partition, 5)
      const subscription = yield* make()
      const record = recorder()
      yield* during(
        subscription.run(record.handler),
        Effect.gen(function*() {
          yield* record.take(15)
          yield* write(1, 3)
          yield* record.take(3)
          yield* write(9, 2)
          yield* record.take(2)
          yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
        })
      )
      for (const [partition, count] of [[0, 5], [1, 8], [2, 5], [9, 2]] as const) {
        assert.deepStrictEqual(record.seen(partition), positions(count))
      }
      const [first] = record.handled
      assert.include(first, { attempt: 1 })
      assert.strictEqual(first?.message._tag, "Deposited")
    }))

  it.effect("goes on where it was, and handles nothing again", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        for (const acknowledge of ["message", "batch"] as const) {
          const { make, write } = yield* subscribe({ delivery, acknowledge, batchSize: 4 })
          const subscription = yield* make()
          const record = recorder()
          for (const round of [1, 2, 3]) {
            yield* write(0, 10)
            yield* during(
              subscription.run(record.handler),
              until(Effect.map(subscription.lag, (lag) => lag === 0))
            )
            assert.deepStrictEqual(record.seen(0), positions(10 * round), `${delivery} ${acknowledge}`)
          }
          const [status] = yield* subscription.status
          assert.include(status, { partition: 0, position: 29, checkpoint: 29, parked: 0 })
          assert.isUndefined(status?.claimedBy)
        }
      }
    }))

  it.effect("begins where it is told to, once", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe()
      const at = yield* write(0, 4)
      const times = [
        ["beginning", positions(6)],
        ["next", positions(2, 4)],
        [{ globalPosition: at.globalPosition - 2 }, positions(4, 2)],
        [{ time: DateTime.makeUnsafe(0) }, positions(6)],
        [{ time: DateTime.makeUnsafe(4e12) }, positions(2, 4)]
      ] as const
      const made = []
      for (const [start] of times) {
        made.push(yield* make({ name: newSubscription(), start }))
      }
      yield* write(0, 2)
      for (const [index, [start, expected]] of times.entries()) {
        const subscription = made[index]
        if (subscription === undefined) return assert.fail()
        const record = recorder()
        yield* make({ name: subscription.name, start: "next" }) // it was made before: this begins nothing
        yield* during(subscription.run(record.handler), record.take(expected.length))
        assert.deepStrictEqual(record.seen(0), expected, JSON.stringify(start))
      }
    }))

  it.effect("misses nothing that is written after a subscription from the next message was made", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe({ start: "next" })
      yield* write(0, 3)
      const projecting = yield* Effect.forkChild(stream.projector.run({ pollInterval: "1 day" }))
      const writing = yield* Effect.forkChild(Effect.forever(accounts.write(origin(0), deposit())))
      const subscription = yield* make()
      const { version } = yield* accounts.write(origin(0), deposit())
      yield* Fiber.interrupt(writing)
      const record = recorder()
      yield* during(
        subscription.run(record.handler),
        until(Effect.sync(() => record.handled.some((delivery) => delivery.version === version)))
      )
      yield* Fiber.interrupt(projecting)
      const versions = record.handled.map((delivery) => delivery.version)
      assert.deepStrictEqual(versions, positions(versions.length, versions[0]))
    }))

  it.effect("handles batches, and finds out which message fails", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { make, write } = yield* subscribe({ delivery, batchSize: 8 })
        yield* write(0, 20)
        const subscription = yield* make()
        const handled: Array<number> = []
        yield* during(
          subscription.runBatches((deliveries) =>
            Effect.suspend(() => {
              if (deliveries.some(({ position }) => position === 5)) return Effect.fail("five")
              handled.push(...deliveries.map(({ position }) => position))
              return Effect.void
            })
          ),
          until(Effect.map(subscription.lag, (lag) => lag === 0))
        )
        assert.deepStrictEqual(handled, positions(20).filter((position) => position !== 5))
        assert.deepStrictEqual((yield* subscription.parked).map(({ position }) => position), [5])
      }
    }))

  it.effect("is a stream of messages, each acknowledged by hand", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ acknowledge: "message" })
      yield* write(0, 5)
      const subscription = yield* make()
      const taken = yield* subscription.messages.pipe(
        Stream.mapEffect((message) =>
          Effect.gen(function*() {
            const [status] = yield* subscription.status
            assert.strictEqual(status?.checkpoint, message.position - 1)
            yield* message.acknowledge
            yield* until(Effect.map(subscription.status, ([now]) => now?.checkpoint === message.position))
            return message.position
          })
        ),
        Stream.take(3),
        Stream.runCollect
      )
      assert.deepStrictEqual(taken, [0, 1, 2])
      assert.strictEqual(yield* subscription.lag, 2)
    }))

  it.effect("waits until a message has been processed", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream } = yield* subscribe()
      const subscription = yield* make()
      const gate = Latch.makeUnsafe(false)
      const record = recorder()
      const work = Effect.all([
        stream.projector.run({ pollInterval: "1 day" }),
        subscription.run((message, delivery) => Effect.andThen(gate.await, record.handler(message, delivery)))
      ], { concurrency: 2 })
      yield* during(
        work,
        Effect.gen(function*() {
          const { globalPosition } = yield* accounts.write(origin(3), deposits(2))
          yield* failsWith(subscription.waitUntilProcessed(globalPosition, "30 millis"), {
            _tag: "NotProcessedError",
            subscription: subscription.name,
            globalPosition
          })
          yield* gate.open
          yield* subscription.waitUntilProcessed(globalPosition, "10 seconds")
          assert.lengthOf(record.handled, 2)
        })
      )
    }))

  it.effect("begins anew after a reset", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe()
      yield* write(0, 3)
      const subscription = yield* make()
      const record = recorder()
      yield* during(subscription.run(record.handler), until(Effect.map(subscription.lag, (lag) => lag === 0)))
      yield* subscription.reset()
      yield* during(subscription.run(record.handler), until(Effect.map(subscription.lag, (lag) => lag === 0)))
      assert.deepStrictEqual(record.seen(0), [...positions(3), ...positions(3)])
      yield* subscription.reset("next")
      assert.strictEqual(yield* subscription.lag, 0)
    }))

  it.effect("does not go on where positions were given from the start, until it is reset", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe()
      yield* write(0, 3)
      const subscription = yield* make()
      const record = recorder()
      const all = until(Effect.map(subscription.lag, (lag) => lag === 0))
      yield* during(subscription.run(record.handler), all)
      const running = yield* Effect.forkChild(subscription.run(record.handler))
      yield* stream.rebuild
      yield* accounts.write(origin(0), deposits(1))
      yield* stream.projector.runOnce
      yield* failsWith(Fiber.join(running), { _tag: "StreamRebuiltError", subscription: subscription.name })
      yield* failsWith(subscription.lag, { _tag: "StreamRebuiltError" })
      yield* failsWith((yield* make()).run(record.handler), { _tag: "StreamRebuiltError" })
      record.handled.length = 0
      yield* subscription.reset()
      yield* during(subscription.run(record.handler), all)
      assert.deepStrictEqual(record.seen(0), positions(4))
    }))

  it.effect("refuses bad options before anything is made", () =>
    Effect.gen(function*() {
      const { make } = yield* subscribe()
      const wrong: ReadonlyArray<Partial<Options>> = [
        { batchSize: 0 },
        { pollInterval: 0 },
        { pollInterval: "soon" as never },
        { shutdownTimeout: -1 },
        { batchSize: 10_001 },
        { concurrency: 0.5 },
        { start: { globalPosition: -1 } },
        { claims: { lease: "10 millis" } }
      ]
      for (const options of wrong) {
        const refused = make({ name: newSubscription(), ...options })
        yield* failsWith(refused, { _tag: "InvalidArgumentError" }, JSON.stringify(options))
      }
      for (const name of ["", "A", "a-b", "a".repeat(42), "x_pkey"]) {
        yield* failsWith(make({ name }), { _tag: "InvalidNameError" }, name)
      }
    }))

  it.effect("holds many messages unacknowledged, and stores each acknowledgement, whatever the options say", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ delivery: "transactional", acknowledge: "batch" })
      const partitions = 14
      for (let partition = 0; partition < partitions; partition++) yield* write(partition, 2)
      const subscription = yield* make()
      const held: Array<Unacknowledged<unknown>> = []
      yield* during(
        Stream.runForEach(subscription.messages, (message) => Effect.sync(() => held.push(message))),
        Effect.gen(function*() {
          yield* until(Effect.sync(() => held.length === partitions))
          yield* Effect.forEach(held.slice(0, partitions), ({ acknowledge }) => acknowledge)
          yield* until(Effect.map(subscription.lag, (lag) => lag === partitions))
        })
      )
    }))

  it.effect("belongs to one aggregated stream, until it is dropped", () =>
    Effect.gen(function*() {
      const one = yield* subscribe()
      const other = yield* subscribe()
      const subscription = yield* one.make({ start: "next" })
      const { name } = subscription
      yield* failsWith(other.make({ name }), { _tag: "InvalidNameError", identifier: name })
      yield* failsWith(one.accounts.withTransaction(subscription.drop), { _tag: "InvalidArgumentError" })
      yield* subscription.drop
      yield* other.write(0, 2)
      const second = yield* other.make({ name })
      assert.strictEqual(yield* second.lag, 2)
      yield* failsWith(one.make(), { _tag: "InvalidNameError", identifier: name })
      yield* second.drop
      yield* other.make({ name })
    }))

  it.effect("does not run inside a transaction", () =>
    Effect.gen(function*() {
      const { accounts, make } = yield* subscribe()
      const subscription = yield* make()
      for (
        const running of [
          subscription.run(() => Effect.void),
          subscription.runBatches(() => Effect.void),
          Stream.runDrain(subscription.messages)
        ]
      ) yield* failsWith(accounts.withTransaction(running), { _tag: "InvalidArgumentError" })
    }))

  it.effect("rolls a reset back with the transaction", () =>
    Effect.gen(function*() {
      const { accounts, make, write } = yield* subscribe()
      yield* write(0, 3)
      const subscription = yield* make()
      const record = recorder()
      yield* during(subscription.run(record.handler), until(Effect.map(subscription.lag, (lag) => lag === 0)))
      const rolledBack = accounts.withTransaction(Effect.gen(function*() {
        yield* subscription.reset()
        assert.strictEqual(yield* subscription.lag, 3)
        return yield* Effect.fail("rolled back")
      }))
      assert.strictEqual(yield* Effect.flip(rolledBack), "rolled back")
      assert.strictEqual(yield* subscription.lag, 0)
    }))

  it.effect("begins behind a global position, and misses nothing that was committed late", (context) =>
    Effect.gen(function*() {
      if (!concurrentTransactions) return context.skip()
      const { accounts, make, origin, stream } = yield* subscribe()
      const outside = yield* outsider
      const [late, early] = [`${origin(0)}-late-0`, origin(0)]
      // Linked in this order: 1, 4, 2, 3.
      const first = yield* accounts.write(early, deposit())
      yield* stream.projector.runOnce
      const [second, third] = yield* accounts.withTransaction(Effect.gen(function*() {
        const written = [yield* accounts.write(late, deposit()), yield* accounts.write(late, deposit())] as const
        yield* outside(Effect.andThen(accounts.write(early, deposit()), stream.projector.runOnce))
        return written
      }))
      yield* stream.projector.runOnce
      for (const [{ globalPosition }, from] of [[first, 1], [second, 1], [third, 1]] as const) {
        const subscription = yield* make({ name: newSubscription(), start: { globalPosition } })
        const record = recorder()
        yield* during(subscription.run(record.handler), until(Effect.map(subscription.lag, (lag) => lag === 0)))
        assert.deepStrictEqual(record.seen(0), positions(4 - from, from))
      }
    }))
}
