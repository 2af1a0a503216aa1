/**
 * A standby is read from, and promoted, while applications write, decide, project and handle, and live through it. `FAILOVERS`
 * says how often; by default once with synchronous replication, where nothing acknowledged is lost, and once without, where
 * something is.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Latch, Layer, Schema, type Scope, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import process from "node:process"
import * as Ledger from "./support/ledger.ts"
import { until } from "./support/processes.ts"
import * as Replicas from "./support/replicas.ts"
import { createEffects, record } from "./support/work.ts"

const failovers = Number(process.env["FAILOVERS"] ?? 2)
const subscriptions = ["by_session", "by_lease"]

/** How many things are done between two steps. */
const some = 60

/** Everything that works while servers come and go. Ends with the scope; what fails for good is told. */
const work = Effect.fnUntraced(function*(
  url: string,
  load: Ledger.Load,
  failed: Array<string>
): Effect.fn.Return<void, unknown, Scope.Scope> {
  const fork = <E>(name: string, effect: Effect.Effect<never, E, never>) =>
    Effect.forkScoped(Effect.onError(effect, (cause) => Effect.sync(() => failed.push(`${name}: ${String(cause)}`))))
  // Two that decide on the same things, and remember what they know of them.
  for (const app of [1, 2]) {
    const context = yield* Layer.build(Ledger.application(url))
    const act = (name: string, what: (n: number) => Effect.Effect<string, Ledger.Failure, Ledger.Given>) =>
      fork(`${name} ${app}`, Effect.provide(load.repeat(what), context))
    for (const i of [0, 1]) {
      yield* act("chain", (n) => Effect.map(Ledger.addToChain(`chain-${(n + i) % 2}`), (done) => done.messageId))
      yield* act(
        "club",
        (n) => Effect.map(Ledger.addToClub(`c${(n + i) % 2}`, `seat-${app}-${n % 5}`), (done) => done.messageId)
      )
    }
    yield* act("notes", (n) => Ledger.note(`note-${app}-${n % 3}`, n))
  }
  yield* Effect.provide(
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const stream = yield* Ledger.ledgered
      yield* fork("projector", stream.projector.run())
      for (const name of subscriptions) {
        const subscription = yield* stream.subscription({
          name,
          delivery: "transactional",
          batchSize: 20,
          pollInterval: "500 millis",
          ...name === "by_lease" ? { claims: { lease: "2 seconds" } } : {}
        })
        yield* fork(name, subscription.run(record(sql, name, name)))
      }
    }),
    yield* Layer.build(Ledger.application(url))
  )
})

/**
 * What comes back: with other messages, versions of a stream, positions and places of links, as one process remembers them from the
 * primary that is lost, and another one gives them on the standby.
 */
