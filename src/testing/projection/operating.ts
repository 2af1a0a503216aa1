/** Projections, as operators see them: versions, and which of them readers see. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { failsWith, type Part } from "../fixture.ts"
import { operated } from "../operator/fixture.ts"
import { until } from "../subscription/fixture.ts"
import { background, project, promotedVersion } from "./fixture.ts"

export const operating: Part = (it, options) => {
  it.effect("are listed, promoted and rolled back without their handlers, and versions are dropped", () =>
    Effect.gen(function*() {
      const { make, name, run, stream, write } = yield* project(options)
      const operator = yield* operated()
      yield* write(0, 3)
      const [first, second] = [yield* make(1, { promotion: "manual" }), yield* make(2, { promotion: "manual" })]
      const status = Effect.map(
        operator.projections({ limit: 1000 }),
        ({ items }) => items.find((one) => one.name === name)
      )
      yield* failsWith(operator.promote(name, 1), { _tag: "VersionError", reason: "behind" })
      const running = [yield* background(run(first)), yield* background(run(second))]
      yield* until(
        Effect.map(status, (found) => found?.versions.every(({ handled }) => handled === 3) === true)
      )
      yield* operator.promote(name, 1)
      yield* operator.promote(name, 2)
      const found = yield* status
      assert.deepInclude(found, { aggregatedStream: stream.name })
      assert.deepStrictEqual(found?.versions.map(({ state, version }) => [version, state]), [[1, "standby"], [
        2,
        "promoted"
      ]])
      assert.strictEqual(yield* promotedVersion(first), 2)
      assert.strictEqual(yield* operator.rollback(name), 1)
      yield* failsWith(operator.rollback(name), { _tag: "VersionError", reason: "noneBefore" })
      yield* failsWith(operator.dropVersion(name, 1), { _tag: "VersionError", reason: "promoted" })
      const { items } = yield* operator.subscriptions({ limit: 1000 })
      const ofVersion = items.filter((one) => one.projection?.name === name).map((one) => one.projection?.version)
      assert.deepStrictEqual(ofVersion, [1, 2])
      yield* Effect.forEach(running, ({ stop }) => stop)
      yield* operator.dropVersion(name, 2)
      assert.deepStrictEqual((yield* status)?.versions.map(({ version }) => version), [1])
      // What readers do not see may be behind: that is no problem.
      yield* make(3, { promotion: "manual" })
      const { problems } = yield* operator.health({ age: 0, projector: "1 day", lag: 0 })
      assert.deepStrictEqual(problems.filter(({ of }) => of.startsWith(name)).map(({ of }) => of), [])
    }))
}
