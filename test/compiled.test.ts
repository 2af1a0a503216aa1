/**
 * A compiled schema answers what the interpreted one answers: the same values and the same failures, for messages and for stored
 * data, sound and broken. What is compared was interpreted before the schema was compiled.
 */
import { assert, describe, it } from "@effect/vitest"
import {
  Arbitrary,
  Cause,
  DateTime,
  Effect,
  Equal,
  Layer,
  Option,
  Predicate,
  Result,
  Schema,
  type SchemaAST,
  SchemaGetter,
  SchemaIssue,
  Stream
} from "effect"
import { Message, MessageStore, Personal, Serializer } from "effect-message-store"
import { spawnSync } from "node:child_process"
import process from "node:process"
import * as MemoryStorage from "../src/memory/storage.ts"

const isEven = Schema.makeFilter((value: number) => value % 2 === 0, { expected: "an even number" })

class Line extends Schema.Class<Line>("Line")({
  product: Schema.NonEmptyString,
  price: Schema.BigInt,
  delivery: Schema.Option(Schema.DateTimeUtc)
}) {
  readonly made = "by the constructor"
}

class Placed extends Schema.TaggedClass<Placed>()("Placed", {
  ...Message.fields,
  customer: Message.tag("customer", Schema.String),
  lines: Schema.Array(Line),
  counts: Schema.Record(Schema.String, Schema.Int),
  note: Schema.optional(Schema.String),
  mark: Schema.optionalKey(Schema.NullOr(Schema.DateTimeUtc)),
  due: Schema.Date,
  seen: Schema.optionalKey(Schema.String).pipe(
    Schema.decodeTo(Schema.optionalKey(Schema.DateTimeUtc), {
      decode: SchemaGetter.transformOptional((text: Option.Option<string>) =>
        Option.some(DateTime.makeUnsafe(Option.getOrElse(text, () => "2020-01-01T00:00:00Z")))
      ),
      encode: SchemaGetter.transformOptional(Option.map(DateTime.formatIso))
    })
  ),
  rate: Schema.Finite.check(Schema.isBetween({ minimum: -1000, maximum: 1000 })),
  anything: Schema.Json
}) {}

class Moved extends Schema.TaggedClass<Moved>()("Moved", {
  ...Message.fields,
  path: Schema.Array(Schema.Tuple([Schema.Finite, Schema.optionalKey(Schema.Int)])),
  kind: Schema.Union([
    Schema.TaggedStruct("Car", { seats: Schema.Int.check(isEven) }),
    Schema.TaggedStruct("Bicycle", { bell: Schema.Boolean }),
    Schema.Struct({ feet: Schema.Literals([2, 4]) })
  ]),
  set: Schema.ReadonlySet(Schema.String),
  name: Schema.TemplateLiteral(["m-", Schema.Int]),
  unknown: Schema.Unknown,
  while: Schema.Struct({ from: Schema.DateTimeUtc, to: Schema.DateTimeUtc }).check(
    Schema.makeFilter(({ from, to }) => DateTime.isLessThanOrEqualTo(from, to), {
      expected: "an end behind the beginning"
    })
  ),
  nothing: Schema.Null
}) {}

/** What is absent in older data, or was named otherwise. */
class Defaulted extends Schema.TaggedClass<Defaulted>()("Defaulted", {
  ...Message.fields,
  count: Schema.Int.pipe(Schema.withDecodingDefaultKey(Effect.succeed(3))),
  since: Schema.DateTimeUtc.pipe(Schema.withDecodingDefaultKey(Effect.succeed(DateTime.makeUnsafe(0)))),
  address: Schema.Struct({ city: Schema.String, since: Schema.optional(Schema.DateTimeUtc) }).pipe(
    Schema.encodeKeys({ city: "town" })
  ),
  parts: Schema.NonEmptyArray(Schema.Struct({ at: Schema.DateTimeUtc, weight: Schema.BigInt }))
}) {}

class Registered extends Schema.TaggedClass<Registered>()("Registered", {
  ...Message.fields,
  customerId: Schema.String,
  email: Message.personal(Schema.NonEmptyString, { subject: "customerId" }),
  born: Schema.optionalKey(Message.personal(Schema.DateTimeUtc, { subject: "customerId" })),
  phones: Schema.Array(Schema.Struct({
    owner: Schema.Int,
    number: Message.personal(Schema.String, { subject: "owner" })
  }))
}) {}

interface Tree {
  readonly at: DateTime.Utc
  readonly value: number
  readonly branches: ReadonlyArray<Tree>
}
interface StoredTree {
  readonly at: DateTime.Utc
  readonly value: number
  readonly branches: ReadonlyArray<StoredTree>
}
const Tree: Schema.Codec<Tree, StoredTree> = Schema.Struct({
  at: Schema.DateTimeUtc,
  value: Schema.Int,
  branches: Schema.Array(Schema.suspend((): Schema.Codec<Tree, StoredTree> => Tree))
})
const Planted = Schema.TaggedStruct("Planted", { ...Message.fields, tree: Tree })

