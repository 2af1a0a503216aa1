/** Operators: how aggregated streams and subscriptions are, and what is done to them. */
import { assert } from "@effect/vitest"
import { DateTime, Duration, Effect } from "effect"
import type { Page } from "../../Operator.ts"
import { deposits, failsWith, type Part } from "../fixture.ts"
import { during, recorder, subscribe, until } from "../subscription/fixture.ts"
import { operated, parkedAll } from "./fixture.ts"

/** All items of a list. */
const collect = Effect.fnUntraced(function*<A, E, R>(
  page: (cursor: string | undefined) => Effect.Effect<Page<A>, E, R>
) {
  const all: Array<A> = []
  let cursor: string | undefined
  do {
    const { items, next }: Page<A> = yield* page(cursor)
    all.push(...items)
    cursor = next
  } while (cursor !== undefined)
  return all
})

export const subscribing: Part = (it) => {
  it.effect("finds aggregated streams and subscriptions, and tells how far they have come", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe()
      const operator = yield* operated()
      const streamStatus = Effect.map(
        collect((cursor) => operator.aggregatedStreams({ cursor, limit: 2 })),
        (all) => all.find(({ name }) => name === stream.name)
      )
      assert.deepInclude(yield* streamStatus, { patterns: [] }) // nothing was linked yet
      yield* write(0, 3)
      yield* write(1, 1)
      yield* accounts.write(origin(0), deposits(2))
      const linked = yield* streamStatus
      assert.strictEqual(linked?.patterns.length, 1)
      assert.isUndefined(linked?.partitioner)
      assert.deepInclude(linked?.progress, { partitions: 2, messages: 4, waiting: 2 })
      assert.isDefined(linked?.progress?.waitingFor)
      yield* stream.projector.runOnce

      const subscription = yield* make()
      const status = Effect.map(
        collect((cursor) => operator.subscriptions({ cursor, limit: 3 })),
        (all) => all.find(({ name }) => name === subscription.name)
      )
      const before = yield* status
      assert.deepInclude(before, { aggregatedStream: stream.name, projection: undefined })
      assert.deepInclude(before?.totals, { partitions: 2, lag: 6, claimed: 0, parked: 0, isVoid: false })
      assert.isUndefined(before?.totals?.acknowledgedAt)
      const record = recorder()
      const begun = yield* DateTime.now
      yield* during(
        subscription.run(record.handler),
        Effect.gen(function*() {
          yield* record.take(6)
          yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
          const running = yield* status
          assert.deepInclude(running?.totals, { lag: 0, age: undefined, claimed: 2 })
          assert.lengthOf(running?.totals?.claimedBy ?? [], 1)
          const [first, second] = (yield* operator.partitions(subscription.name)).items
          assert.deepInclude(first, { partition: 0, checkpoint: 4, position: 4 })
          assert.deepInclude(second, { partition: 1, checkpoint: 0, position: 0 })
          for (const each of [first?.claimedAt, first?.acknowledgedAt, running?.totals?.acknowledgedAt]) {
            assert.isDefined(each)
            const off = Math.abs(Duration.toMillis(DateTime.distance(begun, each as DateTime.Utc)))
            assert.isBelow(off, 60_000)
          }
        })
      )
      assert.deepStrictEqual((yield* operator.partitions(subscription.name, { onlyUnfinished: true })).items, [])
      yield* accounts.write(origin(1), deposits(2))
      const behind = yield* status
      assert.strictEqual(behind?.totals?.lag, 2) // not linked yet, which counts
      assert.isDefined(behind?.totals?.age)
      assert.isAtLeast((yield* operator.health()).waiting, 2)
      yield* write(1, 1)
      const unfinished = yield* operator.partitions(subscription.name, { onlyUnfinished: true })
      assert.deepStrictEqual(unfinished.items.map(({ partition }) => partition), [1])
      assert.deepStrictEqual(
        yield* collect((cursor) =>
          Effect.map(operator.partitions(subscription.name, { cursor, limit: 1 }), ({ items, next }) => ({
            items: items.map(({ partition }) => partition),
            next
          }))
        ),
        [0, 1]
      )
    }))

  it.effect("groups parked messages by errors that are alike, and requeues or discards a group, some, or all", () =>
    Effect.gen(function*() {
      class Missing extends Error {
        override readonly name = "Missing"
      }
      const { name, subscription } = yield* parkedAll(
        [5, 1],
        (position) =>
          position === 4
            ? new Error("other")
            : new Missing(`no order ${position}00 of ${crypto.randomUUID()} at ord_${position}f9a`)
      )
      const operator = yield* operated()
      const errors = yield* operator.parkedErrors(name)
      assert.deepStrictEqual(errors.map(({ count, message, tag }) => ({ tag, message, count })), [
        { tag: "Missing", message: "no order # of # at ord_#", count: 5 },
        { tag: "Error", message: "other", count: 1 }
      ])
      const [missing, other] = errors
      const all = yield* collect((cursor) => operator.parked(name, { cursor, limit: 4 }))
      assert.deepStrictEqual(all.map(({ partition, position }) => [partition, position]), [
        [0, 0],
        [0, 1],
        [0, 2],
        [0, 3],
        [0, 4],
        [1, 0]
      ])
      assert.isTrue(all.every(({ message }) => message?.type === "Deposited"))
      const alike = yield* collect((cursor) => operator.parked(name, { cursor, limit: 2, error: missing }))
      assert.lengthOf(alike, 5)
      assert.lengthOf((yield* operator.parked(name, { error: all[4]?.error })).items, 1)
      assert.strictEqual(yield* operator.requeue(name, { places: [{ partition: 0, position: 0 }] }), 1)
      assert.strictEqual(yield* operator.requeue(name, { messageIds: [all[5]?.messageId ?? ""] }), 1)
      assert.strictEqual(yield* operator.requeue(name, { error: missing }), 3)
      assert.strictEqual(yield* operator.requeue(name), 1)
      assert.strictEqual(yield* operator.discard(name, { error: other }), 1)
      assert.strictEqual(yield* operator.discard(name, { messageIds: [all[1]?.messageId ?? ""] }), 1)
      const record = recorder()
      yield* during(subscription.run(record.handler), record.take(4))
      assert.deepStrictEqual(record.seen(0), [0, 2, 3])
      assert.strictEqual(yield* operator.discard(name, { places: [{ partition: 0, position: 4 }] }), 0)
      for (const cursor of ["[9007199254740991,0]", "[0,-1]", "[0,2147483648]", "[0.5,0]"]) {
        yield* failsWith(operator.parked(name, { cursor }), { _tag: "InvalidArgumentError", argument: "cursor" })
      }
      for (const error of [{ tag: "\0", message: "" }, { tag: "", message: "\ud800" }]) {
        yield* failsWith(operator.parked(name, { error }), { _tag: "InvalidArgumentError", argument: "error" })
        yield* failsWith(operator.discard(name, { error }), { _tag: "InvalidArgumentError", argument: "error" })
      }
      for (const which of [{}, { places: [] }]) {
        yield* failsWith(operator.discard(name, which), { _tag: "InvalidArgumentError", argument: "which" })
      }
    }))

  it.effect("pauses, resumes and resets what runs elsewhere", () =>
    Effect.gen(function*() {
      const { make, stream, write } = yield* subscribe({ pollInterval: "1 day" })
      const operator = yield* operated()
      yield* write(0, 2)
      const subscription = yield* make()
      const record = recorder()
      yield* during(
        subscription.run(record.handler),
        Effect.gen(function*() {
          yield* record.take(2)
          yield* operator.pause(subscription.name, { reason: "out of paper", by: "Ada" })
          yield* write(0, 1)
          const { items } = yield* operator.partitions(subscription.name)
          assert.deepInclude(items[0]?.paused, { reason: "out of paper", by: "Ada" })
          assert.isTrue(yield* operator.resume(subscription.name))
          assert.isFalse(yield* operator.resume(subscription.name, { partition: 0 }))
          yield* record.take(1)
          yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
          yield* operator.reset(subscription.name)
          yield* Effect.timeout(record.take(3), "10 seconds")
          yield* operator.reset(subscription.name, "next")
        })
      )
      assert.deepStrictEqual(record.seen(0), [0, 1, 2, 0, 1, 2])
      assert.deepStrictEqual(yield* operator.rebuild(stream.name), [subscription.name])
      assert.strictEqual((yield* stream.statistics).messages, 0)
      yield* stream.projector.runOnce
      yield* failsWith(subscription.lag, { _tag: "StreamRebuiltError" })
      const rebuilt = (yield* operator.health()).problems.filter(({ of }) => of === subscription.name)
      assert.deepStrictEqual(rebuilt.map(({ kind }) => kind), ["rebuilt"])
      yield* operator.reset(subscription.name)
      assert.strictEqual(yield* subscription.lag, 3)
    }))
}
