import { assert } from "@effect/vitest"
import { Effect, Result, Stream } from "effect"
import { Accounts, deposit, deposits, failsWith, newStream, type Part, versions } from "../fixture.ts"

export const writing: Part = (it) => {
  it.effect("numbers the messages of a stream from 1, and answers the position of the last", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const first = yield* accounts.write(stream, deposit())
      assert.deepStrictEqual([first.stream, first.version], [stream, 1])
      const third = yield* accounts.write(stream, deposits(2))
      assert.strictEqual(third.version, 3)
      assert.isAbove(third.globalPosition, first.globalPosition)
      assert.deepStrictEqual(yield* accounts.head(stream), third)
      assert.deepStrictEqual(yield* versions(stream), [1, 2, 3])
    }))

  it.effect("gives back what was written: id, class, content, time and metadata", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const message = deposit(5)
      yield* accounts.write(stream, message, { metadata: { correlationId: "c", tenant: { id: 7 } } }).pipe(
        Effect.withSpan("handler")
      )
      const [stored] = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored?.message, message)
      assert.strictEqual(stored?.messageId, message.messageId)
      const { traceparent, ...metadata } = stored?.metadata ?? {}
      assert.deepStrictEqual(metadata, { correlationId: "c", tenant: { id: 7 } })
      assert.match(String(traceparent), /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/)
      assert.isTrue(Number.isFinite(stored?.addedAt.epochMilliseconds))
    }))

  it.effect("ties the metadata to the span that wrote", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const traceId = yield* Effect.gen(function*() {
        yield* accounts.write(stream, deposit())
        return (yield* Effect.currentSpan).traceId
      }).pipe(Effect.withSpan("request"))
      const [stored] = yield* Stream.runCollect(accounts.read(stream))
      assert.strictEqual(stored?.metadata.traceparent?.split("-")[1], traceId)
    }))

  it.effect("writes at the expected version alone, and tells the actual one otherwise", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const refused = (expectedVersion: number | "exists", actualVersion: number) =>
        failsWith(accounts.write(stream, deposits(2), { expectedVersion }), {
          _tag: "OptimisticConcurrencyError",
          stream,
          expectedVersion,
          actualVersion
        })
      yield* refused("exists", 0)
      yield* refused(1, 0)
      yield* accounts.write(stream, deposits(2), { expectedVersion: 0 })
      yield* refused(0, 2)
      yield* refused(1, 2)
      yield* refused(2_147_483_647, 2)
      assert.deepStrictEqual(yield* versions(stream), [1, 2])
      yield* accounts.write(stream, deposit(), { expectedVersion: 2 })
      yield* accounts.write(stream, deposit(), { expectedVersion: "exists" })
      assert.deepStrictEqual(yield* versions(stream), [1, 2, 3, 4])
    }))

  it.effect("lets one of 64 writers with the same expected version win", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(3))
      const results = yield* Effect.all(
        deposits(64).map((message) => Effect.result(accounts.write(stream, message, { expectedVersion: 3 }))),
        { concurrency: "unbounded" }
      )
      const failures = results.filter(Result.isFailure).map(({ failure }) => ({ ...failure }))
      assert.strictEqual(results.length - failures.length, 1)
      for (const failure of failures) {
        assert.deepInclude<object>(failure, {
          _tag: "OptimisticConcurrencyError",
          expectedVersion: 3,
          actualVersion: 4
        })
      }
      assert.deepStrictEqual(yield* versions(stream), [1, 2, 3, 4])
    }))

  it.effect("leaves no gaps under 64 writers without an expected version", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const positions = yield* Effect.all(
        Array.from({ length: 64 }, (_, i) => accounts.write(stream, deposits(1 + i % 3))),
        { concurrency: "unbounded" }
      )
      const total = Math.max(...positions.map((position) => position.version))
      assert.strictEqual(total, Array.from({ length: 64 }, (_, i) => 1 + i % 3).reduce((a, b) => a + b))
      const stored = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored.map(({ version }) => version), Array.from({ length: total }, (_, i) => i + 1))
      const globals = stored.map(({ globalPosition }) => globalPosition)
      assert.deepStrictEqual(globals, Array.from(new Set(globals)).toSorted((a, b) => a - b))
    }))

  it.effect("refuses a message id that is stored, in any stream, or that is given twice", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [stream, other] = [newStream(), newStream()]
      const [first, second, third] = [deposit(1), deposit(2), deposit(3)]
      yield* accounts.write(stream, first)
      const duplicate = { _tag: "DuplicateMessageError", messageId: first.messageId }
      yield* failsWith(accounts.write(stream, first), duplicate)
      yield* failsWith(accounts.write(other, [second, first, third]), duplicate)
      yield* failsWith(accounts.write(other, [second, third, second]), {
        _tag: "DuplicateMessageError",
        messageId: second.messageId
      })
      assert.deepStrictEqual(yield* versions(other), [])
      yield* accounts.write(other, [second, third])
      assert.deepStrictEqual(yield* versions(other), [1, 2])
    }))

  it.effect("stores a message once when 16 fibers write it to streams of their own", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const message = deposit()
      const streams = Array.from({ length: 16 }, newStream)
      const results = yield* Effect.forEach(
        streams,
        (stream) => Effect.result(accounts.write(stream, [deposit(), message, deposit()])),
        { concurrency: "unbounded" }
      )
      const failures = results.filter(Result.isFailure).map(({ failure }) => failure._tag)
      assert.deepStrictEqual(failures, Array.from({ length: 15 }, () => "DuplicateMessageError"))
      const written = yield* Effect.forEach(streams, versions)
      assert.deepStrictEqual(written.filter((numbers) => numbers.length > 0), [[1, 2, 3]])
    }))

  it.effect("writeAll writes to all streams or to none", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [a, b] = [newStream(), newStream()]
      const positions = yield* accounts.writeAll([
        { stream: b, messages: deposit(), expectedVersion: 0 },
        { stream: a, messages: deposits(2) },
        { stream: b, messages: deposits(2), expectedVersion: 1 }
      ])
      assert.deepStrictEqual(positions.map(({ stream, version }) => [stream, version]), [[b, 1], [a, 2], [b, 3]])
      const globals = positions.map(({ globalPosition }) => globalPosition)
      assert.deepStrictEqual(globals, globals.toSorted((x, y) => x - y))

      yield* failsWith(
        accounts.writeAll([
          { stream: a, messages: deposit() },
          { stream: b, messages: deposit(), expectedVersion: 0 }
        ]),
        { _tag: "OptimisticConcurrencyError", stream: b, actualVersion: 3 }
      )
      const stored = deposit()
      yield* accounts.write(a, stored)
      yield* failsWith(
        accounts.writeAll([{ stream: b, messages: deposit() }, { stream: a, messages: stored }]),
        { _tag: "DuplicateMessageError", messageId: stored.messageId }
      )
      const twice = deposit()
      yield* failsWith(
        accounts.writeAll([{ stream: b, messages: twice }, { stream: a, messages: twice }]),
        { _tag: "DuplicateMessageError", messageId: twice.messageId }
      )
      assert.deepStrictEqual(yield* versions(b), [1, 2, 3])
      assert.deepStrictEqual(yield* versions(a), [1, 2, 3])
      assert.deepStrictEqual(yield* accounts.writeAll([]), [])
    }))

  it.effect("writeAll never deadlocks, whatever the order of the streams", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const streams = Array.from({ length: 5 }, newStream)
      yield* Effect.all(
        Array.from({ length: 60 }, (_, i) => {
          const rotated = [...streams.slice(i % 5), ...streams.slice(0, i % 5)]
          const order = i % 2 === 0 ? rotated : rotated.toReversed()
          return accounts.writeAll(order.map((stream) => ({ stream, messages: deposit() })))
        }),
        { concurrency: "unbounded" }
      )
      for (const stream of streams) {
        assert.deepStrictEqual(yield* versions(stream), Array.from({ length: 60 }, (_, i) => i + 1))
      }
    }))
}