const today = Schema.Struct({ first: Schema.String, last: Schema.String })
const earlier = Schema.Struct({ name: Schema.String, at: Schema.DateTimeUtc }).pipe(Schema.decodeTo(today, {
  decode: SchemaGetter.transform(({ name }) => {
    const [first = "", last = ""] = name.split(" ")
    return { first, last }
  }),
  encode: SchemaGetter.transform(({ first, last }) => ({
    name: `${first} ${last}`,
    at: DateTime.makeUnsafe("2020-01-01T00:00:00Z")
  }))
}))
const Trimmed = Schema.String.pipe(Schema.decodeTo(Schema.String.check(Schema.isTrimmed()), {
  decode: SchemaGetter.transformEffect((text) =>
    text === "refused"
      ? Effect.fail(new SchemaIssue.InvalidValue({ message: "is refused" }, text))
      : Effect.succeed(text.trim())
  ),
  encode: SchemaGetter.transform((text) => ` ${text} `)
}))
class Renamed extends Schema.TaggedClass<Renamed>()("Renamed", {
  ...Message.fields,
  occurredAt: Message.fields.occurredAt.check(
    Schema.makeFilter((at) => DateTime.toEpochMillis(at) % 2 === 0, { expected: "an even millisecond" })
  ),
  person: Schema.Union([today, earlier]),
  text: Trimmed,
  id: Schema.String.pipe(Schema.brand("Id"))
}) {
  get initial(): string {
    return this.person.first.slice(0, 1)
  }
}

/** What takes its time, or is beside itself, cannot be stored: the serializer throws. */
class Waiting extends Schema.TaggedClass<Waiting>()("Waiting", {
  ...Message.fields,
  slow: Schema.String.pipe(Schema.decodeTo(Schema.String, {
    decode: SchemaGetter.transformEffect((text) =>
      text.length % 2 === 0 ? Effect.succeed(text) : Effect.delay(Effect.succeed(text), 1)
    ),
    encode: SchemaGetter.transform((text) => {
      if (text.length % 3 === 1) throw new Error("beside itself")
      return text
    })
  }))
}) {}

const schemas = {
  "a union of classes, tags, dates, options, records, tuples": Schema.Union([Placed, Moved]),
  "defaults, other names, structs with times in arrays": Defaulted,
  "personal fields": Schema.Union([Registered, Message.SubjectForgotten]),
  "a schema that refers to itself": Planted,
  "transformations, refinements, a time with a check": Renamed,
  "effects that take their time, and that throw": Waiting,
  "all of them in one union": Schema.Union([Placed, Moved, Defaulted, Registered, Planted, Renamed, Waiting])
}

type Outcome = { readonly ok: unknown } | { readonly failure: unknown; readonly text: string } | {
  readonly thrown: string
}

const outcomeOf = (evaluate: () => Result.Result<unknown, unknown>): Outcome => {
  try {
    const result = evaluate()
    return Result.isSuccess(result)
      ? { ok: result.success }
      : { failure: result.failure, text: String(result.failure) }
  } catch (error) {
    return { thrown: [String(error), ...causesOf(error)].join("\n") }
  }
}

const causesOf = (error: unknown): ReadonlyArray<string> =>
  error instanceof Error && error.cause !== undefined
    ? [Cause.isCause(error.cause) ? error.cause.reasons.map((reason) => reason._tag).join() : String(error.cause)]
    : []

/**
 * Where two values differ, and in what, prototypes included; undefined: nowhere. A parser of template literals makes functions of its
 * own, which are to say the same.
 */
const difference = (a: unknown, b: unknown, at = "", seen = new Set<unknown>()): string | undefined => {
  if (Object.is(a, b) || seen.has(a)) return undefined
  if (typeof a === "function" && typeof b === "function" && String(a) === String(b)) return undefined
  if (!Predicate.isObjectKeyword(a) || !Predicate.isObjectKeyword(b) || typeof a !== typeof b) {
    return `${at}: ${String(a)}, ${String(b)}`
  }
  seen.add(a)
  if (Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) return `${at}: of another class`
  if (a instanceof Date && b instanceof Date) return difference(a.getTime(), b.getTime(), at, seen)
  if (a instanceof Set && b instanceof Set) return difference([...a], [...b], at, seen)
  if (Personal.isPersonal(a)) return Equal.equals(a, b) ? undefined : `${at}: another personal value`
  const [keys, others] = [Reflect.ownKeys(a), Reflect.ownKeys(b)]
  if (keys.map(String).join() !== others.map(String).join()) return `${at}: other fields`
  for (const key of keys) {
    const found = difference(Reflect.get(a, key), Reflect.get(b, key), `${at}.${String(key)}`, seen)
    if (found !== undefined) return found
  }
  return undefined
}

