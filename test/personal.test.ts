/** Personal values: what they print, what a schema may declare, how long they are known, and wrapping keys. */
import { assert, describe, expect, it } from "@effect/vitest"
import {
  Array as Arr,
  Cause,
  Config,
  ConfigProvider,
  Effect,
  Equal,
  Fiber,
  Formatter,
  Hash,
  Latch,
  Layer,
  Logger,
  Option,
  Redacted,
  References,
  Schema,
  Stream
} from "effect"
import {
  AggregatedStream,
  Archive,
  Fold,
  KeyEncryption,
  Message,
  MessageStore,
  Partitioner,
  Personal,
  PersonalDataError,
  Storage,
  SubjectKeys
} from "effect-message-store"
import { TestClock } from "effect/testing"
import * as nodeAssert from "node:assert"
import { inspect } from "node:util"
import * as MemoryStorage from "../src/memory/storage.ts"
import { gathering } from "../src/personal/gathering.ts"
import { toFailure } from "../src/subscription/failure.ts"
import {
  canary,
  type CustomerEvent,
  Customers,
  emailsOf,
  encryption,
  onCustomers,
  Renamed,
  renamed,
  wrappingKeys
} from "../src/testing/messageStore/personalFixture.ts"

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

describe("what a process holds", () => {
  it.effect("of a subject that another process forgets is gone within the time that it may be held", () =>
    Effect.gen(function*() {
      yield* onCustomers(Customers, (other) =>
        onCustomers(Customers, (customers) =>
          Effect.gen(function*() {
            const fold = Fold.withSnapshot(
              Fold.make<CustomerEvent>()({
                initial: [] as ReadonlyArray<Personal.Personal<string>>,
                EmailChanged: (sofar, message) => [...sofar, message.email]
              }),
              { name: "emails", schema: Schema.Array(Personal.schema(Schema.String)), every: 1000 }
            )
            let seen: unknown
            // A decision that writes, and so may be made on what is remembered.
            const decide = customers.update("s", fold, ([first]) => {
              seen = first?._tag
              return renamed("c2")
            })
            yield* customers.write("s", renamed("c1"))
            yield* decide
            yield* other.forget("c1")
            yield* decide
            assert.strictEqual(seen, "Known")
            assert.strictEqual((yield* emailsOf(customers, "s"))[0], canary)
            assert.strictEqual((yield* emailsOf(other, "s"))[0], null)
            // However often it is used meanwhile.
            for (let second = 0; second < 59; second += 10) {
              yield* TestClock.adjust("10 seconds")
              yield* decide
              yield* emailsOf(customers, "s")
            }
            yield* TestClock.adjust("1 second")
            assert.strictEqual((yield* emailsOf(customers, "s"))[0], null)
            yield* decide
            assert.strictEqual(seen, "Forgotten")
          })))
    }).pipe(Effect.provide(MemoryStorage.layer)))

  class Few extends MessageStore.Service<Few>()("test/Few", {
    name: "few",
    schema: Renamed,
    personal: { cachedKeys: 2 }
  }) {}

  it.effect("of states is not logged, whatever their schema says of those that it refuses", () =>
    Effect.gen(function*() {
      let refuses = false
      const logged: Array<unknown> = []
      const logger = Logger.make(({ cause, message }) => logged.push(message, cause))
      const Email = Schema.String.check(Schema.makeFilter((text) => refuses ? `${text} is refused` : undefined))
      const emails = Fold.withSnapshot(
        Fold.make<CustomerEvent>()({
          initial: "",
          EmailChanged: (_, { email: given }) => Personal.getOrElse(given, () => "")
        }),
        { name: "emails", schema: Email, every: 1 }
      )
      const updated = (times: number) =>
        onCustomers(Customers, (customers) => {
          const update = customers.update("s", emails, () => renamed("c"))
          return Effect.forEach(Arr.range(1, times), () => update)
        })
      yield* updated(3)
      refuses = true
      yield* updated(1).pipe(
        Effect.provide(Logger.layer([logger])),
        Effect.provideService(References.MinimumLogLevel, "All")
      )
      const text = inspect(logged, { depth: 9 })
      assert.include(text, "was not saved")
      assert.notInclude(text, canary)
    }).pipe(Effect.provide(MemoryStorage.layer)))

  it.effect("is as many keys as it may be", () =>
    Effect.gen(function*() {
      const storage = yield* Storage.Storage
      const asked: Array<number> = []
      const counting = Layer.succeed(Storage.Storage, {
        ...storage,
        subjectKeys: {
          ...storage.subjectKeys,
          get: (ids) => Effect.andThen(Effect.sync(() => asked.push(ids.length)), storage.subjectKeys.get(ids))
        }
      })
      yield* Effect.gen(function*() {
        const few = yield* Few
        const subjects = ["c1", "c2", "c3"]
        for (const subject of subjects) yield* few.write(subject, renamed(subject))
        // The one that was found first makes room.
        for (const subject of ["c3", "c2", "c1", "c1", "c3", "c2"]) yield* emailsOf(few as never, subject)
        assert.deepStrictEqual(asked, [1, 1])
      }).pipe(Effect.provide(Layer.provide(Few.layerStorage, [counting, encryption])))
    }).pipe(Effect.provide(MemoryStorage.layer)))

  it("has bounds that are checked", () => {
    for (
      const personal of [{ cachedKeys: 0 }, { cacheTime: 0 }, { cacheTime: "Infinity" as never }, {
        whenForgotten: "x" as never
      }]
    ) {
      assert.throws(() => MessageStore.Service<Few>()("test/Bounds", { name: "bounds", schema: Renamed, personal }))
    }
  })
})

