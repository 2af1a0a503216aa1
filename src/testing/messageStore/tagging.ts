/** Tags that are declared when messages of their types are stored already, and other builds go on writing them. */
import { assert } from "@effect/vitest"
import {
  Array as Arr,
  DateTime,
  Deferred,
  Effect,
  Fiber,
  Layer,
  Option,
  Schema,
  SchemaTransformation,
  Stream
} from "effect"
import * as Decision from "../../Decision.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import { Storage } from "../../Storage.ts"
import { failsWith, newStream, onClock, outsider, type Part } from "../fixture.ts"
import { newValue } from "./tags.ts"

let types = 0

/** A build of an application, with whatever schema, on the storage of the contract. */
const build = Effect.fnUntraced(
  function*<A extends Message.Identified>(
    schema: MessageStore.MessageOptions<A>["schema"],
    aliases: Readonly<Record<string, string>> = {}
  ) {
    class Build extends MessageStore.Service<Build>()(`effect-message-store/testing/Build${++types}`, {
      name: "contract",
      schema: schema as Schema.Codec<A, unknown>,
      aliases,
      id: (message: A) => message.messageId,
      time: (message: A) => message.occurredAt
    }) {}
    const storage = yield* Storage
    const layer = Layer.fresh(Layer.provide(Build.layerStorage, Layer.succeed(Storage, storage)))
    return yield* Effect.provide(Build, yield* Layer.build(layer))
  }
)

/** Opens a store on a clock that goes twenty times as fast: as long as transactions keep it waiting, that is 0.1 seconds. */
const impatiently = onClock((clock) => ({ currentTimeMillisUnsafe: () => 20 * clock.currentTimeMillisUnsafe() }))

/** A type of messages that no other test uses: as it was, and with a tag. */
const newType = () => {
  const type = `Joined${++types}`
  const fields = { ...Message.fields, _tag: Schema.tag(type) }
  return {
    type,
    before: Schema.Struct({ ...fields, club: Schema.String }),
    after: Schema.Struct({ ...fields, club: Message.tag("club", Schema.String) })
  }
}

const count = { initial: 0, evolve: (sofar: number) => sofar + 1 }

const found = <A, E>(messages: Stream.Stream<Message.StoredMessage<A>, E>) =>
  Effect.map(Stream.runCollect(messages), (all) => all.map(({ messageId }) => messageId))

