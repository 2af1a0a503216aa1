/** Rows that others wrote and that are too large to be read: nobody but themselves is harmed. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schedule, Schema, Stream } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Subscription } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"

class Noted extends Schema.TaggedClass<Noted>()("Noted", { ...Message.fields, text: Schema.Unknown }) {}

const unreadable = {
  json: `json_build_object('_tag', 'Noted', 'text', repeat('x', 17000000))`,
  jsonb: `jsonb_build_object('_tag', 'Noted', 'text', (select jsonb_agg(1e308) from generate_series(1, 60000)))`
}

for (const payload of ["json", "jsonb"] as const) {
  class Notes extends MessageStore.Service<Notes>()("test/Notes", { name: "notes", schema: Noted, payload }) {}
  class AllNotes extends AggregatedStream.Service<AllNotes>()("test/AllNotes", {
    store: Notes,
    name: "all_notes",
    patterns: "%",
    partitioner: Partitioner.constant()
  }) {}
  class Reading extends Subscription.Service<Reading>()("test/Reading", {
    stream: AllNotes,
    name: "reading",
    retry: Schedule.recurs(0)
  }) {}

  describe(`PostgreSQL with ${payload}`, () => {
    it.live(
      "a row too large to be read fails alone: its page is readable, and a subscription parks it",
      () =>
        Effect.gen(function*() {
          const notes = yield* Notes
          const sql = yield* SqlClient.SqlClient
          const [first, second, last] = [1, 2, 3].map((text) => new Noted({ text }))
          yield* notes.write("a", [first, second] as never)
          const giant = globalThis.crypto.randomUUID()
          yield* sql`select depeche_write_message_notes(${giant}::uuid, 'a', ${sql.literal(unreadable[payload])}::json)`
          yield* notes.write("a", last as Noted)

          const seen: Array<number> = []
          const error = yield* notes.read("a").pipe(
            Stream.runForEach(({ version }) => Effect.sync(() => void seen.push(version))),
            Effect.flip
          )
          assert.isTrue(error._tag === "SerializationError")
          assert.deepInclude({ ...error } as object, {
            operation: "deserialize",
            stream: "a",
            version: 3,
            messageId: giant
          })
          assert.match(error.message, /it has \d{8} bytes/)
          const read = (options: Parameters<typeof notes.read>[1]) =>
            Effect.map(Stream.runCollect(notes.read("a", options)), (all) => all.map(({ version }) => version))
          assert.deepStrictEqual(yield* read({ toVersion: 2 }), [1, 2])
          assert.deepStrictEqual(yield* read({ fromVersion: 4 }), [4])
          yield* Effect.scoped(Effect.gen(function*() {
            const reader = yield* notes.reader
            const ids = [first, last].map((message) => message?.messageId ?? "")
            assert.deepStrictEqual((yield* reader.getMessagesByIds(ids)).map(({ version }) => version), [1, 4])
            assert.strictEqual((yield* Effect.flip(reader.getMessageById(giant)))._tag, "SerializationError")
          }))

          const all = yield* AllNotes
          const reading = yield* Reading
          yield* all.projector.runOnce
          const handled: Array<unknown> = []
          yield* reading.run(({ text }) => Effect.sync(() => void handled.push(text))).pipe(
            Effect.raceFirst(Effect.repeat(reading.lag, { until: (lag) => lag === 0, schedule: Schedule.spaced(20) })),
            Effect.timeout("20 seconds")
          )
          assert.deepStrictEqual(handled, [1, 2, 3])
          const parked = yield* reading.parked
          assert.deepStrictEqual(parked.map(({ messageId }) => messageId), [giant])
        }).pipe(Effect.provide(
          Reading.layer.pipe(
            Layer.provideMerge(AllNotes.layer),
            Layer.provideMerge(Notes.layer),
            Layer.provideMerge(databaseLayer())
          )
        )),
      60_000
    )
  })
}
