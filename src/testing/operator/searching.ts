/** Operators: what they find, page by page. */
import { assert } from "@effect/vitest"
import { DateTime, Effect, Stream } from "effect"
import type { Found, OperatorService, SearchOptions } from "../../Operator.ts"
import { Storage } from "../../Storage.ts"
import { Accounts, deposit, deposits, failsWith, newStream, Noted, type Part } from "../fixture.ts"
import { courses, newValue, Subscribed } from "../messageStore/tags.ts"
import { operated } from "./fixture.ts"

/** Everything, in pages. */
const searchAll = Effect.fnUntraced(function*(operator: OperatorService, options: SearchOptions) {
  const found: Array<Found["items"][number]> = []
  let cursor: string | undefined
  do {
    const page: Found = yield* operator.search({ ...options, cursor })
    assert.isAtMost(page.items.length, options.limit ?? 50)
    found.push(...page.items)
    cursor = page.next
  } while (cursor !== undefined)
  return found
})

export const searching: Part = (it) => {
  it.effect("finds messages by streams, types and positions, the newest first, page by page", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const operator = yield* operated()
      const prefix = newStream()
      const [a, b] = [`${prefix}-a`, `${prefix}-b`]
      const first = yield* accounts.write(a, deposits(3))
      yield* accounts.write(b, [deposit(), new Noted({ text: "\"Noted\" is a type, and 100 %" }), deposit()])
      const last = yield* accounts.write(a, [new Noted({ text: "ends" })])
      const pattern = `${prefix}-%`

      const all = yield* searchAll(operator, { pattern, limit: 2 })
      assert.deepStrictEqual(all.map(({ stream, version }) => `${stream} ${version}`), [
        `${a} 4`,
        ...[3, 2, 1].map((version) => `${b} ${version}`),
        ...[3, 2, 1].map((version) => `${a} ${version}`)
      ])
      const [newest] = all
      assert.deepInclude(newest, { type: "Noted", globalPosition: last.globalPosition, oversize: undefined })
      assert.deepInclude(Object(newest?.data), { text: "ends" })

      const places = (options: SearchOptions) =>
        Effect.map(
          searchAll(operator, { limit: 2, ...options }),
          (found) => found.map(({ stream, version }) => `${stream.at(-1)}${version}`)
        )
      assert.deepStrictEqual(yield* places({ pattern, direction: "forward" }), [
        "a1",
        "a2",
        "a3",
        "b1",
        "b2",
        "b3",
        "a4"
      ])
      assert.deepStrictEqual(yield* places({ pattern, type: "Noted" }), ["a4", "b2"])
      assert.deepStrictEqual(yield* places({ pattern, type: "Note" }), [])
      assert.deepStrictEqual(yield* places({ stream: a }), ["a4", "a3", "a2", "a1"])
      assert.deepStrictEqual(yield* places({ stream: a, type: "Deposited", direction: "forward" }), ["a1", "a2", "a3"])
      assert.deepStrictEqual(yield* places({ stream: a, toPosition: first.globalPosition }), ["a3", "a2", "a1"])
      assert.deepStrictEqual(
        yield* places({ pattern, fromPosition: first.globalPosition, toPosition: last.globalPosition - 1 }),
        ["b3", "b2", "b1", "a3"]
      )
      assert.deepStrictEqual(yield* places({ pattern: `${prefix}_b` }), ["b3", "b2", "b1"])
    }))

  it.effect("finds messages by their correlation, their cause, and the time at which they were added", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const operator = yield* operated()
      const stream = newStream()
      const before = DateTime.makeUnsafe((yield* DateTime.now).epochMilliseconds - 60_000)
      const [one, two, three] = [deposit(), deposit(), deposit()]
      const correlationId = globalThis.crypto.randomUUID()
      yield* accounts.write(stream, one, { metadata: { correlationId } })
      yield* accounts.write(stream, two, { metadata: { correlationId, causationId: one.messageId } })
      yield* accounts.write(stream, three, { metadata: { causationId: one.messageId } })
      const ids = (options: SearchOptions) =>
        Effect.map(searchAll(operator, options), (found) => found.map(({ messageId }) => messageId))
      assert.deepStrictEqual(yield* ids({ correlationId }), [two.messageId, one.messageId])
      assert.deepStrictEqual(yield* ids({ causationId: one.messageId }), [three.messageId, two.messageId])
      assert.deepStrictEqual(yield* ids({ correlationId, causationId: one.messageId }), [two.messageId])
      assert.deepStrictEqual(yield* ids({ stream, fromTime: before }), [three, two, one].map((each) => each.messageId))
      assert.deepStrictEqual(yield* ids({ stream, toTime: before }), [])
      const [beginning, end] = [DateTime.makeUnsafe(-8.64e15), DateTime.makeUnsafe(8.64e15)]
      assert.lengthOf(yield* ids({ stream, fromTime: beginning, toTime: end }), 3)
      assert.deepStrictEqual(yield* ids({ stream, fromTime: end, toTime: beginning }), [])
      const { items: [added] } = yield* operator.search({ stream, limit: 1 })
      assert.include(yield* ids({ stream, fromTime: added?.addedAt ?? before, limit: 3 }), three.messageId)
    }))

  it.effect("finds messages by tags, and tells the tags of one", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const operator = yield* operated()
      const [course, student, other] = [newValue(), newValue(), newValue()]
      const [one, two] = [new Subscribed({ course, student }), new Subscribed({ course, student: other })]
      yield* store.write(newStream(), [one, two])
      const ids = (tags: ReadonlyArray<string>) =>
        Effect.map(searchAll(operator, { tags, limit: 1 }), (found) => found.map(({ messageId }) => messageId))
      assert.deepStrictEqual(yield* ids([`course:${course}`]), [two.messageId, one.messageId])
      assert.deepStrictEqual(yield* ids([`course:${course}`, `student:${student}`]), [one.messageId])
      assert.deepStrictEqual(yield* ids([`course:${student}`]), [])
      const details = yield* operator.message(two.messageId)
      assert.sameMembers([...details?.tags ?? []], [`course:${course}`, `student:${other}`])
    }))

  it.effect("looks at so many messages at a time, and tells where it has come to", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const { operator } = yield* Storage
      const prefix = newStream()
      const { globalPosition: end } = yield* accounts.write(`${prefix}-1`, deposits(5))
      yield* accounts.write(`${prefix}-2`, deposits(5))
      const query = {
        direction: "backward",
        stream: undefined,
        pattern: `${prefix}-1`,
        tags: [],
        mentions: [],
        correlationId: undefined,
        causationId: undefined,
        related: undefined,
        fromPosition: 0,
        toPosition: Number.MAX_SAFE_INTEGER,
        fromTime: undefined,
        toTime: undefined,
        limit: 3
      } as const
      const nothing = yield* operator.search({ ...query, after: end + 6, scan: 5 })
      assert.deepStrictEqual(nothing, { found: [], reached: end + 1 })
      const some = yield* operator.search({ ...query, after: nothing.reached, scan: 2 })
      assert.deepStrictEqual(some.found.map(({ version }) => version), [5, 4])
      assert.strictEqual(some.reached, end - 1)
      const rest = yield* operator.search({ ...query, after: some.reached, scan: 100 })
      assert.deepStrictEqual(rest.found.map(({ version }) => version), [3, 2, 1])
    }))

  it.effect("lists streams in the order of names, with their ends", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const operator = yield* operated()
      const prefix = newStream()
      for (const [name, count] of [["c", 1], ["a", 3], ["b", 2]] as const) {
        yield* accounts.write(`${prefix}-${name}`, deposits(count))
      }
      const head = yield* accounts.head(`${prefix}-a`)
      const pattern = `${prefix}-%`
      const { items, next } = yield* operator.streams({ pattern, limit: 2 })
      assert.deepStrictEqual(items.map(({ messages, stream, version }) => [stream.at(-1), version, messages]), [
        ["a", 3, 3],
        ["b", 2, 2]
      ])
      assert.strictEqual(items[0]?.globalPosition, head.globalPosition)
      const rest = yield* operator.streams({ pattern, limit: 2, cursor: next })
      assert.deepStrictEqual(rest.items.map(({ stream }) => stream), [`${prefix}-c`])
      assert.isUndefined(rest.next)
      assert.deepStrictEqual((yield* operator.streams({ pattern: `${prefix}%d` })).items, [])
      yield* accounts.delete(`${prefix}-a`, { toVersion: 2 })
      yield* accounts.delete(`${prefix}-b`)
      const left = yield* operator.streams({ pattern })
      assert.deepStrictEqual(left.items.map(({ messages, stream, version }) => [stream.at(-1), version, messages]), [
        ["a", 3, 1],
        ["c", 1, 1]
      ])
      const { operator: port } = yield* Storage
      const query = { pattern: `${prefix}-c`, limit: 1, scan: 2 }
      const looked = yield* port.streams({ ...query, scan: 1, after: `${prefix}` })
      assert.deepStrictEqual(looked, { found: [], reached: `${prefix}-a` })
    }))

  it.effect("refuses what cannot be asked for", () =>
    Effect.gen(function*() {
      const operator = yield* operated()
      const refused = (options: SearchOptions, argument: string) =>
        failsWith(operator.search(options), { _tag: "InvalidArgumentError", argument })
      for (const limit of [0, 1001, 0.5, NaN]) yield* refused({ limit }, "limit")
      for (const cursor of ["", "x", "-1", "1e3"]) yield* refused({ cursor }, "cursor")
      yield* refused({ pattern: "\\" }, "pattern")
      yield* refused({ stream: "" }, "stream")
      yield* refused({ tags: ["a:\0"] }, "tags")
      yield* refused({ tags: ["course=c1"] }, "tags")
      yield* refused({ tags: Array.from({ length: 33 }, (_, i) => `a:${i}`) }, "tags")
      yield* refused({ correlationId: "\ud800" }, "correlationId")
      yield* refused({ fromPosition: -1 }, "fromPosition")
      yield* refused({ timeLimit: "2 minutes" }, "timeLimit")
      yield* failsWith(operator.message("x"), { _tag: "InvalidArgumentError", argument: "messageId" })
      yield* failsWith(operator.trace("x"), { _tag: "InvalidArgumentError", argument: "messageId" })
      for (const cursor of ["[0]", "[9007199254740991,0]", "[-8640000000000000,0]", "[0.5,0]"]) {
        yield* failsWith(operator.scheduled({ cursor }), { _tag: "InvalidArgumentError", argument: "cursor" })
      }
      yield* failsWith(operator.streams({ cursor: "a\0" }), { _tag: "InvalidArgumentError", argument: "cursor" })
      yield* failsWith(operated({ statementTimeout: 0 }), {
        _tag: "InvalidArgumentError",
        argument: "statementTimeout"
      })
      yield* failsWith(Stream.runDrain(operator.follow({ pollInterval: 0 })), {
        _tag: "InvalidArgumentError",
        argument: "pollInterval"
      })
      for (const name of ["nobody", "__proto__", "\u202e"]) {
        yield* failsWith(operator.partitions(name), { _tag: "InvalidArgumentError", argument: "subscription" })
        yield* failsWith(operator.linked(name, 0), { _tag: "InvalidArgumentError", argument: "aggregatedStream" })
        yield* failsWith(operator.promote(name, 1), { _tag: "InvalidArgumentError", argument: "projection" })
      }
    }))
}
