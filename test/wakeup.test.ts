/** Wake-ups: who is told of what is committed, when, and that a lost session costs nothing but time. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Layer, Queue } from "effect"
import { MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { Storage } from "../src/Storage.ts"
import { Listeners } from "../src/storage/listeners.ts"
import { backends } from "./support/backends.ts"
import { fill, hold, moved, rolledBack, several, test } from "./support/links.ts"
import { clientNamed, until } from "./support/processes.ts"
import { Moved, Transfers } from "./support/transfers.ts"

class Refunds extends MessageStore.Service<Refunds>()("test/Refunds", { name: "refunds", schema: Moved }) {}

/** The store over connections of another application, as another process has it. */
const application = (name: string) =>
  Layer.build(Layer.fresh(Layer.provideMerge(Layer.merge(Transfers.layer, Refunds.layer), clientNamed(name))))

const connections = (name: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.map(
      sql<{ readonly pid: number; readonly listens: boolean }>`
        select pid, query ilike 'listen %' as listens from pg_stat_activity where application_name = ${name}
          and datname = current_database()`,
      (rows) => rows
    ))

const listening = (name: string) =>
  Effect.map(connections(name), (rows) => rows.filter(({ listens }) => listens).map(({ pid }) => pid))

const untilListening = (name: string) =>
  until(`${name} listens`, Effect.map(listening(name), (pids) => pids.length > 0))

/** What a listener like Python's hears from now on. */
const hear = Effect.fnUntraced(function*(channel: string) {
  const { listen } = yield* Effect.provide(PgClient.PgClient, yield* Layer.build(clientNamed("ear")))
  const heard: Array<unknown> = []
  const notifications = yield* listen(channel)
  yield* Effect.forkScoped(Effect.forever(
    Effect.map(Queue.take(notifications), ({ payload }) => heard.push(JSON.parse(payload)))
  ))
  return heard
})

/** Another application's store, once its first message was heard of; with a clock that stands still, what follows gathers. */
const writerHeard = Effect.fnUntraced(function*(stream: string, heard: ReadonlyArray<unknown>) {
  const transfers = yield* Effect.provide(Transfers, yield* application("writer"))
  yield* transfers.write(stream, moved())
  yield* Effect.repeat(Effect.yieldNow, { until: () => heard.length > 0 })
  return transfers
})

const untilHeard = (heard: ReadonlyArray<unknown>, count: number) =>
  until(`${count} are heard`, Effect.sync(() => heard.length >= count))

const all = { name: "a", patterns: "%", partitioner: Partitioner.constant() }

const untilLinked = (head: Effect.Effect<ReadonlyArray<{ readonly position: number }>, unknown>, count: number) =>
  until(`${count} are linked`, Effect.map(head, ([first]) => first?.position === count - 1))

