/** Questions that gather: nobody waits for what has become of others. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Result, Scope } from "effect"
import { SqlClient, SqlError } from "effect/sql"
import * as Gathered from "../src/postgres/client/gathered.ts"
import type { Session } from "../src/postgres/client/session.ts"
import * as Leases from "../src/postgres/leases.ts"
import { forSubscription } from "../src/postgres/objects.ts"

const transactionService = SqlClient.TransactionConnection(-1)
const gatherer = Gathered.make({ transactionService })
const settle = Effect.repeat(Effect.yieldNow, { times: 20 })

/** Questions that are their own answers, asked by fibers that wait for each other. */
const echo = Effect.gen(function*() {
  const asked: Array<ReadonlyArray<number>> = []
  const scope = yield* Scope.make()
  const gather = yield* Effect.provideService(gatherer, Scope.Scope, scope)
  const ask = gather<number, number>({
    put: (questions) =>
      Effect.sync(() => {
        asked.push(questions)
        return questions
      }),
    statements: 1,
    maximum: 10,
    isPatient: true
  })
  return {
    asked,
    ask,
    fork: (question: number) => Effect.forkChild(ask(question), { startImmediately: true }),
    close: Scope.close(scope, Exit.void)
  }
})

describe("questions that gather", () => {
  it.effect("are put though the fiber that waited for the others is interrupted", () =>
    Effect.gen(function*() {
      const { ask, asked, fork } = yield* echo
      const first = yield* fork(1)
      const others = [yield* fork(2), yield* fork(3)]
      first.interruptUnsafe()
      yield* settle
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(first)))
      assert.deepStrictEqual(others.map((fiber) => fiber.pollUnsafe()), [Exit.succeed(2), Exit.succeed(3)])
      assert.strictEqual(yield* ask(4), 4)
      assert.deepStrictEqual(asked.at(-1), [4])
    }))

  it.effect("end with the scope, which closes while the first one waits for others", () =>
    Effect.gen(function*() {
      const { close, fork } = yield* echo
      const fibers = [yield* fork(1), yield* fork(2)]
      yield* close
      yield* settle
      for (const fiber of fibers) assert.isDefined(fiber.pollUnsafe())
    }))

  it.effect("of leases are given up when their session is lost, instead of waiting for another one", () =>
    Effect.gen(function*() {
      const lost = new SqlError.SqlError({
        reason: new SqlError.ConnectionError({ cause: new Error("lost"), message: "lost" })
      })
      const asked: Array<string> = []
      const answered = yield* Deferred.make<never, SqlError.SqlError>()
      const connection = {
        query: (text: string) =>
          Effect.suspend(() => {
            asked.push(text)
            return Deferred.await(answered)
          })
      }
      const isLost = yield* Deferred.make<void>()
      const session: Session["Service"] = {
        isAvailable: true,
        use: (tenant) =>
          Effect.asVoid(Effect.forkScoped(
            Effect.raceFirst(
              Effect.scoped(tenant(connection as never)), // all that leases use
              Deferred.await(isLost)
            ),
            { startImmediately: true }
          ))
      }
      const subscription = { ...Result.getOrThrow(forSubscription("s")), lockPrefix: "" }
      const claims = yield* Leases.make(
        null as never, // the session has all statements
        session,
        yield* gatherer,
        subscription,
        60_000,
        "owner"
      )
      const fibers = yield* Effect.forEach(
        [1, 2, 3, 4],
        (partition) =>
          Effect.forkChild(Effect.result(Effect.scoped(claims.claim(partition))), { startImmediately: true })
      )
      yield* settle
      assert.lengthOf(asked, 1)
      const behind = yield* Effect.forkChild(Effect.scoped(claims.claim(5)), { startImmediately: true })
      yield* settle
      yield* Deferred.succeed(isLost, undefined)
      yield* settle
      yield* Deferred.fail(answered, lost)
      yield* settle
      for (const fiber of fibers) {
        assert.deepStrictEqual(fiber.pollUnsafe(), Exit.succeed(Result.fail(lost)))
      }
      assert.deepStrictEqual(behind.pollUnsafe(), Exit.succeed(undefined))
      assert.lengthOf(asked, 1)
    }).pipe(Effect.scoped))
})
