/** Subscriptions: what becomes of a message whose handler fails. */
import { assert } from "@effect/vitest"
import { Array as Arr, Data, Effect, Fiber, Schedule, Stream } from "effect"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import { deposit, failsWith, newStream, outsider, type Part } from "../fixture.ts"
import { truncate } from "../truncate.ts"
import { during, failing, type Handled, positions, recorder, subscribe, until } from "./fixture.ts"

class Boom extends Data.TaggedError("Boom")<{
  readonly code: number
  readonly detail: string
  readonly at: bigint
  readonly inner: object
}> {
  override get message() {
    return `code ${this.code}`
  }
}

export const failures: Part = (it, { concurrentTransactions }) => {
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
          assert.include(parked?.error.message, "no")
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

  it.effect("takes a handler that interrupts itself for one that fails", () =>
    Effect.gen(function*() {
      const interruptions = [Effect.interrupt, Effect.flatMap(Effect.forkChild(Effect.interrupt), Fiber.join)]
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        for (const interruption of interruptions) {
          const { make, write } = yield* subscribe({ delivery, retry: Schedule.recurs(2) })
          yield* write(0, 3)
          const subscription = yield* make()
          let calls = 0
          const handler = (_: unknown, { position }: Handled) =>
            Effect.suspend(() => {
              if (position !== 1) return Effect.void
              calls++
              return interruption
            })
          yield* during(subscription.run(handler), until(Effect.map(subscription.lag, (lag) => lag === 0)))
          assert.strictEqual(calls, 3)
          const [parked] = yield* subscription.parked
          assert.include(parked, { position: 1, attempts: 3 })
          assert.include(parked?.error.message, "interrupted")
        }
      }
    }))

  it.effect("takes a handler that loses a connection of its own for one that fails", () =>
    Effect.gen(function*() {
      const lost = new SqlError({ reason: new ConnectionError({ cause: new Error("elsewhere") }) })
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { make, write } = yield* subscribe({ delivery, retry: Schedule.recurs(2) })
        yield* write(0, 2)
        const subscription = yield* make()
        const attempts: Array<number> = []
        const handler = (_: unknown, { attempt, position }: Handled) =>
          Effect.suspend(() => {
            if (position !== 1) return Effect.void
            attempts.push(attempt)
            return Effect.fail(lost)
          })
        yield* during(subscription.run(handler), until(Effect.map(subscription.lag, (lag) => lag === 0)))
        assert.deepStrictEqual(attempts, [1, 2, 3])
        assert.include((yield* subscription.parked)[0], { position: 1, attempts: 3 })
        // Not an attempt: nothing is known of the handler.
        assert.deepStrictEqual(yield* subscription.replay(handler), { handled: 0, failed: 1 })
        assert.include((yield* subscription.parked)[0], { position: 1, attempts: 3 })
      }
    }))

  it.effect("gives the error to the schedule of retries", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({
        retry: Schedule.while(Schedule.recurs(9), ({ input }) => input === "again")
      })
      yield* write(0, 1)
      const subscription = yield* make()
      yield* during(
        subscription.run((_, { attempt }) => Effect.fail(attempt < 3 ? "again" : "never")),
        until(Effect.map(subscription.lag, (lag) => lag === 0))
      )
      assert.include((yield* subscription.parked)[0], { attempts: 3 })
    }))

  it.effect("counts the attempts of a batch that was halved", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ retry: Schedule.recurs(1) })
      yield* write(0, 4)
      const subscription = yield* make()
      const attempts: Array<ReadonlyArray<number>> = []
      yield* during(
        subscription.runBatches((deliveries) =>
          Effect.suspend(() => {
            const failed = deliveries.find(({ position }) => position === 2)
            if (failed === undefined) return Effect.void
            attempts.push([deliveries.length, failed.attempt])
            return Effect.fail("no")
          })
        ),
        until(Effect.map(subscription.lag, (lag) => lag === 0))
      )
      assert.deepStrictEqual(attempts, [[4, 1], [2, 2], [1, 3], [1, 4]])
      assert.include((yield* subscription.parked)[0], { position: 2, attempts: 4 })
    }))

  it.effect("keeps the error as JSON, with its fields and its causes", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe()
      const errors: ReadonlyArray<readonly [error: unknown, part: string]> = [
        [{ reason: "of a plain object" }, "of a plain object"],
        [new Error("outside", { cause: new Error("the reason inside") }), "the reason inside"],
        ["a\0 b".repeat(5000), "a b"],
        [undefined, "undefined"],
        [new Boom({ code: 42, detail: "\0lost", at: 10n ** 30n, inner: { list: [1, null] } }), "inner"]
      ]
      yield* write(0, errors.length)
      const subscription = yield* make()
      yield* during(
        subscription.run((_, { position }) => Effect.fail(errors[position]?.[0])),
        until(Effect.map(subscription.lag, (lag) => lag === 0))
      )
      for (const { error, position } of yield* subscription.parked) {
        assert.include(JSON.stringify(error), errors[position]?.[1] ?? assert.fail())
        assert.isAtMost(JSON.stringify(error).length, 20_000)
      }
      const [plain, caused, , nothing, typed] = (yield* subscription.parked).map(({ error }) => error)
      assert.deepInclude(plain, { tag: "Object", fields: { reason: "of a plain object" } })
      assert.include(caused, { tag: "Error", message: "outside" })
      assert.include(caused?.cause, { tag: "Error", message: "the reason inside" })
      assert.deepStrictEqual(nothing, { tag: "undefined", message: "undefined" })
      assert.deepInclude(typed, {
        tag: "Boom",
        message: "code 42",
        fields: { code: 42, detail: "lost", at: `${10n ** 30n}`, inner: { list: [1, null] } }
      })
    }))

  it.effect("leaves a message alone that was discarded or replayed while a replay failed", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { make, write } = yield* subscribe({ delivery })
        yield* write(0, 2)
        const subscription = yield* make()
        yield* during(
          subscription.run(() => Effect.fail("no")),
          until(Effect.map(subscription.lag, (lag) => lag === 0))
        )
        const [first, second] = yield* subscription.parked
        if (first === undefined || second === undefined) return assert.fail("two are parked")
        if (delivery === "atLeastOnce") {
          const failed = subscription.replay(
            () => Effect.andThen(subscription.discard(first), Effect.fail("again")),
            [first]
          )
          assert.deepStrictEqual(yield* failed, { handled: 0, failed: 1 })
          const handled = subscription.replay(
            () => Effect.orDie(subscription.replay(() => Effect.void, [second])),
            [second]
          )
          assert.deepStrictEqual(yield* handled, { handled: 0, failed: 0 })
        } else {
          let calls = 0
          const replay = subscription.replay(() => Effect.sync(() => calls++))
          const results = yield* Effect.all([replay, replay], { concurrency: 2 })
          assert.strictEqual(results.reduce((sum, { handled }) => sum + handled, 0), 2)
          assert.strictEqual(calls, 2)
        }
        assert.deepStrictEqual(yield* subscription.parked, [])
      }
    }))

  it.effect("finds a parked message by its id, and lists it when it is gone", (context) =>
    Effect.gen(function*() {
      if (!concurrentTransactions) return context.skip()
      const { accounts, make, origin, stream } = yield* subscribe()
      const outside = yield* outsider
      // What is committed late is linked late, until the stream is rebuilt.
      const [late, early] = [origin(0), `${origin(0)}-0`]
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(late, deposit(1))
        yield* outside(Effect.andThen(accounts.write(early, deposit(2)), stream.projector.runOnce))
      }))
      yield* stream.projector.runOnce
      const subscription = yield* make()
      yield* during(
        subscription.run(() => Effect.fail("no")),
        until(Effect.map(subscription.lag, (lag) => lag === 0))
      )
      const listed = subscription.parked
      const before = yield* listed
      assert.deepStrictEqual(before.map((entry) => entry.stream), [early, late])
      yield* stream.rebuild
      assert.deepStrictEqual(yield* listed, before)
      const replayed: Array<string> = []
      yield* subscription.replay((_, delivery) => Effect.sync(() => replayed.push(delivery.stream)), before.slice(0, 1))
      assert.deepStrictEqual(replayed, [early])

      yield* truncate(accounts)
      const [gone, ...none] = yield* listed
      assert.lengthOf(none, 0)
      const { attempts, error, messageId, partition, position } = before[1] ?? assert.fail("two were parked")
      assert.deepInclude(gone, {
        attempts,
        error,
        messageId,
        partition,
        position,
        message: undefined,
        stream: undefined
      })
      assert.deepStrictEqual(yield* subscription.replay(() => Effect.void), { handled: 0, failed: 1 })
      assert.isTrue(yield* subscription.discard({ partition, position }))
    }))
}
