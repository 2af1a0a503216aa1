import { assert } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Accounts, deposit, deposits, failsWith, newStream, type Part } from "../fixture.ts"

export const synchronizing: Part = (it) => {
  it.effect("appends what is missing, and nothing twice", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const messages = deposits(5)
      const two = yield* accounts.synchronize(stream, messages.slice(0, 2), { expectedVersion: 0 })
      assert.deepInclude(two, { stream, version: 2, appended: 2 })
      const five = yield* accounts.synchronize(stream, messages, { expectedVersion: 2 })
      assert.deepInclude(five, { version: 5, appended: 3 })
      const again = yield* accounts.synchronize(stream, messages, { expectedVersion: 2 })
      assert.deepStrictEqual(again, { ...five, appended: 0 })
      const fewer = yield* accounts.synchronize(stream, messages.slice(0, 3), { expectedVersion: 77 })
      assert.deepStrictEqual(fewer, again)
      const stored = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored.map(({ message }) => message), messages)
    }))

  it.effect("answers version 0 and no global position for an empty stream", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      assert.deepStrictEqual(yield* accounts.synchronize(stream, []), {
        stream,
        version: 0,
        globalPosition: undefined,
        appended: 0
      })
    }))

  it.effect("stores a batch once when its answer is lost and the call repeated", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const messages = deposits(3)
      const sync = accounts.synchronize(stream, messages, { expectedVersion: 0 })
      // The first call commits, and its caller never hears of it.
      const lost = yield* Effect.flip(Effect.andThen(sync, Effect.fail("connection lost")))
      assert.strictEqual(lost, "connection lost")
      const head = yield* sync
      assert.strictEqual(head.version, 3)
      yield* failsWith(accounts.write(stream, messages), {
        _tag: "DuplicateMessageError",
        messageId: messages[0].messageId
      })
    }))

  it.effect("refuses a stream that holds other messages", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const [first, second, third] = [deposit(), deposit(), deposit()]
      yield* accounts.write(stream, [first, second])
      yield* failsWith(accounts.synchronize(stream, [first, third], { expectedVersion: 2 }), {
        _tag: "MessageIdMismatchError",
        version: 2,
        storedMessageId: second.messageId,
        givenMessageId: third.messageId
      })
      yield* failsWith(accounts.synchronize(stream, [first, second, third], { expectedVersion: 1 }), {
        _tag: "OptimisticConcurrencyError",
        expectedVersion: 1,
        actualVersion: 2
      })
      assert.strictEqual((yield* accounts.head(stream)).version, 2)
    }))

  it.effect("brings 8 fibers with the same messages to the same stream", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const messages = deposits(20)
      const heads = yield* Effect.all(
        Array.from({ length: 8 }, (_, i) => accounts.synchronize(stream, messages.slice(0, 13 + i))),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(Math.max(...heads.map((head) => head.version)), 20)
      assert.strictEqual(heads.reduce((sum, { appended }) => sum + appended, 0), 20)
      const stored = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored.map(({ messageId }) => messageId), messages.map(({ messageId }) => messageId))
    }))
}