const comesBack = Effect.fnUntraced(function*(url: string) {
  const remembering = yield* Layer.build(Ledger.application(url))
  const released = Latch.makeUnsafe(false)
  const inHand: Array<number> = []
  const addTwice = Effect.fnUntraced(function*() {
    const added = []
    for (let i = 0; i < 2; i++) added.push(yield* Ledger.addToChain("again"), yield* Ledger.addToClub("again", "again"))
    return added
  })
  const worker = Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const stream = yield* Ledger.ledgered
    const subscription = yield* stream.subscription({ name: "in_hand", claims: { lease: "1 minute" } })
    return yield* subscription.run((message, delivery) =>
      Effect.suspend(() => {
        if (message._tag !== "Noted" || message.number >= 0) return Effect.void
        inHand.push(message.number)
        return Effect.andThen(
          message.number === -2 ? released.await : Effect.void,
          record(sql, "in_hand", "in_hand")(message, delivery)
        )
      })
    )
  })
  yield* Effect.forkScoped(Effect.provide(worker, remembering))
  const hasInHand = (number: number) => until(`${number} is in hand`, Effect.sync(() => inHand.includes(number)))

  return {
    /** The standby has this. */
    before: Effect.provide(
      Effect.gen(function*() {
        yield* released.close
        inHand.length = 0
        yield* addTwice()
        yield* Ledger.note("again-note", -1)
        yield* hasInHand(-1)
      }),
      remembering
    ),
    /** And not this. */
    lost: Effect.provide(
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        // Beyond what the standby knows of the sequence, which runs ahead.
        yield* sql`select nextval('depeche_msgs_ledger_global_seq') from generate_series(1, 100)`
        yield* Ledger.note("again-note", -2)
        yield* hasInHand(-2)
        return yield* addTwice()
      }),
      remembering
    ),
    /** Another one writes the same to the standby: as many messages, at the same places. */
    instead: (standby: Replicas.Node, lost: Effect.Success<ReturnType<typeof addTwice>>) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`select nextval('depeche_msgs_ledger_global_seq') as n from generate_series(
          (select last_value from depeche_msgs_ledger_global_seq) + 1, ${(lost[0]?.at?.globalPosition ?? 0) - 2}::int8)`
        yield* Ledger.note("again-note", -3)
        const added = yield* addTwice()
        assert.deepStrictEqual(added.map(({ at }) => at), lost.map(({ at }) => at))
        assert.notDeepEqual(added.map(({ messageId }) => messageId), lost.map(({ messageId }) => messageId))
        return added
      }).pipe(Effect.provide(Ledger.application(standby.url))),
    /** And the first one, which remembers, and has a message in hand, goes on. */
    after: (instead: Effect.Success<ReturnType<typeof addTwice>>) =>
      Effect.gen(function*() {
        const added = yield* Effect.retry(addTwice(), { while: (error) => error._tag === "SqlError" })
        assert.deepStrictEqual(
          added.slice(0, 2).map(({ previous }) => previous),
          instead.slice(-2).map(({ messageId }) => messageId)
        )
        yield* released.open
        yield* hasInHand(-3)
        // The one that was in hand had the place that this one has.
        const sql = yield* SqlClient.SqlClient
        const [place] = yield* sql<{ readonly count: number }>`
          select count(*)::int as count from effects lost join effects e using (subscription, partition, position)
          where subscription = 'in_hand' and lost.message_id <> e.message_id`
        assert.isAbove(place?.count ?? 0, 0)
      }).pipe(Effect.provide(remembering))
  }
})

class Missing extends MessageStore.Service<Missing>()("test/Missing", {
  name: "missing",
  schema: Schema.TaggedStruct("Nothing", Message.fields)
}) {}

/** Reads on the standby what is written to the primary, while recovery ends the view of somebody who reads there for long. */
const readsOn = (primary: Replicas.Node, standby: Replicas.Node) =>
  Effect.gen(function*() {
    const replica = yield* Ledger.Ledger.ReadOnly
    const writes = yield* Layer.build(Ledger.application(primary.url))
    const readOwn = (i: number) =>
      Effect.gen(function*() {
        const ledger = yield* Ledger.Ledger
        const noted = new Ledger.Noted({ number: i })
        const { globalPosition, version } = yield* ledger.write("read-own", noted)
        yield* replica.waitFor(globalPosition)
        assert.strictEqual((yield* replica.getMessageById(noted.messageId)).version, version)
        assert.isAtLeast((yield* replica.head("read-own")).version, version)
      })
    yield* Effect.provide(Effect.forEach(Array.from({ length: 20 }, (_, i) => i), readOwn, { discard: true }), writes)

    const error = yield* Effect.flip(Layer.build(Layer.provide(Missing.layerReadOnly, Ledger.client(standby.url))))
    assert.include(
      error.message,
      "run what `migrations` prints on the primary, and start again when this standby has it"
    )

    const execute = (...statements: ReadonlyArray<string>) => Replicas.run(primary, ...statements)
    yield* execute("create table scrap as select generate_series(1, 1000) as n")
    yield* Replicas.caughtUp(primary, standby)
    yield* Effect.scoped(Effect.gen(function*() {
      const reader = yield* replica.reader
      const before = yield* reader.head("read-own")
      assert.strictEqual(before.version, 20)
      yield* execute("delete from scrap")
      // What has been deleted goes once no transaction of the primary needs it.
      const isEnded = Effect.andThen(
        execute("vacuum scrap"),
        Effect.match(reader.head("read-own"), { onFailure: ({ _tag }) => _tag === "SqlError", onSuccess: () => false })
      )
      yield* until("recovery ends the view", isEnded)
      yield* Effect.provide(readOwn(20), writes)
      assert.strictEqual((yield* replica.head("read-own")).version, 21)
    }))
  }).pipe(
    Effect.scoped,
    Effect.provide(Layer.fresh(Layer.provide(Ledger.Ledger.layerReadOnly, Ledger.client(standby.url))))
  )

