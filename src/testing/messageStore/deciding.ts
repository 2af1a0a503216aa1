/** Decisions on several streams. */
import { assert } from "@effect/vitest"
import { Effect, Fiber, Latch, Layer, Result, Stream } from "effect"
import * as Decision from "../../Decision.ts"
import * as Fold from "../../Fold.ts"
import { Storage } from "../../Storage.ts"
import {
  Accounts,
  deposit,
  type Deposited,
  deposits,
  failsWith,
  newStream,
  type Noted,
  outsider,
  type Part,
  versions
} from "../fixture.ts"

const balance = Fold.make<Deposited | Noted>()({
  initial: 0,
  Deposited: (sum, { amount }) => sum + Number(amount)
})
const count = Fold.make<Deposited | Noted>()({
  initial: 0,
  Deposited: (sofar) => sofar + 1,
  Noted: (sofar) => sofar + 1
})

class NotEnough extends Error {
  readonly _tag = "NotEnough"
}

/** Moves an amount from one account to another, unless there is a message in a third stream that forbids it. */
const transfer = (from: string, to: string, forbidden: string, amount: number) =>
  Effect.flatMap(Accounts, (accounts) =>
    accounts.decide(
      {
        from: Decision.stream(from, balance),
        to: Decision.stream(to, balance),
        forbidden: Decision.stream(forbidden, count)
      },
      (states) =>
        states.from < amount || states.forbidden > 0
          ? Effect.fail(new NotEnough())
          : [{ stream: from, messages: deposit(-amount) }, { stream: to, messages: deposit(amount) }]
    ))

/** The store on a storage whose reads of streams are preceded by something else. */
const interfered = Effect.fnUntraced(function*(before: (reads: number) => Effect.Effect<unknown>) {
  const storage = yield* Storage
  let reads = 0
  const wrapped = Storage.of({
    ...storage,
    readStream: (query) => Effect.andThen(before(++reads), storage.readStream(query))
  })
  return yield* Layer.build(Layer.fresh(Layer.provide(Accounts.layerStorage, Layer.succeed(Storage, wrapped))))
})

