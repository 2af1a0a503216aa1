import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, Result, Schema, SchemaGetter, Stream } from "effect"
import { Message, MessageStore, Serializer } from "effect-message-store"
import { SerializerLaws } from "effect-message-store/testing"
import * as MemoryStorage from "../src/memory/storage.ts"
import { Storage } from "../src/Storage.ts"

class Line extends Schema.Class<Line>("Line")({
  product: Schema.String,
  price: Schema.BigInt,
  tags: Schema.Array(Schema.NonEmptyString),
  delivery: Schema.Option(Schema.DateTimeUtc)
}) {}

class Placed extends Schema.TaggedClass<Placed>()("Placed", {
  ...Message.fields,
  lines: Schema.Array(Line),
  counts: Schema.Record(Schema.String, Schema.Int),
  note: Schema.optional(Schema.String),
  due: Schema.Date,
  rate: Schema.Finite,
  anything: Schema.Json
}) {}

class Moved extends Schema.TaggedClass<Moved>()("Moved", {
  ...Message.fields,
  path: Schema.Array(Schema.Tuple([Schema.Finite, Schema.Finite])),
  kind: Schema.Union([
    Schema.TaggedStruct("Car", { seats: Schema.Int }),
    Schema.TaggedStruct("Bicycle", { bell: Schema.Boolean })
  ]),
  set: Schema.ReadonlySet(Schema.String),
  nothing: Schema.Null
}) {}

const Event = Schema.Union([Placed, Moved])
const Struct = Schema.TaggedStruct("Struct", { ...Message.fields, value: Schema.String })

SerializerLaws.suite("a union of classes", Serializer.fromSchema(Event), Event)
SerializerLaws.suite("a single class", Serializer.fromSchema(Placed), Placed)
SerializerLaws.suite("a tagged struct", Serializer.fromSchema(Struct), Struct)
SerializerLaws.suite("a class without a tag", Serializer.fromSchema(Line), Line)
SerializerLaws.suite("Python's type field", Serializer.fromSchema(Event, { typeField: "__typename__" }), Event)
SerializerLaws.suite("aliases", Serializer.fromSchema(Event, { aliases: { Ordered: "Placed" } }), Event)

const handWritten: Serializer.MessageSerializer<Line> = {
  serialize: (line) =>
    Result.succeed([
      line.product,
      String(line.price),
      line.tags,
      Option.match(line.delivery, {
        onNone: () => null,
        onSome: DateTime.formatIso
      })
    ]),
  deserialize: (data) =>
    Result.try(() => {
      const [product, price, tags, delivery] = Schema.decodeUnknownSync(
        Schema.Tuple([Schema.String, Schema.String, Schema.Array(Schema.String), Schema.NullOr(Schema.String)])
      )(data)
      return new Line({
        product,
        price: BigInt(price),
        tags,
        delivery: Option.map(Option.fromNullishOr(delivery), (iso) => DateTime.makeUnsafe(iso))
      })
    })
}

SerializerLaws.suite("written by hand", handWritten, Line)

