/** Archives: what comes out of a store, and what goes into one. */
import { assert } from "@effect/vitest"
import { Array as Arr, DateTime, Deferred, Effect, Fiber, Layer, Schema, Stream } from "effect"
import * as Archive from "../../Archive.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import * as Partitioner from "../../Partitioner.ts"
import { Accounts, deposit, deposits, failsWith, newStream, Noted, outsider, type Part } from "../fixture.ts"
import { courses, newValue } from "./tags.ts"

type Accounting = Accounts["Service"]

/** A store of the same messages in memory. */
export const elsewhere = Effect.gen(function*() {
  return yield* Effect.provide(Accounts, yield* Layer.build(Layer.fresh(Accounts.layerMemory)))
})

export const exported = (store: Accounting, options?: Archive.ExportOptions) =>
  Effect.map(Stream.runCollect(Archive.of(store).export(options)), (pieces) => pieces.join(""))

/** Progress at the end. */
export const imported = <A>(store: MessageStore.MessageStore<A>, text: string) =>
  Effect.map(Stream.runCollect(Archive.of(store).import(Stream.succeed(text))), (all) => all.at(-1))

const isMessage = (line: string) => line.startsWith("{\"stream\":")
const messagesOf = (text: string): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  text.split("\n").filter(isMessage).map((line) => JSON.parse(line))

/** What is to be the same in every store. */
export const stored = (store: Accounting, stream: string) =>
  Effect.map(Stream.runCollect(store.read(stream)), (all) => all.map(({ globalPosition: _, ...rest }) => rest))

const oddNames = [
  "",
  "\n",
  "\u2028 \u2029 \r\t",
  "\",\"metadata\":{\"a\":1},\"data\":{}}",
  "\\",
  "🙂é",
  "{}[],:",
  "%_"
]