describe("keys", () => {
  it.effect("are looked up together, whoever of those who wait is interrupted", () =>
    Effect.gen(function*() {
      const asked: Array<ReadonlyArray<string>> = []
      const [isAway, answer] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
      const ask = gathering((names) => {
        asked.push(names)
        return names.includes("fails")
          ? Effect.fail(names)
          : isAway.open.pipe(Effect.andThen(answer.await), Effect.as(names))
      })
      const first = yield* Effect.forkChild(ask(["a"]))
      yield* isAway.await
      const others = yield* Effect.forEach([["b", "c"], ["c"], ["d"]], (names) => Effect.forkChild(ask(names)))
      yield* Effect.yieldNow
      yield* Fiber.interrupt(first)
      yield* Effect.forEach(others.slice(2), Fiber.interrupt)
      yield* answer.open
      const all = ["b", "c", "d"]
      assert.deepStrictEqual(yield* Effect.forEach(others.slice(0, 2), Fiber.join), [all, all])
      assert.deepStrictEqual(asked, [["a"], all])
      // A failure is that of its question, and of no other.
      assert.deepStrictEqual(yield* Effect.flip(ask(["fails"])), ["fails"])
      assert.deepStrictEqual(yield* ask(["e"]), ["e"])
    }))

  it.effect("may be kept elsewhere, for several stores in one place", () =>
    Effect.gen(function*() {
      const elsewhere = (yield* Storage.Storage).subjectKeys
      const keys = Layer.succeed(SubjectKeys.SubjectKeys, elsewhere)
      const layer = Layer.provide(Layer.fresh(Customers.layerMemory), [encryption, keys])
      const one = yield* Effect.provide(Customers, yield* Layer.build(layer))
      const other = yield* Effect.provide(Customers, yield* Layer.build(layer))
      yield* one.write("s", renamed("c1"))
      yield* other.write("s", renamed("c1"))
      assert.strictEqual((yield* elsewhere.current(["c1"])).length, 1)
      yield* one.forget("c1")
      assert.deepStrictEqual(yield* emailsOf(one, "s"), [null])
      assert.strictEqual((yield* elsewhere.current(["c1"]))[0]?.wrapped, undefined)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* emailsOf(other, "s"), [null])
    }).pipe(Effect.provide(MemoryStorage.layer), Effect.scoped))

  it.effect("are given up where what keeps them elsewhere does not keep them", () =>
    Effect.gen(function*() {
      const keys = (yield* Storage.Storage).subjectKeys
      const forgetful = Layer.succeed(SubjectKeys.SubjectKeys, { ...keys, add: () => Effect.void })
      const layer = Layer.provide(Layer.fresh(Customers.layerMemory), [encryption, forgetful])
      const store = yield* Effect.provide(Customers, yield* Layer.build(layer))
      const error = yield* Effect.flip(store.write("s", renamed("c1")))
      assert.isTrue(error._tag === "SerializationError" && error.cause instanceof PersonalDataError)
      assert.include(inspect(error.cause), "does not give, as `current`, the keys that were added to it")
    }).pipe(Effect.provide(MemoryStorage.layer), Effect.scoped))

  it.effect("are not in archives, which are forgotten with the rest wherever they are imported", () =>
    Effect.gen(function*() {
      const keys = Layer.succeed(SubjectKeys.SubjectKeys, (yield* Storage.Storage).subjectKeys)
      const layer = Layer.provide(Layer.fresh(Customers.layerMemory), [encryption, keys])
      const opened = Effect.flatMap(Layer.build(layer), (context) => Effect.provide(Customers, context))
      const [one, elsewhere, later] = [yield* opened, yield* opened, yield* opened]
      yield* one.write("s", [renamed("c1"), renamed("c2", "other")])
      const archive = yield* Stream.runCollect(Archive.of(one).export())
      assert.include(archive.join(""), "~personal:1:")
      assert.notInclude(archive.join(""), canary)
      yield* Stream.runDrain(Archive.of(elsewhere).import(Stream.fromIterable(archive)))
      assert.deepStrictEqual(yield* emailsOf(elsewhere, "s"), [canary, "other"])
      yield* one.forget("c1")
      yield* Stream.runDrain(Archive.of(later).import(Stream.fromIterable(archive)))
      assert.deepStrictEqual(yield* emailsOf(later, "s"), [null, "other"])
    }).pipe(Effect.provide(MemoryStorage.layer), Effect.scoped))

  it.effect("are for subjects that can be forgotten", () =>
    Effect.gen(function*() {
      const customers = yield* Customers
      const longest = "c".repeat(255)
      yield* customers.write("s", renamed(longest))
      const error = yield* Effect.flip(customers.write("s", renamed(`${longest}c`)))
      assert.include(String(error), "a string of 1 to 255 characters")
      yield* customers.forget(longest)
      assert.deepStrictEqual(yield* emailsOf(customers, "s"), [null])
    }).pipe(Effect.provide(Layer.provide(Customers.layerMemory, encryption))))

  it.effect("that are forgotten are not held, however long whoever wraps the next one takes", () =>
    Effect.gen(function*() {
      const real = yield* KeyEncryption.KeyEncryption
      const [isStuck, wraps] = [yield* Latch.make(false), yield* Latch.make(true)]
      const slow = Layer.succeed(KeyEncryption.KeyEncryption, {
        ...real,
        wrap: (...given) => Effect.andThen(Effect.andThen(isStuck.open, wraps.await), real.wrap(...given))
      })
      yield* Effect.gen(function*() {
        const customers = yield* Customers
        yield* customers.write("s", renamed("c"))
        assert.deepStrictEqual(yield* emailsOf(customers, "s"), [canary])
        yield* wraps.close
        yield* isStuck.close
        const forgetting = yield* Effect.forkChild(customers.forget("c"))
        yield* isStuck.await
        const held = yield* emailsOf(customers, "s")
        // Nobody has to wait for it.
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(forgetting))
        yield* Effect.forEach(Arr.range(1, 20), () => Effect.yieldNow, { discard: true })
        const isOver = interrupting.pollUnsafe() !== undefined
        yield* wraps.open
        yield* Fiber.join(interrupting)
        assert.deepStrictEqual(held, [null])
        assert.isTrue(isOver)
      }).pipe(Effect.provide(Layer.provide(Customers.layerMemory, slow)))
    }).pipe(Effect.provide(encryption)))

  it.effect("that wrap are read from the configuration, and are told nobody", () =>
    Effect.gen(function*() {
      const given = (text: string) =>
        Effect.provide(
          KeyEncryption.KeyEncryption,
          KeyEncryption.layerConfig(Config.Redacted("KEYS")).pipe(
            Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ KEYS: text })))
          )
        )
      const text = Redacted.value(wrappingKeys("k1", "k2"))
      const encrypting = yield* given(text)
      assert.strictEqual(encrypting.keyId, "k1")
      const bytes = new Uint8Array(32)
      const wrapped = yield* encrypting.wrap(bytes, "a")
      assert.deepStrictEqual(yield* encrypting.unwrap(wrapped, "a"), bytes)
      assert.notDeepEqual(yield* encrypting.wrap(bytes, "a"), wrapped)
      for (const refused of [encrypting.unwrap(wrapped, "b"), encrypting.unwrap({ ...wrapped, data: "?" }, "a")]) {
        assert.deepInclude({ ...(yield* Effect.flip(refused)) }, { reason: "wrappingKey", keyId: "k1" })
      }
      const generated = yield* KeyEncryption.generate("k3")
      assert.strictEqual((yield* given(`${Redacted.value(generated)},${text}`)).keyId, "k3")
      for (const wrong of [" ", "k1", "k1:", "k1:AAAA", `k1:${canary}`, `${text},${text}`, `k 1:${text.slice(3)}`]) {
        const error = yield* Effect.flip(given(wrong))
        assert.strictEqual(error._tag, "InvalidArgumentError", wrong)
        for (const secret of [canary, text.slice(3, 40)]) assert.notInclude(inspect(error, { depth: 9 }), secret)
      }
      assert.strictEqual(
        (yield* Effect.flip(Effect.provide(
          KeyEncryption.KeyEncryption,
          KeyEncryption.layerConfig(Config.Redacted("OTHER")).pipe(
            Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({})))
          )
        )))._tag,
        "ConfigError"
      )
    }))
})
