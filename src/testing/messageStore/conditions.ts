/** What the port promises of tags and conditions. */
import { assert } from "@effect/vitest"
import { Array as Arr, DateTime, Deferred, Effect, Fiber, Schema } from "effect"
import { type AppendItem, AppendOutcome, Storage, type TagQuery } from "../../Storage.ts"
import { Accounts, newStream, outsider, type Part } from "../fixture.ts"

const Whole = (maximum: number) => Schema.Int.check(Schema.isBetween({ minimum: 0, maximum }))
const Few = <S extends Schema.Constraint>(schema: S, minimum: number, maximum: number) =>
  Schema.Array(schema).check(Schema.isMinLength(minimum), Schema.isMaxLength(maximum))

/** A batch as numbers: small pools make conflicts likely. Tags are numbers, and types. */
const Batch = Few(
  Schema.Struct({
    stream: Whole(2),
    expectedVersion: Schema.Literals(["any", "any", "any", "exists", 0, 1, 2]),
    messages: Few(
      Schema.Struct({ id: Whole(30), tags: Few(Whole(3), 0, 3).check(Schema.isUnique()), type: Whole(1) }),
      0,
      3
    ),
    conditions: Few(
      Schema.Struct({
        tags: Few(Whole(3), 1, 3).check(Schema.isUnique()),
        types: Schema.Literals(["any", "any", "0", "1"]),
        age: Whole(2)
      }),
      0,
      2
    )
  }),
  1,
  5
)

interface Stored {
  readonly messageId: string
  readonly tags: ReadonlyArray<string>
  readonly type: string
}

/** The items of a batch, one after the other. */
class Model {
  readonly streams = new Map<string, number>()
  stored: ReadonlyArray<Stored> = []

  append(
    items: ReadonlyArray<AppendItem>,
    seen: ReadonlyArray<ReadonlyArray<number>>,
    atomic: boolean
  ): ReadonlyArray<string> {
    const before = { stored: this.stored, streams: new Map(this.streams) }
    const outcomes = items.map((item, i): string => {
      const { conditions = [], expectedVersion, messages, stream } = item
      const head = this.streams.get(stream) ?? 0
      const expected = expectedVersion ?? head
      if (expected === "exists" ? head === 0 : expected !== head) return `version ${head}`
      const others = atomic ? before.stored : this.stored
      for (const [condition, { tags, types }] of conditions.entries()) {
        const added = others.slice(seen[i]?.[condition] ?? 0).find((message) =>
          tags.every((tag) => message.tags.includes(tag)) && (types === undefined || types.includes(message.type))
        )
        if (added !== undefined) return `conflict ${condition} ${added.messageId}`
      }
      const duplicate = messages.find(({ messageId }) => this.stored.some((one) => one.messageId === messageId))
      if (duplicate !== undefined) return `duplicate ${duplicate.messageId}`
      this.stored = [
        ...this.stored,
        ...messages.map(({ messageId, tagged }) => ({ messageId, tags: tagged?.tags ?? [], type: tagged?.type ?? "" }))
      ]
      this.streams.set(stream, head + messages.length)
      return messages.length === 0 ? `unchanged ${head}` : `written ${head + messages.length}`
    })
    const refused = atomic ? outcomes.findIndex((outcome) => !/^(written|unchanged)/.test(outcome)) : -1
    if (refused < 0) return outcomes
    this.stored = before.stored
    this.streams.clear()
    for (const [stream, version] of before.streams) this.streams.set(stream, version)
    return outcomes.map((outcome, i) => i === refused ? outcome : "skipped")
  }
}

const show: (outcome: AppendOutcome) => string = AppendOutcome.$match({
  Written: ({ version }) => `written ${version}`,
  Unchanged: ({ version }) => `unchanged ${version}`,
  WrongVersion: ({ actualVersion }) => `version ${actualVersion}`,
  Conflict: ({ condition, messageId }) => `conflict ${condition} ${messageId}`,
  Duplicate: ({ messageId }) => `duplicate ${messageId}`,
  Outdated: ({ condition }) => `outdated ${condition}`,
  WrongIsolation: () => "wrong isolation",
  Refused: () => "refused",
  Skipped: () => "skipped"
})

