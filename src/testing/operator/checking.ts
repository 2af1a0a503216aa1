/** Operators: whether all is well, and if not, why. */
import { assert } from "@effect/vitest"
import { DateTime, Effect, Schedule } from "effect"
import type { HealthBounds, OperatorService } from "../../Operator.ts"
import { Accounts, deposit, deposits, failsWith, newStream, type Part } from "../fixture.ts"
import { during, subscribe, until } from "../subscription/fixture.ts"
import { operated, parkedAll } from "./fixture.ts"

/** What is wrong, of each of these. */
const kindsOf = (operator: OperatorService, of: ReadonlyArray<string>, bounds?: HealthBounds) =>
  Effect.map(
    operator.health(bounds),
    ({ problems }) => of.map((one) => problems.filter((each) => each.of === one).map(({ kind }) => kind))
  )

export const checking: Part = (it) => {
  it.effect("tells of projectors that are down or behind, and of messages that nobody handles", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe({ shutdownTimeout: 0 })
      const operator = yield* operated()
      const subscription = yield* make()
      const { name } = subscription
      yield* write(0, 4)
      yield* write(1, 1)
      const both = [stream.name, name]
      assert.deepStrictEqual(yield* kindsOf(operator, both), [[], []])
      yield* Effect.sleep("5 millis")
      // With nothing that waits for it, a projector may have been stopped on purpose.
      const stopped = (yield* operator.health({ projector: 0 })).problems.find(({ of }) => of === stream.name)
      assert.deepInclude(stopped, { kind: "projectorDown", severity: "warning" })
      yield* accounts.write(origin(0), deposits(2))
      yield* Effect.sleep("5 millis")
      assert.deepStrictEqual(yield* kindsOf(operator, both, { lag: 4, age: 0 }), [
        ["projectorBehind"],
        ["lagging", "unclaimed", "unclaimed"]
      ])
      const { isHealthy, problems } = yield* operator.health({ projector: 0, age: 0 })
      assert.isFalse(isHealthy)
      const [down, first] = problems.filter(({ of }) => both.includes(of))
      assert.deepInclude(down, { kind: "projectorDown", of: stream.name, severity: "error" })
      assert.isDefined(down?.since)
      assert.match(first?.message ?? "", /^nobody has claimed it: 4 messages wait, the first for \d+ s$/)
      assert.strictEqual(first?.partition, 0)

      yield* during(
        subscription.run(() => Effect.never),
        Effect.gen(function*() {
          const claimed = Effect.map(
            operator.partitions(name),
            ({ items }) => items.every(({ claimedAt }) => claimedAt)
          )
          yield* until(claimed)
          yield* Effect.sleep("5 millis")
          assert.deepStrictEqual(yield* kindsOf(operator, [name], { age: 0 }), [["late", "late"]])
          assert.deepStrictEqual(yield* kindsOf(operator, [name], { age: 0, progress: 0 }), [["stuck", "stuck"]])
        })
      )
    }))

  it.effect("tells what is halted, paused or parked", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ onFailure: "haltPartition", retry: Schedule.recurs(0) })
      const operator = yield* operated()
      yield* write(0, 1)
      const subscription = yield* make()
      const { name } = subscription
      yield* during(
        subscription.run(() => Effect.fail({ _tag: "Jam", message: "no\nway \u202e" })),
        until(Effect.map(operator.partitions(name), ({ items }) => items[0]?.halted !== undefined))
      )
      yield* operator.pause(name, { reason: "lunch" })
      const parked = yield* parkedAll([2])
      const { problems } = yield* operator.health()
      const [paused, halted, ...others] = problems.filter(({ of }) => of === name)
      assert.deepStrictEqual(others, [])
      assert.deepInclude(halted, { kind: "halted", partition: 0, severity: "error" })
      assert.include(halted?.message, "Jam: no\\u000away \\u202e")
      assert.isDefined(halted?.since)
      assert.deepInclude(paused, { kind: "paused", severity: "warning", message: "is paused (lunch): 1 messages wait" })
      assert.deepStrictEqual(problems.flatMap(({ kind, of }) => of === parked.name ? [kind] : []), ["parked"])
      assert.deepStrictEqual(yield* kindsOf(operator, [parked.name], { parked: 2 }), [[]])
      for (const bounds of [{ lag: -1 }, { parked: 0.5 }, { sessions: 2 }]) {
        yield* failsWith(operator.health(bounds), { _tag: "InvalidArgumentError", argument: Object.keys(bounds)[0] })
      }
    }))

  it.effect("tells of scheduled messages that nobody writes, lists them, and cancels one", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const operator = yield* operated()
      const stream = newStream()
      const now = (yield* DateTime.now).epochMilliseconds
      const key = (index: number) => `${stream} ${index}`
      for (const index of [3, 1, 2]) {
        yield* accounts.schedule(stream, deposit(), {
          at: DateTime.makeUnsafe(now + 3_600_000 + index),
          key: key(index)
        })
      }
      const { items, next } = yield* operator.scheduled({ limit: 2 })
      assert.deepStrictEqual(items.map((each) => each.key), [key(1), key(2)])
      assert.deepInclude(items[0], { stream, refused: undefined })
      assert.deepStrictEqual((yield* operator.scheduled({ cursor: next })).items.map((each) => each.key), [key(3)])
      assert.isTrue(yield* operator.cancelScheduled(key(3)))
      assert.isFalse(yield* operator.cancelScheduled(key(3)))
      assert.deepInclude((yield* operator.overview).scheduled, { waiting: 2, overdue: undefined })
      yield* accounts.schedule(stream, deposit(), { at: DateTime.makeUnsafe(now - 3_600_000), key: key(0) })
      assert.deepStrictEqual(yield* kindsOf(operator, ["contract"]), [["schedulerDown"]])
      for (const index of [0, 1, 2]) assert.isTrue(yield* operator.cancelScheduled(key(index)))
      assert.deepStrictEqual(yield* kindsOf(operator, ["contract"]), [[]])
    }))

  it.effect("shows a store at a glance", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe()
      const operator = yield* operated()
      yield* write(0, 1)
      const subscription = yield* make()
      const { globalPosition } = yield* accounts.write(origin(0), deposit())
      const overview = yield* operator.overview
      assert.deepInclude(overview, { store: "contract" })
      assert.strictEqual(overview.objects.made, overview.objects.known)
      assert.include(overview.aggregatedStreams, stream.name)
      assert.include(overview.subscriptions, subscription.name)
      assert.strictEqual(overview.vitals.lastPosition, globalPosition)
      yield* subscription.drop
      assert.notInclude((yield* operator.overview).subscriptions, subscription.name)
    }))
}
