/** Personal values: what they print, and what a schema may declare. */
import { assert, describe, expect, it } from "@effect/vitest"
import { Array as Arr, Cause, Effect, Equal, Formatter, Hash, Layer, Option, Schema, Stream } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Personal } from "effect-message-store"
import * as nodeAssert from "node:assert"
import { inspect } from "node:util"
import { toFailure } from "../src/subscription/failure.ts"
import { canary, Customers, encryption, renamed } from "../src/testing/messageStore/personalFixture.ts"

const ofId = { subject: "id" } as const
const email = Message.personal(Schema.String, ofId)

describe("a personal value", () => {
  it("is compared by what it has, by whatever compares it", () => {
    const messageOf = (value: unknown) => ({ email: Personal.known(value) })
    const same = (actual: unknown, expected: unknown): ReadonlyArray<() => void> => [
      () => assert.deepStrictEqual(actual, expected),
      () => nodeAssert.deepStrictEqual(actual, expected),
      () => expect(actual).toEqual(expected),
      () => expect(actual).toStrictEqual(expected)
    ]
    for (const value of ["a", 1, null, { a: [1, "x"] }, [Personal.known("a")]]) {
      for (const check of same(messageOf(value), messageOf(Array.isArray(value) ? [...value] : value))) check()
      for (const other of ["b", 2, undefined, { a: [1, "y"] }, [Personal.known("b")], [Personal.forgotten]]) {
        for (const check of same(messageOf(value), messageOf(other))) assert.throws(check)
      }
    }
    for (const check of same(messageOf("a"), { email: Personal.forgotten })) assert.throws(check)
  })

  it("prints nothing of itself, whatever prints it", () => {
    const known = Personal.known({ name: canary })
    const message = renamed("c1")
    const error = Object.assign(new Error("no", { cause: known }), { known, text: `${known}`, given: message })
    for (
      const value of [known, message, [known], new Map([[known, known]]), error, Cause.fail(error), Option.some(known)]
    ) {
      const prints = [
        String(value),
        JSON.stringify(value),
        inspect(value, { depth: 9, showHidden: true, getters: true }),
        Object.prototype.toString.call(value),
        Formatter.format(value),
        Formatter.formatJson(value),
        JSON.stringify({ ...Object(value) }),
        JSON.stringify(toFailure(value)),
        JSON.stringify(Object.entries(Object(value)))
      ]
      for (const print of prints) assert.notInclude(print, canary)
    }
    assert.include(inspect(message), "<redacted>")
    assert.strictEqual(`${Personal.forgotten}`, "<forgotten>")
    assert.deepStrictEqual(Personal.toOption(known), Option.some({ name: canary }))
    assert.deepStrictEqual(Personal.toOption(Personal.forgotten), Option.none())
  })

  it("equals another one of the same value", () => {
    const [one, same, other] = [Personal.known("a"), Personal.known("a"), Personal.known("b")]
    assert.isTrue(Equal.equals(one, same))
    assert.strictEqual(Hash.hash(one), Hash.hash(same))
    assert.isFalse(Equal.equals(one, other))
    assert.isFalse(Equal.equals<unknown, unknown>(one, Personal.forgotten))
    assert.isTrue(Equal.equals(Personal.map(Personal.known(1), String), Personal.known("1")))
    assert.strictEqual(Personal.map(Personal.forgotten, String), Personal.forgotten)
  })

  it("is told of by no issue of its schema", () => {
    const secret = Schema.String.check(Schema.makeFilter((text: string) => `${text} is not a good name`))
    const codec = Schema.toCodecJson(Personal.schema(secret))
    const failures: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
      Effect.flip(Schema.decodeUnknownEffect(codec)({ "~personal": "known", value: canary })),
      Effect.flip(Schema.decodeUnknownEffect(codec)(canary)),
      Effect.flip(Schema.decodeUnknownEffect(codec)(`~personal:1:${canary}`)),
      Effect.flip(Schema.encodeUnknownEffect(codec)(Personal.known(canary)))
    ]
    for (const failure of failures) {
      const error = Effect.runSync(failure)
      for (const print of [String(error), inspect(error, { depth: 9 }), JSON.stringify(error)]) {
        assert.notInclude(print, canary)
      }
    }
  })
})

