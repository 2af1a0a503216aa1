/** Streams of which messages are deleted: versions, expectations, readers, transactions. */
import { assert } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Stream } from "effect"
import {
  Accounts,
  balance,
  deposit,
  deposits,
  failsWith,
  newStream,
  outsider,
  type Part,
  versions
} from "../fixture.ts"

export const deleting: Part = (it, { concurrentTransactions }) => {
  it.effect("deletes the first messages: versions and expected versions stay what they were", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const messages = [deposit(), deposit(), deposit(), deposit(), deposit()] as const
      const written = yield* accounts.write(stream, messages)
      assert.deepStrictEqual(yield* accounts.delete(stream, { toVersion: 3 }), { ...written, deleted: 3 })
      assert.deepStrictEqual(yield* versions(stream), [4, 5])
      assert.deepStrictEqual(yield* accounts.head(stream), written)
      const read = (options: { readonly fromVersion?: number; readonly toVersion?: number; readonly limit?: number }) =>
        Effect.map(
          Stream.runCollect(accounts.read(stream, options)),
          (stored) => stored.map(({ message, version }) => [version, message])
        )
      assert.deepStrictEqual(yield* read({ fromVersion: 2 }), [[4, messages[3]], [5, messages[4]]])
      assert.deepStrictEqual(yield* read({ toVersion: 4, limit: 1 }), [[4, messages[3]]])
      assert.deepStrictEqual(yield* read({ toVersion: 3 }), [])
      const backward = yield* Stream.runCollect(accounts.read(stream, { direction: "backward", fromVersion: 1 }))
      assert.deepStrictEqual(backward.map(({ version }) => version), [5, 4])

      yield* failsWith(accounts.write(stream, deposit(), { expectedVersion: 2 }), {
        _tag: "OptimisticConcurrencyError",
        expectedVersion: 2,
        actualVersion: 5
      })
      yield* failsWith(accounts.write(stream, deposit(), { expectedVersion: 0 }), {
        _tag: "OptimisticConcurrencyError",
        actualVersion: 5
      })
      assert.strictEqual((yield* accounts.write(stream, deposit(), { expectedVersion: "exists" })).version, 6)
      assert.strictEqual((yield* accounts.write(stream, deposit(), { expectedVersion: 6 })).version, 7)
      assert.deepStrictEqual(yield* versions(stream), [4, 5, 6, 7])
      // Again: nothing is left to be deleted.
      const head = yield* accounts.head(stream)
      assert.deepStrictEqual(yield* accounts.delete(stream, { toVersion: 3 }), { ...head, deleted: 0 })
      assert.deepStrictEqual(yield* accounts.delete(stream, { toVersion: 0 }), { ...head, deleted: 0 })
      assert.deepStrictEqual(yield* accounts.delete(stream, { toVersion: 6 }), { ...head, deleted: 3 })
      assert.deepStrictEqual(yield* versions(stream), [7])
    }))

  it.effect("deletes all of a stream: the next message begins another one", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [stream, other] = [newStream(), newStream()]
      const messages = deposits(3)
      const { globalPosition } = yield* accounts.write(stream, messages)
      yield* accounts.write(other, deposits(2))
      const gone = { stream, version: 0, globalPosition: undefined }
      assert.deepStrictEqual(yield* accounts.delete(stream), { ...gone, deleted: 3 })
      assert.deepStrictEqual(yield* accounts.head(stream), gone)
      assert.deepStrictEqual(yield* versions(stream), [])
      assert.deepStrictEqual(yield* versions(other), [1, 2])
      yield* Effect.scoped(Effect.gen(function*() {
        const reader = yield* accounts.reader
        assert.deepStrictEqual(yield* Stream.runCollect(reader.readWildcard(stream)), [])
        yield* failsWith(reader.getMessageById(messages[0].messageId), { _tag: "MessageNotFoundError" })
      }))
      assert.deepStrictEqual(yield* accounts.delete(stream), { ...gone, deleted: 0 })
      yield* failsWith(accounts.write(stream, deposit(), { expectedVersion: "exists" }), {
        _tag: "OptimisticConcurrencyError",
        actualVersion: 0
      })
      // Ids of what is gone are free again; positions are not given twice.
      const again = yield* accounts.write(stream, messages, { expectedVersion: 0 })
      assert.strictEqual(again.version, 3)
      assert.isAbove(again.globalPosition, globalPosition)
      // A version that the stream has not come to.
      assert.deepInclude(yield* accounts.delete(stream, { toVersion: 99 }), { version: 0, deleted: 3 })
      assert.deepInclude(yield* accounts.delete(newStream()), { version: 0, deleted: 0 })
    }))

  it.effect("deletes nothing of a stream that is not as expected", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(3))
      for (const expectedVersion of [0, 2, 4]) {
        yield* failsWith(accounts.delete(stream, { expectedVersion }), {
          _tag: "OptimisticConcurrencyError",
          stream,
          expectedVersion,
          actualVersion: 3
        })
      }
      yield* failsWith(accounts.delete(newStream(), { expectedVersion: "exists" }), {
        _tag: "OptimisticConcurrencyError",
        expectedVersion: "exists",
        actualVersion: 0
      })
      // In a transaction, which stays usable.
      const written = yield* accounts.withTransaction(Effect.gen(function*() {
        yield* failsWith(accounts.delete(stream, { expectedVersion: 1 }), { _tag: "OptimisticConcurrencyError" })
        return yield* accounts.write(stream, deposit())
      }))
      assert.strictEqual(written.version, 4)
      assert.deepStrictEqual(yield* versions(stream), [1, 2, 3, 4])
      const kept = { expectedVersion: 4, toVersion: 2 }
      assert.deepInclude(yield* accounts.delete(stream, kept), { version: 4, deleted: 2 })
      assert.deepInclude(yield* accounts.delete(stream, { expectedVersion: "exists" }), { version: 0, deleted: 2 })
      assert.deepInclude(yield* accounts.delete(stream, { expectedVersion: 0 }), { version: 0, deleted: 0 })
    }))

  it.effect("refuses what cannot be meant", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(2))
      const refused = (argument: string) => ({ _tag: "InvalidArgumentError", argument })
      yield* failsWith(accounts.delete(""), refused("stream"))
      yield* failsWith(accounts.delete("a\0b"), refused("stream"))
      for (const toVersion of [-1, 1.5, NaN, 2 ** 31]) {
        yield* failsWith(accounts.delete(stream, { toVersion }), refused("toVersion"))
      }
      yield* failsWith(accounts.delete(stream, { expectedVersion: -1 }), refused("expectedVersion"))
      assert.deepStrictEqual(yield* versions(stream), [1, 2])
    }))

  it.effect("deletes in the transaction that is open, and is undone with it", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const messages = deposits(4)
      yield* accounts.write(stream, messages)
      const closing = deposit(10)
      const close = Effect.gen(function*() {
        yield* accounts.delete(stream, { toVersion: 2 })
        assert.deepStrictEqual(yield* versions(stream), [3, 4])
        const { version } = yield* accounts.write(stream, closing)
        assert.strictEqual(version, 5)
        yield* accounts.delete(stream, { toVersion: 4 })
        assert.deepStrictEqual(yield* versions(stream), [5])
        yield* accounts.delete(stream)
        assert.deepStrictEqual(yield* versions(stream), [])
        // The same message once more, in a stream that begins anew.
        assert.strictEqual((yield* accounts.write(stream, closing, { expectedVersion: 0 })).version, 1)
      })
      yield* Effect.flip(accounts.withTransaction(Effect.andThen(close, Effect.fail("rolled back"))))
      assert.deepStrictEqual(yield* versions(stream), [1, 2, 3, 4])
      // A nested transaction that is rolled back.
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.delete(stream, { toVersion: 1 })
        yield* Effect.flip(accounts.withTransaction(Effect.andThen(accounts.delete(stream), Effect.fail("no"))))
        assert.deepStrictEqual(yield* versions(stream), [2, 3, 4])
      }))
      assert.deepStrictEqual(yield* versions(stream), [2, 3, 4])
      yield* accounts.withTransaction(close)
      const stored = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored.map(({ message, version }) => [version, message]), [[1, closing]])
    }))

  if (concurrentTransactions) {
    it.effect("shows what it deletes to a reader that was opened before", () =>
      Effect.scoped(Effect.gen(function*() {
        const accounts = yield* Accounts
        const stream = newStream()
        const messages = [deposit(), deposit(), deposit()] as const
        yield* accounts.write(stream, messages)
        const reader = yield* accounts.reader
        yield* accounts.delete(stream, { toVersion: 2 })
        yield* accounts.delete(stream)
        yield* accounts.write(stream, messages[1])
        const seen = yield* Stream.runCollect(reader.read(stream))
        assert.deepStrictEqual(seen.map(({ message, version }) => [version, message]), [
          [1, messages[0]],
          [2, messages[1]],
          [3, messages[2]]
        ])
        assert.strictEqual((yield* reader.head(stream)).version, 3)
        assert.strictEqual((yield* reader.getMessageById(messages[1].messageId)).version, 2)
        assert.strictEqual((yield* Stream.runCollect(reader.readWildcard(stream))).length, 3)
        assert.deepStrictEqual(yield* versions(stream), [1])
      })))

    it.effect("waits for who writes to the stream, and keeps others from it until the commit", () =>
      Effect.scoped(Effect.gen(function*() {
        const accounts = yield* Accounts
        const outside = yield* outsider
        const [stream, other] = [newStream(), newStream()]
        const first = deposit()
        yield* accounts.write(stream, [first, deposit()])
        const blocked = yield* accounts.withTransaction(Effect.gen(function*() {
          yield* accounts.delete(stream, { toVersion: 1 })
          // Others see it until then, and nobody waits to read, or to write elsewhere.
          assert.deepStrictEqual(yield* outside(Effect.provideService(versions(stream), Accounts, accounts)), [1, 2])
          yield* outside(accounts.write(other, deposit()))
          const writing = yield* outside(Effect.forkDetach(accounts.write(stream, deposit())))
          yield* outside(accounts.write(other, deposit()))
          assert.isUndefined(writing.pollUnsafe())
          // An id that is free only if this commits.
          const reusing = yield* outside(Effect.forkDetach(accounts.write(newStream(), first)))
          return [writing, reusing] as const
        }))
        assert.deepStrictEqual((yield* Effect.forEach(blocked, Fiber.join)).map(({ version }) => version), [3, 1])
        // The other way round.
        const [isWritten, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const writer = yield* Effect.forkChild(accounts.withTransaction(Effect.gen(function*() {
          yield* accounts.write(stream, deposit())
          yield* Deferred.succeed(isWritten, undefined)
          yield* Deferred.await(release)
        })))
        yield* Deferred.await(isWritten)
        const deletions = yield* Effect.forkChild(Effect.all([
          accounts.delete(stream, { toVersion: 4, expectedVersion: 4 }),
          accounts.delete(stream, { expectedVersion: "exists" }).pipe(Effect.result)
        ]))
        yield* outside(accounts.write(other, deposit()))
        assert.isUndefined(deletions.pollUnsafe())
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(writer)
        const [{ deleted, version }] = yield* Fiber.join(deletions)
        assert.deepStrictEqual([deleted, version], [3, 0])
      })))
  }

  it.effect("leaves to a decision what is there, and a stream of its own where nothing is", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const seen: Array<readonly [bigint, number]> = []
      const decide = accounts.update(stream, balance, (sum, version) => {
        seen.push([sum, version])
        return Effect.succeed(deposit(100))
      })
      yield* accounts.write(stream, deposits(3))
      yield* accounts.delete(stream, { toVersion: 2 })
      assert.deepInclude(yield* decide, { version: 4, appended: 1 })
      yield* accounts.delete(stream)
      assert.deepInclude(yield* decide, { version: 1, appended: 1 })
      assert.deepStrictEqual(seen, [[3n, 3], [0n, 0]])
    }))

  it.effect("is decided on again if it comes between a decision and its write", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      // What comes in between leaves the stream at the version that was read.
      const between = [
        Effect.andThen(accounts.delete(stream), accounts.write(stream, [deposit(10), deposit(20)])),
        accounts.withTransaction(
          Effect.andThen(accounts.delete(stream), accounts.write(stream, [deposit(30), deposit(40)]))
        )
      ]
      for (const [i, change] of between.entries()) {
        yield* accounts.delete(stream)
        yield* accounts.write(stream, deposits(2))
        const seen: Array<bigint> = []
        yield* accounts.update(stream, balance, (sum) => {
          const isFirst = seen.push(sum) === 1
          return Effect.as(isFirst ? Effect.orDie(change) : Effect.void, deposit())
        })
        assert.deepStrictEqual(seen, [3n, i === 0 ? 30n : 70n])
      }
    }))

  it.effect("is compared by synchronize from what is left on", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const messages = deposits(6)
      yield* accounts.write(stream, Arr.take(messages, 4) as typeof messages)
      yield* accounts.delete(stream, { toVersion: 2 })
      // Fewer than are there, or were: nothing is missing.
      for (const count of [0, 1, 2, 3, 4]) {
        assert.deepInclude(yield* accounts.synchronize(stream, Arr.take(messages, count)), { version: 4, appended: 0 })
      }
      assert.deepInclude(yield* accounts.synchronize(stream, Arr.take(messages, 5), { expectedVersion: 4 }), {
        version: 5,
        appended: 1
      })
      const [, second, third] = messages
      yield* failsWith(accounts.synchronize(stream, [...Arr.take(messages, 2), second ?? deposit()]), {
        _tag: "MessageIdMismatchError",
        version: 3,
        storedMessageId: third?.messageId,
        givenMessageId: second?.messageId
      })
      yield* accounts.delete(stream)
      // Another stream, which has none of them.
      assert.deepInclude(yield* accounts.synchronize(stream, messages, { expectedVersion: 0 }), {
        version: 6,
        appended: 6
      })
    }))

  it.effect("deletes more messages than a page has", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(10_003))
      assert.deepInclude(yield* accounts.delete(stream, { toVersion: 10_001 }), { version: 10_003, deleted: 10_001 })
      assert.deepStrictEqual(yield* versions(stream), [10_002, 10_003])
    }))
}
