/** Subscriptions that park what follows a parked message of its stream behind it. */
import { assert } from "@effect/vitest"
import { Effect, Fiber, Latch, Random, Schedule } from "effect"
import type { Options } from "../../Subscription.ts"
import { deposit, failsWith, type Part } from "../fixture.ts"
import { type Account, during, type Handled, newSubscription, positions, subscribe, until } from "./fixture.ts"

/** Streams of one partition are named by a letter. */
const prepared = Effect.fnUntraced(function*(options?: Partial<Options<Account>>) {
  const { accounts, make, origin, stream } = yield* subscribe()
  const streamOf = (letter: string, partition = 0) => origin(partition).replace(/-(\d+)$/, `-${letter}-$1`)
  const subscription = yield* make({ onFailure: "parkStream", ...options })
  const handled: Array<string> = []
  const broken = new Set<string>()
  /** As in `a1`: the first message of the stream of that letter. */
  const nameOf = ({ stream: name, version }: { readonly stream: string; readonly version: number }) =>
    `${name.split("-").at(-2)}${version}`
  const handler = (_: unknown, delivered: Handled) =>
    Effect.suspend((): Effect.Effect<void, string> => {
      if (broken.has(nameOf(delivered))) return Effect.fail("no")
      handled.push(nameOf(delivered))
      return Effect.void
    })
  return {
    accounts,
    broken,
    handled,
    handler,
    make: (more?: Partial<Options<Account>>) => make({ onFailure: "parkStream", ...options, ...more }),
    nameOf,
    stream,
    subscription,
    caughtUp: Effect.timeout(until(Effect.map(subscription.lag, (lag) => lag === 0)), "20 seconds"),
    parked: Effect.map(
      subscription.parked,
      (all) =>
        all.map(({ attempts, stream: name = "", version = 0 }) => `${nameOf({ stream: name, version })} ${attempts}`)
    ),
    /** In this order, each by the letter of its stream. */
    write: Effect.fnUntraced(function*(letters: string, partition = 0) {
      for (const letter of letters) yield* accounts.write(streamOf(letter, partition), deposit())
      yield* stream.projector.runOnce
    })
  }
})

const of = (letter: string, names: ReadonlyArray<string>) => names.filter((name) => name.startsWith(letter))

