import { assert } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { Storage } from "../../Storage.ts"
import { Accounts, balance, deposit, deposits, failsWith, newStream, type Part, versions } from "./fixture.ts"

export const updating: Part = (it) => {
  it.effect("decides on what the stream says, and writes the decision", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(3))
      const two = yield* accounts.update(stream, balance, (sum, version) => {
        assert.deepStrictEqual([sum, version], [6n, 3])
        return Effect.succeed([deposit(4), deposit(5)])
      })
      assert.deepInclude(two, { stream, version: 5, appended: 2 })
      const none = yield* accounts.update(stream, balance, () => Effect.succeed([]))
      assert.deepStrictEqual(none, { ...two, appended: 0 })
      const empty = newStream()
      const nothing = yield* accounts.update(empty, balance, () => Effect.succeed([]))
      assert.deepStrictEqual(nothing, { stream: empty, version: 0, globalPosition: undefined, appended: 0 })
      const one = yield* accounts.update(stream, balance, () => Effect.succeed(deposit()))
      assert.deepInclude(one, { version: 6, appended: 1 })
    }))

  it.effect("fails as the decision fails, and writes nothing", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* failsWith(accounts.update(stream, balance, () => Effect.fail({ _tag: "No" })), { _tag: "No" })
      yield* failsWith(accounts.update("", balance, () => Effect.succeed([])), { _tag: "InvalidArgumentError" })
      const stored = deposit()
      yield* accounts.write(stream, stored)
      yield* failsWith(accounts.update(stream, balance, () => Effect.succeed(stored)), {
        _tag: "DuplicateMessageError"
      })
      assert.deepStrictEqual(yield* versions(stream), [1])
    }))

  it.effect("loses no decision of 48 fibers that use two stores on the same data", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const stream = newStream()
      const store = Effect.map(
        Layer.build(Layer.fresh(Layer.provide(Accounts.layerStorage, Layer.succeed(Storage, storage)))),
        (context) => Effect.provide(Accounts, context)
      )
      const stores = yield* Effect.all([Effect.flatten(store), Effect.flatten(store)])
      // Each deposits what is there already, and 1: any lost or doubled decision shows in the sum.
      const results = yield* Effect.forEach(
        Array.from({ length: 48 }, (_, i) => stores[i % 2 === 0 ? 0 : 1]),
        (accounts) =>
          accounts.update(stream, balance, (sum, version) =>
            Effect.sync(() => {
              assert.strictEqual(sum, 2n ** BigInt(version) - 1n)
              return deposit(Number(sum) + 1)
            })),
        { concurrency: "unbounded" }
      )
      const given = results.map(({ version }) => version).toSorted((a, b) => a - b)
      assert.deepStrictEqual(given, Array.from({ length: 48 }, (_, i) => i + 1))
      const all = yield* Stream.runCollect((yield* Accounts).read(stream))
      assert.strictEqual(all.length, 48)
    }))

  it.effect("runs in the transaction that is open", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const more = accounts.update(stream, balance, (sum) => Effect.succeed(deposit(Number(sum) + 1)))
      yield* failsWith(
        accounts.withTransaction(Effect.andThen(Effect.andThen(more, more), Effect.fail({ _tag: "No" }))),
        {
          _tag: "No"
        }
      )
      assert.deepStrictEqual(yield* versions(stream), [])
      const last = yield* accounts.withTransaction(Effect.andThen(more, more))
      assert.strictEqual(last.version, 2)
    }))
}
