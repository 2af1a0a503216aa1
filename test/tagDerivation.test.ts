/** The database finds the tags of a stored message as the serializer does, whatever a writer has put into its JSON. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Layer, Random, Result, Schema } from "effect"
import { Message, MessageStore, Serializer } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"

const { tag } = Message

const Order = Schema.Struct({
  ...Message.fields,
  _tag: Schema.tag("Order"),
  customer: Schema.optionalKey(tag("customer", Schema.NullOr(Schema.String))),
  count: Schema.optionalKey(tag("count", Schema.Int)),
  labels: Schema.optionalKey(tag("label", Schema.Array(Schema.String))),
  items: Schema.optionalKey(Schema.Array(Schema.Struct({ sku: tag("sku", Schema.String) }))),
  grid: Schema.optionalKey(Schema.Array(Schema.Array(tag("cell", Schema.Int)))),
  address: Schema.optionalKey(Schema.Struct({ "ci\"ty\\": Schema.optionalKey(tag("city", Schema.String)) }))
})
const Paid = Schema.Struct({ ...Message.fields, _tag: Schema.tag("Paid"), by: tag("customer", Schema.String) })
const schema = Schema.Union([Order, Paid])
const options = { typeField: "__typename__", aliases: { Settled: "Paid" } } as const
class Orders extends MessageStore.Service<Orders>()("test/DerivedOrders", { name: "derived", schema, ...options }) {}

/** JSON text of values, spelled in ways that JSON.stringify has not. */
const spellings: ReadonlyArray<string> = [
  ..."0 -0 0.0 1 1.0 -1.00 10e-1 1e3 1E+3 1e21 1.5 -2.5 0.1 1e-400 1e-320 1e-300 0.5".split(" "),
  ..."9007199254740991 9007199254740991.4 9007199254740992 9007199254740993 -9007199254740991 1e15 1e16".split(" "),
  ..."1.0000000000000000001 0.99999999999999999999 123456789012345678901234567890 4.9e-324 1e308".split(" "),
  ..."true false null {} {\"a\":1} [] [[]] [null]".split(" "),
  ...[
    "",
    "a",
    "A",
    "a b",
    "é",
    "e\u0301",
    "🙂",
    "\u2028",
    "\ufdd0",
    "\"",
    "\\",
    "\\u0000",
    "{}",
    "NULL",
    "1",
    "x".repeat(300)
  ].map(
    (text) => JSON.stringify(text)
  ),
  "\"\\ud83d\\ude42\"",
  "\"\\u00e9\\/\\b\\f\\n\\r\\t\"",
  "\"\\u0000\"",
  "\"a\\u0000\\u0000b\"",
  "\"\\\\\\u0000\"",
  "\"\\\\u0000\"",
  "\"\\ud800\"",
  "\"\\udc00x\"",
  "\"\\ud83dx\\ude42\"",
  `"${"🙂".repeat(240)}"`,
  `"${"🙂".repeat(250)}"`
]

const pick = <A>(values: ReadonlyArray<A>) =>
  Effect.map(Random.nextIntBetween(0, values.length - 1), (i) => values[i] as A)

const arrayOf = (element: Effect.Effect<string>, longest: number) =>
  Effect.map(
    Effect.flatMap(Random.nextIntBetween(0, longest), (length) => Effect.replicateEffect(element, length)),
    (values) => `[${values.join()}]`
  )

const value = Effect.flatMap(Random.nextIntBetween(0, 20), (kind) =>
  kind < 16
    ? pick(spellings)
    : kind < 18
    ? arrayOf(pick(spellings), 4)
    : kind === 18
    ? arrayOf(arrayOf(pick(spellings), 3), 3)
    : arrayOf(Effect.map(Random.nextIntBetween(0, 100), String), 45))

const field = (name: string, of: Effect.Effect<string>) =>
  Effect.map(
    Effect.all([Random.nextBoolean, of]),
    ([isThere, text]) => isThere ? [`${JSON.stringify(name)}: ${text}`] : []
  )