describe("serializer", () => {
  const line = new Line({ product: "p", price: 1n, tags: [], delivery: Option.none() })

  it("names the type as depeche_db does", () => {
    const struct = Struct.make({ value: "v" })
    const { serialize } = Serializer.fromSchema(Struct, { typeField: "__typename__" })
    assert.deepStrictEqual(Result.getOrThrow(serialize(struct)), {
      __typename__: "Struct",
      messageId: struct.messageId,
      occurredAt: DateTime.formatIso(struct.occurredAt),
      value: "v"
    })
  })

  it("refuses a message that has a field of that name", () => {
    const Taken = Schema.TaggedStruct("Taken", { kind: Schema.String })
    const { serialize } = Serializer.fromSchema(Taken, { typeField: "kind" })
    assert.isTrue(Result.isFailure(serialize(Taken.make({ kind: "x" }))))
  })

  it("decodes renamed tags, and writes the present name", () => {
    const serializer = Serializer.fromSchema(Struct, { aliases: { OldStruct: "Struct" } })
    const { _tag, ...fields } = Struct.make({ value: "v" })
    const stored = { ...Object(Result.getOrThrow(serializer.serialize({ _tag, ...fields }))), _tag: "OldStruct" }
    const message = Result.getOrThrow(serializer.deserialize(stored))
    assert.deepStrictEqual(message, { _tag, ...fields })
    assert.strictEqual(Object(Result.getOrThrow(serializer.serialize(message)))._tag, "Struct")
  })

  it("reads an old shape through a transformation of the schema", () => {
    // Version 1 stored one `name`; today there are two fields.
    const Person = Schema.Struct({ first: Schema.String, last: Schema.String })
    const PersonV1 = Schema.Struct({ name: Schema.String }).pipe(Schema.decodeTo(Person, {
      decode: SchemaGetter.transform(({ name }) => {
        const [first = "", last = ""] = name.split(" ")
        return { first, last }
      }),
      encode: SchemaGetter.transform(({ first, last }) => ({ name: `${first} ${last}` }))
    }))
    class Registered extends Schema.TaggedClass<Registered>()("Registered", {
      person: Schema.Union([Person, PersonV1])
    }) {}
    const serializer = Serializer.fromSchema(Registered)
    const message = Result.getOrThrow(serializer.deserialize({ _tag: "Registered", person: { name: "Ada Lovelace" } }))
    assert.deepStrictEqual(message, new Registered({ person: { first: "Ada", last: "Lovelace" } }))
    assert.deepStrictEqual(Result.getOrThrow(serializer.serialize(message)), {
      _tag: "Registered",
      person: { first: "Ada", last: "Lovelace" }
    })
  })

  it.effect("lets a message of another shape say where its id and time are", () =>
    Effect.gen(function*() {
      class Lines extends MessageStore.Service<Lines>()("test/Lines", {
        name: "lines",
        serializer: handWritten,
        id: () => "0199F0E0-0000-7000-8000-00000000000A",
        time: () => DateTime.makeUnsafe(0)
      }) {}
      const messages = yield* Effect.gen(function*() {
        const lines = yield* Lines
        yield* lines.write("l", line)
        const reader = yield* lines.reader
        const byId = yield* reader.getMessageById("0199f0e0-0000-7000-8000-00000000000a")
        return [byId.message, ...(yield* Stream.runCollect(lines.read("l"))).map((stored) => stored.message)]
      }).pipe(Effect.scoped, Effect.provide(Lines.layerMemory))
      assert.deepStrictEqual(messages, [line, line])
    }))

  it.effect("holds a serializer written by hand to JSON, and catches what it throws", () =>
    Effect.gen(function*() {
      const failing = (serialize: () => unknown) => {
        class Bad extends MessageStore.Service<Bad>()("test/Bad", {
          name: "bad",
          serializer: {
            serialize: () => Result.succeed(serialize() as Schema.Json),
            deserialize: () => {
              throw new Error("no")
            }
          } satisfies Serializer.MessageSerializer<Line>,
          id: () => globalThis.crypto.randomUUID(),
          time: () => DateTime.makeUnsafe(0)
        }) {}
        return Effect.flip(Effect.gen(function*() {
          const bad = yield* Bad
          yield* bad.write("b", line)
          yield* Stream.runDrain(bad.read("b"))
        })).pipe(Effect.provide(Bad.layerMemory))
      }
      const throwing = () => {
        throw new Error("no")
      }
      for (const serialize of [() => NaN, () => undefined, () => ({ at: new Date() }), () => [1n], throwing]) {
        const error = yield* failing(serialize)
        assert.deepInclude<object>({ ...Object(error) }, { _tag: "SerializationError", operation: "serialize" })
      }
      const error = yield* failing(() => 1)
      assert.deepInclude<object>({ ...Object(error) }, { _tag: "SerializationError", operation: "deserialize" })
    }))

  it.effect("reads metadata that others left out", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      yield* storage.append([{
        stream: "s",
        expectedVersion: undefined,
        metadata: "{}",
        messages: [{
          messageId: globalThis.crypto.randomUUID(),
          occurredAt: DateTime.makeUnsafe(0),
          data: JSON.stringify(Result.getOrThrow(handWritten.serialize(line)))
        }]
      }], { atomic: true })
      class Lines extends MessageStore.Service<Lines>()("test/Lines", {
        name: "lines",
        serializer: handWritten,
        id: () => "",
        time: () => DateTime.makeUnsafe(0)
      }) {}
      const [stored] = yield* Effect.flatMap(Lines, (lines) => Stream.runCollect(lines.read("s"))).pipe(
        Effect.provide(Lines.layerStorage)
      )
      assert.deepStrictEqual(stored?.metadata, {})
    }).pipe(Effect.provide(MemoryStorage.layer)))
})
