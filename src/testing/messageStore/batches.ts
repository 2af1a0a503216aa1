import { assert } from "@effect/vitest"
import { Array as Arr, DateTime, Effect, Schema } from "effect"
import { type AppendItem, AppendOutcome, Storage } from "../../Storage.ts"
import { newStream, type Part } from "../fixture.ts"

/** A batch as numbers: small pools make conflicts and duplicates likely. */
const Batch = Schema.Array(Schema.Struct({
  stream: Schema.Literals([0, 1, 2]),
  expectedVersion: Schema.Literals(["any", "any", "exists", 0, 1, 2, 3]),
  ids: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 12 }))).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(3),
    Schema.isUnique()
  )
})).check(Schema.isMinLength(1), Schema.isMaxLength(8))

/** What the port promises: the items of a batch, one after the other. */
class Model {
  readonly streams = new Map<string, Array<string>>()
  readonly stored = new Set<string>()

  append(items: ReadonlyArray<AppendItem>): ReadonlyArray<string> {
    return items.map(({ expectedVersion, messages, stream }) => {
      const ids = this.streams.get(stream) ?? []
      const head = ids.length
      const expected = expectedVersion ?? head
      if (expected === "exists" ? head === 0 : expected !== head) return `version ${head}`
      const duplicate = messages.find(({ messageId }) => this.stored.has(messageId))
      if (duplicate !== undefined) return `duplicate ${duplicate.messageId}`
      for (const { messageId } of messages) this.stored.add(messageId)
      this.streams.set(stream, [...ids, ...messages.map(({ messageId }) => messageId)])
      return `written ${head + messages.length}`
    })
  }

  /** The same, all or nothing. */
  appendAtomically(items: ReadonlyArray<AppendItem>): ReadonlyArray<string> {
    const [streams, stored] = [new Map(this.streams), new Set(this.stored)]
    const outcomes = this.append(items)
    const refused = outcomes.findIndex((outcome) => !outcome.startsWith("written"))
    if (refused < 0) return outcomes
    this.streams.clear()
    for (const [stream, ids] of streams) this.streams.set(stream, ids)
    this.stored.clear()
    for (const id of stored) this.stored.add(id)
    return outcomes.map((outcome, i) => i === refused ? outcome : "skipped")
  }
}

const show: (outcome: AppendOutcome) => string = AppendOutcome.$match({
  Written: ({ version }) => `written ${version}`,
  Unchanged: ({ version }) => `unchanged ${version}`,
  WrongVersion: ({ actualVersion }) => `version ${actualVersion}`,
  Conflict: ({ messageId }) => `conflict ${messageId}`,
  Duplicate: ({ messageId }) => `duplicate ${messageId}`,
  Outdated: ({ condition }) => `outdated ${condition}`,
  WrongIsolation: () => "wrong isolation",
  Refused: () => "refused",
  Skipped: () => "skipped"
})

export const batches: Part = (it) => {
  const property = (atomic: boolean) =>
    Effect.fnUntraced(function*(given: ReadonlyArray<typeof Batch.Type>) {
      const storage = yield* Storage
      const streams = Arr.makeBy(3, newStream)
      const ids = Arr.makeBy(13, () => globalThis.crypto.randomUUID())
      const model = new Model()
      for (const batch of given) {
        const items = batch.map((item): AppendItem => ({
          stream: streams[item.stream] ?? "",
          expectedVersion: item.expectedVersion === "any" ? undefined : item.expectedVersion,
          metadata: "{}",
          messages: item.ids.map((id) => ({
            messageId: ids[id] ?? "",
            occurredAt: DateTime.makeUnsafe(0),
            data: "{}"
          })) as never
        })) as never as Arr.NonEmptyReadonlyArray<AppendItem>
        const outcomes = yield* storage.append(items, { atomic })
        const expected = atomic ? model.appendAtomically(items) : model.append(items)
        assert.deepStrictEqual(outcomes.map(show), expected)
        for (const [i, outcome] of outcomes.entries()) {
          if (outcome._tag !== "Written") continue
          const [last] = yield* storage.readByIds([items[i]?.messages.at(-1)?.messageId ?? ""])
          assert.strictEqual(last?.globalPosition, outcome.globalPosition)
        }
      }
      for (const stream of streams) {
        const { messages: rows } = yield* storage.readStream({
          stream,
          fromVersion: 1,
          toVersion: 1000,
          direction: "forward",
          limit: 1000
        })
        assert.deepStrictEqual(rows.map(({ messageId }) => messageId), model.streams.get(stream) ?? [])
        assert.deepStrictEqual(rows.map(({ version }) => version), rows.map((_, i) => i + 1))
        const positions = rows.map(({ globalPosition }) => globalPosition)
        assert.deepStrictEqual(positions, positions.toSorted((a, b) => a - b))
      }
    })

  const Batches = Schema.Array(Batch).check(Schema.isMinLength(1), Schema.isMaxLength(4))

  it.effect.prop("decides the items of a batch one by one", [Batches], ([given]) => property(false)(given))

  it.effect.prop("decides an atomic batch as a whole", [Batches], ([given]) => property(true)(given))
}
