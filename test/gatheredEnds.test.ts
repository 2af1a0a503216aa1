/** What many fibers ask at once about the ends of streams and tags is asked in few statements, and each has its own answer. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import * as GatheredEnds from "../src/postgres/gatheredEnds.ts"
import type { Ends, MessageStorage } from "../src/Storage.ts"

const endOf = (tag: string): number => Number(tag.slice(1))

const endsOf = (streams: ReadonlyArray<string>, tags: ReadonlyArray<string>): Ends => ({
  heads: streams.map((stream) => ({ stream, version: endOf(stream), globalPosition: endOf(stream) })),
  tags: tags.map(endOf),
  editions: [...streams, ...tags].map((name) => 10 * endOf(name)),
  snapshots: []
})

const refusal = new SqlError.SqlError({
  reason: new SqlError.AuthorizationError({ cause: { code: "42501" }, message: "no rights" })
})
const loss = new SqlError.SqlError({
  reason: new SqlError.ConnectionError({ cause: new Error("lost"), message: "lost" })
})

/** A database that answers statement by statement, when it is told to. */
const make = Effect.gen(function*() {
  const asked: Array<
    { readonly names: ReadonlyArray<string>; readonly answer: Deferred.Deferred<void, SqlError.SqlError> }
  > = []
  const put: MessageStorage["ends"] = (streams, tags) =>
    Effect.gen(function*() {
      const answer = yield* Deferred.make<void, SqlError.SqlError>()
      asked.push({ names: [...streams, ...tags], answer })
      yield* Deferred.await(answer)
      return endsOf(streams, tags)
    })
  const transactionService = SqlClient.TransactionConnection(-1)
  const scope = yield* Scope.make()
  const ends = yield* Effect.provideService(GatheredEnds.make({ transactionService }, put, "test"), Scope.Scope, scope)
  const settle = Effect.repeat(Effect.yieldNow, { times: 20 })
  const fork = (streams: ReadonlyArray<string>, tags: ReadonlyArray<string>) =>
    Effect.tap(Effect.forkChild(ends(streams, tags)), settle)
  return {
    ask: (...tags: ReadonlyArray<string>) => fork([], tags),
    askStream: (stream: string) => fork([stream], []),
    ends,
    transactionService,
    names: () => asked.map(({ names }) => names.length > 9 ? names.length : names.join()),
    answer: (i: number, exit: Exit.Exit<void, SqlError.SqlError> = Exit.void) => {
      const one = asked[i]
      return Effect.andThen(
        one === undefined ? Effect.die(`no statement ${i}`) : Deferred.done(one.answer, exit),
        settle
      )
    },
    close: Scope.close(scope, Exit.void)
  }
})

describe("ends that are asked for together", () => {
  it.effect("leave at once where nobody else asks, and gather behind two statements", () =>
    Effect.gen(function*() {
      const { answer, ask, askStream, names } = yield* make
      const first = yield* ask("t1")
      const second = yield* ask("t2")
      const others = [yield* ask("t3", "t4"), yield* askStream("s5"), yield* ask("t3")]
      assert.deepStrictEqual(names(), ["t1", "t2"])
      yield* answer(1)
      assert.deepStrictEqual(yield* Fiber.join(second), endsOf([], ["t2"]))
      assert.deepStrictEqual(names(), ["t1", "t2", "s5,t3,t4,t3"])
      yield* answer(2)
      assert.deepStrictEqual(yield* Effect.forEach(others, Fiber.join), [
        endsOf([], ["t3", "t4"]),
        endsOf(["s5"], []),
        endsOf([], ["t3"])
      ])
      yield* answer(0)
      assert.deepStrictEqual(yield* Fiber.join(first), endsOf([], ["t1"]))
      yield* ask("t6")
      assert.strictEqual(names().at(-1), "t6")
    }))

  it.effect("have bounds; a larger question leaves alone", () =>
    Effect.gen(function*() {
      const { answer, ask, names } = yield* make
      yield* ask("t1")
      yield* ask("t2")
      const [many, most] = [600, 1200].map((length) => Array.from({ length }, (_, i) => `t${i}`))
      yield* ask(...many ?? [])
      yield* ask(...many ?? [])
      const large = yield* ask(...most ?? [])
      for (const i of [0, 1, 2, 3, 4]) yield* answer(i)
      assert.deepStrictEqual(names(), ["t1", "t2", 600, 600, 1200])
      assert.deepStrictEqual(yield* Fiber.join(large), endsOf([], most ?? []))
    }))

  it.effect("are asked for alone in a transaction, and with snapshots of folds", () =>
    Effect.gen(function*() {
      const { ask, ends, names, transactionService } = yield* make
      yield* ask("t1")
      yield* ask("t2")
      yield* ask("t3")
      const inTransaction = Effect.provideService(ends([], ["t4"]), transactionService, [null as never, 0])
      yield* Effect.forkChild(inTransaction)
      yield* Effect.forkChild(ends([], ["t5"], [{ source: "s", fold: "f", fingerprint: "p" }]))
      yield* Effect.repeat(Effect.yieldNow, { times: 20 })
      assert.deepStrictEqual(names(), ["t1", "t2", "t4", "t5"])
    }))

  it.effect("are asked for one by one where the database refuses them together, and not where the connection is lost", () =>
    Effect.gen(function*() {
      const { answer, ask, names } = yield* make
      yield* ask("t1")
      yield* ask("t2")
      const [good, bad] = [yield* ask("t3"), yield* ask("t4")]
      yield* answer(1)
      yield* answer(2, Exit.fail(refusal))
      yield* answer(3)
      yield* answer(4, Exit.fail(refusal))
      assert.deepStrictEqual(names(), ["t1", "t2", "t3,t4", "t3", "t4"])
      assert.deepStrictEqual(yield* Fiber.await(good), Exit.succeed(endsOf([], ["t3"])))
      assert.strictEqual(yield* Effect.flip(Fiber.join(bad)), refusal)

      const lost = [yield* ask("t5"), yield* ask("t6"), yield* ask("t7")]
      yield* answer(5, Exit.fail(loss))
      yield* answer(6, Exit.fail(loss))
      assert.deepStrictEqual(names().slice(5), ["t5", "t6,t7"])
      for (const fiber of lost) assert.strictEqual(yield* Effect.flip(Fiber.join(fiber)), loss)
    }))

  it.effect("of an interrupted fiber are not asked for, and the others have their answers", () =>
    Effect.gen(function*() {
      const { answer, ask, names } = yield* make
      const first = yield* ask("t1")
      yield* ask("t2")
      const [gone, left] = [yield* ask("t3"), yield* ask("t4")]
      yield* Fiber.interrupt(gone)
      yield* answer(1)
      assert.deepStrictEqual(names(), ["t1", "t2", "t4"])
      yield* Fiber.interrupt(first)
      const behind = yield* ask("t5")
      assert.deepStrictEqual(names(), ["t1", "t2", "t4", "t5"])
      yield* answer(2)
      yield* answer(3)
      assert.deepStrictEqual(yield* Fiber.join(left), endsOf([], ["t4"]))
      assert.deepStrictEqual(yield* Fiber.join(behind), endsOf([], ["t5"]))
    }))

  it.effect("end with the store's layer", () =>
    Effect.gen(function*() {
      const { ask, close, ends } = yield* make
      yield* ask("t1")
      const waiting = [yield* ask("t2"), yield* ask("t3")]
      yield* close
      for (const fiber of waiting) assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(ends([], ["t4"]))))
    }))
})
