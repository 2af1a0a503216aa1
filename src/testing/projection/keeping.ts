/** Projections: what versions have, and which are kept. */
import { assert } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { Accounts, failsWith, newStream, type Part } from "../fixture.ts"
import { until } from "../subscription/fixture.ts"
import { background, project, promotedVersion, someLooks, untilPromoted } from "./fixture.ts"

export const keeping: Part = (it, options) => {
  it.effect("counts every message once, though handlers fail when they have counted", () =>
    Effect.gen(function*() {
      const { counted, kept, make, write } = yield* project(options)
      yield* write(0, 20)
      yield* write(1, 20)
      const projection = yield* make(1, { retry: Schedule.recurs(3), batchSize: 7 })
      let calls = 0
      yield* background(projection.run((deliveries, model) =>
        Effect.andThen(
          kept.add(model, deliveries.map(({ messageId }) => messageId)),
          Effect.suspend(() => ++calls % 3 === 0 ? Effect.fail("no") : Effect.void)
        )
      ))
      yield* untilPromoted(projection)
      assert.deepStrictEqual(yield* counted(projection.model), { messages: 40, once: true })
      assert.isAtLeast(calls, 9)
    }))

  it.effect("does not promote a version that has halted, and tells that it has", () =>
    Effect.gen(function*() {
      const { make, run, write } = yield* project(options)
      yield* write(0, 3)
      const first = yield* make(1)
      yield* background(run(first))
      yield* untilPromoted(first)
      const second = yield* make(2, { retry: Schedule.recurs(0) })
      const halting = yield* background(second.run(() => Effect.fail("no")))
      yield* until(Effect.map(second.subscription.status, ([status]) => status?.halted !== undefined))
      yield* someLooks
      assert.strictEqual(yield* promotedVersion(first), 1)
      const states = Effect.map(first.status, (all) => all.map(({ halted, state }) => [state, halted]))
      assert.deepStrictEqual(yield* states, [["promoted", 0], ["halted", 1]])
      yield* halting.stop
      yield* background(run(second))
      yield* until(Effect.map(promotedVersion(first), (version) => version === 2))
      assert.deepStrictEqual(yield* states, [["standby", 0], ["promoted", 0]])
    }))

  it.effect("makes a version once, however many processes begin at once", () =>
    Effect.gen(function*() {
      const { counted, make, run, write } = yield* project(options)
      yield* write(0, 5)
      const projections = yield* Effect.all(Array.from({ length: 4 }, () => make(1)), { concurrency: "unbounded" })
      for (const each of projections) yield* background(run(each))
      const [first] = projections
      if (first === undefined) return
      yield* untilPromoted(first)
      assert.deepStrictEqual(yield* counted(first.model), { messages: 5, once: true })
      assert.lengthOf(yield* first.status, 1)
    }))

  it.effect("drops a version by hand, but none that readers see; who runs it is told", () =>
    Effect.gen(function*() {
      const { counted, make, run, write } = yield* project(options)
      yield* write(0, 3)
      const first = yield* make(1)
      const running = yield* background(run(first))
      yield* untilPromoted(first)
      yield* failsWith(first.drop(1), { _tag: "VersionError", reason: "promoted" })
      const second = yield* make(2)
      yield* background(run(second))
      yield* until(Effect.map(promotedVersion(first), (version) => version === 2))
      yield* second.drop(1)
      yield* failsWith(second.drop(1), { _tag: "VersionError", reason: "missing" })
      yield* failsWith(second.promote(1), { _tag: "VersionError", reason: "missing" })
      yield* write(0, 1)
      yield* Effect.exit(running.stop)
      yield* failsWith(run(first), { _tag: "VersionError", reason: "missing", version: 1 })
      assert.deepStrictEqual((yield* second.status).map(({ version }) => version), [2])
      // It can be made again, from the beginning.
      const again = yield* make(1)
      yield* background(run(again))
      yield* until(Effect.map(again.subscription.lag, (lag) => lag === 0))
      assert.deepStrictEqual(yield* counted(again.model), { messages: 4, once: true })
      assert.strictEqual(yield* promotedVersion(again), 2)
    }))

  it.effect("removes all that there is, and begins anew", () =>
    Effect.gen(function*() {
      const { counted, make, run, write } = yield* project(options)
      yield* write(0, 3)
      const first = yield* make(1)
      const running = yield* background(run(first))
      yield* untilPromoted(first)
      yield* make(2)
      yield* running.stop
      yield* first.dropAll
      const again = yield* make(1)
      assert.isUndefined(yield* promotedVersion(again))
      assert.deepStrictEqual((yield* again.status).map(({ handled, version }) => ({ handled, version })), [
        { handled: 0, version: 1 }
      ])
      yield* background(run(again))
      yield* untilPromoted(again)
      assert.deepStrictEqual(yield* counted(again.model), { messages: 3, once: true })
    }))

  it.effect("refuses what cannot be, before anything is made", () =>
    Effect.gen(function*() {
      const { kept, make, name, stream } = yield* project(options)
      const accounts = yield* Accounts
      const refused = { _tag: "InvalidArgumentError" }
      yield* failsWith(make(0), { ...refused, argument: "version" })
      yield* failsWith(make(1_000_000_000), { ...refused, argument: "version" })
      yield* failsWith(make(1, { keep: "59 seconds" }), { ...refused, argument: "keep" })
      yield* failsWith(make(1, { name: "a".repeat(31) }), { _tag: "InvalidNameError" })
      yield* failsWith(make(1, { name: "a-b" }), { _tag: "InvalidNameError" })
      const projection = yield* make(1)
      assert.lengthOf(yield* projection.status, 1)
      // A subscription that has the name of a version's.
      yield* stream.subscription({ name: `${name}_v7` })
      yield* failsWith(make(7), { _tag: "InvalidNameError" })
      // A projection belongs to the stream that had it first.
      const other = yield* accounts.aggregatedStream({
        name: `other_${name}`,
        patterns: newStream(),
        partitioner: () => 0
      })
      yield* failsWith(other.projection({ name, version: 9, model: kept.model("elsewhere") }), {
        _tag: "InvalidNameError"
      })
      assert.lengthOf(yield* projection.status, 1)
    }))
}
