/** Subscriptions whose parked messages are handled again by their workers. */
import { assert } from "@effect/vitest"
import { Array as Arr, Effect, Schedule, Stream } from "effect"
import { deposit, failsWith, newStream, type Part } from "../fixture.ts"
import { during, failing, type Handled, positions, recorder, subscribe, until } from "./fixture.ts"

export const requeueing: Part = (it) => {
  const prepared = Effect.fnUntraced(function*(
    partitions: ReadonlyArray<number>,
    options?: Parameters<typeof subscribe>[0]
  ) {
    const given = yield* subscribe(options)
    for (const [partition, count] of partitions.entries()) yield* given.write(partition, count)
    const subscription = yield* given.make({ onFailure: "park" })
    const caughtUp = until(Effect.map(subscription.lag, (lag) => lag === 0))
    yield* during(subscription.run(() => Effect.fail("no")), caughtUp)
    const places = Effect.map(subscription.parked, (all) => all.map(({ partition, position }) => [partition, position]))
    return { ...given, subscription, places }
  })

  it.effect("hand them to the handlers that run, once each, in order", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        for (const batches of [false, true]) {
          const { places, subscription, write } = yield* prepared([3, 2], { delivery, pollInterval: "1 day" })
          const record = recorder()
          const running = batches
            ? subscription.runBatches((all) => Effect.forEach(all, (each) => record.handler(each.message, each)))
            : subscription.run(record.handler)
          yield* during(
            running,
            Effect.gen(function*() {
              yield* write(2, 1)
              yield* Effect.timeout(record.take(1), "10 seconds")
              const [first] = yield* subscription.parked
              assert.strictEqual(
                yield* subscription.requeue([{ partition: 0, position: 1 }, first?.messageId ?? ""]),
                2
              )
              yield* Effect.timeout(record.take(2), "10 seconds")
              assert.deepStrictEqual(record.seen(0), [0, 1])
              yield* until(Effect.map(places, (all) => all.length === 3))
              yield* write(0, 1)
              yield* Effect.timeout(record.take(1), "10 seconds")
              assert.strictEqual(yield* subscription.requeue(), 3)
              yield* Effect.timeout(record.take(3), "10 seconds")
              yield* until(Effect.map(places, (all) => all.length === 0))
            })
          )
          assert.deepStrictEqual(record.seen(0), [0, 1, 3, 2])
          assert.deepStrictEqual(record.seen(1), [0, 1])
          assert.deepStrictEqual(Arr.dedupe(record.handled.map(({ attempt }) => attempt)).toSorted(), [1, 2])
          assert.strictEqual(yield* subscription.requeue(), 0)
        }
      }
    }))

  it.effect("find them when they come later, unless they are discarded, or the partition is paused", () =>
    Effect.gen(function*() {
      const { make, places, subscription } = yield* prepared([3, 3])
      yield* subscription.pause({ partition: 1 })
      assert.strictEqual(yield* subscription.requeue(), 6)
      assert.strictEqual(yield* subscription.requeue(), 0)
      assert.isTrue((yield* subscription.parked).every(({ requeuedAt }) => requeuedAt !== undefined))
      assert.isTrue(yield* subscription.discard({ partition: 0, position: 1 }))
      const waiting = Effect.map(subscription.status, (all) => all.map(({ parked, requeued }) => [parked, requeued]))
      assert.deepStrictEqual(yield* waiting, [[2, 2], [3, 3]])
      const record = recorder()
      yield* during(
        (yield* make()).run(record.handler),
        Effect.gen(function*() {
          yield* until(Effect.map(places, (all) => all.length === 3))
          assert.deepStrictEqual(record.seen(0), [0, 2])
          assert.lengthOf(record.seen(1), 0)
          yield* subscription.resume({ partition: 1 })
          yield* until(Effect.map(places, (all) => all.length === 0))
        })
      )
      assert.deepStrictEqual(record.seen(1), positions(3))
    }))

  it.effect("park those again that fail again, with the new error, whatever is done with others", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        for (const onFailure of ["park", "skip", "haltPartition", "stop"] as const) {
          const { make, subscription, write } = yield* prepared([2], { delivery })
          const record = recorder()
          const attempts: Array<number> = []
          yield* during(
            (yield* make({ onFailure, retry: Schedule.recurs(2) })).run((message, delivered) => {
              if (delivered.position > 0) return record.handler(message, delivered)
              attempts.push(delivered.attempt)
              return Effect.fail("again")
            }),
            Effect.gen(function*() {
              assert.strictEqual(yield* subscription.requeue(), 2)
              yield* until(Effect.map(subscription.status, ([status]) => status?.parked === 1))
              yield* write(0, 1)
              yield* record.take(2)
              yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
            })
          )
          assert.deepStrictEqual(attempts, [2, 3, 4])
          const [parked, ...none] = yield* subscription.parked
          assert.lengthOf(none, 0)
          assert.deepInclude(parked, { position: 0, attempts: 4, error: { tag: "string", message: "again" } })
          assert.isUndefined(parked?.requeuedAt)
          assert.isUndefined((yield* subscription.status)[0]?.halted)
        }
      }
    }))

  it.effect("write what their handlers write exactly once, with transactional delivery", () =>
    Effect.gen(function*() {
      const { accounts, places, subscription } = yield* prepared([4], { delivery: "transactional" })
      const target = newStream()
      let failuresLeft = 1
      const handler = (_: unknown, { position }: Handled) =>
        Effect.andThen(
          accounts.write(target, deposit(position + 1)),
          Effect.suspend(() => position === 2 && failuresLeft-- > 0 ? Effect.fail("once") : Effect.void)
        )
      yield* during(
        Effect.all([subscription.run(handler), subscription.run(handler)], { concurrency: 2 }),
        Effect.gen(function*() {
          yield* subscription.requeue()
          yield* until(Effect.map(places, (all) => all.length === 1))
          yield* until(Effect.map(subscription.parked, ([parked]) => parked?.requeuedAt === undefined))
          yield* subscription.requeue()
          yield* until(Effect.map(places, (all) => all.length === 0))
        })
      )
      const written = yield* Stream.runCollect(accounts.read(target))
      assert.deepStrictEqual(
        written.map(({ message }) => message._tag === "Deposited" ? Number(message.amount) : NaN),
        [1, 2, 4, 3]
      )
    }))

  it.effect("take nothing from a requeue that is rolled back, and refuse what is no message", () =>
    Effect.gen(function*() {
      const { accounts, subscription } = yield* prepared([1])
      const rolledBack = accounts.withTransaction(Effect.andThen(subscription.requeue(), Effect.fail("no")))
      assert.strictEqual(yield* Effect.flip(rolledBack), "no")
      assert.isUndefined((yield* subscription.parked)[0]?.requeuedAt)
      assert.include((yield* subscription.status)[0], { parked: 1, requeued: 0 })
      assert.strictEqual(yield* subscription.requeue([{ partition: 0, position: 7 }, newId()]), 0)
      assert.strictEqual(yield* subscription.requeue([]), 0)
      for (const wrong of ["", "no id"]) {
        yield* failsWith(subscription.requeue([wrong]), { _tag: "InvalidArgumentError", argument: "messageId" })
      }
      yield* failsWith(subscription.requeue([{ partition: -1, position: 0 }]), {
        _tag: "InvalidArgumentError",
        argument: "partition"
      })
      yield* failsWith(subscription.requeue([{ partition: 0, position: 0.5 }]), {
        _tag: "InvalidArgumentError",
        argument: "position"
      })
    }))

  it.effect("list many of them in pages", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe()
      yield* write(0, 130)
      yield* write(1, 120)
      const subscription = yield* make()
      const record = recorder()
      const caughtUp = until(Effect.map(subscription.lag, (lag) => lag === 0))
      yield* during(subscription.run(failing(() => true, record)), caughtUp)
      const all = yield* subscription.parked
      assert.lengthOf(all, 250)
      const read = (options?: Parameters<typeof subscription.readParked>[0]) =>
        Stream.runCollect(subscription.readParked(options))
      assert.deepStrictEqual(yield* read(), all)
      assert.deepStrictEqual(yield* read({ limit: 101 }), all.slice(0, 101))
      assert.deepStrictEqual(yield* read({ limit: 0 }), [])
      assert.deepStrictEqual(yield* read({ after: all[149], limit: 100 }), all.slice(150))
      assert.deepStrictEqual(yield* read({ after: all[249] }), [])
      yield* failsWith(read({ limit: -1 }), { _tag: "InvalidArgumentError", argument: "limit" })
      yield* failsWith(read({ after: { partition: 0, position: -1 } }), {
        _tag: "InvalidArgumentError",
        argument: "position"
      })
      assert.deepStrictEqual(yield* subscription.replay(record.handler), { handled: 250, failed: 0 })
      assert.deepStrictEqual([record.seen(0), record.seen(1)], [positions(130), positions(120)])
    }))
}

const newId = () => globalThis.crypto.randomUUID()
