/** Snapshots of folds on tags. */
import { assert } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Latch, Random, Schema, Stream } from "effect"
import * as Decision from "../../Decision.ts"
import * as Fold from "../../Fold.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import { Storage } from "../../Storage.ts"
import { newStream, type Part } from "../fixture.ts"
import { truncate } from "../truncate.ts"
import { onStore } from "./foldFixture.ts"

class Said extends Schema.TaggedClass<Said>()("Said", {
  ...Message.fields,
  word: Schema.Int,
  about: Message.tag("about", Schema.Array(Schema.String)),
  also: Message.tag("also", Schema.Array(Schema.String))
}) {}
class Sighed extends Schema.TaggedClass<Sighed>()("Sighed", {
  ...Message.fields,
  about: Message.tag("about", Schema.Array(Schema.String)),
  also: Message.tag("also", Schema.Array(Schema.String))
}) {}

const options = { name: "contract", schema: Schema.Union([Said, Sighed]) } as const

class Talks extends MessageStore.Service<Talks>()("effect-message-store/testing/Talks", options) {}
class Forgotten extends MessageStore.Service<Forgotten>()("effect-message-store/testing/Forgotten", {
  ...options,
  cachedStates: 0
}) {}
/** A message of another application, that uses the same tag. */
class Shouted extends Schema.TaggedClass<Shouted>()("Shouted", {
  ...Message.fields,
  about: Message.tag("about", Schema.Array(Schema.String))
}) {}
class Strangers extends MessageStore.Service<Strangers>()("effect-message-store/testing/Strangers", {
  name: "contract",
  schema: Shouted
}) {}

type Store = MessageStore.MessageStore<Said | Sighed>

/** All words in their order; and how often it was evolved. */
const words = (every = 1) => {
  const calls = { evolved: 0 }
  const fold = Fold.withSnapshot(
    Fold.make<Said | Sighed>()({
      initial: [] as ReadonlyArray<number>,
      Said: (said, { word }) => {
        calls.evolved++
        return [...said, word]
      }
    }),
    { name: "words", schema: Schema.Array(Schema.Int), every }
  )
  return { calls, fold }
}

interface OnOne {
  <A, E>(use: (store: Store) => Effect.Effect<A, E>): Effect.Effect<A, E, Storage>
}
const onForgotten: OnOne = (use) => onStore(Forgotten, use)
const onTalks: OnOne = (use) => onStore(Talks, use)

type Tags = Arr.NonEmptyReadonlyArray<Message.Tags>

/** What was said about something, as a decision sees it. */
const heard = Effect.fnUntraced(
  function*(store: Store, tags: Tags, fold: Fold.Fold<ReadonlyArray<number>, Said | Sighed>) {
    let state: ReadonlyArray<number> = []
    yield* store.decide({ said: Decision.tagged(tags, fold) }, ({ said }) => {
      state = said
      return []
    })
    return state
  }
)

/** The same, read. */
const read = (store: Store, tags: Tags) =>
  Effect.map(
    Stream.runCollect(store.readTagged(tags, { types: ["Said"] })),
    (all) => all.map(({ message }) => message.word)
  )

const say = (store: Store, word: number, ...about: ReadonlyArray<string>) =>
  store.write(newStream(), new Said({ word, about, also: about }))

const newTag = () => `t-${globalThis.crypto.randomUUID()}`

/** Writes in a transaction that stays open until it is told to commit. */
const sayLate = Effect.fnUntraced(function*(store: Store, word: number, ...about: ReadonlyArray<string>) {
  const written = yield* Deferred.make<void>()
  const commit = yield* Latch.make()
  const fiber = yield* Effect.forkChild(
    store.withTransaction(Effect.gen(function*() {
      yield* say(store, word, ...about)
      yield* Deferred.succeed(written, undefined)
      yield* commit.await
    }))
  )
  yield* Deferred.await(written)
  return Effect.andThen(commit.open, Fiber.join(fiber))
})