/** Each value with one part of it replaced, or left out. */
const brokenData = (data: unknown): ReadonlyArray<unknown> => {
  const replacements = [null, 7, 7.5, "", "2026-13-01T00:00:00.000Z", "2026-02-30T10:00:00Z", [], {}, {
    _tag: "Placed"
  }, true]
  const parts = Array.isArray(data)
    ? data.flatMap((part, i) => brokenData(part).map((other) => data.with(i, other)))
    : Predicate.isObject(data)
    ? Object.keys(data).flatMap((key) => {
      const { [key]: part, ...rest } = data as Readonly<Record<string, unknown>>
      return [rest, ...brokenData(part).map((other) => ({ ...rest, [key]: other }))]
    })
    : []
  return [...replacements, ...Predicate.isObject(data) ? [{ ...data, more: 1 }] : [], ...parts]
}

/** Messages as callers have them who have got around the types. */
const brokenMessages = (message: unknown): ReadonlyArray<unknown> =>
  Predicate.isObject(message)
    ? [
      { ...message },
      ...Object.keys(message).flatMap((key) =>
        [
          undefined,
          null,
          "text",
          1,
          new Date(NaN),
          new Date(0),
          DateTime.makeZonedUnsafe(0, { timeZone: "Europe/Berlin" })
        ].map((other) => Object.assign(Object.create(Object.getPrototypeOf(message)), message, { [key]: other }))
      )
    ]
    : []

const some = <A>(values: ReadonlyArray<A>, count: number): ReadonlyArray<A> => {
  const step = Math.max(1, Math.ceil(values.length / count))
  return values.filter((_, i) => i % step === 0)
}

/** Its constructor is not to ask the clock. */
const hasTime = (message: unknown): boolean =>
  Predicate.hasProperty(message, "occurredAt") && message.occurredAt !== undefined

/** What applications ask of their schemas, beside their stores. */
const parseOptions: ReadonlyArray<SchemaAST.ParseOptions> = [
  { errors: "all" },
  { onExcessProperty: "error" },
  { disableChecks: true }
]

const asked = (
  schema: Serializer.MessageSchema,
  options: Serializer.SchemaSerializerOptions,
  messages: ReadonlyArray<unknown>,
  stored: ReadonlyArray<Schema.Json>
) => {
  const { deserialize, serialize } = Serializer.fromSchema(schema, options)
  const codec = Schema.toCodecJson(schema as Schema.Codec<unknown>)
  const [encode, decode] = [Schema.encodeUnknownResult(codec), Schema.decodeUnknownResult(codec)]
  return {
    encoded: messages.map((message) => outcomeOf(() => serialize(message))),
    decoded: stored.map((data) => outcomeOf(() => deserialize(data))),
    asAsked: parseOptions.flatMap((how) => [
      ...some(messages, 40).map((message) => outcomeOf(() => encode(message, how))),
      ...some(stored, 80).map((data) => outcomeOf(() => decode(data, how)))
    ]),
    constructed: some(messages.filter(hasTime), 40).map((message) =>
      outcomeOf(() => Result.succeed(Object.keys(new (Object(message).constructor)({ ...Object(message) }))))
    )
  }
}

/** What is asked, and what is answered while all is interpreted. */
const record = (name: string, schema: Serializer.MessageSchema, options: Serializer.SchemaSerializerOptions) => {
  const { serialize } = Serializer.fromSchema(schema, options)
  const sampled = Effect.runSync(
    Arbitrary.sampleEffect(Arbitrary.schema(Schema.toType(schema)), { count: 12, seed: 17 })
  )
  const messages = sampled.flatMap((message, i) => [message, ...some(brokenMessages(message), i < 2 ? Infinity : 12)])
  const sound = sampled.flatMap((message) => {
    const outcome = outcomeOf(() => serialize(message))
    return "ok" in outcome ? [JSON.parse(JSON.stringify(outcome.ok))] : []
  })
  const stored: ReadonlyArray<Schema.Json> = [
    ...sound,
    ...some(sound, 8).flatMap((data, i) => some(brokenData(data), i < 2 ? 300 : 40)),
    ...some(sound, 5).map((data) => ({ ...data, _tag: "Ordered", type: "Ordered" }))
  ]
  return { name, schema, options, messages, stored, answers: asked(schema, options, messages, stored) }
}

// All of it before anything is compiled: the schemas share their parts.
const recorded = Object.entries(schemas).flatMap(([name, schema]) => [
  record(name, schema, {}),
  record(`${name}, types named otherwise`, schema, { typeField: "type", aliases: { Ordered: "Placed" } })
])