describe("a schema", () => {
  /** Makes a store whose messages have these fields. */
  const make = (fields: Schema.Struct.Fields) => () => {
    const schema = Schema.TaggedStruct("Told", { ...Message.fields, ...fields })
    return MessageStore.Service<Customers>()("test/Told", { name: "told", schema: schema as never } as never)
  }
  interface Tree {
    readonly id: string
    readonly email: Personal.Personal<string>
    readonly children: ReadonlyArray<Tree>
  }
  const tree: Schema.Codec<Tree> = Schema.Struct({
    id: Schema.String,
    email,
    children: Schema.Array(Schema.suspend(() => tree))
  }) as never // it needs what encrypts it
  const cases: Record<string, readonly [Schema.Struct.Fields, string]> = {
    "whose subject is missing": [
      { email },
      "the personal field \"email\" has the subject \"id\", which is no field beside it"
    ],
    "whose subject is no text": [{ id: Schema.Struct({}), email }, "must be a string or a number"],
    "whose subject is personal": [{ id: email, email }, "must be a string or a number"],
    "with a personal tag": [
      { id: Schema.String, email: Message.tag("email", email as never) },
      "the tag \"email\" is personal"
    ],
    "with tags of personal parts": [
      { id: Schema.String, emails: Message.tag("email", Schema.Array(email) as never) },
      "the tag \"email\" is personal"
    ],
    "with a tag that is personal": [
      { id: Schema.String, email: Message.personal(Message.tag("email", Schema.String) as never, ofId) },
      "the tag \"email\" is personal"
    ],
    "with what nobody encrypts": [
      { id: Schema.String, email: Personal.schema(Schema.String) },
      "Personal.schema encrypts nothing"
    ],
    "with a personal field within a personal one": [
      { id: Schema.String, email: Message.personal(Schema.Struct({ email }), ofId) },
      "is part of another personal field"
    ],
    "that refers to itself": [{ tree }, "neither in a type that refers to itself"]
  }
  for (const [what, [fields, says]] of Object.entries(cases)) {
    it(`${what} is refused`, () => assert.throws(make(fields), TypeError, says))
  }

  class Nested extends Schema.TaggedClass<Nested>()("Nested", {
    ...Message.fields,
    id: Schema.BigInt,
    inner: Schema.Struct({ id: Schema.String, both: Schema.Tuple([Schema.Number, email]) }),
    record: Schema.Record(Schema.String, email)
  }) {}
  class Nests extends MessageStore.Service<Nests>()("test/Nests", {
    name: "nests",
    schema: Nested,
    typeField: "type",
    aliases: { Old: "Nested" }
  }) {}

  it.effect("has the innermost subject, tuples and records, and types of other names", () =>
    Effect.gen(function*() {
      const store = yield* Nests
      const message = new Nested({
        id: 7n,
        inner: { id: "inner", both: [1, Personal.known("a")] },
        record: { x: Personal.known("b") }
      })
      yield* store.write("s", message)
      const read = Effect.map(
        Stream.runCollect(store.read("s")),
        Arr.map(({ message: { inner, record } }) => [
          inner.both[1]._tag,
          record["x"]?._tag
        ])
      )
      assert.deepStrictEqual(yield* read, [["Known", "Known"]])
      yield* store.forget("inner")
      assert.deepStrictEqual(yield* read, [["Forgotten", "Known"]])
      yield* store.forget("7")
      assert.deepStrictEqual(yield* read, [["Forgotten", "Forgotten"]])
    }).pipe(Effect.provide(Layer.provide(Nests.layerMemory, encryption))))

  it.effect("may have what is not personal at the same place, which nobody takes for it", () => {
    class Reached extends Schema.TaggedClass<Reached>()("Reached", {
      ...Message.fields,
      id: Schema.String,
      by: Schema.Union([
        Schema.Struct({ kind: Schema.tag("mail"), address: email }),
        Schema.Struct({ kind: Schema.tag("web"), address: Schema.String })
      ]),
      pair: Schema.Tuple([email, Schema.String])
    }) {}
    class Reaches extends MessageStore.Service<Reaches>()("Reaches", { name: "r", schema: Reached }) {}
    class All extends AggregatedStream.Service<All>()("AllReaches", {
      store: Reaches,
      name: "r_all",
      patterns: "%",
      partitioner: ({ message: { by, pair } }) => by.kind === "web" ? by.address.length + pair[1].length : 0
    }) {}
    const reached = (by: Reached["by"], plain = "plain") =>
      new Reached({ id: "1", by, pair: [Personal.known("a"), plain] })
    const web = (address: string) => reached({ kind: "web", address })
    return Effect.gen(function*() {
      const [store, all] = [yield* Reaches, yield* All]
      const written = [reached({ kind: "mail", address: Personal.known("a@b") }), web("b.c")] as const
      yield* store.write("s", written)
      const read = yield* Stream.runCollect(store.read("s"))
      assert.isTrue(Equal.equals(read.map(({ message }) => message), written))
      // The projector is not stopped by a message that it would not decode.
      yield* all.projector.runOnce
      assert.deepStrictEqual((yield* all.partitions).map(({ partition }) => partition), [0, 8])
      // Nobody makes a message unreadable by what they write.
      const alike = "~personal:1:AAAA"
      for (const message of [web(alike), reached(written[1].by, alike)]) {
        const error = yield* Effect.flip(store.write("s", message))
        assert.isTrue(
          error._tag === "SerializationError" && error.reason.includes("begins with \"~personal:\""),
          `${error}`
        )
      }
      yield* store.write("s", reached({ kind: "mail", address: Personal.known(alike) }))
    }).pipe(Effect.provide(All.layer.pipe(Layer.provideMerge(Reaches.layerMemory), Layer.provide(encryption))))
  })

  it.effect("whose personal field is a partitioner's is refused, if types were no hindrance", () =>
    Effect.gen(function*() {
      const customers = yield* Customers
      for (const path of ["email", ["address", "street"], ["notes", "x"], ["email", "x"]]) {
        const error = yield* Effect.flip(customers.aggregatedStream({
          name: "by_email",
          patterns: "%",
          partitioner: Partitioner.field(path, 4) as never
        }))
        assert.deepInclude({ ...error }, { _tag: "InvalidArgumentError", argument: "path" })
      }
    }).pipe(Effect.provide(Layer.provide(Customers.layerMemory, encryption))))
})
