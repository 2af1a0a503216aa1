/** What tags may be, how many there may be, and how they are read back. */
import { assert } from "@effect/vitest"
import { Array as Arr, Effect, Layer, Schema, Stream } from "effect"
import * as Decision from "../../Decision.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import { Storage } from "../../Storage.ts"
import { newStream, type Part } from "../fixture.ts"
import { Closed, count, type CourseEvent, courses, Labelled, newValue, Opened, Subscribed } from "./tags.ts"

/** Values that are not the same, however alike they are. */
const alike = [
  "",
  " ",
  "a",
  "A",
  "a ",
  " a",
  "\u00e9", // one character, and two that look like it
  "e\u0301",
  "\u{1f642}",
  "\uffff",
  "\u200b",
  "NULL",
  "null",
  "{}",
  "{a,b}",
  "a,b",
  "\"a\"",
  "\"",
  "\"\"",
  "'a'",
  "''",
  "\\",
  "\\\\",
  "\\x61",
  "$1",
  "%",
  "_",
  "a:b",
  "::",
  "a\nb",
  "a\tb",
  "'; --"
]

const tagsRead = <E>(messages: Stream.Stream<Message.TaggedMessage<CourseEvent>, E>) =>
  Effect.map(Stream.runCollect(messages), (all) => all.map(toPair))

const toPair = ({ message, tags }: Message.TaggedMessage<CourseEvent>): readonly [string, ReadonlyArray<string>] => [
  message._tag,
  tags
]

/** The messages that have tags. */
const told = <E>(reads: ReadonlyArray<Stream.Stream<object, E>>) =>
  Effect.map(
    Effect.forEach(reads, (messages) => Stream.runCollect(messages)),
    (all) => all.flat().filter((stored) => "tags" in stored)
  )

class Renamed extends Schema.TaggedClass<Renamed>()("Renamed", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  level: Message.tag("level", Schema.String).pipe(Schema.withDecodingDefaultKey(Effect.succeed("basic")))
}) {}

/** The same messages, under a name and with a field that they did not have. */
class Evolved extends MessageStore.Service<Evolved>()("effect-message-store/testing/Evolved", {
  name: "contract",
  schema: Renamed,
  aliases: { Opened: "Renamed" }
}) {}

class Late extends Schema.TaggedClass<Late>()("Late", {
  ...Message.fields,
  labels: Message.tag("label", Schema.Array(Schema.String))
}) {}

class TaggedLate extends MessageStore.Service<TaggedLate>()("effect-message-store/testing/TaggedLate", {
  name: "contract",
  schema: Late
}) {}