describe("a compiled schema answers as the interpreted one", () => {
  it.effect("which it is where the store says so", () =>
    Effect.gen(function*() {
      const made: Array<string> = []
      const { Function: original } = globalThis
      const counting = new Proxy(original, {
        apply: (target, self, [...args]: Array<string>) => {
          made.push(args.at(-1) ?? "")
          return Reflect.apply(target, self, args)
        }
      })
      const open = (compile: boolean) =>
        Effect.gen(function*() {
          class Opened extends Schema.TaggedClass<Opened>()("Opened", { ...Message.fields, by: Schema.String }) {}
          class Doors extends MessageStore.Service<Doors>()("test/Doors", { name: "doors", schema: Opened, compile }) {}
          const layer = Layer.provide(Doors.layerStorage, MemoryStorage.layer)
          const [stored] = yield* Effect.gen(function*() {
            const doors = yield* Doors
            yield* doors.write("door", new Opened({ by: "me" }))
            return yield* Stream.runCollect(doors.read("door"))
          }).pipe(Effect.provide(layer))
          assert.strictEqual(stored?.message.by, "me")
          return made.splice(0).filter((text) => text !== "return true").length
        })
      yield* Effect.acquireUseRelease(
        Effect.sync(() => {
          globalThis.Function = counting
        }),
        () =>
          Effect.gen(function*() {
            assert.strictEqual(yield* open(false), 0)
            assert.isAbove(yield* open(true), 1)
          }),
        () =>
          Effect.sync(() => {
            globalThis.Function = original
          })
      )
    }))

  it.effect("each part of it once, however often others are made of it", () =>
    Effect.gen(function*() {
      let visits = 0
      let nested: Schema.Codec<unknown, unknown> = Schema.DateTimeUtc
      for (let i = 0; i < 6; i++) {
        const inner = nested
        class Nested
          extends Schema.Class<Nested>(`Nested${i}`)({ first: inner, second: inner, at: Schema.DateTimeUtc })
        {}
        nested = Nested
      }
      const counted = Schema.toCodecJson(nested).ast
      for (let ast: SchemaAST.AST | undefined = counted; ast !== undefined;) {
        const fields: SchemaAST.AST | undefined = ast.encoding?.[0]?.to
        if (fields === undefined || fields._tag !== "Objects") break
        const propertySignatures: SchemaAST.Objects["propertySignatures"] = fields.propertySignatures
        Object.defineProperty(fields, "propertySignatures", {
          get: () => {
            visits++
            return propertySignatures
          }
        })
        ast = propertySignatures[0]?.type
      }
      yield* Serializer.compile(nested)
      assert.isAbove(visits, 6)
      assert.isBelow(visits, 100)
    }))

  for (const { answers, messages, name, options, schema, stored } of recorded) {
    it.effect(name, () =>
      Effect.gen(function*() {
        yield* Serializer.compile(schema)
        const compiled = asked(schema, options, messages, stored)
        for (const [kind, outcomes] of Object.entries(answers)) {
          for (const [i, outcome] of Object.values(compiled[kind as keyof typeof answers]).entries()) {
            assert.isUndefined(difference(outcome, outcomes[i]))
          }
        }
        for (const outcomes of [answers.encoded, answers.decoded]) {
          const sound = outcomes.filter((outcome) => "ok" in outcome).length
          assert.isAbove(sound, 5)
          assert.isAbove(outcomes.length - sound, 5)
        }
      }))
  }

  it("in a process that may not make code of text, too", () => {
    const program = `
      import { Effect, Layer, Schema, Stream } from "effect"
      import { Message, MessageStore, Personal, Serializer } from "effect-message-store"
      class Opened extends Schema.TaggedClass()("Opened", { ...Message.fields, by: Schema.NonEmptyString }) {}
      await Effect.runPromise(Serializer.compile(Opened))
      const { deserialize, serialize } = Serializer.fromSchema(Opened)
      const data = serialize(new Opened({ by: "me" })).success
      const refused = deserialize({ ...data, by: "" }).failure
      let made = true
      try { new Function("return 1")() } catch { made = false }
      console.log(JSON.stringify([made, deserialize(data).success instanceof Opened, String(refused)]))`
    const options = ["--disallow-code-generation-from-strings", "--conditions=@effect-message-store/source"]
    const { stderr, stdout } = spawnSync(process.execPath, [...options, "--input-type=module", "--eval", program], {
      cwd: import.meta.dirname,
      encoding: "utf8"
    })
    assert.strictEqual(stderr, "")
    const [made, isOpened, refused] = JSON.parse(stdout)
    assert.deepStrictEqual([made, isOpened], [false, true])
    assert.match(refused, /length|empty|at least/)
  })
})
