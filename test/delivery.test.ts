/** Deliveries: clocks that are set back, pools that handlers would use up, layers that restart and stop. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Latch, Layer, Schedule } from "effect"
import { AggregatedStream, Partitioner, Storage, Subscription } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import * as MemoryStorage from "../src/memory/storage.ts"
import { onClock } from "../src/testing/fixture.ts"
import { clientNamed, until } from "./support/processes.ts"
import { Done, stream, Work } from "./support/work.ts"
import { test, write } from "./support/working.ts"

class Worked extends AggregatedStream.Service<Worked>()("test/Worked", {
  store: Work,
  name: "worked",
  patterns: "%",
  partitioner: Partitioner.constant()
}) {}

class Layered extends Subscription.Service<Layered>()("test/Layered", {
  stream: Worked,
  name: "layered",
  onFailure: "stop",
  retry: Schedule.recurs(0)
}) {}

const memory = Layer.provideMerge(Layered.layer, Layer.provideMerge(Worked.layer, Work.layerMemory))

const writeOne = Effect.gen(function*() {
  yield* (yield* Work).write("one", new Done({ number: 1 }))
  yield* (yield* Worked).projector.runOnce
})

describe("a layer of a handler", () => {
  it.effect("ends with a HandlerError, unless its schedule says otherwise", () =>
    Effect.gen(function*() {
      for (const [options, expected] of [[undefined, 1], [{ restart: Schedule.spaced("1 minute") }, 6]] as const) {
        let calls = 0
        const layer = Layered.layerHandler(() => Effect.andThen(Effect.sync(() => calls++), Effect.fail("no")), options)
        yield* Effect.gen(function*() {
          yield* writeOne
          yield* Layer.build(layer)
          yield* TestClock.adjust("330 seconds")
        }).pipe(Effect.scoped, Effect.provide(Layer.fresh(memory)))
        assert.strictEqual(calls, expected)
      }
    }))

  it.effect("lets a handler finish within 10 seconds, and interrupts it then", () =>
    Effect.gen(function*() {
      for (const [takes, finished] of [["9 seconds", 1], ["11 seconds", 0]] as const) {
        const reached = Latch.makeUnsafe(false)
        let done = 0
        const layer = Layered.layerHandlers({
          Done: () =>
            reached.open.pipe(Effect.andThen(Effect.sleep(takes)), Effect.tap(() => Effect.sync(() => done++)))
        })
        yield* Effect.gen(function*() {
          yield* writeOne
          const fiber = yield* Effect.forkChild(Effect.scoped(Effect.andThen(Layer.build(layer), Effect.never)))
          yield* reached.await
          const closing = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
          yield* TestClock.adjust("30 seconds")
          yield* Fiber.join(closing)
          assert.strictEqual(done, finished)
          assert.strictEqual((yield* (yield* Layered).status)[0]?.checkpoint, finished - 1)
        }).pipe(Effect.provide(Layer.fresh(memory)))
      }
    }))
})

it.live("no handler is called behind a lost claim, though the clock was set back", () =>
  Effect.gen(function*() {
    let confirmed = 0
    const losing = Layer.effect(
      Storage.Storage,
      Effect.map(Storage.Storage, (storage) => ({
        ...storage,
        aggregatedStream: (definition: Storage.StreamDefinition) =>
          Effect.map(storage.aggregatedStream(definition), (aggregated) => ({
            ...aggregated,
            subscription: (name: string) =>
              Effect.map(aggregated.subscription(name), (subscribed) => ({
                ...subscribed,
                claims: (mode: Storage.ClaimMode, label: string | undefined) =>
                  Effect.map(subscribed.claims(mode, label), (claims): Storage.Claims => ({
                    ...claims,
                    claim: (partition, options) =>
                      Effect.map(
                        claims.claim(partition, options),
                        (claim) =>
                          claim && {
                            ...claim,
                            confirm: Effect.sync(() => ++confirmed > 1 ? "Confirmed" as const : "Fenced" as const)
                          }
                      )
                  }))
              }))
          }))
      }))
    ).pipe(Layer.provide(MemoryStorage.layer))
    // Time that has passed, and what wall clocks make of it.
    let [passed, setBack] = [0, 0]
    const skewed = onClock((clock) => {
      const monotonicTimeNanosUnsafe = () => clock.monotonicTimeNanosUnsafe() + BigInt(passed) * 1_000_000n
      return {
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - setBack,
        monotonicTimeNanosUnsafe,
        monotonicTimeNanos: Effect.sync(monotonicTimeNanosUnsafe)
      }
    })
    const calls: Array<number> = []
    yield* Effect.gen(function*() {
      const work = yield* Work
      yield* work.write("one", [new Done({ number: 1 }), new Done({ number: 2 })])
      const worked = yield* stream(1)
      yield* worked.projector.runOnce
      const subscription = yield* worked.subscription({ name: "clock" })
      yield* Effect.raceFirst(
        subscription.run((_, { position }) =>
          Effect.sync(() => {
            calls.push(position)
            if (calls.length > 1) return
            setBack = 60_000
            passed = 1100 // longer than a claim is good for
          })
        ),
        until("all is handled", Effect.map(subscription.lag, (lag) => lag === 0))
      )
    }).pipe(
      skewed,
      Effect.provide(Layer.provide(Work.layerStorage, losing))
    )
    assert.isAbove(confirmed, 0) // and so the second message was not handled without asking
  }))

describe("PostgreSQL", () => {
  test("handlers in transactions leave connections to others", () =>
    Effect.gen(function*() {
      for (let i = 0; i < 20; i++) yield* write(1, `work-${i}`, 16)
      const gate = Latch.makeUnsafe(false)
      let [inHand, most] = [0, 0]
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const handle = Effect.acquireUseRelease(
          Effect.sync(() => {
            most = Math.max(most, ++inHand)
          }),
          () => Effect.andThen(gate.await, sql`select 1`),
          () => Effect.sync(() => inHand--)
        )
        const subscriptions = []
        for (const name of ["one", "two"]) {
          const subscription = yield* (yield* stream(16)).subscription({ name, delivery: "transactional" })
          subscriptions.push({ subscription, fiber: yield* Effect.forkScoped(subscription.run(() => handle)) })
        }
        yield* until("handlers have their transactions", Effect.sync(() => inHand === 2))
        yield* Effect.timeout(sql`select 1`, "2 seconds")
        yield* gate.open
        for (const { fiber, subscription } of subscriptions) {
          yield* until("all is handled", Effect.map(subscription.lag, (lag) => lag === 0))
          yield* Fiber.interrupt(fiber)
        }
        assert.strictEqual(most, 2)
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Layer.provideMerge(Work.layer, clientNamed("small", {}, 4)))))
    }))

  test("a busy partition is left to depeche_db's consumers now and then", () =>
    Effect.gen(function*() {
      // Time stands still, for whoever measures how long something lasts, unless the test has it go on.
      let time = 0n
      const still = onClock(() => ({
        monotonicTimeNanosUnsafe: () => time,
        monotonicTimeNanos: Effect.sync(() => time)
      }))
      const pass = (seconds: bigint) => Effect.sync(() => void (time += seconds * 1_000_000_000n))
      yield* write(200)
      const subscription = yield* (yield* stream(1)).subscription({ name: "fenced", batchSize: 20 })
      const [reached, gate] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
      const running = yield* subscription.run((_, { position }) =>
        position === 30 ? Effect.andThen(reached.open, gate.await) : Effect.void
      ).pipe(still, Effect.forkScoped)
      yield* reached.await
      const python = yield* SqlClient.SqlClient.use((client) => client.reserve).pipe(
        Effect.provide(yield* Layer.build(clientNamed("python")))
      )
      // The first 8 bytes of sha1("fenced.subscription-fenced-0"), little-endian, as Python computes them.
      const key = "-5566071208766655743"
      const tries = Effect.map(
        python.executeValues("select pg_try_advisory_lock($1::int8)", [key]),
        ([row]) => row?.[0] === true
      )
      assert.isFalse(yield* tries)
      yield* pass(24n) // it has been busy for as long as it ever is at a time
      yield* gate.open
      yield* until("Python gets the partition", tries)
      assert.isAbove(yield* subscription.lag, 0)
      yield* python.executeValues("select pg_advisory_unlock($1::int8)", [key])
      yield* pass(1n)
      yield* until("the rest is handled", Effect.map(subscription.lag, (lag) => lag === 0))
      yield* Fiber.interrupt(running)
    }))
})