export const tagging: Part = (it, { concurrentTransactions }) => {
  it.effect("refuses what asks for tags until all messages have them, and finds all of them then", () =>
    Effect.gen(function*() {
      const { after, before, type } = newType()
      const [old, club, other] = [yield* build(before), newValue(), newValue()]
      const stored = Arr.makeBy(2300, (i) => before.make({ club: i % 2 === 0 ? club : other }))
      for (const chunk of Arr.chunksOf(stored, 500)) yield* old.write(newStream(), chunk)
      const store = yield* build(after)
      const refused = { _tag: "TagsIncompleteError", tags: ["club"], types: [type] }
      const decided = store.decide({ club: Decision.tagged({ club }, count) }, (states) => {
        assert.deepStrictEqual(states, { club: 1152 })
        return { stream: newStream(), messages: after.make({ club }) }
      })
      yield* failsWith(found(store.readTagged({ club })), refused)
      yield* failsWith(decided, refused)
      yield* Effect.scoped(
        Effect.flatMap(store.reader, (reader) => failsWith(found(reader.readTagged({ club })), refused))
      )
      // What is written meanwhile has its tags, whether its writer knows of them or not.
      const meanwhile = [before.make({ club }), after.make({ club })] as const
      yield* old.write(newStream(), meanwhile[0])
      yield* store.write(newStream(), meanwhile[1])

      const progress = yield* Stream.runCollect(store.tagging())
      const last = progress.at(-1)
      assert.strictEqual(last?.position, last?.upTo)
      assert.isAtLeast(last?.tagged ?? 0, 2300)
      assert.isAbove(progress.length, 2)
      const expected = [...stored.filter((message) => message.club === club), ...meanwhile].map(({ messageId }) =>
        messageId
      )
      assert.deepStrictEqual(yield* found(store.readTagged({ club })), expected)
      yield* decided
      assert.deepStrictEqual(yield* Stream.runCollect(store.tagging()), [{
        scanned: 0,
        tagged: 0,
        position: last?.upTo ?? 0,
        upTo: last?.upTo ?? 0,
        waitsFor: 0
      }])
      // Another process of the same build finds it done.
      assert.strictEqual((yield* found((yield* build(after)).readTagged({ club }))).length, expected.length + 1)
    }).pipe(Effect.scoped))

  it.effect("goes on where it was ended, and two at once do it once", () =>
    Effect.gen(function*() {
      const { after, before } = newType()
      const [old, club] = [yield* build(before), newValue()]
      const stored = Arr.makeBy(3500, () => before.make({ club }))
      for (const chunk of Arr.chunksOf(stored, 500)) yield* old.write(newStream(), chunk)
      const stores = [yield* build(after), yield* build(after)] as const
      const first = yield* Stream.runCollect(Stream.take(stores[0].tagging(), 1))
      const ended = first.at(-1)
      assert.isBelow(ended?.position ?? 0, ended?.upTo ?? 0)
      const both = yield* Effect.forEach(stores, (store) => Stream.runLast(store.tagging()), { concurrency: 2 })
      const tagged = both.reduce((sum, last) => sum + Option.getOrThrow(last).tagged, ended?.tagged ?? 0)
      assert.strictEqual(tagged, stored.length)
      assert.lengthOf(yield* found(stores[1].readTagged({ club })), stored.length)
    }).pipe(Effect.scoped))

  it.effect("is done at once for types that have no messages", () =>
    Effect.gen(function*() {
      const { after, before } = newType()
      const club = newValue()
      const store = yield* build(after)
      assert.deepStrictEqual(yield* found(store.readTagged({ club })), [])
      // A build that is older, or was rolled back to.
      const old = yield* build(before)
      const [first, ...more] = Arr.makeBy(3, () => before.make({ club }))
      yield* old.write(newStream(), first)
      yield* old.writeAll(Arr.map(more as [typeof first], (messages) => ({ stream: newStream(), messages })))
      assert.lengthOf(yield* found(store.readTagged({ club })), 3)
      yield* store.decide({ club: Decision.tagged({ club }, count) }, (states) => {
        assert.deepStrictEqual(states, { club: 3 })
        return { stream: newStream(), messages: after.make({ club }) }
      })
    }).pipe(Effect.scoped))

  it.effect("conflicts with what a build writes that does not know the tag", () =>
    Effect.gen(function*() {
      const { after, before } = newType()
      const [store, old, club] = [yield* build(after), yield* build(before), newValue()]
      const outside = yield* outsider
      const seen: Array<number> = []
      yield* store.decide({ club: Decision.tagged({ club }, count) }, (states) =>
        Effect.gen(function*() {
          seen.push(states.club)
          if (seen.length === 1) yield* Effect.orDie(outside(old.write(newStream(), before.make({ club }))))
          return { stream: newStream(), messages: after.make({ club }) }
        }))
      assert.deepStrictEqual(seen, [0, 1])
    }).pipe(Effect.scoped))

  it.effect("gives older shapes, and types that were renamed, the tags that they have today", () =>
    Effect.gen(function*() {
      const { after, type } = newType()
      const [club, renamed] = [newValue(), `Was${type}`]
      const inGroups = (name: string) =>
        Schema.Struct({ ...Message.fields, _tag: Schema.tag(name), groups: Schema.Array(Schema.String) })
      const [old, older] = [yield* build(inGroups(type)), yield* build(inGroups(renamed))]
      const [first, second] = [inGroups(type).make({ groups: [club] }), inGroups(renamed).make({ groups: [club] })]
      yield* old.write(newStream(), first)
      yield* older.write(newStream(), second)
      const today = Schema.Union([
        after,
        inGroups(type).pipe(Schema.decodeTo(
          after,
          SchemaTransformation.transform({
            decode: ({ groups, ...rest }) => ({ ...rest, club: groups[0] ?? "" }),
            encode: ({ club: group, ...rest }) => ({ ...rest, groups: [group] })
          })
        ))
      ])
      const store = yield* build(today as never, { [renamed]: type })
      yield* Stream.runDrain(store.tagging())
      assert.deepStrictEqual(yield* found(store.readTagged({ club })), [first.messageId, second.messageId])
      // Where the tag is in an older shape, only the schema knows: a build that writes it is refused.
      const error = yield* Effect.flip(old.write(newStream(), inGroups(type).make({ groups: [club] })))
      assert.strictEqual(error._tag, "SqlError")
      assert.include(String(Object(error).reason.cause.message), `its tag "club" where it is declared to be`)
      assert.lengthOf(yield* found(store.readTagged({ club })), 2)
    }).pipe(Effect.scoped))

  it.effect("tells which messages cannot be tagged, and passes over those that are named", () =>
    Effect.gen(function*() {
      const { after, before } = newType()
      const [old, club] = [yield* build(before), newValue()]
      const long = before.make({ club: club.padEnd(300, "x") })
      const [good, stream] = [before.make({ club }), newStream()]
      yield* old.write(stream, [good, long])
      const store = yield* build(after)
      const error = yield* Effect.flip(Stream.runDrain(store.tagging()))
      assert(error._tag === "TaggingError")
      assert.deepStrictEqual(error.messages, [{
        messageId: long.messageId,
        stream,
        version: 2,
        reason: "its tag \"club\" has more than 255 characters, its name included"
      }])
      yield* failsWith(found(store.readTagged({ club })), { _tag: "TagsIncompleteError" })
      yield* failsWith(
        store.withTransaction(Stream.runDrain(store.tagging({ without: [long.messageId] }))),
        { _tag: "InvalidArgumentError", argument: "tagging" }
      )
      yield* Stream.runDrain(store.tagging({ without: [long.messageId.toUpperCase()] }))
      assert.deepStrictEqual(yield* found(store.readTagged({ club })), [good.messageId])
    }).pipe(Effect.scoped))

  it.effect("refuses what a build that does not know the tags writes without a tag that it must have", () =>
    Effect.gen(function*() {
      const { after, before, type } = newType()
      const store = yield* build(after)
      const without = Schema.Struct({ ...Message.fields, _tag: Schema.tag(type) })
      const [nameless, old] = [yield* build(without), yield* build(before)]
      const stream = newStream()
      for (
        const [write, reason] of [
          [nameless.write(stream, without.make({})), "it does not have its tag \"club\" where it is declared to be"],
          [old.write(stream, before.make({ club: "x".repeat(251) })), "has more than 255 characters"]
        ] as const
      ) {
        const error = yield* Effect.flip(write)
        assert.strictEqual(error._tag, "SqlError")
        assert.include(String(Object(error).reason.cause.message), `a message of type ${type} cannot be stored: `)
        assert.include(String(Object(error).reason.cause.message), reason)
      }
      assert.strictEqual((yield* store.head(stream)).version, 0)
      // One that is scheduled is kept when it is due, and told.
      yield* nameless.schedule(stream, without.make({}), { at: DateTime.makeUnsafe(0), key: stream })
      assert.strictEqual(yield* store.scheduler.runOnce, 0)
      assert.deepStrictEqual(yield* Stream.runCollect(store.scheduled()), [])
      const [refused, ...others] = yield* Stream.runCollect(store.scheduled({ refused: true }))
      assert.deepInclude(refused, { key: stream, stream, message: undefined })
      assert.include(refused?.refused, "it does not have its tag \"club\" where it is declared to be")
      assert.deepStrictEqual(others, [])
      assert.isTrue(yield* store.cancel(stream))
    }).pipe(Effect.scoped))

  if (!concurrentTransactions) return

  it.effect("waits for transactions that were open when the tags were declared", () =>
    Effect.gen(function*() {
      const { after, before, type } = newType()
      const [old, club] = [yield* build(before), newValue()]
      const [written, commit] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const [late, first] = [before.make({ club }), before.make({ club })]
      const held = yield* Effect.forkChild(old.withTransaction(Effect.gen(function*() {
        yield* old.write(newStream(), late)
        yield* Deferred.succeed(written, undefined)
        yield* Deferred.await(commit)
      })))
      yield* Deferred.await(written)
      yield* old.write(newStream(), first)
      const store = yield* impatiently(build(after))
      const waiting = yield* Stream.runHead(store.tagging())
      assert.strictEqual(Option.getOrThrow(waiting).waitsFor, 1)
      yield* failsWith(found(store.readTagged({ club })), { _tag: "TagsIncompleteError", types: [type] })
      const tagged = yield* Effect.forkChild(Stream.runDrain(store.tagging()))
      yield* Deferred.succeed(commit, undefined)
      yield* Fiber.joinAll([held, tagged] as ReadonlyArray<Fiber.Fiber<unknown, unknown>>)
      assert.sameMembers([...yield* found(store.readTagged({ club }))], [late.messageId, first.messageId])
    }).pipe(Effect.scoped))

  it.effect("is in force for what a transaction writes that began before", () =>
    Effect.gen(function*() {
      const { after, before } = newType()
      const [old, club] = [yield* build(before), newValue()]
      const outside = yield* outsider
      const message = before.make({ club })
      const storage = yield* Storage
      const opened = Effect.scoped(Effect.provideService(impatiently(build(after)), Storage, storage))
      yield* old.withTransaction(Effect.gen(function*() {
        yield* outside(opened)
        yield* old.write(newStream(), message)
      }))
      const store = yield* build(after)
      yield* Stream.runDrain(store.tagging())
      assert.deepStrictEqual(yield* found(store.readTagged({ club })), [message.messageId])
    }).pipe(Effect.scoped))
}
