import { assert } from "@effect/vitest"
import { Deferred, Effect, Fiber, Scope, Stream } from "effect"
import { Accounts, deposit, deposits, failsWith, newStream, type Part, versions } from "../fixture.ts"

export const snapshots: Part = (it, { concurrentTransactions }) => {
  it.effect("opens a reader, reads, and ends with its scope", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(3))
      const count = yield* Effect.scoped(Effect.gen(function*() {
        const reader = yield* accounts.reader
        return (yield* Stream.runCollect(reader.read(stream))).length
      }))
      assert.strictEqual(count, 3)
      yield* accounts.write(stream, deposit())
      assert.deepStrictEqual(yield* versions(stream), [1, 2, 3, 4])
    }))

  it.effect("frees what 30 interrupted readers held", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(3))
      for (let i = 0; i < 30; i++) {
        const open = yield* Deferred.make<void>()
        const fiber = yield* Effect.forkChild(Effect.scoped(Effect.gen(function*() {
          const reader = yield* accounts.reader
          yield* reader.head(stream)
          yield* Deferred.succeed(open, undefined)
          return yield* Effect.never
        })))
        // Every other one is interrupted while it opens.
        if (i % 2 === 0) yield* Deferred.await(open)
        yield* Fiber.interrupt(fiber)
      }
      yield* accounts.write(stream, deposit(), { expectedVersion: 3 })
    }))

  if (!concurrentTransactions) return

  it.effect("sees one state, however much is written meanwhile", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const [a, b] = [`${prefix}-a`, `${prefix}-b`]
      yield* accounts.write(a, deposits(2))
      const scope = yield* Scope.make()
      const reader = yield* Scope.provide(accounts.reader, scope)
      const later = deposits(3)
      yield* accounts.write(a, later)
      yield* accounts.write(b, deposit())
      assert.strictEqual((yield* reader.head(a)).version, 2)
      assert.strictEqual((yield* reader.head(b)).version, 0)
      assert.strictEqual((yield* Stream.runCollect(reader.read(a))).length, 2)
      assert.strictEqual((yield* Stream.runCollect(reader.readWildcard(`${prefix}%`))).length, 2)
      yield* failsWith(reader.getMessageById(later[0].messageId), { _tag: "MessageNotFoundError" })
      const inside = yield* accounts.withTransaction(Effect.andThen(
        accounts.write(a, deposit()),
        Effect.all({ reader: reader.head(a), transaction: accounts.head(a) })
      ))
      assert.deepStrictEqual([inside.reader.version, inside.transaction.version], [2, 6])
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
      assert.strictEqual((yield* accounts.head(a)).version, 6)
    }))

  it.effect("does not hold a connection while a stream's consumer works", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(1100))
      // More consumers than a pool has connections, all in the middle of their stream at once.
      const consumers = 40
      let arrived = 0
      const all = yield* Deferred.make<void>()
      const counts = yield* Effect.all(
        Array.from({ length: consumers }, () =>
          accounts.read(stream).pipe(
            Stream.mapEffect(({ version }) =>
              Effect.suspend(() => {
                if (version !== 1) return Effect.succeed(version)
                const arriving = ++arrived === consumers ? Deferred.succeed(all, undefined) : Effect.void
                return Effect.as(Effect.andThen(arriving, Deferred.await(all)), version)
              })
            ),
            Stream.runCount
          )),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(counts, Array.from({ length: consumers }, () => 1100))
    }))
}
