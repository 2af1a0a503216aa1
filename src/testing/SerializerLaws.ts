/**
 * The three laws of a serializer, as property tests over messages generated from a schema.
 *
 * **Example**
 *
 * ```ts
 * SerializerLaws.suite("orders", Serializer.fromSchema(OrderEvent), OrderEvent)
 * ```
 */
import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Equal, Result, type Schema } from "effect"
import { makeCodec, type MessageSerializer } from "../Serializer.ts"

/**
 * Registers the suite with Vitest. Messages that cannot be stored (NUL, lone surrogates, too large) are outside the
 * laws: the store refuses them.
 *
 * @param name of the serializer, before the name of each test
 * @param serializer what is tested
 * @param messages a schema that all messages generated from it have
 */
export const suite = <A>(name: string, serializer: MessageSerializer<A>, messages: Schema.Schema<A>): void => {
  const codec = makeCodec(serializer)
  const place = { stream: "laws", version: 1, messageId: "" }

  const storable = Arbitrary.filter(
    Arbitrary.schema(messages),
    (message) => Result.isSuccess(codec.encode(message))
  )

  /** What the store reads back: parsed from the text that it stored. */
  const roundTrip = (message: A) => {
    const data: Schema.Json = JSON.parse(Result.getOrThrow(codec.encode(message)))
    return { data, message: Result.getOrThrow(codec.decode(data, place)) }
  }

  describe(`${name}: serializer laws`, () => {
    it.prop("deserialize(serialize(message)) equals message, and is of its class", [storable], ([message]) => {
      const back = roundTrip(message)
      assert.isTrue(Equal.equals(back.message, message), JSON.stringify(back.data))
      assert.strictEqual(classOf(back.message), classOf(message))
    })

    it.prop("serialize(deserialize(data)) equals data as JSON", [storable], ([message]) => {
      const back = roundTrip(message)
      assert.deepStrictEqual(Result.getOrThrow(codec.encode(back.message)), JSON.stringify(back.data))
    })
  })
}

/** Objects without a prototype are plain objects, as those with Object's are. */
const classOf = (message: unknown): unknown => Object.getPrototypeOf(message) ?? Object.prototype