export const parkingStreams: Part = (it, { concurrentTransactions }) => {
  for (const delivery of ["atLeastOnce", "transactional"] as const) {
    it.effect(`park what follows, whoever reads it, until it is requeued, and hand it over in order: ${delivery}`, () =>
      Effect.gen(function*() {
        for (const acknowledge of ["message", "batch"] as const) {
          for (const batches of [false, true]) {
            const { broken, caughtUp, handled, handler, make, parked, subscription, write } = yield* prepared({
              acknowledge,
              delivery,
              batchSize: 4,
              retry: Schedule.recurs(1)
            })
            const run = Effect.flatMap(make(), (one) =>
              batches
                ? one.runBatches((all) => Effect.forEach(all, (each) => handler(each.message, each)))
                : one.run(handler))
            broken.add("a2")
            yield* write("abaabcaba")
            yield* during(run, caughtUp)
            const [failed, ...behind] = yield* subscription.parked
            assert.deepInclude(failed, { error: { tag: "string", message: "no" } })
            assert.deepStrictEqual(behind.map(({ error }) => error.tag), [
              "ParkedBehind",
              "ParkedBehind",
              "ParkedBehind"
            ])
            assert.isAbove(failed?.attempts ?? 0, 1)
            assert.deepStrictEqual((yield* parked).map((each) => each.slice(0, 2)), ["a2", "a3", "a4", "a5"])
            assert.deepStrictEqual(behind.map(({ attempts }) => attempts), [0, 0, 0])
            yield* write("ab")
            yield* during(run, caughtUp)
            assert.lengthOf(yield* parked, 5)
            broken.clear()
            yield* during(
              run,
              Effect.gen(function*() {
                assert.strictEqual(yield* subscription.requeue([failed?.messageId ?? ""]), 5)
                yield* until(Effect.map(parked, (all) => all.length === 0))
                yield* write("ab")
                yield* caughtUp
              })
            )
            assert.deepStrictEqual(yield* parked, [])
            const firsts = Array.from(new Set(handled))
            assert.deepStrictEqual(of("a", firsts), positions(7, 1).map((version) => `a${version}`))
            assert.deepStrictEqual(of("b", firsts), positions(5, 1).map((version) => `b${version}`))
            if (delivery === "atLeastOnce" && !batches) assert.deepStrictEqual(firsts, handled)
          }
        }
      }))

    it.effect(`replay in order, and leave what follows one that fails again: ${delivery}`, () =>
      Effect.gen(function*() {
        const { broken, caughtUp, handled, handler, make, parked, subscription, write } = yield* prepared({ delivery })
        for (const name of ["a1", "b1"]) broken.add(name)
        yield* write("aabcaab")
        yield* during(subscription.run(handler), caughtUp)
        broken.clear()
        broken.add("a2")
        const places = yield* subscription.parked
        const second = places.filter(({ version }) => version === 2)
        // Those before it come first.
        assert.deepStrictEqual(yield* subscription.replay(handler, second.slice(0, 1)), { handled: 1, failed: 1 })
        assert.deepStrictEqual(yield* parked, ["a2 1", "b1 1", "a3 0", "a4 0", "b2 0"])
        assert.deepStrictEqual(yield* subscription.replay(handler), { handled: 2, failed: 1 })
        assert.deepStrictEqual(handled, ["c1", "a1", "b1", "b2"])
        const [head] = yield* subscription.parked
        assert.isTrue(head !== undefined && (yield* subscription.discard(head)))
        // Nothing is before them any more: they are for the workers.
        yield* during((yield* make()).run(handler), until(Effect.map(parked, (all) => all.length === 0)))
        assert.deepStrictEqual(handled, ["c1", "a1", "b1", "b2", "a3", "a4"])
      }))
  }

  it.effect("halt the partition when too many are parked, until some are taken away", () =>
    Effect.gen(function*() {
      for (const way of ["requeue", "replay", "discard"] as const) {
        const { broken, caughtUp, handled, handler, parked, subscription, write } = yield* prepared({
          parkStream: { limit: 3 },
          pollInterval: "1 day"
        })
        broken.add("a1")
        yield* write("aabaaab")
        const halted = Effect.map(subscription.status, ([status]) => status?.halted)
        yield* during(
          subscription.run(handler),
          Effect.gen(function*() {
            yield* until(Effect.map(halted, (halt) => halt !== undefined))
            assert.deepInclude(yield* halted, { position: 4, attempts: 0 })
            assert.strictEqual((yield* halted)?.error.tag, "ParkedStreamFull")
            assert.lengthOf(yield* parked, 3)
            assert.deepStrictEqual(handled, ["b1"])
            broken.clear()
            const [first] = yield* subscription.parked
            if (way === "requeue") yield* subscription.requeue()
            if (way === "replay") yield* subscription.replay(handler)
            if (way === "discard" && first !== undefined) yield* subscription.discard(first)
            yield* caughtUp
            yield* until(Effect.map(parked, (all) => all.length === 0))
          })
        )
        assert.isUndefined(yield* halted)
        const expected = positions(5, 1).map((version) => `a${version}`).slice(way === "discard" ? 1 : 0)
        assert.deepStrictEqual(of("a", handled), expected)
        assert.deepStrictEqual(of("b", handled), ["b1", "b2"])
      }
    }))

  it.effect("handle what is requeued meanwhile, rather than halt a partition behind it", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { broken, caughtUp, handled, handler, parked, subscription, write } = yield* prepared({
          delivery,
          parkStream: { limit: 2 },
          pollInterval: "1 day"
        })
        broken.add("a1")
        yield* write("aa")
        yield* during(subscription.run(handler), caughtUp)
        broken.clear()
        yield* write("ba")
        const requeues = (message: unknown, delivered: Handled) =>
          Effect.andThen(
            handled.length === 0 ? subscription.requeue() : Effect.void,
            handler(message, delivered)
          )
        yield* during(
          subscription.run(requeues),
          Effect.andThen(caughtUp, Effect.timeout(until(Effect.map(parked, (all) => all.length === 0)), "10 seconds"))
        )
        assert.deepStrictEqual(of("a", Array.from(new Set(handled))), ["a1", "a2", "a3"], delivery)
      }
    }))

  it.effect("take the stream for the key of a message whose own cannot be stored", () =>
    Effect.gen(function*() {
      const { broken, handled, handler, make, parked, write } = yield* prepared()
      const keys = ["\0", "\ud800", "", Array.from({ length: 10_000 }, (_, i) => String.fromCharCode(i + 33)).join("")]
      for (const [i, given] of keys.entries()) {
        const subscription = yield* make({ name: newSubscription(), parkStream: { key: () => given } })
        if (i === 0) broken.add("a1")
        if (i === 0) yield* write("aab")
        yield* during(
          subscription.run(handler),
          Effect.timeout(until(Effect.map(subscription.lag, (lag) => lag === 0)), "20 seconds")
        )
        assert.deepStrictEqual((yield* subscription.parked).map(({ key, stream }) => key === stream), [true, true])
        assert.deepStrictEqual(handled.splice(0), ["b1"])
      }
      assert.deepStrictEqual(yield* parked, [])
    }))

  it.effect("keep the order of a key that a function gives, or of streams where it throws", () =>
    Effect.gen(function*() {
      const { broken, caughtUp, handled, handler, make, parked, write } = yield* prepared()
      const subscription = yield* make({
        parkStream: {
          key: (_, { stream: name }) => {
            if (name.includes("-z-")) throw new Error("no key")
            return /-[ab]-/.test(name) ? "ab" : "others"
          }
        }
      })
      for (const name of ["a1", "z1"]) broken.add(name)
      yield* write("abczabcz")
      yield* during(subscription.run(handler), caughtUp)
      assert.deepStrictEqual(yield* parked, ["a1 1", "b1 0", "z1 1", "a2 0", "b2 0", "z2 0"])
      assert.deepStrictEqual(handled, ["c1", "c2"])
      const [first] = yield* subscription.parked
      assert.strictEqual(first?.key, "ab")
    }))

  it.effect("wait for a replay that has the first one in hand", (context) =>
    Effect.gen(function*() {
      if (!concurrentTransactions) return context.skip()
      for (const fails of [false, true]) {
        const { broken, caughtUp, handled, handler, parked, subscription, write } = yield* prepared({
          delivery: "transactional"
        })
        broken.add("a1")
        yield* write("ab")
        yield* during(subscription.run(handler), caughtUp)
        broken.clear()
        const [reached, gate] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
        const replaying = yield* Effect.forkChild(subscription.replay((message, delivered) =>
          reached.open.pipe(
            Effect.andThen(gate.await),
            Effect.andThen(fails ? Effect.fail("again") : handler(message, delivered))
          )
        ))
        yield* reached.await
        yield* write("ba")
        yield* during(
          subscription.run(handler),
          Effect.gen(function*() {
            yield* until(Effect.sync(() => handled.includes("b2")))
            yield* Effect.sleep("50 millis")
            assert.notInclude(handled, "a2")
            yield* gate.open
            yield* Fiber.join(replaying)
            yield* caughtUp
          })
        )
        assert.deepStrictEqual(of("a", handled), fails ? [] : ["a1", "a2"])
        assert.deepStrictEqual(yield* parked, fails ? ["a1 2", "a2 0"] : [])
      }
    }))

  it.effect("keep every stream in order, whoever fails, requeues and replays meanwhile", () =>
    Effect.gen(function*() {
      const { caughtUp, handled, make, nameOf, parked, subscription, write } = yield* prepared({
        delivery: "transactional",
        batchSize: 5,
        pollInterval: "20 millis"
      })
      const letters = "abcde"
      let isMended = false
      // What is rolled back was not handled.
      const handler = (_: unknown, delivered: Handled) =>
        Effect.flatMap(
          Random.next,
          (chance) => !isMended && chance < 0.15 ? Effect.fail("by chance") : Effect.void
        ).pipe(Effect.andThen(Effect.sync(() => handled.push(`${delivered.partition}${nameOf(delivered)}`))))
      yield* during(
        Effect.all([subscription.run(handler), Effect.flatMap(make(), (one) => one.run(handler))], { concurrency: 2 }),
        Effect.gen(function*() {
          for (let round = 0; round < 6; round++) {
            for (const partition of [0, 1]) yield* write(letters + letters, partition)
            if (round % 2 === 0) yield* subscription.requeue()
            else yield* subscription.replay(handler)
          }
          yield* caughtUp
          isMended = true
          yield* Effect.repeat(Effect.andThen(subscription.requeue(), Effect.map(parked, (all) => all.length)), {
            until: (left) => left === 0,
            schedule: Schedule.spaced("20 millis")
          }).pipe(Effect.timeout("20 seconds"))
        })
      )
      for (const partition of [0, 1]) {
        for (const letter of letters) {
          const versions = of(`${partition}${letter}`, handled).map((name) => Number(name.slice(2)))
          // A rolled back batch is handled again: the first time counts.
          const firsts = Array.from(new Set(versions))
          assert.deepStrictEqual(firsts, positions(12, 1), `${partition}${letter}: ${versions.join(" ")}`)
        }
      }
    }))

  it.effect("refuse a limit that is none", () =>
    Effect.gen(function*() {
      for (const limit of [0, 1.5, 1_000_001]) {
        yield* failsWith(prepared({ parkStream: { limit } }), {
          _tag: "InvalidArgumentError",
          argument: "parkStream.limit"
        })
      }
    }))
}
