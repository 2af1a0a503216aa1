/** Aggregated streams: positions, and how far a projection has come. */
import { assert } from "@effect/vitest"
import { DateTime, Effect, Stream } from "effect"
import * as Partitioner from "../../Partitioner.ts"
import { type AggregatedStorage, isScanned, PositionQuery, Storage } from "../../Storage.ts"
import { Accounts, deposit, type Deposited, deposits, failsWith, newStream, outsider, type Part } from "../fixture.ts"
import { make, newName } from "./aggregating.ts"

/** Links all that is new to one partition, as a projector would. */
const linkAll = Effect.fnUntraced(function*(stream: AggregatedStorage, partition: number) {
  while (true) {
    const page = yield* stream.scan(undefined, 1000)
    if (!isScanned(page)) return
    const links = page.messages.map(({ messageId }) => ({ messageId, partition, occurredAt: undefined }))
    yield* stream.link(page.token, links)
  }
})

export const positioning: Part = (it, { concurrentTransactions }) => {
  it.effect("tells positions at a time and at a global position", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const [a, b] = [`${prefix}-a`, `${prefix}-b`]
      const at = (second: number, amount: number) => {
        const { messageId } = deposit()
        return { messageId, occurredAt: DateTime.makeUnsafe(second * 1000), amount: BigInt(amount) }
      }
      const Message = deposit().constructor as new(fields: ReturnType<typeof at>) => Deposited
      const first = yield* accounts.write(a, [new Message(at(10, 1)), new Message(at(20, 1))])
      const second = yield* accounts.write(b, new Message(at(30, 1)))
      const stream = yield* make({
        patterns: `${prefix}%`,
        partitioner: (stored) => stored.stream === a ? 0 : 1
      })
      yield* stream.projector.runOnce
      const atTime = (time: number) =>
        Effect.map(stream.positionsAtTime(DateTime.makeUnsafe(time * 1000)), (positions) => Array.from(positions))
      assert.deepStrictEqual(yield* atTime(0), [[0, 0], [1, 0]])
      assert.deepStrictEqual(yield* atTime(20), [[0, 1], [1, 0]])
      assert.deepStrictEqual(yield* atTime(25), [[0, 2], [1, 0]])
      assert.deepStrictEqual(yield* atTime(31), [[0, 2], [1, 1]])
      const atPosition = (position: number) =>
        Effect.map(stream.positionsAtGlobalPosition(position), (positions) => Array.from(positions))
      assert.deepStrictEqual(yield* atPosition(first.globalPosition - 2), [[0, -1], [1, -1]])
      assert.deepStrictEqual(yield* atPosition(first.globalPosition - 1), [[0, 0], [1, -1]])
      assert.deepStrictEqual(yield* atPosition(second.globalPosition), [[0, 1], [1, 0]])
      yield* failsWith(stream.positionsAtGlobalPosition(-1), { _tag: "InvalidArgumentError" })
    }))

  it.effect("tells how far it has come, whether or not there was something new", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      for (const partitioner of [Partitioner.constant(), () => 0]) {
        const name = newStream()
        const stream = yield* make({ patterns: name, partitioner })
        const { globalPosition } = yield* accounts.write(name, deposits(3))
        for (let i = 0; i < 3; i++) {
          assert.deepStrictEqual(yield* stream.projector.runOnce, {
            linked: i === 0 ? 3 : 0,
            position: globalPosition,
            target: globalPosition
          })
        }
        const { globalPosition: elsewhere } = yield* accounts.write(newStream(), deposit())
        assert.deepStrictEqual(yield* stream.projector.runOnce, { linked: 0, position: elsewhere, target: elsewhere })
        assert.include(yield* stream.rebuild, { linked: 3, position: elsewhere })
      }
    }))

  it.effect("keeps the places of messages that were removed, and goes on behind them", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const { truncate } = yield* Storage
      const name = newStream()
      const stream = yield* make({ patterns: name, partitioner: Partitioner.constant() })
      const again = deposit()
      yield* accounts.write(name, [deposit(), again, deposit()])
      yield* stream.projector.runOnce
      yield* truncate
      assert.deepStrictEqual(yield* Stream.runCollect(stream.read(0)), [])
      assert.deepStrictEqual(yield* stream.partitions, [{ partition: 0, position: 2 }])
      yield* accounts.write(name, again)
      yield* accounts.write(name, deposits(2))
      // What was linked before is not linked again.
      assert.include(yield* stream.projector.runOnce, { linked: 2 })
      assert.include(yield* stream.projector.runOnce, { linked: 0 })
      const messages = yield* Stream.runCollect(stream.read(0))
      assert.deepStrictEqual(messages.map(({ position, version }) => [position, version]), [[1, 1], [3, 2], [4, 3]])
      assert.lengthOf(yield* Stream.runCollect(stream.read(0, { limit: 2 })), 2)
      assert.deepStrictEqual(yield* stream.partitions, [{ partition: 0, position: 4 }])
    }))

  it.effect("tells what was scanned and what waits, and counts down to nothing", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      for (const partitioner of [Partitioner.constant(), () => 0]) {
        const name = newStream()
        const stream = yield* make({ patterns: name, partitioner })
        const told = Effect.map(
          stream.statistics,
          ({ linkedGlobalPosition, messages, scannedGlobalPosition, waiting }) => [
            messages,
            waiting,
            linkedGlobalPosition,
            scannedGlobalPosition
          ]
        )
        assert.deepStrictEqual(yield* told, [0, 0, 0, 0])
        assert.isUndefined((yield* stream.statistics).scannedAt)
        const { globalPosition } = yield* accounts.write(name, deposits(3))
        assert.deepStrictEqual(yield* told, [0, 3, 0, 0])
        yield* stream.projector.runOnce
        assert.deepStrictEqual(yield* told, [3, 0, globalPosition, globalPosition])
        const { scannedAt, storeGlobalPosition } = yield* stream.statistics
        assert.isDefined(scannedAt)
        assert.strictEqual(storeGlobalPosition, globalPosition)
        // What is of other streams does not wait, before it is scanned and after.
        const { globalPosition: elsewhere } = yield* accounts.write(newStream(), deposits(2))
        assert.deepStrictEqual(yield* told, [3, 0, globalPosition, globalPosition])
        yield* stream.projector.runOnce
        assert.deepStrictEqual(yield* told, [3, 0, globalPosition, elsewhere])
        assert.strictEqual((yield* stream.statistics).storeGlobalPosition, elsewhere)
        yield* Effect.ignore(accounts.withTransaction(Effect.andThen(accounts.write(name, deposit()), Effect.fail(0))))
        assert.deepStrictEqual(yield* told, [3, 0, globalPosition, elsewhere])
        yield* accounts.write(name, deposits(2))
        assert.strictEqual((yield* told)[1], 2)
        yield* stream.rebuild
        assert.strictEqual((yield* told)[1], 0)
      }
    }))

  if (!concurrentTransactions) return

  it.effect("counts what waits though messages behind it are linked, when its transaction has ended", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const stream = yield* make({ patterns: `${prefix}%`, partitioner: Partitioner.constant() })
      const waiting = Effect.map(stream.statistics, (told) => told.waiting)
      const outside = yield* outsider
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(`${prefix}-late`, deposits(2))
        yield* outside(accounts.write(`${prefix}-early`, deposits(3)))
        assert.strictEqual(yield* outside(waiting), 3)
        yield* outside(stream.projector.runOnce)
        assert.strictEqual(yield* outside(waiting), 0)
      }))
      assert.strictEqual(yield* waiting, 2)
      yield* accounts.write(`${prefix}-early`, deposit())
      assert.strictEqual(yield* waiting, 3)
      yield* stream.projector.runOnce
      assert.strictEqual(yield* waiting, 0)
    }))

  it.effect("tells where what is behind a global position begins, though some of it is linked late", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const storage = yield* Storage
      const prefix = newStream()
      const stream = yield* storage.aggregatedStream({
        name: newName(),
        patterns: [`${prefix}%`],
        partitioner: Partitioner.constant(3)
      })
      const project = linkAll(stream, 3)
      const outside = yield* outsider
      const after = (globalPosition: number) => stream.positions(PositionQuery.AfterGlobalPosition({ globalPosition }))
      assert.deepStrictEqual(yield* after(0), [])
      const early = yield* accounts.write(`${prefix}-early`, deposit())
      const [late, between] = yield* accounts.withTransaction(Effect.gen(function*() {
        const written = yield* accounts.write(`${prefix}-late`, deposit())
        const other = yield* outside(accounts.write(`${prefix}-early`, deposit()))
        yield* outside(project)
        return [written, other] as const
      }))
      const last = yield* accounts.write(`${prefix}-early`, deposit())
      yield* project
      // In this order: early, between, late, last. Whoever wants what is behind `late` gets it from `between` on.
      assert.isBelow(late.globalPosition, between.globalPosition)
      assert.deepStrictEqual(
        yield* Effect.forEach(
          [0, early, late, between, last].map((place) => typeof place === "number" ? place : place.globalPosition),
          after
        ),
        [0, 1, 1, 3, 4].map((position) => [{ partition: 3, position }])
      )
    }))
}
