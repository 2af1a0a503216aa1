import { assert } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Result, Stream } from "effect"
import { SqlError } from "effect/sql/SqlError"
import { Accounts, deposit, deposits, failsWith, newStream, outsider, type Part, versions } from "../fixture.ts"

export const transactions: Part = (it, { concurrentTransactions }) => {
  it.effect("commits what was written when the transaction succeeds", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [a, b] = [newStream(), newStream()]
      const inside = yield* accounts.withTransaction(
        Effect.gen(function*() {
          yield* accounts.write(a, deposits(2))
          yield* accounts.write(b, deposit())
          yield* accounts.write(a, deposit(), { expectedVersion: 2 })
          const reader = yield* accounts.reader
          const seen = yield* Stream.runCollect(reader.read(a))
          assert.strictEqual((yield* reader.head(b)).version, 1)
          assert.strictEqual((yield* reader.getMessageById(seen[2]?.messageId ?? "")).version, 3)
          return seen.map(({ version }) => version)
        }).pipe(Effect.scoped)
      )
      assert.deepStrictEqual(inside, [1, 2, 3])
      assert.deepStrictEqual(yield* versions(a), [1, 2, 3])
      assert.deepStrictEqual(yield* versions(b), [1])
    }))

  it.effect("rolls back when the transaction fails, dies or is interrupted", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const write = Effect.asVoid(accounts.write(stream, deposits(2)))
      const failed = yield* Effect.flip(accounts.withTransaction(Effect.andThen(write, Effect.fail("no" as const))))
      assert.strictEqual(failed, "no")
      const died = yield* Effect.exit(accounts.withTransaction(Effect.andThen(write, Effect.die("no"))))
      assert.isTrue(Exit.isFailure(died))
      const written = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(
        accounts.withTransaction(
          Effect.andThen(Effect.andThen(write, Deferred.succeed(written, undefined)), Effect.never)
        )
      )
      yield* Deferred.await(written)
      yield* Fiber.interrupt(fiber)
      assert.deepStrictEqual(yield* versions(stream), [])
      yield* accounts.write(stream, deposit(), { expectedVersion: 0 })
    }))

  it.effect("shows nothing outside before the commit", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      let committed = false
      const outside = yield* outsider
      const look = Effect.map(accounts.head(stream), (head) => ({ committed, version: head.version }))
      const answer = yield* Deferred.make<{ readonly committed: boolean; readonly version: number }, unknown>()
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(stream, deposits(2))
        assert.strictEqual((yield* accounts.head(stream)).version, 2)
        const looking = outside(look).pipe(Deferred.into(answer))
        if (concurrentTransactions) yield* looking
        else yield* Effect.forkDetach(looking)
      }))
      committed = true
      const seen = yield* Deferred.await(answer)
      assert.isTrue(seen.committed ? seen.version === 2 : seen.version === 0)
      assert.strictEqual(seen.committed, !concurrentTransactions)
      assert.strictEqual((yield* look).version, 2)
    }))

  it.effect("rolls back a nested part alone", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(stream, deposit())
        const nested = accounts.withTransaction(Effect.andThen(accounts.write(stream, deposits(3)), Effect.fail("no")))
        yield* Effect.flip(nested)
        assert.deepStrictEqual(yield* versions(stream), [1])
        yield* accounts.withTransaction(accounts.write(stream, deposit(), { expectedVersion: 1 }))
      }))
      assert.deepStrictEqual(yield* versions(stream), [1, 2])
      yield* Effect.flip(accounts.withTransaction(Effect.andThen(
        accounts.withTransaction(accounts.write(stream, deposit())),
        Effect.fail("no")
      )))
      assert.deepStrictEqual(yield* versions(stream), [1, 2])
    }))

  it.effect("stays usable after a refused write", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [stream, other] = [newStream(), newStream()]
      const stored = deposit()
      yield* accounts.write(stream, stored)
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(other, deposit())
        yield* failsWith(accounts.write(stream, deposit(), { expectedVersion: 0 }), {
          _tag: "OptimisticConcurrencyError"
        })
        yield* failsWith(accounts.write(other, [deposit(), stored]), { _tag: "DuplicateMessageError" })
        yield* failsWith(accounts.synchronize(stream, [deposit()]), { _tag: "MessageIdMismatchError" })
        yield* accounts.write(stream, deposit(), { expectedVersion: 1 })
        yield* accounts.writeAll([{ stream, messages: deposit() }, { stream: other, messages: deposit() }])
      }))
      assert.deepStrictEqual(yield* versions(stream), [1, 2, 3])
      assert.deepStrictEqual(yield* versions(other), [1, 2])
    }))

  it.effect("frees the id of a message that was rolled back", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const message = deposit()
      yield* Effect.flip(accounts.withTransaction(Effect.andThen(accounts.write(stream, message), Effect.fail("no"))))
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* Effect.flip(accounts.withTransaction(Effect.andThen(accounts.write(stream, message), Effect.fail("no"))))
        yield* accounts.write(stream, message, { expectedVersion: 0 })
      }))
      assert.deepStrictEqual(yield* versions(stream), [1])
    }))

  it.effect("fails what a fiber does in a transaction that it outlives, and keeps no lock of it", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [stream, other] = [newStream(), newStream()]
      const ended = yield* Deferred.make<void>()
      const afterwards: ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }>> = [
        accounts.write(other, deposit()),
        accounts.writeAll([{ stream: other, messages: deposit() }]),
        accounts.withTransaction(accounts.write(other, deposit())),
        accounts.head(stream),
        Stream.runCollect(accounts.read(stream))
      ]
      const fibers = yield* accounts.withTransaction(Effect.andThen(
        accounts.write(stream, deposit()),
        Effect.forEach(afterwards, (effect) => Effect.forkDetach(Effect.andThen(Deferred.await(ended), effect)))
      ))
      yield* Deferred.succeed(ended, undefined)
      for (const fiber of fibers) {
        const result = yield* Effect.result(Fiber.join(fiber))
        assert(Result.isFailure(result), "told that it was done")
        assert.instanceOf(result.failure, SqlError)
        assert.strictEqual(result.failure.reason._tag, "ConnectionError")
      }
      assert.deepStrictEqual([yield* versions(stream), yield* versions(other)], [[1], []])
      yield* accounts.write(other, deposit(), { expectedVersion: 0 })
    }))

  it.effect("finishes with 50 fibers in transactions with readers, and leaves every stream whole", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const streams = Array.from({ length: 5 }, newStream)
      yield* Effect.all(
        Array.from({ length: 50 }, (_, i) => {
          const stream = streams[i % 5] ?? ""
          return accounts.withTransaction(Effect.scoped(Effect.gen(function*() {
            const position = yield* accounts.write(stream, deposit())
            const reader = yield* accounts.reader
            const head = yield* reader.head(stream)
            assert.strictEqual(head.version, position.version)
            const all = yield* Stream.runCollect(reader.read(stream))
            assert.strictEqual(all.length, head.version)
          })))
        }),
        { concurrency: "unbounded" }
      )
      for (const stream of streams) {
        assert.deepStrictEqual(yield* versions(stream), Array.from({ length: 10 }, (_, i) => i + 1))
      }
    }))

  if (!concurrentTransactions) return

  it.effect("makes writers of the same stream wait, and no others", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [stream, other] = [newStream(), newStream()]
      const outside = yield* outsider
      const writer = yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(stream, deposit())
        yield* outside(accounts.write(other, deposit()))
        const waiting = yield* outside(
          Effect.forkDetach(accounts.write(stream, deposit(), { expectedVersion: 0 }))
        )
        yield* outside(accounts.write(other, deposit()))
        assert.isUndefined(waiting.pollUnsafe())
        return waiting
      }))
      yield* failsWith(Fiber.join(writer), { _tag: "OptimisticConcurrencyError", actualVersion: 1 })
      assert.deepStrictEqual(yield* versions(other), [1, 2])
    }))

  it.effect("tells the truth to a fiber that waits for a stream while its transaction ends", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [held, own] = [newStream(), newStream()]
      const outside = yield* outsider
      const ending = yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(held, deposit())
        const inner = yield* outside(Effect.forkDetach(accounts.withTransaction(Effect.gen(function*() {
          yield* accounts.write(own, deposit())
          const waiting = yield* Effect.forkDetach(accounts.write(held, deposit()), { startImmediately: true })
          yield* outside(accounts.write(newStream(), deposit()))
          return waiting
        }))))
        // Enough for it to end where its end does not wait for the fiber's statement.
        for (let i = 0; i < 5; i++) yield* outside(accounts.write(newStream(), deposit()))
        return inner
      }))
      const told = yield* Effect.result(Fiber.join(yield* Fiber.join(ending)))
      assert.deepStrictEqual(yield* versions(own), [1])
      assert.deepStrictEqual(yield* versions(held), Result.isSuccess(told) ? [1, 2] : [1])
      yield* accounts.write(held, deposit())
    }))

  it.effect("shows late commits in the order of global positions", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const outside = yield* outsider
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(`${prefix}-early`, deposit())
        yield* outside(accounts.write(`${prefix}-late`, deposit()))
      }))
      const reader = yield* accounts.reader
      const all = yield* Stream.runCollect(reader.readWildcard(`${prefix}%`))
      assert.deepStrictEqual(all.map(({ stream }) => stream.slice(prefix.length)), ["-early", "-late"])
      const first = yield* Stream.runCollect(reader.readWildcard(`${prefix}%`, { limit: 1 }))
      assert.deepStrictEqual(first, all.slice(0, 1))
    }))

  it.effect("fails one of two transactions that wait for each other, and lets the other commit", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [a, b] = [newStream(), newStream()]
      const both = yield* Effect.all([Deferred.make<void>(), Deferred.make<void>()])
      const crossing = (mine: 0 | 1) =>
        accounts.withTransaction(Effect.gen(function*() {
          const [first, second] = mine === 0 ? [a, b] : [b, a]
          yield* accounts.write(first, deposit())
          yield* Deferred.succeed(both[mine], undefined)
          yield* Deferred.await(both[mine === 0 ? 1 : 0])
          yield* accounts.write(second, deposit())
        }))
      const results = yield* Effect.all([Effect.result(crossing(0)), Effect.result(crossing(1))], {
        concurrency: "unbounded"
      })
      const failures = results.filter(Result.isFailure).map(({ failure }) => failure)
      assert.strictEqual(failures.length, 1)
      const [failure] = failures
      assert.isTrue(failure?._tag === "SqlError" && failure.isRetryable && failure.reason._tag === "DeadlockError")
      assert.deepStrictEqual([yield* versions(a), yield* versions(b)], [[1], [1]])
    }))

  it.effect("lets two calls that write the same new messages in opposite orders wait for each other in one order", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const messages = deposits(5)
      const [held, release] = yield* Effect.all([Deferred.make<void>(), Deferred.make<void>()])
      const parts = (given: ReadonlyArray<typeof messages[0]>) =>
        given.map((message) => ({ stream: newStream(), messages: message }))
      const calls = [messages, messages.toReversed()].map((given) => accounts.writeAll(parts(given)))
      // A transaction that has the message in the middle, and rolls back: both calls are half-way when they meet it.
      const holder = yield* Effect.forkChild(Effect.flip(accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(newStream(), messages[2] ?? deposit())
        yield* Deferred.succeed(held, undefined)
        yield* Deferred.await(release)
        return yield* Effect.fail("rolled back" as const)
      }))))
      yield* Deferred.await(held)
      const fibers = yield* Effect.forEach(calls, (call) => Effect.forkChild(Effect.result(call)))
      yield* Effect.repeat(accounts.head(newStream()), { times: 50 }) // as many round trips as both need to get there
      yield* Deferred.succeed(release, undefined)
      assert.strictEqual(yield* Fiber.join(holder), "rolled back")
      const results = yield* Effect.forEach(fibers, Fiber.join)
      const failures = results.filter(Result.isFailure).map(({ failure }) => failure._tag)
      assert.deepStrictEqual(failures, ["DuplicateMessageError"])
    }))
}