export const deciding: Part = (it) => {
  it.effect("decides on what several streams say, and writes to those, others, or none", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [a, b, c] = [newStream(), newStream(), newStream()]
      yield* accounts.write(a, deposits(3))
      yield* accounts.write(b, deposit(10))
      const sources = {
        a: Decision.stream(a, balance),
        b: Decision.stream(b, count),
        again: Decision.stream(a, count)
      }
      const positions = yield* accounts.decide(sources, (states) => {
        assert.deepStrictEqual(states, { a: 6, b: 1, again: 3 })
        return [
          { stream: c, messages: [deposit(), deposit()], metadata: { correlationId: "c" } },
          { stream: a, messages: [] },
          { stream: a, messages: deposit() },
          { stream: a, messages: deposits(2) }
        ]
      })
      assert.deepStrictEqual(positions.map(({ stream, version }) => [stream, version]), [[c, 2], [a, 4], [a, 6]])
      const [first] = yield* Stream.runCollect(accounts.read(c))
      assert.strictEqual(first?.metadata.correlationId, "c")
      assert.deepStrictEqual(yield* accounts.decide(sources, () => []), [])
      const [one] = yield* accounts.decide(
        sources,
        (states) => Effect.succeed({ stream: b, messages: deposit(states.a) })
      )
      assert.deepInclude(one, { stream: b, version: 2 })
      const alone = yield* accounts.decide({ c: Decision.stream(c, balance) }, (states) => ({
        stream: a,
        messages: deposit(states.c)
      }))
      assert.deepStrictEqual(alone.map(({ version }) => version), [7])
    }))

  it.effect("fails as the decision fails, and writes all or nothing", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [a, b] = [newStream(), newStream()]
      const sources = { a: Decision.stream(a, balance), b: Decision.stream(b, balance) }
      yield* failsWith(transfer(a, b, newStream(), 1), { _tag: "NotEnough" })
      const stored = deposit()
      yield* accounts.write(a, stored)
      const duplicate = accounts.decide(sources, () => [
        { stream: b, messages: deposit() },
        { stream: a, messages: stored }
      ])
      yield* failsWith(duplicate, { _tag: "DuplicateMessageError", messageId: stored.messageId })
      yield* failsWith(accounts.decide({ "": Decision.stream("", balance) }, () => []), {
        _tag: "InvalidArgumentError"
      })
      yield* failsWith(accounts.decide({}, () => []), { _tag: "InvalidArgumentError", argument: "sources" })
      yield* failsWith(accounts.decide(sources, () => ({ stream: "", messages: deposit() })), {
        _tag: "InvalidArgumentError"
      })
      assert.deepStrictEqual([yield* versions(a), yield* versions(b)], [[1], []])
    }))

  it.effect("decides again when one of the streams was changed, written to or not", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const outside = yield* outsider
      for (const changed of ["written", "required"] as const) {
        for (const alone of [true, false]) {
          const streams = { written: newStream(), required: newStream() }
          const seen: Array<number> = []
          const sources: { readonly [name: string]: Decision.Source<number, Deposited | Noted> } = {
            changed: Decision.stream(streams[changed], count),
            ...(alone ? {} : {
              written: Decision.stream(streams.written, count),
              required: Decision.stream(streams.required, count)
            })
          }
          const positions = yield* accounts.decide(sources, (states) =>
            Effect.gen(function*() {
              seen.push(states["changed"] ?? 0)
              if (seen.length === 1) yield* Effect.orDie(outside(accounts.write(streams[changed], deposits(2))))
              return { stream: streams.written, messages: deposit() }
            }))
          assert.deepStrictEqual(seen, [0, 2], changed)
          assert.deepStrictEqual(positions.map(({ version }) => version), [changed === "written" ? 3 : 1])
        }
      }
    }))

  it.effect("decides on one view, whatever is written while it is read", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [a, b] = [newStream(), newStream()]
      const both = Effect.suspend(() =>
        Effect.orDie(accounts.writeAll([{ stream: a, messages: deposit() }, { stream: b, messages: deposit() }]))
      )
      yield* both
      const context = yield* interfered((reads) => reads > 4 ? Effect.void : both)
      const seen = yield* Effect.provide(
        Accounts.use((interfering) => {
          const states: Array<{ readonly a: number; readonly b: number }> = []
          const sources = { a: Decision.stream(a, count), b: Decision.stream(b, count) }
          return Effect.as(
            Effect.andThen(
              interfering.decide(sources, (given) => {
                states.push(given)
                return []
              }),
              interfering.decide(sources, (given) => {
                states.push(given)
                return { stream: a, messages: deposit() }
              })
            ),
            states
          )
        }),
        context
      )
      // The second one is made on a view that was overtaken, and then once more.
      assert.deepStrictEqual(seen, [{ a: 1, b: 1 }, { a: 3, b: 3 }, { a: 5, b: 5 }])
    }).pipe(Effect.scoped))

  it.effect("moves money between accounts in 48 fibers on two stores, and loses none", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const accounts = yield* Accounts
      const streams = Array.from({ length: 4 }, newStream)
      const forbidden = newStream()
      for (const stream of streams) yield* accounts.write(stream, deposit(5))
      const other = yield* Layer.build(
        Layer.fresh(Layer.provide(Accounts.layerStorage, Layer.succeed(Storage, storage)))
      )
      const results = yield* Effect.forEach(
        Array.from({ length: 48 }, (_, i) => i),
        (i) => {
          const moved = Effect.result(
            transfer(streams[i % 4] ?? "", streams[(i * 7 + 1) % 4] ?? "", forbidden, 1 + i % 3)
          )
          return i % 2 === 0 ? moved : Effect.provide(moved, other)
        },
        { concurrency: "unbounded" }
      )
      const sums = yield* Effect.forEach(streams, (stream) =>
        Stream.runFold(accounts.read(stream), () => [5], (sofar, { message, version }) =>
          version === 1 ? sofar : [...sofar, balance.evolve(sofar.at(-1) ?? 0, message)]))
      for (const sum of sums.flat()) {
        assert.isAtLeast(sum, 0)
      }
      assert.strictEqual(
        sums.reduce((total, sum) =>
          total + (sum.at(-1) ?? 0), 0),
        20
      )
      const failures = results.filter(Result.isFailure).map(({ failure }) =>
        failure._tag
      )
      assert.isTrue(failures.every((tag) => tag === "NotEnough"), failures.join())
      assert.isAbove(results.filter(Result.isSuccess).length, 4)
      yield* accounts.write(forbidden, deposit())
      yield* failsWith(transfer(streams[0] ?? "", streams[1] ?? "", forbidden, 0), { _tag: "NotEnough" })
    }).pipe(Effect.scoped))

  it.effect("runs in the transaction that is open", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [a, b, c] = [newStream(), newStream(), newStream()]
      yield* accounts.write(a, deposit(5))
      const twice = Effect.andThen(transfer(a, b, c, 2), transfer(a, b, c, 2))
      yield* failsWith(accounts.withTransaction(Effect.andThen(twice, transfer(a, b, c, 2))), { _tag: "NotEnough" })
      assert.deepStrictEqual([yield* versions(a), yield* versions(b)], [[1], []])
      yield* accounts.withTransaction(twice)
      assert.deepStrictEqual([yield* versions(a), yield* versions(b)], [[1, 2, 3], [1, 2]])
    }))

  it.effect("makes decisions that have a source in common in turn, and no others", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [a, b, c] = [newStream(), newStream(), newStream()]
      const start = yield* Latch.make()
      const both = (left: string, right: string, wait: boolean) =>
        accounts.decide({ left: Decision.stream(left, count), right: Decision.stream(right, count) }, (states) =>
          Effect.as(wait ? start.await : Effect.void, { stream: left, messages: deposits(states.left + 1) }))
      const first = yield* Effect.forkChild(both(a, b, true), { startImmediately: true })
      const waiting = yield* Effect.forkChild(both(b, c, false), { startImmediately: true })
      const updating = yield* Effect.forkChild(
        accounts.update(b, balance, (sum) =>
          Effect.succeed(deposit(sum))),
        { startImmediately: true }
      )
      yield* both(newStream(), newStream(), false)
      assert.isUndefined(first.pollUnsafe())
      assert.isUndefined(waiting.pollUnsafe())
      assert.isUndefined(updating.pollUnsafe())
      yield* start.open
      yield* Fiber.joinAll([first, waiting, updating] as ReadonlyArray<Fiber.Fiber<unknown, unknown>>)
      assert.deepStrictEqual((yield* versions(b)).length, 2)
    }))

  it.effect("says in a transaction what was changed twice, and by which message", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [written, required] = [newStream(), newStream()]
      let tries = 0
      /** What the transaction adds itself is added as well. */
      const decided = accounts.decide(
        { mine: Decision.stream(written, count), theirs: Decision.stream(required, count) },
        () =>
          Effect.as(
            Effect.orDie(Effect.suspend(() => accounts.write(required, deposits(++tries)))),
            { stream: written, messages: deposit() }
          )
      )
      yield* accounts.withTransaction(Effect.gen(function*() {
        const failure = yield* Effect.flip(decided)
        assert(failure._tag === "DecisionConflictError")
        const [added] = yield* Stream.runCollect(accounts.read(required, { fromVersion: 2 }))
        const { globalPosition, messageId } = added ?? {}
        assert.deepInclude({ ...failure }, {
          source: "theirs",
          stream: required,
          version: 2,
          messageId: messageId ?? "",
          globalPosition: globalPosition ?? 0
        })
        assert.include(failure.message, "\"theirs\" was changed by message")
        yield* accounts.write(written, deposit(), { expectedVersion: 0 })
      }))
      assert.deepStrictEqual([tries, yield* versions(written), yield* versions(required)], [2, [1], [1, 2, 3]])
    }))
}