export const archives: Part = (it, { concurrentTransactions }) => {
  it.effect("go out and in as they were", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const other = yield* elsewhere
      const prefix = newStream()
      const streams = oddNames.map((odd) => `${prefix} ${odd}`)
      const texts = [
        "\u2028\u2029",
        "a\nb\r\"\\",
        { metadata: { data: [1, { data: "}" }] } },
        9007199254740991,
        5e-324,
        null
      ]
      for (const [i, stream] of streams.entries()) {
        const metadata = { correlationId: `c "${i}" }{`, data: [{}, "[", 1.5, true, null], nested: { metadata: {} } }
        yield* accounts.write(stream, [deposit(10 ** 18), new Noted({ text: texts })], { metadata })
        yield* accounts.write(stream, Arr.map(Arr.makeBy(3, (n) => n), (n) => new Noted({ text: texts[n + (i % 3)] })))
      }
      const pattern = `${prefix} %`
      const text = yield* exported(accounts, { pattern })
      const manifest = yield* Archive.verify(Stream.succeed(text))
      assert.deepInclude(manifest, { format: 1, store: "contract", pattern, messages: 40, streams: 8 })
      const messages = messagesOf(text)
      assert.lengthOf(messages, 40)
      const positions = messages.map(({ globalPosition }) => Number(globalPosition))
      assert.deepStrictEqual(positions, positions.toSorted((a, b) => a - b))
      assert.deepStrictEqual([manifest.firstGlobalPosition, manifest.lastGlobalPosition], [
        positions[0],
        positions.at(-1)
      ])

      assert.deepStrictEqual(yield* imported(other, text), { messages: 40, skipped: 0, total: 40 })
      const back = yield* exported(other)
      for (const stream of streams) {
        const before = yield* stored(accounts, stream)
        assert.lengthOf(before, 5)
        assert.deepStrictEqual(yield* stored(other, stream), before)
        yield* accounts.delete(stream)
        assert.deepStrictEqual(yield* stored(accounts, stream), [])
      }
      assert.deepStrictEqual(yield* imported(accounts, back), { messages: 40, skipped: 0, total: 40 })
      for (const stream of streams) {
        assert.deepStrictEqual(yield* stored(accounts, stream), yield* stored(other, stream))
        assert.strictEqual((yield* accounts.write(stream, deposit(), { expectedVersion: 5 })).version, 6)
      }
      const order = (all: ReadonlyArray<Readonly<Record<string, unknown>>>) => all.map(({ messageId }) => messageId)
      assert.deepStrictEqual(order(messagesOf(yield* exported(accounts, { pattern, toVersion: 5 }))), order(messages))
    }))

  it.effect("of nothing are archives, too", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const text = yield* exported(accounts, { pattern: newStream() })
      assert.deepInclude(yield* Archive.verify(Stream.succeed(text)), { messages: 0, streams: 0 })
      assert.deepStrictEqual(yield* imported(accounts, text), { messages: 0, skipped: 0, total: 0 })
    }))

  it.effect("go up to a version, or a time", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const [first, second] = [`${prefix}-1`, `${prefix}-2`]
      yield* accounts.write(first, deposits(3))
      yield* Effect.sleep("5 millis")
      yield* accounts.write(second, deposits(2))
      yield* accounts.write(first, deposits(2))
      const [added] = yield* Stream.runCollect(accounts.read(second))
      const pattern = `${prefix}%`
      const places = (options: Archive.ExportOptions) =>
        Effect.map(exported(accounts, { pattern, ...options }), (text) =>
          messagesOf(text).map(({ stream, version }) =>
            `${String(stream).slice(prefix.length)}@${String(version)}`
          ))
      assert.deepStrictEqual(yield* places({ toVersion: 2 }), ["-1@1", "-1@2", "-2@1", "-2@2"])
      const before = added?.addedAt ?? DateTime.makeUnsafe(0)
      assert.deepStrictEqual(yield* places({ before }), ["-1@1", "-1@2", "-1@3"])
      assert.deepStrictEqual(yield* places({ before: DateTime.makeUnsafe(0) }), [])
      const all = ["-1@1", "-1@2", "-1@3", "-2@1", "-2@2", "-1@4", "-1@5"]
      assert.deepStrictEqual(yield* places({ before: DateTime.makeUnsafe(8e15) }), all)
    }))

  it.effect("go in once, however often, and from where an import was ended", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const other = yield* elsewhere
      const prefix = newStream()
      for (let i = 0; i < 4; i++) yield* other.write(`${prefix}-${i % 2}`, deposits(500))
      const last = deposits(500)
      yield* other.write(`${prefix}-0`, last)
      const text = yield* exported(other)
      // In pieces of any size; ended after the first thousand.
      const bytes = new TextEncoder().encode(text)
      const pieces = Stream.fromIterable(
        Arr.makeBy(Math.ceil(bytes.length / 997), (i) => bytes.subarray(997 * i, 997 * (i + 1)))
      )
      const [first] = yield* Stream.runCollect(Stream.take(Archive.of(accounts).import(pieces), 1))
      assert.deepStrictEqual(first, { messages: 1000, skipped: 0, total: 2500 })
      // One of the last thousand has no place: the thousand before is in, though both are there at once.
      const [inTheWay] = last.slice(250)
      if (inTheWay === undefined) return assert.fail()
      yield* accounts.write(`${prefix}-2`, inTheWay)
      yield* failsWith(imported(accounts, text), {
        _tag: "ArchiveConflictError",
        reason: "elsewhere",
        line: 2254,
        stream: `${prefix}-0`,
        version: 1251,
        storedStream: `${prefix}-2`
      })
      for (const stream of [`${prefix}-0`, `${prefix}-1`]) {
        assert.strictEqual((yield* accounts.head(stream)).version, 1000)
      }
      yield* accounts.delete(`${prefix}-2`)
      yield* Stream.runDrain(Archive.of(accounts).import(pieces))
      assert.deepStrictEqual(yield* imported(accounts, text), { messages: 2500, skipped: 2500, total: 2500 })
      for (const stream of [`${prefix}-0`, `${prefix}-1`]) {
        assert.deepStrictEqual(yield* stored(accounts, stream), yield* stored(other, stream))
      }
      // Behind what has come since.
      yield* other.write(`${prefix}-1`, deposits(3))
      assert.deepStrictEqual(yield* imported(accounts, yield* exported(other)), {
        messages: 2503,
        skipped: 2500,
        total: 2503
      })
      assert.strictEqual((yield* accounts.head(`${prefix}-1`)).version, 1003)
    }))

  it.effect("are not interrupted half way", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const other = yield* elsewhere
      const stream = newStream()
      yield* other.write(stream, deposits(1500))
      const text = yield* exported(other)
      for (let i = 0; i < 10; i++) {
        const started = yield* Deferred.make<void>()
        const running = yield* Effect.forkScoped(
          Effect.andThen(Deferred.succeed(started, undefined), imported(accounts, text))
        )
        yield* Deferred.await(started)
        yield* Effect.sleep(3 * i)
        yield* Fiber.interrupt(running)
        assert.include([0, 1000, 1500], (yield* accounts.head(stream)).version)
      }
      yield* imported(accounts, text)
      assert.deepStrictEqual(yield* stored(accounts, stream), yield* stored(other, stream))
    }))

  it.effect("of which something has no place go in up to there", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      /** What an import fails with, of these messages in this stream elsewhere. */
      const conflict = (
        stream: string,
        messages: Arr.NonEmptyReadonlyArray<Noted | ReturnType<typeof deposit>>,
        fields: Readonly<Record<string, unknown>>,
        deleted = 0
      ) =>
        Effect.gen(function*() {
          const other = yield* elsewhere
          yield* other.write(stream, messages)
          yield* other.delete(stream, { toVersion: deleted })
          const before = yield* stored(accounts, stream)
          const text = yield* exported(other)
          yield* failsWith(imported(accounts, text), { _tag: "ArchiveConflictError", stream, ...fields })
          assert.deepStrictEqual(yield* stored(accounts, stream), before)
        })
      const messages = deposits(5)
      const [first, second, third, fourth, fifth] = messages as ReadonlyArray<typeof messages[0]>
      if (first === undefined || second === undefined || third === undefined || fourth === undefined) return
      const another = deposit()

      const one = `${prefix}-1`
      yield* accounts.write(one, [first, second])
      yield* conflict(one, [first, another], {
        reason: "differs",
        line: 3,
        version: 2,
        messageId: another.messageId,
        storedMessageId: second.messageId
      })
      yield* conflict(one, messages, { reason: "gap", line: 2, version: 5, actualVersion: 2 }, 4)

      const two = `${prefix}-2`
      yield* conflict(two, [third, second], {
        reason: "elsewhere",
        line: 3,
        messageId: second.messageId,
        storedStream: one,
        storedVersion: 2
      })

      // What is deleted in the store cannot go back in front of what is left.
      const three = `${prefix}-3`
      const many = deposits(4)
      yield* accounts.write(three, many)
      yield* accounts.delete(three, { toVersion: 2 })
      yield* conflict(three, many, { reason: "before", line: 2, version: 1, firstVersion: 3 })

      // A stream without messages begins where the archive does.
      const other = yield* elsewhere
      const four = `${prefix}-4`
      yield* other.write(four, deposits(4))
      yield* other.delete(four, { toVersion: 2 })
      yield* imported(accounts, yield* exported(other))
      assert.deepStrictEqual((yield* stored(accounts, four)).map(({ version }) => version), [3, 4])
      assert.strictEqual((yield* accounts.write(four, deposit(), { expectedVersion: 4 })).version, 5)
      assert.isDefined(fifth)
    }))

  it.effect("are one view of the store", (context) =>
    Effect.gen(function*() {
      if (!concurrentTransactions) return context.skip()
      const accounts = yield* Accounts
      const prefix = newStream()
      for (let i = 0; i < 3; i++) yield* accounts.write(`${prefix}-${i}`, deposits(500))
      const isFirst = yield* Deferred.make<void>()
      const goOn = yield* Deferred.make<void>()
      const exporting = yield* Archive.of(accounts).export({ pattern: `${prefix}%` }).pipe(
        Stream.tap(() => Effect.andThen(Deferred.succeed(isFirst, undefined), Deferred.await(goOn))),
        Stream.runCollect,
        Effect.forkScoped
      )
      yield* Deferred.await(isFirst)
      yield* accounts.write(`${prefix}-2`, deposits(10))
      yield* accounts.write(`${prefix}-3`, deposits(10))
      yield* accounts.delete(`${prefix}-1`)
      yield* Deferred.succeed(goOn, undefined)
      const text = (yield* Fiber.join(exporting)).join("")
      assert.deepInclude(yield* Archive.verify(Stream.succeed(text)), { messages: 1500, streams: 3 })
    }))

  it.effect("go in beside the transactions of others, and wait for those that write to the same streams", (context) =>
    Effect.gen(function*() {
      if (!concurrentTransactions) return context.skip()
      const accounts = yield* Accounts
      const outside = yield* outsider
      const other = yield* elsewhere
      const [free, busy] = [newStream(), newStream()]
      yield* other.write(free, deposits(3))
      const ofFree = yield* exported(other)
      yield* other.delete(free)
      const messages = deposits(3)
      yield* other.write(busy, messages)
      const ofBusy = yield* exported(other)
      const waiting = yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(busy, messages[0])
        assert.deepInclude(yield* outside(imported(accounts, ofFree)), { messages: 3, skipped: 0 })
        return yield* outside(Effect.forkDetach(imported(accounts, ofBusy)))
      }))
      assert.deepInclude(yield* Fiber.join(waiting), { messages: 3, skipped: 1 })
      assert.deepStrictEqual(
        (yield* stored(accounts, busy)).map(({ messageId }) => messageId),
        messages.map(({ messageId }) => messageId)
      )
    }))

  it.effect("are projected, and wake whoever waits", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const other = yield* elsewhere
      const prefix = newStream()
      const aggregated = yield* accounts.aggregatedStream({
        name: `archived_${prefix.split("-")[1] ?? ""}`,
        patterns: `${prefix}%`,
        partitioner: Partitioner.constant()
      })
      yield* aggregated.projector.runOnce
      const projecting = yield* Effect.forkScoped(aggregated.projector.run({ pollInterval: "1 day" }))
      for (let i = 0; i < 6; i++) yield* other.write(`${prefix}-${i % 3}`, deposits(2))
      const text = yield* exported(other)
      yield* imported(accounts, text)
      const found = yield* Stream.runCollect(Stream.take(aggregated.follow({ from: "beginning" }), 12))
      assert.deepStrictEqual(
        found.map(({ messageId }) => messageId),
        messagesOf(text).map(({ messageId }) => messageId)
      )
      yield* Fiber.interrupt(projecting)
    }))

  it.effect("have the tags that are declared, or are refused", () =>
    Effect.gen(function*() {
      const tagged = yield* courses
      const [course, student] = [newValue(), newValue()]
      class Subscribed extends Schema.TaggedClass<Subscribed>()("Subscribed", {
        ...Message.fields,
        course: Schema.optionalKey(Schema.String),
        student: Schema.String
      }) {}
      class Plain extends MessageStore.Service<Plain>()("effect-message-store/testing/Plain", {
        name: "contract",
        schema: Subscribed
      }) {}
      const plain = yield* Effect.provide(Plain, yield* Layer.build(Layer.fresh(Plain.layerMemory)))
      const stream = newStream()
      const messages = Arr.makeBy(
        600,
        (i) => new Subscribed({ course, student: i < 300 ? student : `${student} ${i}` })
      )
      yield* plain.write(stream, messages)
      const text = Effect.map(Stream.runCollect(Archive.of(plain).export()), (pieces) => pieces.join(""))
      assert.deepInclude(yield* imported(tagged, yield* text), { messages: 600, skipped: 0 })
      const found = yield* Stream.runCollect(tagged.readTagged({ course, student }))
      assert.deepStrictEqual(found.map(({ version }) => version), Arr.makeBy(300, (i) => i + 1))
      assert.strictEqual(yield* Stream.runCount(tagged.readTagged({ course })), 600)

      yield* plain.write(stream, [new Subscribed({ course, student }), new Subscribed({ student })])
      yield* failsWith(imported(tagged, yield* text), {
        _tag: "ArchiveConflictError",
        reason: "refused",
        line: 603,
        version: 602
      })
      assert.strictEqual((yield* tagged.head(stream)).version, 601)
    }))
}
