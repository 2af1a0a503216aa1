/** The keys of personal data: how long they are known, how they are looked up, where they are kept, and what wraps them. */
import { assert, describe, it } from "@effect/vitest"
import {
  Array as Arr,
  Config,
  ConfigProvider,
  Effect,
  Fiber,
  Latch,
  Layer,
  Logger,
  Redacted,
  References,
  Schema,
  Stream
} from "effect"
import {
  Archive,
  Fold,
  KeyEncryption,
  MessageStore,
  Personal,
  PersonalDataError,
  Storage,
  SubjectKeys
} from "effect-message-store"
import { SubjectKeysContract } from "effect-message-store/testing"
import { TestClock } from "effect/testing"
import { inspect } from "node:util"
import * as MemoryStorage from "../src/memory/storage.ts"
import { gathering } from "../src/personal/gathering.ts"
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

SubjectKeysContract.suite(
  "a service of one's own",
  Layer.effect(SubjectKeys.SubjectKeys, Effect.map(Storage.Storage, ({ subjectKeys }) => subjectKeys)).pipe(
    Layer.provide(MemoryStorage.layer)
  )
)

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