export const tagValues: Part = (it) => {
  it.effect("keeps apart tags that look alike, in queries and as conditions", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const student = newValue()
      const all = alike.map((course) => new Subscribed({ course: `${student}${course}`, student }))
      yield* store.write(newStream(), all as never)
      for (const message of all) {
        const { course } = message
        for (const asked of [{ course }, { course, student }, { student, course }]) {
          assert.deepStrictEqual(
            (yield* Stream.runCollect(store.readTagged(asked))).map((stored) => stored.message),
            [message],
            course
          )
        }
      }
      const sources = Object.fromEntries(
        all.map(({ course }, i) => [`${i}`, Decision.tagged({ course, student }, count)])
      )
      const [position] = yield* store.decide(sources, (states) => {
        assert.deepStrictEqual(Object.values(states), all.map(() => 1))
        return { stream: newStream(), messages: new Closed({}) }
      })
      assert.strictEqual(position?.version, 1)
      // As elements of one message, too.
      const labels = alike.map((label) => `${student}${label}`)
      yield* store.write(newStream(), new Labelled({ labels }))
      const [labelled] = yield* Stream.runCollect(store.readTagged({ label: `${student}` }, { tags: true }))
      assert.deepStrictEqual(labelled?.tags, labels.map((label) => `label:${label}`))
      for (const label of labels) {
        assert.strictEqual(yield* Stream.runCount(store.readTagged({ label })), 1, label)
      }
    }).pipe(Effect.scoped))

  it.effect("decides on 400 streams at once, and writes to as many", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const streams = Arr.makeBy(400, newStream)
      yield* store.write(streams[399] ?? "", new Subscribed({ course: newValue(), student: newValue() }))
      const sources = Object.fromEntries(streams.map((stream) => [stream, Decision.stream(stream, count)]))
      const written = yield* store.decide(sources, (states) => {
        assert.strictEqual(Object.values(states).reduce((sum, one) => sum + one, 0), 1)
        return streams.map((stream) => ({ stream, messages: new Closed({}) }))
      })
      assert.deepStrictEqual(written.map(({ version }) => version), streams.map((_, i) => i === 399 ? 2 : 1))
    }).pipe(Effect.scoped))

  it.effect("gives messages their tags where they are asked for", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const [course, student] = [newValue(), newValue()]
      const stream = newStream()
      const messages = [
        new Opened({ course, capacity: 1 }),
        new Subscribed({ course, student }),
        new Labelled({ labels: [`${course} x`, 7, 7], course: null }),
        new Labelled({ labels: [] }),
        new Closed({})
      ] as const
      const tags: Array<readonly [string, ReadonlyArray<string>]> = [
        ["Opened", [`course:${course}`]],
        ["Subscribed", [`course:${course}`, `student:${student}`]],
        ["Labelled", [`label:${course} x`, "label:7"]],
        ["Labelled", []],
        ["Closed", []]
      ]
      const ids = messages.map(({ messageId }) => messageId)
      const ofStore = Effect.gen(function*() {
        assert.deepStrictEqual(yield* tagsRead(store.read(stream, { tags: true })), tags)
        assert.deepStrictEqual(yield* tagsRead(store.read(stream, { tags: true, direction: "backward", limit: 1 })), [
          ["Closed", []]
        ])
        assert.deepStrictEqual(yield* tagsRead(store.readTagged({ course }, { tags: true })), tags.slice(0, 2))
        assert.isEmpty(
          yield* told([store.read(stream), store.read(stream, { tags: false }), store.readTagged({ course })])
        )
      })
      const ofReader = Effect.gen(function*() {
        const { getMessageById, getMessagesByIds, readTagged, readWildcard } = yield* store.reader
        assert.deepStrictEqual(yield* tagsRead(readWildcard(stream, { tags: true })), tags)
        assert.deepStrictEqual(
          yield* tagsRead(readTagged({ course }, { types: ["Subscribed"], tags: true })),
          tags.slice(1, 2)
        )
        assert.deepStrictEqual((yield* getMessagesByIds(ids, { tags: true })).map(toPair), tags)
        assert.deepStrictEqual(toPair(yield* getMessageById(ids[1] ?? "", { tags: true })), tags[1])
        assert.isEmpty(yield* told([readWildcard(stream), Stream.fromEffect(getMessageById(ids[1] ?? ""))]))
      }).pipe(Effect.scoped)
      const checked = Effect.andThen(ofStore, ofReader)
      // Those of a transaction's own messages, too.
      yield* store.withTransaction(Effect.andThen(store.write(stream, messages), checked))
      yield* checked
    }).pipe(Effect.scoped))

  it.effect("gives messages of an older shape the tags that they have today", () =>
    Effect.gen(function*() {
      const course = newValue()
      const stream = newStream()
      yield* (yield* courses).write(stream, new Opened({ course, capacity: 1 }))
      const storage = yield* Storage
      const layer = Layer.fresh(Layer.provide(Evolved.layerStorage, Layer.succeed(Storage, storage)))
      const evolved = yield* Effect.provide(Evolved, yield* Layer.build(layer))
      const [stored] = yield* Stream.runCollect(evolved.read(stream, { tags: true }))
      assert.deepStrictEqual([stored?.message._tag, stored?.tags], ["Renamed", [`course:${course}`, "level:basic"]])
    }).pipe(Effect.scoped))

  it.effect("gives messages that can have no tags none", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const stream = newStream()
      const { messageId, occurredAt } = new Closed({})
      const labels = Arr.makeBy(33, (i) => `${i}`)
      const data = JSON.stringify({ _tag: "Late", messageId, occurredAt: "2026-01-01T00:00:00.000Z", labels })
      // It was stored before its type had tags.
      yield* storage.append([{
        stream,
        expectedVersion: undefined,
        metadata: "{}",
        messages: [{ messageId, occurredAt, data }]
      }], { atomic: true })
      const layer = Layer.fresh(Layer.provide(TaggedLate.layerStorage, Layer.succeed(Storage, storage)))
      const late = yield* Effect.provide(TaggedLate, yield* Layer.build(layer))
      const [stored] = yield* Stream.runCollect(late.read(stream, { tags: true }))
      assert.deepStrictEqual([stored?.message._tag, stored?.tags], ["Late", []])
    }).pipe(Effect.scoped))
}