const readAll = { fromPosition: 0, toPosition: Number.MAX_SAFE_INTEGER, limit: 1000 } as const

let tags = 0

/** A tag that no other test uses. */
const newTag = () => `t${++tags}:${globalThis.crypto.randomUUID()} "quoted", \\ {}`

/** An item with a message of these tags. */
const item = (tagsOfIt: ReadonlyArray<string>, options?: Partial<AppendItem>): AppendItem => ({
  stream: newStream(),
  expectedVersion: undefined,
  metadata: "{}",
  messages: [{
    messageId: globalThis.crypto.randomUUID(),
    occurredAt: DateTime.makeUnsafe(0),
    data: "{}",
    tagged: Arr.isReadonlyArrayNonEmpty(tagsOfIt) ? { type: "A", tags: tagsOfIt } : undefined
  }],
  ...options
})

export const conditions: Part = (it, { concurrentTransactions }) => {
  const property = (atomic: boolean) =>
    Effect.fnUntraced(function*(given: ReadonlyArray<typeof Batch.Type>) {
      const storage = yield* Storage
      const streams = Arr.makeBy(3, newStream)
      const allTags = Arr.makeBy(4, newTag)
      const tag = (i: number) => allTags[i] ?? ""
      const ids = Arr.makeBy(31, () => globalThis.crypto.randomUUID())
      const model = new Model()
      /** What was seen before each batch: the last position of each tag, and how many messages there were. */
      const seen: Array<{ readonly ends: ReadonlyArray<number>; readonly count: number }> = []
      for (const batch of given) {
        seen.unshift({ ends: (yield* storage.ends([], allTags)).tags, count: model.stored.length })
        const at = (age: number) => seen[Math.min(age, seen.length - 1)]
        const items = batch.map((one): AppendItem => ({
          stream: streams[one.stream] ?? "",
          expectedVersion: one.expectedVersion === "any" ? undefined : one.expectedVersion,
          metadata: "{}",
          messages: Arr.dedupeWith(one.messages, (a, b) => a.id === b.id).map((message) => ({
            messageId: ids[message.id] ?? "",
            occurredAt: DateTime.makeUnsafe(0),
            data: "{}",
            tagged: message.tags.length === 0
              ? undefined
              : { type: `${message.type}`, tags: message.tags.map(tag) as never }
          })),
          conditions: one.conditions.map((condition) => ({
            tags: condition.tags.map(tag) as never,
            types: condition.types === "any" ? undefined : [condition.types],
            after: at(condition.age)?.ends[condition.tags[0] ?? 0] ?? 0
          }))
        })) as never as Arr.NonEmptyReadonlyArray<AppendItem>
        const counts = batch.map((one) => one.conditions.map(({ age }) => at(age)?.count ?? 0))
        const outcomes = yield* storage.append(items, { atomic })
        assert.deepStrictEqual(outcomes.map(show), model.append(items, counts, atomic))
        for (const [i, outcome] of outcomes.entries()) {
          if (outcome._tag !== "Written" && outcome._tag !== "Conflict") continue
          const id = outcome._tag === "Conflict" ? outcome.messageId : items[i]?.messages.at(-1)?.messageId ?? ""
          const [stored] = yield* storage.readByIds([id])
          assert.strictEqual(stored?.globalPosition, outcome.globalPosition)
        }
      }
      const { heads, tags: ends } = yield* storage.ends(streams, allTags)
      assert.deepStrictEqual(heads.map(({ version }) => version), streams.map((name) => model.streams.get(name) ?? 0))
      const queries: ReadonlyArray<TagQuery> = [
        { tags: [tag(0)], types: undefined },
        { tags: [tag(1), tag(2)], types: undefined },
        { tags: [tag(2)], types: ["0"] }
      ]
      const asked = queries.map((query) => ({ ...query, upTo: ends[allTags.indexOf(query.tags[0])] ?? 0 }))
      const expected = model.stored.filter((message) =>
        queries.some((query) =>
          query.tags.every((one) => message.tags.includes(one)) && (query.types?.includes(message.type) ?? true)
        )
      ).map(({ messageId }) => messageId)
      for (const direction of ["forward", "backward"] as const) {
        const page = yield* storage.readTagged({ ...readAll, queries: asked as never, direction })
        assert.deepStrictEqual(
          page.messages.map(({ messageId }) => messageId),
          direction === "forward" ? expected : expected.toReversed()
        )
      }
    })

  const Batches = Few(Batch, 1, 6)

  it.effect.prop("decides conditions item by item", [Batches], ([given]) => property(false)(given))

  it.effect.prop(
    "decides the conditions of an atomic batch on what others wrote",
    [Batches],
    ([given]) => property(true)(given)
  )

  it.effect("reads by tags in pages, within bounds, up to what each query has seen", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const [a, b] = [newTag(), newTag()]
      for (let i = 0; i < 6; i++) {
        yield* storage.append([item(i % 3 === 2 ? [a, b] : i % 3 === 1 ? [b] : [a])], { atomic: true })
      }
      const { tags: [endOfA = 0, endOfB = 0] } = yield* storage.ends([], [a, b])
      yield* storage.append([item([a]), item([b])], { atomic: true })
      const read = (options: Partial<typeof readAll> | { readonly limit: number }) =>
        Effect.map(
          storage.readTagged({
            ...readAll,
            ...options,
            queries: [{ tags: [a], types: undefined, upTo: endOfA }, { tags: [b], types: ["A", "B"], upTo: endOfB }],
            direction: "forward"
          }),
          (page) => ({ ...page, positions: page.messages.map(({ globalPosition }) => globalPosition) })
        )
      const all = yield* read({})
      assert.lengthOf(all.positions, 6)
      assert.deepStrictEqual(all.positions, all.positions.toSorted((x, y) => x - y))
      const first = yield* read({ limit: 4 })
      assert.deepStrictEqual([first.positions, first.more], [all.positions.slice(0, 4), true])
      const from = yield* read(
        { fromPosition: (all.positions[1] ?? 0) + 1, toPosition: all.positions[4] ?? 0 } as never
      )
      assert.deepStrictEqual(from.positions, all.positions.slice(2, 5))
      const both = yield* storage.readTagged({
        ...readAll,
        queries: [{ tags: [b, a], types: undefined, upTo: endOfB }],
        direction: "forward"
      })
      assert.deepStrictEqual(both.messages.map(({ globalPosition }) => globalPosition), [
        all.positions[2],
        all.positions[5]
      ])
      assert.deepStrictEqual((yield* storage.ends([], [newTag()])).tags, [0])
    }))

  it.effect("takes conditions back with the transaction, and sees what it wrote itself", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const tag = newTag()
      const write = storage.append([item([tag])], { atomic: true })
      yield* Effect.flip(storage.withTransaction(Effect.andThen(write, Effect.fail("no"))))
      assert.deepStrictEqual((yield* storage.ends([], [tag])).tags, [0])
      const ifNone = storage.append([item([tag], { conditions: [{ tags: [tag], types: undefined, after: 0 }] })], {
        atomic: true
      })
      const outcomes = yield* storage.withTransaction(Effect.all([ifNone, ifNone]))
      assert.deepStrictEqual(outcomes.map(([outcome]) => outcome?._tag), ["Written", "Conflict"])
    }))

  if (!concurrentTransactions) return

  it.effect("waits for who writes what is asked about, and for nobody else", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const { withTransaction } = yield* Accounts
      const outside = yield* outsider
      const [tag, other] = [newTag(), newTag()]
      const stream = newStream()
      const asking = (query: TagQuery, options?: Partial<AppendItem>) =>
        storage.append([item([], { conditions: [{ ...query, after: 0 }], ...options })], { atomic: true })
      const requiring = (expectedVersion: number) =>
        storage.append([item([]), item([], { stream, expectedVersion, messages: [] })], { atomic: true })
      const waiting = yield* withTransaction(Effect.gen(function*() {
        yield* storage.append([item([tag]), item([], { stream })], { atomic: true })
        // Streams and tags that it did not write are free.
        yield* outside(storage.append([item([other])], { atomic: true }))
        yield* outside(asking({ tags: [other, tag], types: undefined }))
        yield* outside(storage.append([item([])], { atomic: true }))
        const asked = yield* outside(Effect.forkDetach(asking({ tags: [tag], types: undefined })))
        const ofType = yield* outside(Effect.forkDetach(asking({ tags: [tag], types: ["B"] })))
        const written = yield* outside(Effect.forkDetach(storage.append([item([tag])], { atomic: true })))
        const required = yield* outside(Effect.forkDetach(requiring(0)))
        yield* outside(storage.append([item([other])], { atomic: true }))
        for (const fiber of [asked, ofType, written, required]) assert.isUndefined(fiber.pollUnsafe())
        return { asked, ofType, written, required }
      }))
      assert.deepStrictEqual((yield* Fiber.join(waiting.asked)).map(({ _tag }) => _tag), ["Conflict"])
      assert.deepStrictEqual((yield* Fiber.join(waiting.ofType)).map(({ _tag }) => _tag), ["Written"])
      assert.deepStrictEqual((yield* Fiber.join(waiting.written)).map(({ _tag }) => _tag), ["Written"])
      assert.deepStrictEqual((yield* Fiber.join(waiting.required)).map(({ _tag }) => _tag), ["Skipped", "WrongVersion"])
      // Those who only ask share: this one does not wait for the other, writers wait for both.
      const release = yield* Deferred.make<void>()
      const asked = yield* Deferred.make<void>()
      const holder = yield* Effect.forkDetach(withTransaction(Effect.gen(function*() {
        yield* asking({ tags: [other], types: ["B"] })
        yield* requiring(1)
        yield* Deferred.succeed(asked, undefined)
        yield* Deferred.await(release)
      })))
      yield* Deferred.await(asked)
      yield* asking({ tags: [other], types: ["B"] })
      yield* requiring(1)
      const writers = [
        yield* Effect.forkDetach(storage.append([item([other])], { atomic: true })),
        yield* Effect.forkDetach(storage.append([item([], { stream })], { atomic: true }))
      ]
      yield* asking({ tags: [newTag()], types: undefined })
      for (const writer of writers) assert.isUndefined(writer.pollUnsafe())
      yield* Deferred.succeed(release, undefined)
      yield* Fiber.join(holder)
      for (const writer of writers) {
        assert.deepStrictEqual((yield* Fiber.join(writer)).map(({ _tag }) => _tag), ["Written"])
      }
    }))

  it.effect("sees of each tag a beginning, however late its messages are committed", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const { withTransaction } = yield* Accounts
      const outside = yield* outsider
      const [early, late] = [newTag(), newTag()]
      const look = storage.ends([], [early, late])
      // The message of `early` has the lower position, and is committed after the other was seen.
      const seen = yield* withTransaction(Effect.gen(function*() {
        yield* storage.append([item([early])], { atomic: true })
        yield* outside(storage.append([item([late])], { atomic: true }))
        return yield* outside(look)
      }))
      const now = yield* look
      assert.deepStrictEqual([seen.tags[0], seen.tags[1]], [0, now.tags[1]])
      assert.isBelow(now.tags[0] ?? 0, now.tags[1] ?? 0)
      const condition = (after: readonly [number, number]) =>
        storage.append([
          item([], {
            conditions: [
              { tags: [late], types: undefined, after: after[1] },
              { tags: [early], types: undefined, after: after[0] }
            ]
          })
        ], { atomic: true })
      const [missed] = yield* condition([seen.tags[0] ?? 0, seen.tags[1] ?? 0])
      assert.deepInclude(missed, { _tag: "Conflict", condition: 1, globalPosition: now.tags[0] ?? 0 })
      const [whole] = yield* condition([now.tags[0] ?? 0, now.tags[1] ?? 0])
      assert.strictEqual(whole?._tag, "Written")
    }))
}
