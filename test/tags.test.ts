/** Which tags a schema declares, and which ones an encoded message has. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Option, Result, Schema, SchemaTransformation, Stream } from "effect"
import { Message, MessageStore, Serializer } from "effect-message-store"

const { tag } = Message

class Order extends Schema.TaggedClass<Order>()("Order", {
  customer: tag("customer", Schema.String),
  number: tag("order", Schema.BigInt),
  day: Schema.optionalKey(tag("day", Schema.DateTimeUtc)),
  express: tag("express", Schema.NullOr(Schema.Boolean)),
  labels: tag("label", Schema.Array(Schema.String.check(Schema.isMinLength(1)))),
  items: Schema.Array(Schema.Struct({ sku: tag("sku", Schema.String), quantity: Schema.Int })),
  address: Schema.Struct({ city: tag("city", Schema.String.pipe(Schema.brand("City"))) })
}) {}
const Renamed = Schema.Struct({ _tag: Schema.tag("Renamed"), customer: tag("customer", Schema.String) }).pipe(
  Schema.encodeKeys({ customer: "c" })
)
class Plain extends Schema.TaggedClass<Plain>()("Plain", { customer: Schema.String }) {}
const All = Schema.Union([Order, Renamed, Plain])

const tagsOf = <S extends Serializer.MessageSchema>(
  schema: S,
  message: S["Type"],
  options?: Serializer.SchemaSerializerOptions
) => {
  const serializer = Serializer.fromSchema(schema, options)
  return Result.flatMap(
    serializer.serialize(message),
    (data) => serializer.tags?.tagged(data) ?? Result.succeed(undefined)
  )
}

const order = new Order({
  customer: "Ada: \"the first\"",
  number: 12345678901234567890n,
  express: true,
  labels: ["a", "b", "a"],
  items: [{ sku: "x", quantity: 1 }, { sku: "y", quantity: 2 }, { sku: "x", quantity: 3 }],
  address: { city: Schema.String.pipe(Schema.brand("City")).make("Bern") }
})

class Orders extends MessageStore.Service<Orders>()("test/Orders", {
  name: "orders",
  schema: Schema.Union([Order, Renamed, Plain]),
  id: () => "00000000-0000-7000-8000-000000000000",
  time: () => DateTime.makeUnsafe(0)
}) {}

describe("tags", () => {
  it.effect("that nobody declares are refused, and told from those that are declared", () =>
    Effect.gen(function*() {
      const orders = yield* Orders
      const reason = (tags: Message.Tags) =>
        Effect.map(Effect.flip(Stream.runDrain(orders.readTagged(tags))), ({ message }) => message)
      const ofOrder = "Order has customer, order, day, express, label, sku, city"
      assert.strictEqual(
        yield* reason({ custmer: "Ada" }),
        `tags must be tags of one message type, and none has custmer: ${ofOrder}; Renamed has customer`
      )
      assert.strictEqual(
        yield* reason({ customer: "Ada", town: "Bern" }),
        `tags must be tags of one message type, and none has customer, town: ${ofOrder}; Renamed has customer`
      )
    }).pipe(Effect.provide(Orders.layerMemory)))

  it("are taken from the encoded message, each once", () => {
    assert.deepStrictEqual(
      tagsOf(All, order),
      Result.succeed({
        type: "Order",
        tags: [
          "customer:Ada: \"the first\"",
          "order:12345678901234567890",
          "express:true",
          "label:a",
          "label:b",
          "sku:x",
          "sku:y",
          "city:Bern"
        ]
      })
    )
    assert.deepStrictEqual(
      tagsOf(All, { _tag: "Renamed", customer: "Ada" }),
      Result.succeed({ type: "Renamed", tags: ["customer:Ada"] })
    )
    assert.deepStrictEqual(
      tagsOf(All, { _tag: "Renamed", customer: "Ada" }, { typeField: "__typename__" }),
      Result.succeed({ type: "Renamed", tags: ["customer:Ada"] })
    )
    assert.deepStrictEqual(tagsOf(All, new Plain({ customer: "Ada" })), Result.succeed(undefined))
  })

  it("are those of the type that a type of before is today", () => {
    const { tags } = Serializer.fromSchema(All, { aliases: { Old: "Renamed" } })
    const tagged = tags?.tagged({ _tag: "Old", c: "Ada" })
    assert.deepStrictEqual(tagged, Result.succeed({ type: "Old", tags: ["customer:Ada"] }))
  })

  it("are found inside an option", () => {
    const option = Schema.Struct({ _tag: Schema.tag("A"), at: Schema.Option(tag("at", Schema.String)) })
    assert.deepStrictEqual(
      tagsOf(option, { _tag: "A", at: Option.some("x") }),
      Result.succeed({ type: "A", tags: ["at:x"] })
    )
    assert.deepStrictEqual(tagsOf(option, { _tag: "A", at: Option.none() }), Result.succeed(undefined))
  })

  it("are none of a schema that declares none", () => {
    assert.isUndefined(Serializer.fromSchema(Plain).tags)
  })

  it("are known by type, and by the names that types have had", () => {
    const { tags } = Serializer.fromSchema(All, { aliases: { Old: "Renamed", Older: "Renamed" } })
    assert.deepStrictEqual(Array.from(tags?.byType.get("Renamed") ?? []), ["customer"])
    assert.deepStrictEqual(tags?.storedNames("Renamed"), ["Renamed", "Old", "Older"])
    assert.deepStrictEqual(Array.from(tags?.types ?? []), ["Order", "Renamed", "Plain"])
  })

  it("of a type with older shapes are those of today's, and are looked for where the older ones have them", () => {
    const Placed = Schema.TaggedStruct("Placed", { customer: tag("customer", Schema.String), gift: Schema.Boolean })
    const old = (name: typeof Schema.String) =>
      Schema.Struct({ _tag: Schema.tag("Placed"), client: name }).pipe(
        Schema.decodeTo(
          Placed,
          SchemaTransformation.transform({
            decode: ({ _tag, client }) => ({ _tag, customer: client, gift: Boolean(client) }),
            encode: ({ _tag, customer }) => ({ _tag, client: customer })
          })
        )
      )
    const message = { _tag: "Placed", customer: "Ada", gift: true } as const
    const tagged = Result.succeed({ type: "Placed", tags: ["customer:Ada"] as const })
    const plain = Schema.Union([Placed, old(Schema.String)])
    assert.deepStrictEqual(tagsOf(plain, message), tagged)
    const both = Schema.Union([Placed, old(tag("customer", Schema.String))])
    assert.deepStrictEqual(tagsOf(both, message), tagged)
    const paths = (schema: Serializer.MessageSchema) =>
      Serializer.fromSchema(schema).tags?.paths.map(({ isRequired, path }) => ({ path, isRequired }))
    assert.deepStrictEqual(paths(plain), [{ path: ["customer"], isRequired: true }])
    assert.deepStrictEqual(paths(both), [
      { path: ["customer"], isRequired: true },
      { path: ["client"], isRequired: true }
    ])
  })

  it("cannot be what has no text of its own", () => {
    const fraction = Schema.Struct({ _tag: Schema.tag("A"), at: tag("at", Schema.Number) })
    const point = Schema.Struct({ x: Schema.Int })
    assert.isTrue(Result.isSuccess(tagsOf(fraction, { _tag: "A", at: -7 })))
    assert.isTrue(Result.isFailure(tagsOf(fraction, { _tag: "A", at: 1.5 })))
    const either = Schema.Struct({ _tag: Schema.tag("A"), at: tag("at", Schema.Union([Schema.Int, point])) })
    assert.isTrue(Result.isSuccess(tagsOf(either, { _tag: "A", at: 1 })))
    assert.isTrue(Result.isFailure(tagsOf(either, { _tag: "A", at: { x: 1 } })))
  })

  it("are refused where they would not be found", () => {
    const inRecord = Schema.Struct({
      _tag: Schema.tag("A"),
      at: Schema.Record(Schema.String, tag("at", Schema.String))
    })
    const nameless = Schema.Struct({ at: tag("at", Schema.String) })
    assert.throws(() => Serializer.fromSchema(inRecord), "the tag \"at\" of A is declared on what has no text")
    assert.throws(() => Serializer.fromSchema(Schema.Union([Order, inRecord])), "of A")
    assert.throws(() => Serializer.fromSchema(nameless), "no _tag")
    for (const name of ["", "a:b", "\0", "\ud800"]) assert.throws(() => tag(name, Schema.String), "a tag's name")
    const objects = [
      Schema.Struct({ x: Schema.Int }),
      Schema.NullOr(Schema.Struct({ x: Schema.Int })),
      Schema.Array(Schema.Struct({ x: Schema.Int })),
      Schema.Option(Schema.String),
      Schema.Record(Schema.String, Schema.String)
    ]
    for (const object of objects) {
      const whole = Schema.Struct({ _tag: Schema.tag("A"), at: tag("at", object) })
      assert.throws(() => Serializer.fromSchema(whole), "the tag \"at\" is declared on what has no text of its own")
    }
  })
})
