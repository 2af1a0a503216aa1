/** Decisions on PostgreSQL: isolation levels, and the function itself. */
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"
import { truncate } from "effect-message-store/testing/truncate"
import { SqlClient } from "effect/sql"
import { outsider } from "../src/testing/fixture.ts"
import { databaseLayer } from "./support/database.ts"

class Booked extends Schema.TaggedClass<Booked>()("Booked", { ...Message.fields, seat: Schema.String }) {}

class Seats extends MessageStore.Service<Seats>()("test/Seats", { name: "seats", schema: Booked }) {}

const count = Fold.make<Booked>()({ initial: 0, Booked: (sofar) => sofar + 1 })
const booked = () => new Booked({ seat: "1" })

const live = { excludeTestServices: true }

describe("PostgreSQL", () => {
  layer(Seats.layer.pipe(Layer.provideMerge(databaseLayer())), live)("decisions", (it) => {
    for (const level of ["repeatable read", "serializable"]) {
      it.effect(`under ${level} conditions are refused, and the transaction goes on`, () =>
        Effect.gen(function*() {
          const seats = yield* Seats
          const sql = yield* SqlClient.SqlClient
          const [a, b] = [`a ${level}`, `b ${level}`]
          yield* seats.write(b, booked())
          const sources = { a: Decision.stream(a, count), b: Decision.stream(b, count) }
          yield* sql.withTransaction(Effect.gen(function*() {
            const error = yield* Effect.flip(seats.decide(sources, () => ({ stream: a, messages: booked() })))
            assert.strictEqual(error._tag, "IsolationError")
            // Every source is written to: the database itself sees to it that nothing got in between.
            const both = yield* seats.decide(sources, () => [
              { stream: a, messages: booked() },
              { stream: b, messages: booked() }
            ])
            assert.deepStrictEqual(both.map(({ version }) => version), [1, 2])
            assert.deepStrictEqual(yield* seats.decide(sources, () => []), [])
            yield* seats.update(a, count, () => Effect.succeed(booked()))
          })).pipe(Effect.provideService(SqlClient.BeginTransaction, `begin isolation level ${level}`))
          assert.deepStrictEqual([(yield* seats.head(a)).version, (yield* seats.head(b)).version], [2, 2])
        }))

      it.effect(`under ${level} a decision on what was changed since is refused by the database, and can be retried`, () =>
        Effect.scoped(Effect.gen(function*() {
          const seats = yield* Seats
          const sql = yield* SqlClient.SqlClient
          const outside = yield* outsider
          const [a, b] = [`a changed ${level}`, `b changed ${level}`]
          const sources = { a: Decision.stream(a, count), b: Decision.stream(b, count) }
          const both = seats.decide(sources, () => [
            { stream: a, messages: booked() },
            { stream: b, messages: booked() }
          ])
          const one = seats.update(b, count, () => Effect.succeed(booked()))
          let written = 0
          for (const decided of [both, one]) {
            const attempt = sql.withTransaction(Effect.gen(function*() {
              yield* seats.head(a) // the transaction sees nothing of what comes later
              yield* outside(seats.write(b, booked()))
              written++
              yield* decided
            })).pipe(Effect.provideService(SqlClient.BeginTransaction, `begin isolation level ${level}`))
            const error = yield* Effect.flip(attempt)
            assert(error._tag === "SqlError")
            assert.isTrue(error.isRetryable)
            assert.strictEqual(error.reason._tag, "SerializationError")
          }
          assert.deepStrictEqual([(yield* seats.head(a)).version, (yield* seats.head(b)).version], [0, written])
        })))
    }
  })
})

class Enrolled extends Schema.TaggedClass<Enrolled>()("Enrolled", {
  ...Message.fields,
  course: Message.tag("course", Schema.String)
}) {}
class Left extends Schema.TaggedClass<Left>()("Left", {
  ...Message.fields,
  course: Message.tag("course", Schema.String),
  student: Message.tag("student", Schema.Natural)
}) {}
class Untagged extends Schema.TaggedClass<Untagged>()("Left", { ...Message.fields, course: Schema.String }) {}

const name = "enrolments"
class Enrolments extends MessageStore.Service<Enrolments>()("test/Enrolments", { name, schema: Enrolled }) {}
class Both extends MessageStore.Service<Both>()("test/Both", { name, schema: Schema.Union([Enrolled, Left]) }) {}
class Old extends MessageStore.Service<Old>()("test/Old", {
  name,
  schema: Schema.Union([Enrolled, Untagged]),
  aliases: { Departed: "Left" }
}) {}
class Renamed extends MessageStore.Service<Renamed>()("test/Renamed", {
  name,
  schema: Schema.Union([Enrolled, Left]),
  aliases: { Untagged: "Left" }
}) {}

