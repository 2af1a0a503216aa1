/** Subscriptions: what is handled, how often, in which order, and what is remembered of it. */
import { assert } from "@effect/vitest"
import { Array as Arr, DateTime, Deferred, Effect, Fiber, Latch, Queue, Schedule, Stream } from "effect"
import type { Delivery } from "../../Handlers.ts"
import type { Options } from "../../Subscription.ts"
import { Accounts, deposit, type Deposited, deposits, failsWith, newStream, type Noted, type Part } from "./fixture.ts"

type Account = Deposited | Noted
type Handled = Delivery<Account>

let subscriptions = 0

/** A stream of origin streams that begin with `prefix`, each in a partition of its own, and a subscription to it. */
const subscribe = Effect.fnUntraced(function*(options?: Partial<Options> & { readonly partitions?: number }) {
  const accounts = yield* Accounts
  const prefix = newStream()
  const stream = yield* accounts.aggregatedStream({
    name: `subscribed_${++subscriptions}`,
    patterns: `${prefix}-%`,
    partitioner: ({ stream }) => Number(stream.slice(stream.lastIndexOf("-") + 1))
  })
  const name = `subscription_${subscriptions}`
  const make = (more?: Partial<Options>) =>
    stream.subscription({ name, retry: Schedule.recurs(0), ...options, ...more })
  return {
    accounts,
    stream,
    make,
    origin: (partition: number) => `${prefix}-${partition}`,
    /** Writes to the stream of a partition, and links it. */
    write: Effect.fnUntraced(function*(partition: number, count: number) {
      const at = yield* accounts.write(`${prefix}-${partition}`, deposits(count))
      yield* stream.projector.runOnce
      return at
    })
  }
})

/** A handler that remembers what it was given, and a way to wait for it. */
const recorder = () => {
  const handled: Array<Handled> = []
  const queue = Effect.runSync(Queue.unbounded<Handled>())
  const seen = (partition: number) =>
    handled.filter((delivery) => delivery.partition === partition).map(({ position }) => position)
  return {
    handled,
    seen,
    handler: (_: Account, delivery: Handled) =>
      Effect.andThen(Effect.sync(() => handled.push(delivery)), Queue.offer(queue, delivery)),
    take: (count: number) => Queue.takeN(queue, count)
  }
}

const positions = (count: number, from = 0) => Arr.makeBy(count, (i) => from + i)

/** Runs an effect until something holds, then interrupts it, and waits for its end. */
const during = Effect.fnUntraced(function*<A, E, R, B, E2, R2>(
  running: Effect.Effect<A, E, R>,
  inside: Effect.Effect<B, E2, R2>
) {
  const fiber = yield* Effect.forkChild(running)
  const result = yield* Effect.raceFirst(inside, Effect.andThen(Fiber.join(fiber), Effect.never))
  yield* Fiber.interrupt(fiber)
  return result
})

const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  Effect.repeat(condition, { until: (holds) => holds, schedule: Schedule.spaced("2 millis") })

const failing = (when: (delivery: Handled) => boolean, record: ReturnType<typeof recorder>) =>
(message: Account, delivery: Handled) =>
  when(delivery) ? Effect.fail(new Error("no")) : record.handler(message, delivery)

export const subscribing: Part = (it) => {
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
      for (const [index, [start]] of times.entries()) {
        made.push(yield* make({ name: `started_${subscriptions}_${index}`, start }))
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
      assert.deepStrictEqual((yield* subscription.parked).map(({ attempts, position }) => [position, attempts]), [[1, 2]])
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
          return { record, subscription, running: subscription.run(failing((d) => d.partition === 0 && d.position === 2, record)) }
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
      let failures = 1
      yield* during(
        subscription.run((message, { position }) =>
          Effect.gen(function*() {
            if (message._tag === "Deposited") yield* accounts.write(target, deposit(Number(message.amount)))
            if (position === 3 && failures-- > 0) return yield* Effect.fail(new Error("once"))
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
          yield* failsWith(subscription.waitUntilProcessed(globalPosition, "30 millis"), { _tag: "TimeoutError" })
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

  it.effect("refuses bad options before anything is made", () =>
    Effect.gen(function*() {
      const { make } = yield* subscribe()
      const wrong: ReadonlyArray<Partial<Options>> = [
        { batchSize: 0 },
        { batchSize: 10_001 },
        { concurrency: 0.5 },
        { start: { globalPosition: -1 } },
        { claims: { lease: "10 millis" } }
      ]
      for (const options of wrong) {
        const refused = make({ name: `refused_${subscriptions}`, ...options })
        yield* failsWith(refused, { _tag: "InvalidArgumentError" }, JSON.stringify(options))
      }
      for (const name of ["", "A", "a-b", "a".repeat(31)]) {
        yield* failsWith(make({ name }), { _tag: "InvalidNameError" }, name)
      }
    }))
}