const object = (fields: ReadonlyArray<Effect.Effect<ReadonlyArray<string>>>) =>
  Effect.map(Effect.all(fields), (all) => `{${all.flat().join(", ")}}`)

/** Mostly text, so that some have no fault. */
const text = Effect.map(Random.nextIntBetween(0, 1000), (n) => JSON.stringify(`t${n}`))
const mostly = Effect.flatMap(Random.nextIntBetween(0, 4), (n) => n === 0 ? value : text)

const message = Effect.flatMap(pick(["Order", "Order", "Order", "Paid", "Settled", "Other"]), (type) =>
  object([
    Effect.succeed([`"__typename__": ${JSON.stringify(type)}`]),
    field("note", value),
    field("customer", mostly),
    field("by", mostly),
    field("count", mostly),
    field("labels", Effect.map(Effect.replicateEffect(mostly, 3), (all) => `[${all.join()}]`)),
    field("items", Effect.map(Effect.replicateEffect(object([field("sku", mostly)]), 2), (all) => `[${all.join()}]`)),
    field("items", value),
    field("grid", Effect.map(Effect.replicateEffect(mostly, 2), (all) => `[[${all.join()}], ${all[0] ?? "1"}]`)),
    field("address", object([field("ci\"ty\\", mostly)]))
  ]))

const { tags: declared } = Serializer.fromSchema(schema, options)

/** The tags that the serializer finds; undefined: it refuses them. */
const expected = (json: string) => {
  const data = JSON.parse(json)
  const tagged = declared?.tagged(data) ?? Result.succeed(undefined)
  if (Result.isFailure(tagged)) return undefined
  const found = tagged.success?.tags ?? []
  const isLost = ["Paid", "Settled"].includes(data[options.typeField]) && found.length === 0
  return isLost || found.some((one) => one.includes("\0") || !one.isWellFormed()) ? undefined : found.toSorted()
}

describe("PostgreSQL", () => {
  it.live(
    "finds in 3,000 messages the tags that the serializer finds, or refuses them as it does",
    () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql.unsafe(`create function tags_of(_data text) returns text language plpgsql as $$ begin
        return (select coalesce(json_agg(d.tag), '[]') from effect_message_store_derive_derived(_data) d);
      exception when invalid_parameter_value then
        return null;
      end $$`).unprepared
        const messages = yield* Effect.replicateEffect(message, 3000).pipe(Random.withSeed("tags"))
        const rows = yield* sql<{ readonly tags: string | null }>`
        select tags_of(d.data) as tags from unnest(${messages}::text[]) with ordinality d(data, i) order by d.i`
        const kinds = { found: 0, none: 0, refused: 0 }
        for (const [i, json] of messages.entries()) {
          const tags = rows[i]?.tags ?? null
          const found = tags === null ? undefined : (JSON.parse(tags) as ReadonlyArray<string>).toSorted()
          assert.deepStrictEqual(found, expected(json), json)
          kinds[found === undefined ? "refused" : found.length === 0 ? "none" : "found"]++
        }
        assert.isAbove(kinds.found, 500, JSON.stringify(kinds))
        assert.isAbove(kinds.refused, 300, JSON.stringify(kinds))
        // One by one, too.
        for (const spelling of Arr.dedupe(spellings)) {
          const json =
            `{"__typename__": "Order", "customer": ${spelling}, "count": [${spelling}, 7], "note": "\\u0000"}`
          const [row] = yield* sql<{ readonly tags: string | null }>`select tags_of(${json}) as tags`
          const tags = row?.tags ?? null
          const found = tags === null ? undefined : (JSON.parse(tags) as ReadonlyArray<string>).toSorted()
          assert.deepStrictEqual(found, expected(json), json)
        }
      }).pipe(Effect.provide(Layer.provideMerge(Orders.layer, Layer.fresh(databaseLayer())))),
    60_000
  )
})