const enrolled = Fold.make<Enrolled>()({ initial: 0, Enrolled: (sofar) => sofar + 1 })

describe("tags on PostgreSQL", () => {
  layer(databaseLayer(), live)("a store", (it) => {
    const open = <S, E>(store: Layer.Layer<S, E, SqlClient.SqlClient>) =>
      Effect.result(Effect.scoped(Layer.build(store)))

    it.effect("has the tags of types without messages at once, and refuses to answer for others that it has not tagged", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const write = (stream: string) =>
          Effect.provide(
            Enrolments.use((store) => store.write(stream, new Enrolled({ course: "c" }))),
            Enrolments.layer
          )
        yield* write("e-1")
        assert.strictEqual((yield* open(Enrolments.layer))._tag, "Success")
        // A type that has no messages may have whatever tags.
        const both = yield* Effect.all([open(Both.layer), open(Both.layerNoMigrations), open(Both.layer)], {
          concurrency: "unbounded"
        })
        assert.deepStrictEqual(both.map(({ _tag }) => _tag), ["Success", "Success", "Success"])

        yield* sql`delete from effect_message_store_tagged_enrolments where type = 'Left'`
        yield* Effect.provide(
          Old.use((store) => store.write("e-2", new Untagged({ course: "c" }))),
          Old.layer
        )
        const students = { ofLeft: { student: 1 }, ofAll: { course: "c" } }
        for (const store of [Both.layer, Both.layerNoMigrations]) {
          yield* Effect.provide(
            Both.use(Effect.fnUntraced(function*(opened) {
              for (const asked of Object.values(students)) {
                const refused = yield* Effect.flip(Stream.runDrain(opened.readTagged(asked)))
                assert(refused._tag === "TagsIncompleteError")
                assert.deepStrictEqual(refused.types, ["Left"])
              }
              const ofOthers = opened.readTagged({ course: "c" }, { types: ["Enrolled"] })
              assert.strictEqual(yield* Stream.runCount(ofOthers), 1)
            })),
            Layer.fresh(store)
          )
        }
        assert.strictEqual((yield* open(Old.layer))._tag, "Success")

        // Under the name that it had before, too.
        yield* sql`delete from depeche_msgs_enrolments where stream = 'e-2'`
        yield* sql`delete from effect_message_store_tagged_enrolments where type = 'Left'`
        yield* sql`select depeche_write_message_enrolments(gen_random_uuid(), 'e-3', ${
          JSON.stringify({ text: "\0", _tag: "Untagged" })
        }::text::json)`
        assert.strictEqual((yield* open(Both.layer))._tag, "Success")
        const failure = yield* Effect.flip(Effect.provide(
          Renamed.use((opened) => Stream.runDrain(opened.tagging())),
          Renamed.layer
        ))
        assert(failure._tag === "TaggingError")
        assert.deepStrictEqual(failure.messages.map(({ stream }) => stream), ["e-3"])
        assert.include(failure.messages[0]?.reason, "does not decode")
      }))

    for (const level of ["repeatable read", "serializable"]) {
      it.effect(`refuses a condition on tags under ${level}, and writes what has none`, () =>
        Effect.gen(function*() {
          const store = yield* Enrolments
          const sql = yield* SqlClient.SqlClient
          const message = () => new Enrolled({ course: level })
          yield* sql.withTransaction(Effect.gen(function*() {
            const decided = store.decide({ course: Decision.tagged({ course: level }, enrolled) }, () => ({
              stream: level,
              messages: message()
            }))
            assert.strictEqual((yield* Effect.flip(decided))._tag, "IsolationError")
            yield* store.write(level, message())
          })).pipe(Effect.provideService(SqlClient.BeginTransaction, `begin isolation level ${level}`))
          const found = yield* Stream.runCollect(store.readTagged({ course: level }))
          assert.lengthOf(found, 1)
        }).pipe(Effect.provide(Enrolments.layer)))
    }

    it.effect("forgets the tags of messages that are removed", () =>
      Effect.gen(function*() {
        const store = yield* Enrolments
        yield* store.write("e-4", new Enrolled({ course: "c4" }))
        yield* truncate(store)
        assert.lengthOf(yield* Stream.runCollect(store.readTagged({ course: "c4" })), 0)
        yield* store.decide({ course: Decision.tagged({ course: "c4" }, enrolled) }, (states) => {
          assert.deepStrictEqual(states, { course: 0 })
          return { stream: "e-4", messages: new Enrolled({ course: "c4" }) }
        })
        assert.lengthOf(yield* Stream.runCollect(store.readTagged({ course: "c4" })), 1)
      }).pipe(Effect.provide(Enrolments.layer)))
  })
})