describe("wake-ups", () => {
  describe("a listener", () => {
    it.effect("is woken by what came between two waits, or by the end of the time, each once", () =>
      Effect.gen(function*() {
        const listeners = new Listeners()
        const listener = yield* listeners.listen("a")
        listeners.wake("a")
        listeners.wake("a")
        yield* listener.wait("1 day")
        const waiting = yield* Effect.forkChild(listener.wait("1 minute"))
        yield* TestClock.adjust("59 seconds")
        listeners.wake("b")
        assert.isUndefined(waiting.pollUnsafe())
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(waiting)
      }))

    for (const { layer, name } of backends) {
      it.live(`is woken by a commit: ${name}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const { listen } = yield* Storage
          const listener = yield* listen
          yield* transfers.write("s", moved())
          yield* listener.wait("1 day")
          yield* transfers.withTransaction(transfers.write("s", moved()))
          yield* listener.wait("1 day")
        }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Transfers.layerStorage, layer("transfers")))))
    }
  })

  test("leave after the commit, with what depeche_db's listeners expect", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      const sql = yield* SqlClient.SqlClient
      const heard = yield* hear("depeche_transfers_messages")
      const said = (stream: string, globalPosition: number, message: Moved, version = 1) => ({
        message_id: message.messageId,
        stream,
        version,
        global_position: globalPosition
      })
      const [first, second, third] = [moved(), moved(), moved()]
      const release = yield* hold(transfers.write("held", first))
      yield* rolledBack(transfers.write("rolled-back", moved()))
      yield* sql.withTransaction(Effect.andThen(
        Effect.ignore(sql.withTransaction(Effect.andThen(transfers.write("savepoint", moved()), Effect.fail("no")))),
        transfers.write("committed", [moved(), second])
      ))
      yield* untilHeard(heard, 1)
      assert.deepStrictEqual(heard, [said("committed", 5, second, 2)]) // of each stream the last
      yield* release
      yield* untilHeard(heard, 2)
      assert.deepStrictEqual(heard[1], said("held", 1, first))
      yield* transfers.write("last", third)
      yield* untilHeard(heard, 3)
      assert.deepStrictEqual(heard[2], said("last", 6, third))
      assert.lengthOf(heard, 3)
    }))

  test("tell depeche_db's listeners how far each partition is", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      const stream = yield* transfers.aggregatedStream({ ...all, partitioner: ({ version }) => version % 2 })
      const heard = yield* hear("depeche_a_messages")
      const messages = several(5)
      yield* transfers.write("s", messages)
      yield* stream.projector.runOnce
      yield* untilHeard(heard, 2)
      assert.sameDeepMembers(heard, [
        { message_id: messages[3]?.messageId, partition: 0, position: 1 },
        { message_id: messages[4]?.messageId, partition: 1, position: 2 }
      ])
    }))

  test("name so many partitions of a page as a hint needs", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      const stream = yield* transfers.aggregatedStream({ ...all, partitioner: Partitioner.depeche })
      const heard = yield* hear("depeche_a_messages")
      yield* fill(900, 900)
      yield* stream.projector.runOnce
      yield* untilHeard(heard, 100)
      yield* transfers.write("last", moved())
      yield* stream.projector.runOnce
      yield* untilHeard(heard, 101)
      assert.lengthOf(heard, 101)
    }))

  for (const [pause, who] of [["5 millis", "listens"], ["25 millis", "does not listen"]] as const) {
    test(`of a writer in a loop leave together, the last of each stream, every ${pause} where this library ${who}`, () =>
      Effect.gen(function*() {
        const heard = yield* hear("depeche_transfers_messages")
        if (who === "listens") {
          const here = yield* application("here")
          const stream = yield* Effect.provide(Effect.flatMap(Transfers, (store) => store.aggregatedStream(all)), here)
          yield* Effect.forkScoped(stream.projector.run({ pollInterval: "1 day" }))
          yield* untilListening("here")
        }
        // The clock of this writer stands still: so does the pause behind the first signal.
        yield* Effect.gen(function*() {
          const transfers = yield* writerHeard("s", heard)
          for (let i = 0; i < 200; i++) yield* transfers.write("s", moved())
          yield* TestClock.adjust(pause)
          yield* Effect.repeat(Effect.yieldNow, { until: () => heard.length > 1 })
        }).pipe(Effect.provide(TestClock.layer()))
        assert.deepStrictEqual(heard.map((payload) => (payload as { readonly version: number }).version), [1, 201])
      }))
  }

  test("that wait when the writer's layer closes are sent", () =>
    Effect.gen(function*() {
      const heard = yield* hear("depeche_transfers_messages")
      yield* Effect.gen(function*() {
        const transfers = yield* writerHeard("a", heard)
        yield* transfers.write("b", moved())
        yield* transfers.write("c", moved())
        assert.lengthOf(heard, 1)
      }).pipe(Effect.scoped, Effect.provide(TestClock.layer()))
      yield* untilHeard(heard, 3)
      assert.deepStrictEqual(heard.map((payload) => (payload as { readonly stream: string }).stream), ["a", "b", "c"])
    }))

  test("reach other processes", () =>
    Effect.gen(function*() {
      const here = yield* application("here")
      const stream = yield* Effect.provide(Effect.flatMap(Transfers, (store) => store.aggregatedStream(all)), here)
      const projecting = yield* Effect.forkScoped(stream.projector.run({ pollInterval: "1 day" }))
      yield* untilListening("here")
      for (let i = 1; i <= 20; i++) {
        const there = yield* Transfers
        yield* there.write(`s-${i}`, moved())
        yield* untilLinked(stream.partitions, i) // each wakes it anew
      }
      assert.isUndefined(projecting.pollUnsafe())
    }))

  test("are missed by nobody whose session is lost again and again", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const there = yield* Transfers
      const here = yield* application("here")
      const stream = yield* Effect.provide(Effect.flatMap(Transfers, (store) => store.aggregatedStream(all)), here)
      yield* Effect.forkScoped(stream.projector.run({ pollInterval: "1 day" }))
      const enough = yield* Deferred.make<void>()
      let written = 0
      const writing = yield* Effect.forkScoped(Effect.repeat(
        Effect.suspend(() => there.write("s", moved())).pipe(Effect.tap(Effect.sync(() => written++))),
        { until: () => Deferred.isDone(enough) }
      ))
      const ended: Array<number> = []
      for (let i = 0; i < 5; i++) {
        yield* until("a new session listens", Effect.map(listening("here"), (pids) => !ended.includes(pids[0] ?? -1)))
        yield* untilListening("here")
        const [pid = -1] = yield* listening("here")
        ended.push(pid)
        yield* sql`select pg_terminate_backend(${pid}, 5000)`
      }
      yield* Deferred.succeed(enough, undefined)
      yield* Fiber.join(writing)
      assert.lengthOf(Arr.dedupe(ended), 5)
      yield* untilLinked(stream.partitions, written)
      yield* untilListening("here")
      yield* there.write("s", moved())
      yield* untilLinked(stream.partitions, written + 1)
    }))

  test("come back at once, however often the session was lost before", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const here = yield* application("here")
      const stream = yield* Effect.provide(Effect.flatMap(Transfers, (store) => store.aggregatedStream(all)), here)
      // The clock of this process stands still unless it is told: no delay ends.
      const clock = yield* Layer.build(TestClock.layer())
      yield* Effect.forkScoped(Effect.provide(stream.projector.run({ pollInterval: "1 day" }), clock))
      let before = -1
      for (let losses = 0; losses < 15; losses++) {
        yield* until("another session listens", Effect.map(listening("here"), ([pid = before]) => pid !== before))
        before = (yield* listening("here"))[0] ?? -1
        yield* Effect.provide(TestClock.adjust("1 second"), clock)
        yield* sql`select pg_terminate_backend(${before}, 5000)`
      }
      yield* until("another session listens", Effect.map(listening("here"), ([pid = before]) => pid !== before))
    }))

  test("are made up for when a session could not be had for a while", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const there = yield* Transfers
      const here = yield* application("here")
      const stream = yield* Effect.provide(Effect.flatMap(Transfers, (store) => store.aggregatedStream(all)), here)
      yield* Effect.forkScoped(stream.projector.run({ pollInterval: "1 day" }))
      yield* untilListening("here")
      yield* there.write("s", moved())
      yield* untilLinked(stream.partitions, 1)
      const allow = (allowed: boolean) =>
        sql`update pg_database set datallowconn = ${allowed} where datname = current_database()`
      yield* allow(false)
      const [pid = -1] = yield* listening("here")
      yield* sql`select pg_terminate_backend(${pid}, 5000)`
      for (let i = 0; i < 10; i++) yield* there.write("s", moved())
      assert.deepStrictEqual(yield* stream.partitions, [{ partition: 0, position: 0 }])
      yield* allow(true)
      yield* untilLinked(stream.partitions, 11)
    }), { maxConnections: 1 }) // pools that have their connection, and need no other while none can be had

  test(
    "of several stores and streams need one session beside the pool, and leave none behind",
    () =>
      Effect.gen(function*() {
        yield* Effect.gen(function*() {
          const here = yield* application("here")
          const transfers = yield* Effect.provide(Transfers, here)
          const refunds = yield* Effect.provide(Refunds, here)
          const streams = [
            yield* transfers.aggregatedStream(all),
            yield* refunds.aggregatedStream({ ...all, name: "b" })
          ]
          let handled = 0
          for (const stream of streams) {
            const subscription = yield* stream.subscription({ name: `of_${stream.name}` })
            yield* Effect.forkScoped(stream.projector.run({ pollInterval: "1 day" }))
            yield* Effect.forkScoped(subscription.run(() => Effect.sync(() => handled++)))
          }
          yield* transfers.write("s", moved())
          yield* refunds.write("s", moved())
          yield* until("both are handled", Effect.sync(() => handled === 2))
          assert.lengthOf(yield* connections("here"), 2)
        }).pipe(Effect.scoped)
        yield* until("no connection is left", Effect.map(connections("here"), (rows) => rows.length === 0))
      }),
    { maxConnections: 1 }
  )

  test("hold nobody up in a transaction that has the only connection", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      const stream = yield* transfers.aggregatedStream(all)
      yield* Effect.forkScoped(stream.projector.run({ pollInterval: "1 day" }))
      yield* transfers.withTransaction(Effect.forEach(Arr.range(1, 10), (i) => transfers.write(`s-${i}`, moved())))
      yield* untilLinked(stream.partitions, 10)
    }), { maxConnections: 1 })
})
