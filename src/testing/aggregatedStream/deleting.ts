/** Aggregated streams of messages that are deleted: positions stay what they are. */
import { assert } from "@effect/vitest"
import { DateTime, Effect, Stream } from "effect"
import * as Partitioner from "../../Partitioner.ts"
import { isScanned, Storage } from "../../Storage.ts"
import { Accounts, deposit, deposits, newStream, type Part } from "../fixture.ts"
import { make, newName } from "./aggregating.ts"

const partitioners = [["in the database", Partitioner.constant()], ["in the application", () => 0]] as const

export const deleting: Part = (it) => {
  for (const [where, partitioner] of partitioners) {
    it.effect(`pass over what was deleted, partitioned ${where}; rebuilt, they have what is left`, () =>
      Effect.gen(function*() {
        const accounts = yield* Accounts
        const [name, other] = [newStream(), newStream()]
        const stream = yield* make({ patterns: [name, other], partitioner })
        yield* accounts.write(name, deposits(4))
        yield* accounts.write(other, deposits(3))
        yield* stream.projector.runOnce
        // Not linked yet: it never is.
        yield* accounts.write(name, deposits(2))
        yield* accounts.delete(name, { toVersion: 5 })
        yield* accounts.delete(other)
        assert.strictEqual((yield* stream.statistics).waiting, 1)
        assert.include(yield* stream.projector.runOnce, { linked: 1 })
        assert.include(yield* stream.projector.runOnce, { linked: 0 })
        yield* accounts.write(other, deposits(1))
        assert.include(yield* stream.projector.runOnce, { linked: 1 })
        const read = Effect.map(
          Stream.runCollect(stream.read(0)),
          (found) => found.map((one) => [one.position, one.stream, one.version])
        )
        const left = [[7, name, 6], [8, other, 1]]
        assert.deepStrictEqual(yield* read, left)
        assert.lengthOf(yield* Stream.runCollect(stream.read(0, { limit: 1 })), 1)
        assert.deepStrictEqual(yield* stream.partitions, [{ partition: 0, position: 8 }])
        assert.deepInclude(yield* stream.statistics, { waiting: 0 })
        const followed = yield* Stream.runCollect(Stream.take(stream.follow({ from: "beginning" }), 2))
        assert.deepStrictEqual(followed.map(({ position }) => position), [7, 8])
        // Nothing is left behind the last position.
        yield* accounts.delete(other)
        const going = yield* Stream.runCollect(
          Stream.take(stream.follow({ from: new Map([[0, 8]]), pollInterval: "10 millis" }), 1).pipe(
            Stream.merge(Stream.drain(Stream.fromEffect(
              Effect.andThen(accounts.write(name, deposit()), stream.projector.runOnce)
            )))
          )
        )
        assert.deepStrictEqual(going.map(({ position, version }) => [position, version]), [[9, 7]])
        assert.include(yield* stream.rebuild, { linked: 2 })
        assert.deepStrictEqual(yield* read, [[0, name, 6], [1, name, 7]])
      }))
  }

  it.effect("do not link what is deleted between the look and the link", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const storage = yield* Storage
      const name = newStream()
      const messages = deposits(4)
      const stream = yield* storage.aggregatedStream({ name: newName(), patterns: [name], partitioner: undefined })
      yield* accounts.write(name, messages)
      let scanned = yield* stream.scan(undefined, 10_000)
      // The first mark.
      if (!isScanned(scanned)) scanned = yield* stream.scan(undefined, 10_000)
      if (!isScanned(scanned)) return assert.fail("there are new messages")
      yield* accounts.delete(name, { toVersion: 3 })
      const links = messages.map(({ messageId }) => ({ messageId, partition: 0, occurredAt: undefined }))
      assert.include(yield* stream.link(scanned.token, links), { linked: 1, done: true })
      const { messages: linked } = yield* stream.readPartition({ partition: 0, fromPosition: 0, limit: 10 })
      assert.deepStrictEqual(linked.map(({ position, version }) => [position, version]), [[0, 4]])
      assert.strictEqual(yield* stream.waiting, 0)
    }))

  it.effect("link a message anew that was deleted, and is written again", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const name = newStream()
      const stream = yield* make({ patterns: name, partitioner: Partitioner.constant() })
      const messages = [deposit(), deposit(), deposit()] as const
      yield* accounts.write(name, messages)
      yield* stream.projector.runOnce
      yield* accounts.delete(name)
      yield* accounts.synchronize(name, [messages[1], deposit()])
      assert.include(yield* stream.projector.runOnce, { linked: 2 })
      const read = yield* Stream.runCollect(stream.read(0))
      assert.deepStrictEqual(read.map(({ position, version }) => [position, version]), [[3, 1], [4, 2]])
      const { globalPosition } = yield* accounts.head(name)
      yield* accounts.delete(name, { toVersion: 1 })
      // Places of what is gone are nobody's.
      assert.deepStrictEqual(yield* stream.positionsAtTime(DateTime.makeUnsafe(0)), new Map([[0, 4]]))
      assert.deepStrictEqual(yield* stream.positionsAtGlobalPosition((globalPosition ?? 0) - 1), new Map([[0, -1]]))
      assert.strictEqual((yield* stream.statistics).linkedGlobalPosition, globalPosition)
      yield* accounts.delete(name)
      assert.deepStrictEqual(yield* stream.positionsAtTime(DateTime.makeUnsafe(0)), new Map([[0, 5]]))
      assert.strictEqual((yield* stream.statistics).linkedGlobalPosition, 0)
      assert.deepStrictEqual(yield* stream.partitions, [{ partition: 0, position: 4 }])
    }))
}
