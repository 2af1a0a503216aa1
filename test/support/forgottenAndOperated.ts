/** What forgets and what operates, in short: for the store `hosts`, whose search path has traps in it. */
import { assert } from "@effect/vitest"
import { DateTime, Effect, Layer, Redacted, Schedule, Schema, Stream } from "effect"
import {
  Fold,
  KeyEncryption,
  Message,
  MessageStore,
  Operator,
  Partitioner,
  Personal,
  Projection
} from "effect-message-store"
import { SqlClient } from "effect/sql"
import { moved } from "./links.ts"
import { Moved } from "./transfers.ts"

class Met extends Schema.TaggedClass<Met>()("Met", {
  ...Message.fields,
  who: Schema.String,
  place: Message.tag("met", Schema.optionalKey(Schema.String)),
  email: Message.personal(Schema.String, { subject: "who" })
}) {}

class PersonalHosts extends MessageStore.Service<PersonalHosts>()("test/PersonalHosts", {
  name: "hosts",
  cachedStates: 0,
  personal: { whenForgotten: "newKey" },
  schema: Schema.Union([Moved, Met])
}) {}

const withKeys = <A, E, R>(use: Effect.Effect<A, E, R | PersonalHosts>, ...ids: ReadonlyArray<string>) => {
  const keys = ids.map((id) => `${id}:${btoa("0123456789abcdef".repeat(2))}`).join(",")
  return Effect.provide(
    use,
    Layer.provide(Layer.fresh(PersonalHosts.layer), Layer.orDie(KeyEncryption.layer(Redacted.make(keys))))
  )
}

/** Encrypts, forgets, wraps keys anew, redacts and deletes; in transactions and out of them. */
export const forgotten = Effect.gen(function*() {
  const count = Fold.withSnapshot(
    { initial: 0, evolve: (sofar: number) => sofar + 1 },
    { name: "met", schema: Schema.Number, every: 1 }
  )
  yield* withKeys(
    Effect.gen(function*() {
      const hosts = yield* PersonalHosts
      const met = (who: string) => new Met({ who, place: "here", email: Personal.known(`${who}@example.org`) })
      const first = met("a")
      yield* hosts.write("met", [first, met("b")])
      yield* hosts.withTransaction(hosts.write("met", [met("a"), met("c")]))
      yield* hosts.update("met", count, () => Effect.succeed([]))
      yield* hosts.forget("a")
      yield* hosts.withTransaction(Effect.andThen(hosts.write("met", met("a")), hosts.forget("b")))
      assert.lengthOf(yield* Stream.runCollect(hosts.read("met")), 5)
      const { place: _, ...rest } = first
      assert.strictEqual(
        yield* hosts.redact(first.messageId, (one) => new Met({ ...rest, occurredAt: one.occurredAt })),
        1
      )
      assert.strictEqual(yield* Stream.runCount(hosts.readTagged({ met: "here" })), 4)
      yield* hosts.schedule("met later", met("d"), { at: DateTime.makeUnsafe(0) })
      assert.strictEqual(yield* hosts.scheduler.runOnce, 1)
      yield* hosts.delete("met", { toVersion: 2, expectedVersion: 5 })
      yield* hosts.withTransaction(hosts.delete("met later")).pipe(
        Effect.provideService(SqlClient.BeginTransaction, "begin isolation level repeatable read")
      )
    }),
    "k1"
  )
  assert.isAtLeast(yield* withKeys(Effect.flatMap(PersonalHosts, ({ rewrapKeys }) => rewrapKeys), "k2", "k1"), 3)
})

/** A stream, and a version of a read model. */
const model = Effect.fnUntraced(function*(version: number) {
  const sql = yield* SqlClient.SqlClient
  const hosts = yield* PersonalHosts
  const stream = yield* hosts.aggregatedStream({
    name: "operated",
    patterns: "operated",
    partitioner: Partitioner.constant(1)
  })
  const projection = yield* stream.projection({
    name: "operated",
    version,
    keep: "1 hour",
    model: Projection.tables(["shown"], ({ shown }) => sql.unsafe(`create table ${shown} (n int)`).unprepared)
  })
  return { hosts, stream, projection }
})

/** Before traps are set: migrations are run by who trusts the search path. */
export const toBeOperated = withKeys(model(1), "k1")

/** Everything that an operator can ask and do. */
export const operated = Effect.gen(function*() {
  const at = DateTime.makeUnsafe("2100-01-01T00:00:00Z")
  const parked = yield* withKeys(
    Effect.gen(function*() {
      const { hosts, projection: first, stream } = yield* model(1)
      const message = moved()
      yield* hosts.write("operated", [message, moved()])
      yield* hosts.schedule("operated", moved(), { at, key: "operated" })
      yield* stream.projector.runOnce
      const subscription = yield* stream.subscription({ name: "operated", retry: Schedule.recurs(0) })
      yield* subscription.drain(() => Effect.fail("no 1"))
      for (const projection of [first, (yield* model(2)).projection]) {
        yield* Effect.raceFirst(projection.run(() => Effect.void), Stream.runDrain(projection.progress))
      }
      return message.messageId
    }),
    "k2"
  )
  const use = Effect.gen(function*() {
    const operator = yield* Operator.Operator
    yield* operator.overview
    yield* operator.health({ transaction: "1 hour" })
    const { items: streams } = yield* operator.streams({ pattern: "oper%", limit: 5 })
    assert.deepStrictEqual(streams.map(({ stream }) => stream), ["operated"])
    const all = { pattern: "%", type: "Moved", fromTime: DateTime.makeUnsafe(0), toTime: at, limit: 3 }
    assert.lengthOf((yield* operator.search(all)).items, 3)
    assert.lengthOf((yield* operator.search({ stream: "met", tags: ["met:here"] })).items, 3)
    yield* operator.search({ tags: ["met:here", "met:there"], correlationId: "x", causationId: "y" })
    assert.isDefined(yield* operator.message(parked))
    yield* operator.trace(parked)
    yield* Stream.runDrain(Stream.take(operator.follow({ after: 0 }), 3))
    yield* operator.aggregatedStreams()
    yield* operator.linked("operated", 1)
    yield* operator.subscriptions()
    yield* operator.partitions("operated")
    assert.lengthOf((yield* operator.parked("operated")).items, 2)
    const [error] = yield* operator.parkedErrors("operated")
    yield* operator.parked("operated", { error: error })
    yield* operator.projections()
    yield* operator.scheduled()
    assert.isTrue(yield* operator.cancelScheduled("operated"))
    yield* operator.pause("operated", { partition: 1 })
    yield* operator.resume("operated", { partition: 1 })
    assert.strictEqual(yield* operator.requeue("operated", { messageIds: [parked] }), 1)
    assert.strictEqual(yield* operator.discard("operated", { places: [{ partition: 1, position: 1 }] }), 1)
    yield* operator.reset("operated")
    assert.strictEqual(yield* operator.rollback("operated"), 1)
    yield* operator.promote("operated", 2)
    yield* operator.dropVersion("operated", 1)
    yield* operator.rebuild("operated")
  })
  yield* Effect.provide(use, Layer.fresh(Operator.layer("hosts")))
})
