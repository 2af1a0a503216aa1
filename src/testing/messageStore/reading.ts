import { assert } from "@effect/vitest"
import { Effect, Stream } from "effect"
import { Accounts, deposit, deposits, failsWith, newStream, Noted, type Part } from "../fixture.ts"
import { truncate } from "../truncate.ts"

export const reading: Part = (it) => {
  it.effect("reads a stream by versions, direction and limit", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(7))
      const read = (options: Parameters<typeof accounts.read>[1]) =>
        Effect.map(Stream.runCollect(accounts.read(stream, options)), (all) => all.map(({ version }) => version))
      assert.deepStrictEqual(yield* read({}), [1, 2, 3, 4, 5, 6, 7])
      assert.deepStrictEqual(yield* read({ fromVersion: 3 }), [3, 4, 5, 6, 7])
      assert.deepStrictEqual(yield* read({ fromVersion: 2, toVersion: 4 }), [2, 3, 4])
      assert.deepStrictEqual(yield* read({ limit: 2 }), [1, 2])
      assert.deepStrictEqual(yield* read({ limit: 0 }), [])
      assert.deepStrictEqual(yield* read({ fromVersion: 8 }), [])
      assert.deepStrictEqual(yield* read({ fromVersion: 5, toVersion: 3 }), [])
      assert.deepStrictEqual(yield* read({ toVersion: 0 }), [])
      assert.deepStrictEqual(yield* read({ direction: "backward" }), [7, 6, 5, 4, 3, 2, 1])
      assert.deepStrictEqual(yield* read({ direction: "backward", toVersion: 4, limit: 2 }), [4, 3])
      assert.deepStrictEqual(yield* read({ direction: "backward", fromVersion: 3, toVersion: 5, limit: 9 }), [5, 4, 3])
      assert.deepStrictEqual(yield* Stream.runCollect(accounts.read(newStream())), [])
    }))

  it.effect("reads across pages, in both directions, as much as is asked for", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(2500))
      const upwards = Array.from({ length: 2500 }, (_, i) => i + 1)
      const read = (options: Parameters<typeof accounts.read>[1]) =>
        Effect.map(Stream.runCollect(accounts.read(stream, options)), (all) => all.map(({ version }) => version))
      assert.deepStrictEqual(yield* read({}), upwards)
      assert.deepStrictEqual(yield* read({ direction: "backward" }), upwards.toReversed())
      assert.deepStrictEqual(yield* read({ limit: 2001 }), upwards.slice(0, 2001))
      assert.deepStrictEqual(yield* read({ limit: 1000 }), upwards.slice(0, 1000))
      assert.deepStrictEqual(yield* read({ fromVersion: 900, toVersion: 2200 }), upwards.slice(899, 2200))
      const wildcard = yield* Effect.scoped(Effect.flatMap(accounts.reader, (reader) =>
        Stream.runCollect(reader.readWildcard(stream, { direction: "backward", limit: 1500 }))))
      assert.deepStrictEqual(
        wildcard.map(({ version }) =>
          version
        ),
        upwards.toReversed().slice(0, 1500)
      )
    }))

  it.effect("reads messages that are large", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      // 16,000 numbers at a time is all that getRandomValues gives
      const random = () =>
        Array.from({ length: 6 }, () => globalThis.crypto.getRandomValues(new Uint32Array(16_000)).join("")).join("")
      const texts = Array.from({ length: 12 }, random)
      for (const text of texts) yield* accounts.write(stream, new Noted({ text }))
      const read = (options: Parameters<typeof accounts.read>[1]) =>
        Effect.map(
          Stream.runCollect(accounts.read(stream, options)),
          (all) => all.map(({ message }) => message._tag === "Noted" ? message.text : undefined)
        )
      const assertSame = (found: ReadonlyArray<unknown>, expected: ReadonlyArray<string>) => {
        assert.lengthOf(found, expected.length)
        for (const [i, text] of expected.entries()) assert.isTrue(found[i] === text) // a difference would take long to print
      }
      assertSame(yield* read({}), texts)
      assertSame(yield* read({ direction: "backward", limit: 11 }), texts.toReversed().slice(0, 11))
      assertSame(yield* read({ fromVersion: 3, toVersion: 9 }), texts.slice(2, 9))
    }))

  it.effect("stops reading when the consumer has enough", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(1200))
      const some = yield* accounts.read(stream).pipe(
        Stream.filter(({ version }) => version % 2 === 0),
        Stream.take(3),
        Stream.runCollect
      )
      assert.deepStrictEqual(some.map(({ version }) => version), [2, 4, 6])
    }))

  it.effect("reads many streams by pattern, in global order", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      yield* accounts.write(`${prefix}-a`, deposits(2))
      yield* accounts.write(`${prefix}-b`, deposits(1))
      yield* accounts.write(`${prefix}-a`, deposits(1))
      yield* accounts.write(`other-${prefix}`, deposits(1))
      const reader = yield* accounts.reader
      const all = yield* Stream.runCollect(reader.readWildcard(`${prefix}%`))
      assert.deepStrictEqual(
        all.map(({ stream, version }) => [stream.slice(prefix.length), version]),
        [["-a", 1], ["-a", 2], ["-b", 1], ["-a", 3]]
      )
      const positions = all.map(({ globalPosition }) => globalPosition)
      assert.deepStrictEqual(positions, positions.toSorted((a, b) => a - b))
      const [, second, third] = positions
      const middle = yield* Stream.runCollect(
        reader.readWildcard(`${prefix}%`, { fromGlobalPosition: second, toGlobalPosition: third })
      )
      assert.deepStrictEqual(middle.map(({ globalPosition }) => globalPosition), [second, third])
      assert.strictEqual((yield* Stream.runCollect(reader.readWildcard(`%${prefix}`))).length, 1)
      assert.strictEqual((yield* Stream.runCollect(reader.readWildcard(`%${prefix}%`))).length, 5)
      assert.strictEqual((yield* Stream.runCollect(reader.readWildcard(prefix))).length, 0)
    }))

  it.effect("understands %, _ and \\ in patterns, and takes everything else literally", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const id = newStream()
      const names = ["x", "xy", "_", "%", "\\", "'", "\"", "[a]", "^$.*+?(){}|", "ä", "日本", "😀", "X", "a\nb", "a b"]
      for (const name of names) yield* accounts.write(`${id}${name}`, deposit())
      const reader = yield* accounts.reader
      const match = (pattern: string) =>
        Effect.map(
          Stream.runCollect(reader.readWildcard(`${id}${pattern}`)),
          (found) => found.map(({ stream }) => stream.slice(id.length))
        )
      const single = names.filter((name) => Array.from(name).length === 1)
      assert.deepStrictEqual(yield* match("_"), single)
      assert.deepStrictEqual(yield* match("__"), ["xy", "日本"])
      assert.deepStrictEqual(yield* match("\\_"), ["_"])
      assert.deepStrictEqual(yield* match("\\%"), ["%"])
      assert.deepStrictEqual(yield* match("\\\\"), ["\\"])
      assert.deepStrictEqual(yield* match("\\x_"), ["xy"])
      assert.deepStrictEqual(yield* match("'"), ["'"])
      assert.deepStrictEqual(yield* match("\""), ["\""])
      assert.deepStrictEqual(yield* match("[a]"), ["[a]"])
      assert.deepStrictEqual(yield* match("^$.*+?(){}|"), ["^$.*+?(){}|"])
      assert.deepStrictEqual(yield* match("😀"), ["😀"])
      assert.deepStrictEqual(yield* match("a_b"), ["a\nb", "a b"])
      assert.deepStrictEqual(yield* match("X"), ["X"])
      assert.deepStrictEqual(yield* match("%"), names)
    }))

  it.effect("finds messages by id, in the order asked", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const messages = deposits(5)
      yield* accounts.write(stream, messages)
      const reader = yield* accounts.reader
      const third = messages[2]?.messageId ?? ""
      assert.deepStrictEqual((yield* reader.getMessageById(third)).message, messages[2])
      assert.strictEqual((yield* reader.getMessageById(third.toUpperCase())).version, 3)
      const unknown = globalThis.crypto.randomUUID()
      yield* failsWith(reader.getMessageById(unknown), { _tag: "MessageNotFoundError", messageId: unknown })
      const asked = [messages[4], messages[0], messages[2]].map((message) => message?.messageId ?? "")
      const found = yield* reader.getMessagesByIds([...asked, unknown, asked[0] ?? ""])
      assert.deepStrictEqual(found.map(({ version }) => version), [5, 1, 3, 5])
      assert.deepStrictEqual(yield* reader.getMessagesByIds([]), [])
    }))

  it.effect("keeps streams apart whose names look alike", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const id = newStream()
      const names = [
        `${id}`,
        `${id} `,
        ` ${id}`,
        `${id.toUpperCase()}`,
        `${id}'--`,
        `${id}%`,
        `${id}\u00e9`,
        `${id}e\u0301`
      ]
      for (const name of names) yield* accounts.write(name, deposit(), { expectedVersion: 0 })
      for (const name of names) {
        const stored = yield* Stream.runCollect(accounts.read(name))
        assert.deepStrictEqual(stored.map(({ stream, version }) => [stream, version]), [[name, 1]])
      }
    }))

  it.effect("reads nothing after truncate, and writes on with higher positions", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const before = yield* accounts.write(stream, deposits(3))
      yield* truncate(accounts)
      assert.deepStrictEqual(yield* accounts.head(stream), { stream, version: 0, globalPosition: undefined })
      const after = yield* accounts.write(stream, deposit(), { expectedVersion: 0 })
      assert.isAbove(after.globalPosition, before.globalPosition)
      yield* failsWith(accounts.withTransaction(truncate(accounts)), { _tag: "InvalidArgumentError" })
    }))
}
