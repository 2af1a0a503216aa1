/** Deliveries: clocks that are set back, pools that handlers would use up, layers that restart and stop. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Latch, Layer, Schedule } from "effect"
import { AggregatedStream, Partitioner, Storage, Subscription } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import * as MemoryStorage from "../src/memory/storage.ts"
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
    const clock = yield* Clock.Clock
    let setBack = 0
    const skewed: Clock.Clock = {
      ...clock,
      sleep: (duration) => clock.sleep(duration),
      monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
      currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
      currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() - setBack
    }
    const calls: Array<number> = []
    yield* Effect.gen(function*() {
      const work = yield* Work
      yield* work.write("one", [new Done({ number: 1 }), new Done({ number: 2 })])
      const worked = yield* stream(1)
      yield* worked.projector.runOnce
      const subscription = yield* worked.subscription({ name: "clock" })
      yield* Effect.raceFirst(
        subscription.run((_, { position }) =>
          Effect.gen(function*() {
            calls.push(position)
            if (calls.length > 1) return
            setBack = 60_000
            yield* Effect.sleep("1100 millis") // longer than a claim is good for
          })
        ),
        until("all is handled", Effect.map(subscription.lag, (lag) => lag === 0))
      )
    }).pipe(
      Effect.provideService(Clock.Clock, skewed),
      Effect.provide(Layer.provide(Work.layerStorage, losing))
    )
    assert.isAbove(confirmed, 0) // and so the second message was not handled without asking
  }))

describe("PostgreSQL", () => {
  test("handlers in transactions leave connections to others", () =>
    Effect.gen(function*() {
      for (let i = 0; i < 20; i++) yield* write(1, `work-${i}`, 16)
      const gate = Latch.makeUnsafe(false)
      let inHand = 0
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const running = []
        for (const name of ["one", "two"]) {
          const subscription = yield* (yield* stream(16)).subscription({ name, delivery: "transactional" })
          running.push(
            yield* Effect.forkScoped(
              subscription.run(() => Effect.andThen(Effect.sync(() => inHand++), gate.await))
            )
          )
        }
        yield* until("handlers have their transactions", Effect.sync(() => inHand === 2))
        yield* Effect.sleep("300 millis") // others would come
        assert.strictEqual(inHand, 2)
        yield* Effect.timeout(sql`select 1`, "2 seconds")
        yield* gate.open
        for (const fiber of running) yield* Fiber.interrupt(fiber)
      }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Layer.provideMerge(Work.layer, clientNamed("small", {}, 4)))))
    }))

  test("a busy partition is left to depeche_db's consumers now and then", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      // A second in 40 milliseconds, for whoever measures how long something lasts.
      const began = clock.monotonicTimeNanosUnsafe()
      const fast: Clock.Clock = {
        ...clock,
        sleep: (duration) => clock.sleep(duration),
        currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
        monotonicTimeNanosUnsafe: () => began + (clock.monotonicTimeNanosUnsafe() - began) * 25n
      }
      yield* write(4000)
      const subscription = yield* (yield* stream(1)).subscription({ name: "fenced", batchSize: 20 })
      const running = yield* subscription.run(() => Effect.sleep("1 millis")).pipe(
        Effect.provideService(Clock.Clock, fast),
        Effect.forkScoped
      )
      yield* until("it is at work", Effect.map(subscription.status, ([status]) => (status?.checkpoint ?? -1) >= 20))
      const python = yield* SqlClient.SqlClient.use((client) => client.reserve).pipe(
        Effect.provide(yield* Layer.build(clientNamed("python")))
      )
      // The first 8 bytes of sha1("fenced.subscription-fenced-0"), little-endian, as Python computes them.
      const tries = Effect.map(
        python.executeValues("select pg_try_advisory_lock($1::int8)", ["-5566071208766655743"]),
        ([row]) => row?.[0] === true
      )
      assert.isFalse(yield* tries)
      yield* until("Python gets the partition", tries)
      assert.isAbove(yield* subscription.lag, 0)
      yield* Fiber.interrupt(running)
    }))
})