const isForeign = Boolean(process.env["DATABASE_URL"])
if (isForeign) console.log("failover: skipped, since DATABASE_URL names a server that is not ours to end")

describe.skipIf(isForeign)("PostgreSQL", () => {
  it.live("goes on with the standby, by what that has", () =>
    Effect.gen(function*() {
      const proxy = yield* Replicas.startProxy
      let primary = yield* Replicas.startPrimary
      yield* primary.ask(createEffects)
      yield* proxy.pointTo(primary)
      const load = new Ledger.Load()
      const failed: Array<string> = []
      yield* work(proxy.url, load, failed)
      const untilOrFailed = (what: string, condition: () => boolean) =>
        until(what, Effect.sync(() => failed.length > 0 || condition()), 60)
      const done = (what: string) => {
        const from = load.count
        return untilOrFailed(what, () => load.count >= from + some)
      }
      const paused = Effect.andThen(load.pause, untilOrFailed("nobody is at work", () => load.isIdle))
      const back = yield* comesBack(proxy.url)
      const isHandled = (by: ReadonlyArray<string>) =>
        Effect.map(Effect.suspend(() => Ledger.left(primary, by)), (count) => failed.length > 0 || count === 0)
      const told: Array<string> = []

      for (let i = 0; i < failovers; i++) {
        const isSynchronous = i % 2 === 0
        const standby = yield* Replicas.startStandby(primary)
        yield* Replicas.setSynchronous(primary, isSynchronous)
        yield* done("they work")
        if (i === 0) yield* readsOn(primary, standby)
        const followed = new Set<string>()
        const following = yield* Effect.forkScoped(Effect.result(Effect.provide(
          Effect.flatMap(Ledger.ledgered, (stream) =>
            Stream.runForEach(stream.follow({ from: "beginning", pollInterval: "500 millis" }), ({ messageId }) =>
              Effect.sync(() =>
                followed.add(messageId)
              ))),
          yield* Layer.build(Ledger.application(proxy.url))
        )))
        yield* until("it is followed", Effect.sync(() => followed.size > 0))
        let lostDecisions: Effect.Success<typeof back.lost> = []
        if (!isSynchronous) {
          yield* paused
          yield* back.before
          yield* until("all is acknowledged", isHandled([...subscriptions, "in_hand"]))
          yield* Replicas.caughtUp(primary, standby)
          yield* Replicas.cutOff(standby)
          lostDecisions = yield* back.lost
          yield* load.resume
          yield* done("they do what is lost")
        }

        yield* primary.kill
        yield* proxy.pointTo(undefined)
        const before = new Set(load.acknowledged)
        yield* Replicas.promote(standby)
        primary = standby
        const instead = isSynchronous ? [] : yield* back.instead(standby, lostDecisions)
        yield* proxy.pointTo(primary)
        if (!isSynchronous) yield* back.after(instead)
        yield* done("they go on by themselves")

        yield* paused
        yield* until("all is handled", isHandled(subscriptions), 60)
        assert.deepStrictEqual(failed, [])
        assert.deepStrictEqual(yield* Ledger.wrong(primary, subscriptions), {})
        // Whoever follows sees all, or is told that what it has seen is not there any more.
        if (isSynchronous) {
          const all = yield* Ledger.links(primary)
          yield* until("all is followed", Effect.sync(() => followed.size >= all))
          assert.deepStrictEqual(yield* Ledger.missing(primary, followed), [])
        } else {
          const ended = yield* Effect.timeout(Fiber.join(following), "20 seconds")
          assert.strictEqual(ended._tag === "Failure" ? ended.failure._tag : "", "InvalidArgumentError")
        }
        const lost = yield* Ledger.missing(primary, before)
        if (isSynchronous) assert.deepStrictEqual(lost, [])
        else assert.isAtLeast(lost.length, some)
        for (const id of lost) load.acknowledged.delete(id)
        assert.deepStrictEqual(yield* Ledger.missing(primary, load.acknowledged), [])
        told.push(`${isSynchronous ? "sync" : "async"} ${load.acknowledged.size} messages, ${lost.length} lost`)
        yield* load.resume
      }
      console.log(`failover: ${told.join("; ")}`)
    }).pipe(Effect.scoped), 600_000)
})