export const taggedSnapshots: Part = (it, { concurrentTransactions }) => {
  it.effect("begin a decision: only what was added is folded", () =>
    Effect.gen(function*() {
      const [a, b] = [newTag(), newTag()]
      const { calls, fold } = words()
      yield* onTalks((store) =>
        Effect.gen(function*() {
          for (let word = 0; word < 8; word++) yield* say(store, word, a, ...word % 2 === 0 ? [b] : [])
          yield* store.write(newStream(), new Sighed({ about: [a, b], also: [a] }))
        })
      )
      const queries: ReadonlyArray<Tags> = [[{ about: a }], [{ about: b, also: a }], [{ about: a }, { about: b }]]
      for (const tags of queries) {
        const evolved: Array<number> = []
        const step = (change: (store: Store) => Effect.Effect<unknown, unknown>) =>
          Effect.gen(function*() {
            calls.evolved = 0
            yield* onForgotten((store) =>
              Effect.gen(function*() {
                yield* change(store)
                const state = yield* heard(store, tags, fold)
                evolved.push(calls.evolved)
                assert.deepStrictEqual(state, yield* read(store, tags))
              })
            )
          })
        yield* step(() => Effect.void)
        yield* step(() => Effect.void)
        // What is of another type moves the ends, and is not folded.
        yield* step((store) => store.write(newStream(), new Sighed({ about: [b, a], also: [a] })))
        yield* step((store) => say(store, 100, b, a))
        yield* step(() => Effect.void)
        const [first, ...others] = evolved
        assert.isAbove(first ?? 0, 3)
        assert.deepStrictEqual(others, [0, 0, 1, 0])
      }
    }))

  it.effect("are remembered, and read on", () =>
    Effect.gen(function*() {
      const [a, b] = [newTag(), newTag()]
      const { calls, fold } = words(1000)
      yield* onTalks((store) =>
        Effect.gen(function*() {
          for (let word = 0; word < 5; word++) {
            yield* say(store, word, a)
            calls.evolved = 0
            assert.deepStrictEqual(yield* heard(store, [{ about: a }, { about: b }], fold), Arr.range(0, word))
            assert.strictEqual(calls.evolved, 1)
          }
          yield* truncate(store)
          for (let word = 10; word < 16; word++) yield* say(store, word, a)
          assert.deepStrictEqual(yield* heard(store, [{ about: a }, { about: b }], fold), Arr.range(10, 15))
          yield* truncate(store)
          assert.deepStrictEqual(yield* heard(store, [{ about: a }, { about: b }], fold), [])
        })
      )
    }))

  it.effect("stand where another application's message of the tag is the last", () =>
    Effect.gen(function*() {
      const a = newTag()
      const { fold } = words()
      const storage = yield* Storage
      const shout = Effect.provideService(
        onStore(Strangers, (strangers) => strangers.write(newStream(), new Shouted({ about: [a] }))),
        Storage,
        storage
      )
      for (const onOne of [onForgotten, onTalks]) {
        yield* onOne((store) =>
          Effect.gen(function*() {
            yield* say(store, 1, a)
            yield* shout
            const before = yield* heard(store, [{ about: a }], fold)
            yield* say(store, 2, a)
            assert.deepStrictEqual(yield* heard(store, [{ about: a }], fold), [...before, 2])
          })
        )
      }
    }))

  it.effect("tell apart the queries, and what their types are tagged with", () =>
    Effect.gen(function*() {
      const [a, b] = [newTag(), newTag()]
      const { fold } = words()
      const state = (...tags: Tags) => onForgotten((store) => heard(store, tags, fold))
      yield* onTalks((store) => Effect.andThen(say(store, 1, a), say(store, 2, a, b)))
      for (let round = 0; round < 2; round++) {
        assert.deepStrictEqual(yield* state({ about: a }), [1, 2])
        assert.deepStrictEqual(yield* state({ about: b }), [2])
        assert.deepStrictEqual(yield* state({ about: b, also: a }), [2])
        assert.deepStrictEqual(yield* state({ about: b }, { about: a }), [1, 2])
        // A message of two tags is not folded once for each of them.
        yield* onTalks((store) =>
          Effect.andThen(say(store, 3, newTag()), heard(store, [{ about: a }, { about: b }], fold))
        )
      }
    }))

  if (!concurrentTransactions) return

  it.effect("keep the order of positions when a message is committed late, below what was folded", () =>
    Effect.gen(function*() {
      const [a, b] = [newTag(), newTag()]
      const tags: Tags = [{ about: a }, { about: b }]
      for (const onOne of [onForgotten, onTalks]) {
        const { calls, fold } = words()
        const step = (change: (store: Store) => Effect.Effect<unknown, unknown>) =>
          onOne((store) =>
            Effect.gen(function*() {
              yield* change(store)
              calls.evolved = 0
              return [yield* heard(store, tags, fold), calls.evolved]
            })
          )
        yield* onOne((store) =>
          Effect.gen(function*() {
            const commit = yield* sayLate(store, 1, b)
            yield* say(store, 2, a)
            assert.deepStrictEqual(yield* heard(store, tags, fold), [2])
            yield* commit
            // Remembered, and in the store: both stand too high.
            assert.deepStrictEqual(yield* heard(store, tags, fold), [1, 2])
          })
        )
        assert.deepStrictEqual(yield* step(() => Effect.void), [[1, 2], 0])
        assert.deepStrictEqual(yield* step((store) => say(store, 3, b, a)), [[1, 2, 3], 1])
        yield* onOne(truncate)
      }
    }))

  it.effect("are what all messages come to, whatever is committed when", () =>
    Effect.gen(function*() {
      const [a, b, c] = [newTag(), newTag(), newTag()]
      const all = [a, b, c]
      const asked: ReadonlyArray<Tags> = [
        [{ about: a }],
        [{ about: b, also: a }],
        [{ about: a }, { about: b }],
        [{ about: c }, { about: b, also: a }, { about: b }]
      ]
      const folds = asked.map(() => words(2))
      let full = 0
      const check = (store: Store) =>
        Effect.forEach(asked, (tags, i) =>
          Effect.gen(function*() {
            const { fold } = folds[i] ?? words()
            const expected = yield* read(store, tags)
            full += expected.length
            assert.deepStrictEqual(yield* heard(store, tags, fold), expected)
          }))
      for (let round = 0; round < 12; round++) {
        yield* (round % 2 === 0 ? onTalks : onForgotten)((store) =>
          Effect.gen(function*() {
            const some = Effect.map(Random.nextIntBetween(1, 8), (bits) => all.filter((_, i) => (bits & 2 ** i) > 0))
            const held = yield* some
            const commit = yield* sayLate(store, round * 10, ...held)
            const free = all.filter((tag) => !held.includes(tag))
            for (let i = 1; i < 4; i++) {
              const about = (yield* some).filter((tag) => free.includes(tag))
              yield* say(store, round * 10 + i, ...about)
              yield* check(store)
            }
            yield* commit
            yield* check(store)
          })
        )
      }
      const evolved = folds.reduce((sum, { calls }) => sum + calls.evolved, 0)
      assert.isBelow(evolved, full / 2)
    }))
}
