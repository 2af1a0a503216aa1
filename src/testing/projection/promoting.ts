/** Projections: which version readers see. */
import { assert } from "@effect/vitest"
import { Effect, Latch, Stream } from "effect"
import { deposits, failsWith, hurried, type Part } from "../fixture.ts"
import { until } from "../subscription/fixture.ts"
import { background, project, promotedVersion, someLooks, untilPromoted } from "./fixture.ts"

export const promoting: Part = (it, options) => {
  it.effect("shows nothing until the first version has all that was written", () =>
    Effect.gen(function*() {
      const { accounts, counted, make, origin, run, stream, write } = yield* project(options)
      yield* write(0, 3)
      yield* accounts.write(origin(1), deposits(4)) // not linked yet
      const projection = yield* make(1)
      yield* failsWith(projection.promoted, { _tag: "VersionError", reason: "nonePromoted" })
      yield* failsWith(projection.promote(), { _tag: "VersionError", reason: "behind" })
      yield* background(run(projection))
      yield* until(Effect.map(projection.status, ([status]) => status?.handled === 3))
      yield* someLooks
      assert.isUndefined(yield* promotedVersion(projection))
      yield* stream.projector.runOnce
      yield* untilPromoted(projection)
      const { model, version } = yield* projection.promoted
      assert.strictEqual(version, 1)
      assert.deepStrictEqual(yield* counted(model), { messages: 7, once: true })
    }))

  it.effect("shows the first version of an empty stream at once", () =>
    Effect.gen(function*() {
      const { counted, make, run, write } = yield* project(options)
      const projection = yield* make(1)
      yield* background(run(projection))
      yield* untilPromoted(projection)
      const at = yield* write(0, 2)
      yield* projection.waitUntilProcessed(at.globalPosition, "10 seconds")
      assert.deepStrictEqual(yield* counted((yield* projection.promoted).model), { messages: 2, once: true })
    }))

  it.effect("shows a higher version when it is level, and not before", () =>
    Effect.gen(function*() {
      const { counted, make, run, write } = yield* project(options)
      yield* write(0, 5)
      yield* write(1, 5)
      const first = yield* make(1)
      yield* background(run(first))
      yield* untilPromoted(first)
      const second = yield* make(2)
      const gate = Latch.makeUnsafe(false)
      yield* background(run(second, gate))
      const at = yield* write(1, 3)
      yield* second.waitUntilProcessed(at.globalPosition, "10 seconds") // by the one that readers see
      yield* failsWith(second.waitUntilProcessed(at.globalPosition + 1, "10 millis"), {
        _tag: "NotProcessedError",
        subscription: `${second.name}_v1`
      })
      yield* failsWith(second.promote(), { _tag: "VersionError", reason: "behind", version: 2 })
      assert.deepStrictEqual(
        (yield* second.status).map(({ handled, state, total, version }) => ({ version, state, handled, total })),
        [
          { version: 1, state: "promoted", handled: 13, total: 13 },
          { version: 2, state: "building", handled: 0, total: 13 }
        ]
      )
      assert.deepStrictEqual(yield* counted((yield* second.promoted).model), { messages: 13, once: true })
      yield* gate.open
      yield* untilPromoted(second)
      assert.strictEqual(yield* promotedVersion(first), 2)
      // The old one goes on.
      yield* write(0, 2)
      yield* until(Effect.map(first.subscription.lag, (lag) => lag === 0))
      yield* until(Effect.map(second.subscription.lag, (lag) => lag === 0))
      for (const { model } of [first, second]) {
        assert.deepStrictEqual(yield* counted(model), { messages: 15, once: true })
      }
      assert.deepStrictEqual((yield* first.status).map(({ state }) => state), ["standby", "promoted"])
    }))

  it.effect("tells the progress of a version until it is promoted", () =>
    Effect.gen(function*() {
      const { make, run, write } = yield* project(options)
      yield* write(0, 4)
      const projection = yield* make(1)
      const gate = Latch.makeUnsafe(false)
      yield* background(run(projection, gate))
      const progress = yield* projection.progress.pipe(
        Stream.tap(() => gate.open),
        Stream.runCollect,
        hurried
      )
      assert.include(progress[0], { state: "building", handled: 0, total: 4, percentage: 0, messagesPerSecond: 0 })
      assert.isUndefined(progress[0]?.timeLeft)
      assert.include(progress.at(-1), { state: "promoted", handled: 4, percentage: 100 })
    }))

  it.effect("promotes by hand what is not to promote itself, and what may be behind", () =>
    Effect.gen(function*() {
      const { make, run, write } = yield* project(options)
      yield* write(0, 4)
      const first = yield* make(1, { promotion: "manual" })
      yield* failsWith(first.promote(1, { lag: 3 }), { _tag: "VersionError", reason: "behind", behind: 4 })
      yield* first.promote(1, { lag: 4 })
      assert.strictEqual(yield* promotedVersion(first), 1)
      const second = yield* make(2, { promotion: "manual" })
      const running = yield* background(run(second))
      yield* until(Effect.map(second.subscription.lag, (lag) => lag === 0))
      yield* someLooks
      assert.strictEqual(yield* promotedVersion(first), 1)
      yield* running.stop
      yield* first.promote(2)
      yield* first.promote(2) // it is
      assert.strictEqual(yield* promotedVersion(first), 2)
      yield* failsWith(first.promote(3), { _tag: "VersionError", reason: "missing", version: 3 })
      yield* failsWith(first.promote(0), { _tag: "InvalidArgumentError", argument: "version" })
      yield* failsWith(first.promote(2, { lag: -1 }), { _tag: "InvalidArgumentError", argument: "lag" })
    }))

  it.effect("promotes itself with a lag, if that is allowed", () =>
    Effect.gen(function*() {
      const { make, name, run, write } = yield* project(options)
      yield* write(0, 3)
      const first = yield* make(1)
      const one = yield* background(run(first))
      yield* untilPromoted(first)
      yield* one.stop
      yield* write(1, 2)
      const gate = Latch.makeUnsafe(false)
      const second = yield* make(2, { promotion: { lag: 4 }, batchSize: 1 })
      yield* background(run(second, gate))
      yield* someLooks
      assert.strictEqual(yield* promotedVersion(second), 1)
      const third = yield* make(3, { promotion: { lag: 5 } })
      yield* background(run(third, gate))
      yield* untilPromoted(third)
      yield* failsWith(make(4, { promotion: { lag: 0.5 } }), { _tag: "InvalidArgumentError", argument: "lag" }, name)
    }))

  it.effect("goes back to the version before, when that has all that came since", () =>
    Effect.gen(function*() {
      const { counted, make, run, write } = yield* project(options)
      yield* write(0, 3)
      const first = yield* make(1)
      const one = yield* background(run(first))
      yield* untilPromoted(first)
      yield* failsWith(first.rollback(), { _tag: "VersionError", reason: "noneBefore" })
      const second = yield* make(2)
      yield* background(run(second))
      yield* untilPromoted(second)
      yield* one.stop
      yield* write(0, 4)
      yield* until(Effect.map(second.subscription.lag, (lag) => lag === 0))
      yield* failsWith(second.rollback(), { _tag: "VersionError", reason: "behind", behind: 4, version: 1 })
      assert.strictEqual(yield* promotedVersion(first), 2)
      yield* background(run(first))
      yield* until(Effect.map(first.subscription.lag, (lag) => lag === 0))
      assert.strictEqual(yield* second.rollback(), 1)
      // Processes of both versions go on; neither promotes itself.
      const at = yield* write(1, 2)
      yield* second.waitUntilProcessed(at.globalPosition, "10 seconds")
      yield* until(Effect.map(second.subscription.lag, (lag) => lag === 0))
      yield* someLooks
      yield* background(run(second)) // started anew
      yield* someLooks
      const { model, version } = yield* second.promoted
      assert.strictEqual(version, 1)
      assert.deepStrictEqual(yield* counted(model), { messages: 9, once: true })
      assert.deepStrictEqual((yield* first.status).map(({ state }) => state), ["promoted", "standby"])
      // A higher one does.
      const third = yield* make(3)
      yield* background(run(third))
      yield* untilPromoted(third)
      assert.strictEqual(yield* promotedVersion(first), 3)
      assert.strictEqual(yield* third.rollback(), 1)
      // Not to 3 again, though that was promoted before.
      yield* failsWith(third.rollback(), { _tag: "VersionError", reason: "noneBefore" })
      assert.strictEqual(yield* promotedVersion(first), 1)
    }))

  it.effect("does not promote inside a transaction", () =>
    Effect.gen(function*() {
      const { accounts, make } = yield* project(options)
      const projection = yield* make(1)
      yield* failsWith(accounts.withTransaction(projection.promote()), { _tag: "InvalidArgumentError" })
      yield* failsWith(accounts.withTransaction(projection.drop(1)), { _tag: "InvalidArgumentError" })
      assert.isUndefined(yield* promotedVersion(projection))
    }))
}
