import { assert } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Latch, Layer, Result, Scope, Stream } from "effect"
import { Storage } from "../../Storage.ts"
import {
  Accounts,
  balance,
  deposit,
  type Deposited,
  deposits,
  failsWith,
  newStream,
  type Part,
  versions
} from "../fixture.ts"
import { truncate } from "../truncate.ts"

/** Runs updates of a stream whose turns come one after the other, while somebody waits for each but the first. */
const queued = Effect.fnUntraced(
  function*<A, E>(stream: string, updates: ReadonlyArray<Effect.Effect<A, E, Accounts>>) {
    const accounts = yield* Accounts
    const start = yield* Latch.make()
    const first = yield* Effect.forkChild(
      accounts.update(stream, balance, () => Effect.as(start.await, deposit())),
      { startImmediately: true }
    )
    const others = yield* Effect.forEach(updates, (update) => Effect.forkChild(update, { startImmediately: true }))
    yield* start.open
    yield* Fiber.join(first)
    return yield* Effect.forEach(others, Fiber.await)
  }
)

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

  it.effect("takes messages, none, or an error as they are", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      assert.deepInclude(yield* accounts.update(stream, balance, () => deposit()), { version: 1, appended: 1 })
      assert.deepInclude(yield* accounts.update(stream, balance, () => deposits(2)), { version: 3, appended: 2 })
      const answer = (sum: bigint) => sum === 4n ? [] : new Cause.NoSuchElementError("no")
      assert.deepInclude(yield* accounts.update(stream, balance, answer), { version: 3, appended: 0 })
      yield* accounts.write(stream, deposit())
      yield* failsWith(accounts.update(stream, balance, answer), { _tag: "NoSuchElementError" })
      assert.deepStrictEqual(yield* versions(stream), [1, 2, 3, 4])
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
  it.effect("decides again when another writer gets in between, whatever it decides", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      type Decision = Effect.Effect<ReadonlyArray<Deposited>, { readonly _tag: "No"; readonly sum: bigint }>
      /** Another one writes while this is being decided for the first time. */
      const interfered = (decision: (sum: bigint) => Decision, interfere: (stream: string) => Effect.Effect<unknown>) =>
        Effect.gen(function*() {
          const stream = newStream()
          const seen: Array<readonly [sum: bigint, version: number]> = []
          const [exit] = yield* queued(stream, [
            accounts.update(stream, balance, (sum, version) =>
              Effect.gen(function*() {
                seen.push([sum, version])
                if (seen.length === 1) {
                  // What it is decided on may still be on its way: this is about what comes behind it.
                  while ((yield* Effect.orDie(accounts.head(stream))).version === 0) { /* looks again */ }
                  yield* interfere(stream)
                }
                return yield* decision(sum)
              }))
          ])
          return { result: yield* Effect.result(exit ?? Effect.die("no exit")), seen }
        })
      const write = (stream: string) => Effect.orDie(accounts.write(stream, [deposit(10), deposit(20)]))
      const decisions: Record<string, (sum: bigint) => Decision> = {
        nothing: () => Effect.succeed([]),
        failure: (sum) => Effect.fail({ _tag: "No", sum }),
        messages: (sum) => Effect.succeed([deposit(Number(sum))])
      }
      for (const [name, decision] of Object.entries(decisions)) {
        const { result, seen } = yield* interfered(decision, write)
        assert.deepStrictEqual(seen, [[1n, 1], [31n, 3]], name)
        if (Result.isFailure(result)) assert.deepStrictEqual(result.failure, { _tag: "No", sum: 31n })
        else assert.strictEqual(result.success.version, name === "messages" ? 4 : 3)
      }
      // Of a stream that was truncated, and has come back, nothing is left of what was known.
      const restart = (stream: string) => Effect.andThen(Effect.orDie(truncate(accounts)), write(stream))
      for (const [name, decision] of Object.entries(decisions)) {
        const { seen } = yield* interfered(decision, restart)
        assert.deepStrictEqual(seen, [[1n, 1], [30n, 2]], name)
      }
      for (const [name, decision] of Object.entries(decisions)) {
        const { seen } = yield* interfered(decision, () => Effect.orDie(truncate(accounts)))
        assert.deepStrictEqual(seen, [[1n, 1], [0n, 0]], name)
      }
    }))

  it.effect("makes a decision once when nobody gets in between", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const seen: Array<bigint> = []
      const decide = <A, E>(decision: Effect.Effect<A, E>) => (sum: bigint) => {
        seen.push(sum)
        return decision
      }
      const exits = yield* queued(stream, [
        Effect.asVoid(accounts.update(stream, balance, decide(Effect.succeed([])))),
        Effect.asVoid(accounts.update(stream, balance, decide(Effect.fail("No")))),
        Effect.asVoid(accounts.update(stream, balance, decide(Effect.succeed(deposit(5)))))
      ])
      const results = yield* Effect.forEach(exits, Effect.result)
      assert.deepStrictEqual(results, [Result.void, Result.fail("No"), Result.void])
      assert.deepStrictEqual(seen, [1n, 1n, 1n])
      assert.deepStrictEqual(yield* versions(stream), [1, 2])
    }))

  it.effect("keeps the states of different folds apart", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const count = { initial: "", evolve: (marks: string) => `${marks}I` }
      const exits = yield* queued(
        stream,
        Array.from({ length: 12 }, (_, i) =>
          i % 3 === 0
            ? accounts.update(stream, count, (marks, version) => {
              assert.strictEqual(marks, "I".repeat(version))
              return Effect.succeed(deposit())
            })
            : accounts.update(stream, balance, (sum, version) => {
              assert.strictEqual(sum, BigInt(version))
              return Effect.succeed(deposit())
            }))
      )
      assert.isTrue(exits.every(Exit.isSuccess))
      assert.strictEqual((yield* accounts.head(stream)).version, 13)
    }))

  it.effect("remembers the state for as long as others wait for their turns", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      let evolved = 0
      const count = {
        initial: 0,
        evolve: (sofar: number) => {
          evolved++
          return sofar + 1
        }
      }
      const more = accounts.update(stream, count, (sofar, version) => {
        assert.strictEqual(sofar, version)
        return Effect.succeed(deposit())
      })
      yield* queued(stream, Array.from({ length: 9 }, () => more))
      assert.strictEqual(evolved, 1 + 8) // read by the first of them; then each evolves what the one before it wrote
      yield* more
      assert.strictEqual(evolved, 9 + 10) // nobody waited: read from the beginning
    }))

  it.effect("gives the turn on when it is interrupted", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const holding = yield* Latch.make()
      const deciding = yield* Effect.forkChild(
        queued(stream, [
          accounts.update(stream, balance, () => Effect.andThen(holding.open, Effect.never)),
          accounts.update(stream, balance, () => Effect.die("its turn never comes"))
        ])
      )
      yield* holding.await
      const last = yield* Effect.forkChild(
        accounts.update(stream, balance, (sum) => Effect.succeed(deposit(Number(sum) + 1))),
        { startImmediately: true }
      )
      yield* accounts.write(stream, deposit(6))
      yield* Fiber.interrupt(deciding) // and with it both that it waits for
      assert.deepInclude(yield* Fiber.join(last), { version: 3, appended: 1 })
      const sum = yield* Stream.runFold(accounts.read(stream), () =>
        0n, (sofar, { message }) =>
        balance.evolve(sofar, message))
      assert.strictEqual(sum, 1n + 6n + 8n)
    }))

  it.effect("within another decision waits for nobody, and not on the same stream", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [one, two] = [newStream(), newStream()]
      const both = yield* Latch.make()
      let inside = 0
      // Each is decided on while the other one is updated within it.
      const crossing = (outer: string, inner: string) =>
        accounts.update(outer, balance, (sum) =>
          Effect.gen(function*() {
            if (++inside === 2) yield* both.open
            yield* both.await
            if (sum === 0n) yield* accounts.update(inner, balance, () => Effect.succeed(deposit(1)))
            return []
          }))
      yield* Effect.all([crossing(one, two), crossing(two, one)], { concurrency: 2 })
      assert.deepStrictEqual([yield* versions(one), yield* versions(two)], [[1], [1]])
      const again = accounts.update(
        one,
        balance,
        () => Effect.as(accounts.update(one, balance, () => Effect.succeed(deposit(2))), [])
      )
      yield* failsWith(again, { _tag: "InvalidArgumentError", argument: `source "${one}"` })
      assert.deepStrictEqual(yield* versions(one), [1])
    }))

  it.effect("is interrupted when the layer closes, though somebody does not cease to decide", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const scope = yield* Scope.fork(yield* Effect.scope)
      const context = yield* Layer.buildWithScope(
        Layer.fresh(Layer.provide(Accounts.layerStorage, Layer.succeed(Storage, storage))),
        scope
      )
      const accounts = yield* Effect.provide(Accounts, context)
      const stream = newStream()
      const holding = yield* Latch.make()
      const never = yield* Effect.forkChild(
        accounts.update(stream, balance, () => Effect.andThen(holding.open, Effect.never))
      )
      yield* holding.await
      const waiting = yield* Effect.forkChild(accounts.update(stream, balance, () => Effect.succeed([])), {
        startImmediately: true
      })
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(waiting)))
      assert.isUndefined(never.pollUnsafe())
    }).pipe(Effect.scoped))
}
