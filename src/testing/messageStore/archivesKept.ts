/** Archives that are not what was written, and what the store deletes by those that are. */
import { assert } from "@effect/vitest"
import { Array as Arr, DateTime, Effect, Stream } from "effect"
import * as Archive from "../../Archive.ts"
import * as Format from "../../archive/format.ts"
import { Accounts, deposits, failsWith, newStream, type Part } from "../fixture.ts"
import { elsewhere, exported, imported, stored } from "./archives.ts"
import { canary, Customers, emailsOf, newCustomer, onCustomers, renamed } from "./personalFixture.ts"

export const archivesKept: Part = (it) => {
  it.effect("that were cut off or altered go in up to there, and delete nothing", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const other = yield* elsewhere
      const stream = newStream()
      yield* other.write(stream, deposits(1200))
      const text = yield* exported(other)
      const lines = text.split("\n")
      assert.lengthOf(lines, 1 + 1000 + 1 + 200 + 1 + 1)
      const altered = (change: (all: Array<string>) => void) => {
        const all = [...lines]
        change(all)
        return all.join("\n")
      }
      const cases: Readonly<Record<string, readonly [text: string, line: number, imported: number]>> = {
        "no archive": ["{\"a\": 1}\n", 1, 0],
        "nothing": ["", 1, 0],
        "cut off in the first line": [text.slice(0, 20), 1, 0],
        "another format": [text.replace("\"format\":1", "\"format\":2"), 1, 0],
        "cut off before the first check": [altered((all) => all.splice(900)), 900, 0],
        "cut off behind the first check": [`${lines.slice(0, 1002).join("\n")}\n`, 1003, 1000],
        "cut off in a line": [text.slice(0, -300), 1202, 1000],
        "cut off before the last line feed": [text.slice(0, -1), 1203, 1000],
        "the manifest is another": [text.replace("\"messages\":1200", "\"messages\":1201"), 1, 0],
        "a digit is another": [altered((all) => all[500] = String(all[500]).replace("Deposited", "Deposised")), 1, 0],
        "a line is lost": [altered((all) => all.splice(1100, 1)), 1003, 1000],
        "a line is there twice": [altered((all) => all.splice(500, 0, String(all[500]))), 1, 0],
        "lines have changed places": [altered((all) => all.splice(7, 2, String(all[8]), String(all[7]))), 1, 0],
        "a check is lost": [altered((all) => all.splice(1001, 1)), 1, 0],
        "a check is another": [altered((all) => all[1001] = String(all[1001]).replace("1000", "1001")), 1, 0],
        "line ends are others": [lines.join("\r\n"), 1, 0],
        "something stands behind it": [`${text}{}\n`, 1204, 1200],
        "two stand behind each other": [text + text, 1204, 1200]
      }
      for (const [name, [given, line, count]] of Object.entries(cases)) {
        const error = { _tag: "ArchiveError", line }
        yield* failsWith(Archive.verify(Stream.succeed(given)), error, name)
        yield* failsWith(imported(accounts, given), error, name)
        assert.strictEqual((yield* accounts.head(stream)).version, count, name)
        yield* failsWith(Stream.runDrain(Archive.of(accounts).delete(Stream.succeed(given))), error, name)
        assert.strictEqual((yield* accounts.head(stream)).version, count, name)
        yield* accounts.delete(stream)
      }
      assert.deepInclude(yield* Archive.verify(Stream.succeed(text)), { messages: 1200, streams: 1 })
    }))

  it.effect("that somebody has made by hand bring nothing in that nobody could read, or write behind", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const good = {
        stream,
        version: 1,
        messageId: globalThis.crypto.randomUUID(),
        globalPosition: 1,
        addedAt: "0044-03-15T12:00:00.000001Z BC",
        occurredAt: "12026-02-28T23:59:59.9Z",
        metadata: "{\"a\":1}",
        data: "{\"_tag\":\"Noted\"}"
      }
      const archived = Effect.fnUntraced(function*(change: Partial<typeof good>) {
        const bounds = { messages: 1, streams: 1, firstGlobalPosition: 1, lastGlobalPosition: 1 }
        const manifest = { format: 1, store: "hand", pattern: "%", ...bounds, exportedAt: "" } as const
        const start = Format.checkStart("end", 1)
        const text = Format.manifestLine(manifest) + Format.messageLine({ ...good, ...change }) + start
        return text.slice(0, -start.length) + Format.checkLine(start, yield* Format.hashOf("", text))
      })
      const text = (json: string) => ({ data: `{"_tag":"Noted","text":${json}}` })
      const refused = [
        { version: 2_147_483_647 }, // the last one that there is
        text(`${"[".repeat(501)}${"]".repeat(501)}`),
        text(`"${"x".repeat(15 * 1024 * 1024)}"`),
        text(`[${"1e308,".repeat(60_000)}1E308]`),
        ...["5", "[]", "\"x\"", "{\"a\":\"\\u0000\"}", `{"a":"${"x".repeat(64 * 1024)}"}`].map((metadata) => ({
          metadata
        })),
        ...[
          "2026-02-30T00:00:00Z",
          "2026-13-01T00:00:00Z",
          "2026-01-01T24:00:00Z",
          "0000-01-01T00:00:00Z",
          "290000-01-01T00:00:00Z",
          "5000-01-01T00:00:00Z BC"
        ].flatMap((time) => [{ addedAt: time }, { occurredAt: time }])
      ]
      for (const change of refused) {
        const error = { _tag: "ArchiveConflictError", reason: "refused", line: 2 }
        yield* failsWith(imported(accounts, yield* archived(change)), error, JSON.stringify(change).slice(0, 100))
      }
      assert.strictEqual((yield* accounts.head(stream)).version, 0)
      yield* imported(accounts, yield* archived({}))
      assert.strictEqual((yield* accounts.head(stream)).version, 1)
      yield* accounts.delete(stream)
    }))

  it.effect("have personal fields as they are stored, and they stay forgotten", () =>
    Effect.gen(function*() {
      const stream = newStream()
      const subject = newCustomer()
      const text = yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          yield* customers.write(stream, renamed(subject))
          const pieces = yield* Stream.runCollect(Archive.of(customers).export({ pattern: stream }))
          yield* customers.forget(subject)
          yield* customers.delete(stream)
          return pieces.join("")
        }))
      assert.include(text, subject)
      assert.notInclude(text, canary)
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          yield* Stream.runDrain(Archive.of(customers).import(Stream.succeed(text)))
          assert.deepStrictEqual(yield* emailsOf(customers, stream), [null])
        }))
    }))

  it.effect("let the store delete what they have, and nothing else", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const streams = Arr.makeBy(3, (i) => `${prefix}-${i}`)
      for (let i = 0; i < 6; i++) yield* accounts.write(streams[i % 3] ?? "", deposits(200))
      const pattern = `${prefix}%`
      const text = yield* exported(accounts, { pattern, toVersion: 390 })
      for (const stream of streams) yield* accounts.write(stream, deposits(5))
      const deleted = (given: string) =>
        Effect.map(Stream.runCollect(Archive.of(accounts).delete(Stream.succeed(given))), (all) => all.at(-1))
      const versions = (stream: string) =>
        Effect.map(stored(accounts, stream), (all) => all.map(({ version }) => version))
      // Ended after the first thousand, and made again.
      const [first] = yield* Stream.runCollect(Stream.take(Archive.of(accounts).delete(Stream.succeed(text)), 1))
      assert.deepStrictEqual(first, { messages: 1000, deleted: 1000, total: 1170 })
      assert.deepStrictEqual(yield* deleted(text), { messages: 1170, deleted: 170, total: 1170 })
      for (const stream of streams) assert.deepStrictEqual(yield* versions(stream), Arr.makeBy(15, (i) => 391 + i))

      // Not in the archive is what has come in front of it, or in its place.
      const rest = yield* exported(accounts, { pattern: streams[0] })
      const other = yield* elsewhere
      yield* imported(other, yield* exported(accounts, { pattern: streams[0], toVersion: 395 }))
      yield* other.delete(streams[0] ?? "", { toVersion: 392 })
      yield* failsWith(deleted(yield* exported(other)), {
        _tag: "ArchiveConflictError",
        reason: "notArchived",
        firstVersion: 391,
        version: 393
      })
      assert.lengthOf(yield* versions(streams[0] ?? ""), 15)
      yield* accounts.delete(streams[0] ?? "")
      yield* accounts.write(streams[0] ?? "", deposits(400))
      yield* failsWith(deleted(rest), { _tag: "ArchiveConflictError", reason: "notArchived", firstVersion: 1 })
      yield* accounts.delete(streams[0] ?? "", { toVersion: 390 })
      yield* failsWith(deleted(rest), { _tag: "ArchiveConflictError", reason: "differs", version: 391 })
      assert.lengthOf(yield* versions(streams[0] ?? ""), 10)
    }))

  it.effect("are refused in a transaction, and for bad options", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const { delete: remove, export: out, import: into } = Archive.of(accounts)
      const text = Stream.succeed("")
      for (const [argument, run] of [["export", out()], ["import", into(text)], ["delete", remove(text)]] as const) {
        yield* failsWith(accounts.withTransaction(Stream.runDrain<unknown, unknown, never>(run)), {
          _tag: "InvalidArgumentError",
          argument
        })
      }
      for (
        const [argument, options] of [
          ["pattern", { pattern: "" }],
          ["pattern", { pattern: "a\\" }],
          ["toVersion", { toVersion: 0 }],
          ["toVersion", { toVersion: 1.5 }],
          ["before", { before: DateTime.makeUnsafe(-8.64e15) }]
        ] as const
      ) {
        yield* failsWith(Stream.runDrain(out(options)), { _tag: "InvalidArgumentError", argument })
      }
    }))
}
