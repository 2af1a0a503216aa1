import { assert } from "@effect/vitest"
import { DateTime, Effect, Stream } from "effect"
import { Storage } from "../../Storage.ts"
import { Accounts, deposit, Deposited, deposits, failsWith, newStream, Noted, type Part, versions } from "../fixture.ts"

export const badInput: Part = (it) => {
  it.effect("refuses bad arguments before anything is written", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const reader = yield* accounts.reader
      const one = deposit()
      const refused: Record<string, Effect.Effect<unknown, object>> = {
        "stream: empty": accounts.write("", one),
        "stream: 256 characters": accounts.write("x".repeat(256), one),
        "stream: NUL": accounts.write("a\0b", one),
        "stream: lone surrogate": accounts.write("a\ud800", one),
        "expectedVersion: negative": accounts.write(stream, one, { expectedVersion: -1 }),
        "expectedVersion: fraction": accounts.write(stream, one, { expectedVersion: 0.5 }),
        "expectedVersion: NaN": accounts.write(stream, one, { expectedVersion: NaN }),
        "expectedVersion: too large": accounts.write(stream, one, { expectedVersion: 2 ** 31 }),
        "messages: none": accounts.write(stream, [] as never),
        "messages: none for one stream": accounts.writeAll([{ stream, messages: one }, {
          stream,
          messages: [] as never
        }]),
        "stream: of the second": accounts.writeAll([{ stream, messages: one }, { stream: "", messages: deposit() }]),
        "stream: to synchronize": accounts.synchronize("", [one]),
        "expectedVersion: to synchronize": accounts.synchronize(stream, [one], { expectedVersion: -1 }),
        "stream: head": accounts.head(""),
        "stream: read": Stream.runDrain(accounts.read("")),
        "fromVersion: 0": Stream.runDrain(accounts.read(stream, { fromVersion: 0 })),
        "toVersion: fraction": Stream.runDrain(accounts.read(stream, { toVersion: 1.5 })),
        "limit: negative": Stream.runDrain(accounts.read(stream, { limit: -1 })),
        "direction: unknown": Stream.runDrain(accounts.read(stream, { direction: "up" as never })),
        "pattern: empty": Stream.runDrain(reader.readWildcard("")),
        "pattern: NUL": Stream.runDrain(reader.readWildcard("\0")),
        "pattern: open escape": Stream.runDrain(reader.readWildcard("a\\\\\\")),
        "pattern: too long": Stream.runDrain(reader.readWildcard("\\".repeat(100_000))),
        "writes: 501 streams": accounts.writeAll(Array.from({ length: 501 }, (_, i) => ({
          stream: `${stream}-${i}`,
          messages: deposit()
        }))),
        "occurredAt: before PostgreSQL's times": accounts.write(stream, [
          deposit(),
          new Deposited({ amount: 1n, occurredAt: DateTime.makeUnsafe("-004713-11-23T23:59:59.999Z") })
        ]),
        "fromGlobalPosition: negative": Stream.runDrain(reader.readWildcard("%", { fromGlobalPosition: -1 })),
        "messageId: not a UUID": reader.getMessageById("1"),
        "messageId: one of many": reader.getMessagesByIds([one.messageId, "x' or 1 = 1"]),
        "messageId: none": accounts.write(stream, { ...one, messageId: undefined } as never)
      }
      for (const [name, effect] of Object.entries(refused)) {
        yield* failsWith(effect, { _tag: "InvalidArgumentError", argument: name.split(":")[0] }, name)
      }
      assert.deepStrictEqual((yield* reader.head(stream)).version, 0)
    }))

  it.effect("takes names and texts at the limits", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const id = newStream()
      const longest = `${id}${"😀".repeat(255 - id.length)}`
      yield* accounts.write(longest, deposit())
      assert.deepStrictEqual(yield* versions(longest), [1])
      yield* failsWith(accounts.write(`${longest}x`, deposit()), { _tag: "InvalidArgumentError", argument: "stream" })
    }))

  it.effect("takes times at the limits, and as many streams in one write as are allowed", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const times = ["-004713-11-24T00:00:00.000Z", "0000-02-29T12:00:00.001Z", "+275760-09-13T00:00:00.000Z"]
      const messages = times.map((time) => new Deposited({ amount: 1n, occurredAt: DateTime.makeUnsafe(time) }))
      yield* accounts.write(stream, messages as never)
      const stored = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored.map(({ message }) => DateTime.formatIso(message.occurredAt)), times)
      const positions = yield* accounts.writeAll(
        Array.from({ length: 1000 }, (_, i) => ({ stream: `${stream}-${i % 500}`, messages: deposit() }))
      )
      assert.deepStrictEqual(positions.map(({ version }) => version), positions.map((_, i) => i < 500 ? 1 : 2))
    }))

  it.effect("prints a stream's name on one line", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = `${newStream()}\nlevel=ERROR \u001b[31m\u2028`
      const message = deposit()
      yield* accounts.write(stream, message)
      const errors = [
        yield* Effect.flip(accounts.write(stream, deposit(), { expectedVersion: 0 })),
        yield* Effect.flip(accounts.synchronize(stream, [deposit()]))
      ]
      for (const error of errors) {
        assert.match(String(error), /\\u000alevel=ERROR \\u001b\[31m\\u2028"[^\p{Cc}\p{Zl}]*$/u)
      }
    }))

  it.effect("stores every text and number that JSON has", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const nested = (depth: number): unknown => depth === 0 ? [] : [nested(depth - 1)]
      const contents: ReadonlyArray<unknown> = [
        "",
        "\u0001\u001f\"\\/\b\f\n\r\t\u2028\u2029",
        "\\u0000 and \\ud800, spelled out",
        "日本 😀 é é \uffff",
        JSON.parse("{\"__proto__\": {\"a\": 1}, \"constructor\": null, \"\": 0, \"toString\": []}"),
        [0, 1e21, 1.7976931348623157e308, 5e-324, Number.MAX_SAFE_INTEGER, -1.5, 2 ** 53],
        { a: [{ b: null }, true, false, [[]], {}] },
        nested(490),
        "x".repeat(2_000_000)
      ]
      yield* accounts.write(stream, contents.map((text) => new Noted({ text })) as never)
      const stored = yield* Stream.runCollect(accounts.read(stream))
      assert.deepStrictEqual(stored.map(({ message }) => message._tag === "Noted" ? message.text : undefined), contents)
    }))

  it.effect("refuses what cannot be stored", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const nested = (depth: number): unknown => depth === 0 ? [] : [nested(depth - 1)]
      const refused = { _tag: "SerializationError", operation: "serialize" }
      const contents: Record<string, unknown> = {
        NUL: "a\0b",
        "NUL in a key": { "a\0b": 1 },
        "NUL behind backslashes": "\\\\\0",
        "high surrogate": "a\ud800",
        "low surrogate": ["\udc00a"],
        NaN: { a: NaN },
        bigint: 1n,
        undefined: [undefined],
        function: () => 1,
        "20 MB": "x".repeat(20_000_000),
        "9 MB of three-byte characters": "日".repeat(3_000_000),
        "too deep": nested(600),
        cycle: (() => {
          const cycle: Array<unknown> = []
          cycle.push(cycle)
          return cycle
        })()
      }
      for (const [name, text] of Object.entries(contents)) {
        const message = new Noted({ text }, { disableChecks: true })
        yield* failsWith(accounts.write(stream, [deposit(), message]), refused, name)
      }
      const { cycle } = contents
      for (
        const a of ["\0", NaN, "x".repeat(100_000), nested(600), JSON.parse("[".repeat(9000) + "]".repeat(9000)), cycle]
      ) {
        yield* failsWith(accounts.write(stream, deposit(), { metadata: { a } as never }), refused)
      }
      assert.deepStrictEqual(yield* versions(stream), [])
      yield* accounts.write(stream, deposit(), { expectedVersion: 0 })
    }))

  it.effect("says where it found what it cannot decode, and reads on elsewhere", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const storage = yield* Storage
      const stream = newStream()
      yield* accounts.write(stream, deposits(2))
      const [unknown, broken] = [globalThis.crypto.randomUUID(), globalThis.crypto.randomUUID()]
      const data = deposit()
      yield* storage.append([{
        stream,
        expectedVersion: undefined,
        metadata: "{}",
        messages: [
          { messageId: unknown, occurredAt: data.occurredAt, data: "{\"_tag\":\"Withdrawn\"}" },
          { messageId: broken, occurredAt: data.occurredAt, data: "[1,null,\"x\"]" }
        ]
      }], { atomic: true })
      yield* accounts.write(stream, deposit())
      yield* failsWith(Stream.runDrain(accounts.read(stream)), {
        _tag: "SerializationError",
        operation: "deserialize",
        stream,
        version: 3,
        messageId: unknown
      })
      const reader = yield* accounts.reader
      yield* failsWith(reader.getMessageById(broken), { _tag: "SerializationError", version: 4 })
      const rest = yield* Stream.runCollect(reader.read(stream, { fromVersion: 5 }))
      assert.deepStrictEqual(rest.map(({ version }) => version), [5])
    }))
}
