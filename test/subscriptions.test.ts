/** Subscriptions on PostgreSQL: claims and what they exclude, processes that stall, clients that are lost. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Fiber, Layer, Logger, Schedule, Scope } from "effect"
import type { Handlers } from "effect-message-store"
import { SqlClient } from "effect/sql"
import * as fs from "node:fs/promises"
import * as os from "node:os"
import * as path from "node:path"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { type ClaimMode, type Claims, Storage } from "../src/Storage.ts"
import { databaseLayer } from "./support/database.ts"
import {
  clientNamed,
  lockers,
  place,
  start,
  terminate,
  terminateLockers,
  until,
  untilTold
} from "./support/processes.ts"
import { type Done, record, stream, Work } from "./support/work.ts"
import { checkpoint, consumer, handled, test, write } from "./support/working.ts"

/** The port of a subscription, over connections of its own. */
const port = Effect.fnUntraced(function*(
  application: string,
  name: string,
  mode: ClaimMode = { _tag: "Session" },
  settings: Readonly<Record<string, string>> = {}
) {
  const context = yield* Layer.build(
    Layer.fresh(Layer.provideMerge(PostgresStorage.layer("work"), clientNamed(application, settings)))
  )
  return yield* Effect.gen(function*() {
    const storage = yield* Storage
    const aggregated = yield* storage.aggregatedStream({
      name: "worked",
      patterns: ["%"],
      partitioner: { _tag: "StreamName", count: 1 }
    })
    const subscribed = yield* aggregated.subscription(name)
    yield* aggregated.listen // as consumers do; who listens is told at once when the session ends
    const claims = yield* subscribed.claims(mode, application)
    return { subscribed, claims, claim: claimed(claims) }
  }).pipe(Effect.provide(context))
})

/** A claim, and its end. */
const claimed = (claims: Claims) => (partition: number) =>
  Effect.gen(function*() {
    const scope = yield* Effect.acquireRelease(Scope.make(), (made, exit) => Scope.close(made, exit))
    const claim = yield* Scope.provide(claims.claim(partition), scope)
    return claim && { ...claim, release: Scope.close(scope, Exit.void) }
  })

const temporaryFile = Effect.map(
  Effect.acquireRelease(
    Effect.promise(() => fs.mkdtemp(path.join(os.tmpdir(), "stalled-"))),
    (directory) => Effect.promise(() => fs.rm(directory, { recursive: true }))
  ),
  (directory) => path.join(directory, "go on")
)

describe("PostgreSQL subscriptions", () => {
  describe("a process that was stopped in the middle of a handler", () => {
    const kinds = [
      { delivery: "transactional", acknowledge: "batch" },
      { delivery: "atLeastOnce", acknowledge: "message" },
      { delivery: "atLeastOnce", acknowledge: "batch" }
    ] as const
    for (const { acknowledge, delivery } of kinds) {
      for (const lease of [undefined, 2000]) {
        test(`has lost its partition: ${delivery}, ${acknowledge}, ${lease === undefined ? "session" : "lease"}`, () =>
          Effect.gen(function*() {
            yield* write(10)
            const file = yield* temporaryFile
            const isTransactional = delivery === "transactional"
            const stored = acknowledge === "batch" ? -1 : 2
            const options = { name: "stalled", delivery, acknowledge }
            const stalled = yield* start({
              _tag: "Worker",
              ...yield* place,
              name: "stalled",
              partitions: 1,
              projects: false,
              subscriptions: [{
                ...options,
                ...lease === undefined ? {} : { lease },
                stall: { position: 3, file }
              }]
            })
            yield* untilTold(stalled, "Stalled")
            yield* stalled.kill("SIGSTOP")
            assert.strictEqual(yield* checkpoint("stalled"), stored)
            if (lease === undefined) assert.strictEqual(yield* terminateLockers("stalled"), 1)
            const other = yield* Effect.forkScoped(
              consumer("other", 1, { ...options, ...lease === undefined ? {} : { claims: { lease } } })
            )
            yield* until("the other one is done", Effect.map(checkpoint("stalled"), (position) => position === 9))
            yield* Fiber.interrupt(other)
            yield* Effect.sleep("1 second") // a claim that was confirmed in the last second is believed

            yield* Effect.promise(() => fs.writeFile(file, ""))
            yield* stalled.kill("SIGCONT")
            // It is well, and learns of new messages; what it does before it claims again would come before this.
            yield* write(1)
            yield* until("it goes on", Effect.map(checkpoint("stalled"), (position) => position === 10))
            assert.deepStrictEqual(yield* handled("other"), Arr.range(stored + 1, 9))
            assert.deepStrictEqual(yield* handled("stalled"), isTransactional ? [10] : [0, 1, 2, 3, 10])
            assert.strictEqual(yield* terminate(stalled), 0, stalled.output())
          }))
      }
    }
  })

  describe("a transaction", () => {
    const faults = {
      "that its handler left unusable": Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => Effect.ignore(sql`select 1 / 0`)
      ),
      "that breaks a constraint at its commit": Effect.flatMap(
        SqlClient.SqlClient,
        (sql) => sql`insert into deferred (id) values (1), (1)`
      )
    }
    for (const [name, fault] of Object.entries(faults)) {
      test(`${name} is a failure of the handler`, () =>
        Effect.gen(function*() {
          yield* write(6)
          const sql = yield* SqlClient.SqlClient
          yield* sql`create table deferred (id int unique deferrable initially deferred)`
          const retry = Schedule.recurs(1)
          const worked = yield* stream(1)
          const subscription = yield* worked.subscription({ name: "faulty", delivery: "transactional", retry })
          const insert = record(sql, "faulty", "us")
          const handler = (message: Done, delivery: Handlers.Delivery<Done>) =>
            Effect.andThen(insert(message, delivery), delivery.position === 2 ? fault : Effect.void)
          const running = yield* Effect.forkScoped(subscription.run(handler))
          yield* until("all is handled", Effect.map(subscription.lag, (lag) => lag === 0))
          yield* Fiber.interrupt(running)
          assert.deepStrictEqual(yield* handled(), [0, 1, 3, 4, 5])
          const [parked] = yield* subscription.parked
          assert.include(parked, { position: 2 })
          // A transaction of many messages does not tell which of them it was: that took some attempts.
          assert.isAtLeast(parked?.attempts ?? 0, 2)
          assert.match(JSON.stringify(parked?.error), /current transaction is aborted|duplicate key value/)
          assert.deepStrictEqual(yield* subscription.replay(handler), { handled: 0, failed: 1 })
          assert.deepStrictEqual(yield* subscription.replay(insert), { handled: 1, failed: 0 })
          assert.deepStrictEqual(yield* handled(), [0, 1, 3, 4, 5, 2])
        }))
    }
  })

  for (const delivery of ["transactional", "atLeastOnce"] as const) {
    test(`a handler whose connection is lost is called again: ${delivery}`, () =>
      Effect.gen(function*() {
        yield* write(4)
        const sql = yield* SqlClient.SqlClient
        const subscription = yield* (yield* stream(1)).subscription({ name: "lost", delivery })
        const insert = record(sql, "lost", "us")
        const attempts: Array<number> = []
        const lose = sql`select pg_terminate_backend(pg_backend_pid())`
        const running = yield* Effect.forkScoped(subscription.run((message, { attempt, ...delivered }) =>
          Effect.suspend(() => {
            if (delivered.position !== 2) return insert(message, delivered)
            attempts.push(attempt)
            return attempt < 3 ? lose : insert(message, delivered)
          })
        ))
        yield* until(
          "all is handled",
          Effect.map(subscription.lag, (lag) =>
            lag === 0)
        )
        yield* Fiber.interrupt(running)
        assert.deepStrictEqual(attempts, [1, 2, 3])
        assert.deepStrictEqual(yield* handled(), [0, 1, 2, 3])
        assert.deepStrictEqual(yield* subscription.parked, [])
      }))
  }

  describe("a claim", () => {
    test("that was lost moves no checkpoint, and none moves it from elsewhere, or back", () =>
      Effect.gen(function*() {
        yield* write(10)
        const first = yield* port("first", "fenced")
        const second = yield* port("second", "fenced")
        const { subscribed } = first
        const old = (yield* first.claim(0)) ?? assert.fail("not claimed")
        assert.isUndefined(yield* second.claim(0))
        assert.strictEqual(yield* subscribed.advance(old, -1, 2), "Advanced")
        const lost = yield* Effect.forkChild(old.lost)
        assert.strictEqual(yield* terminateLockers("first"), 1)
        yield* Fiber.join(lost)
        // Nobody else has claimed it: what was handled meanwhile may still be acknowledged.
        assert.strictEqual(yield* subscribed.advance(old, 2, 3), "Advanced")
        const later = (yield* second.claim(0)) ?? assert.fail("not claimed")
        assert.isAbove(later.token, old.token)
        for (const to of [4, 9]) assert.strictEqual(yield* subscribed.advance(old, 3, to), "Fenced")
        assert.strictEqual(yield* checkpoint("fenced"), 3)
        for (const from of [-1, 2, 4, 9]) assert.strictEqual(yield* subscribed.advance(later, from, 8), "Fenced")
        assert.strictEqual(yield* checkpoint("fenced"), 3)
        assert.strictEqual(yield* subscribed.advance(later, 3, 2), "Fenced")
        assert.strictEqual(yield* checkpoint("fenced"), 3)
        assert.strictEqual(yield* subscribed.advance(later, 3, 9), "Advanced")
        assert.strictEqual(yield* checkpoint("fenced"), 9)
      }))

    test("that fails half-way leaves no lock", () =>
      Effect.gen(function*() {
        yield* write(1)
        const sql = yield* SqlClient.SqlClient
        const hasty = yield* port("hasty", "half", undefined, { lock_timeout: "100" })
        const other = yield* port("other", "half")
        yield* ((yield* hasty.claim(0)) ?? assert.fail("not claimed")).release
        const failed = yield* sql.withTransaction(Effect.andThen(
          sql`update effect_message_store_claims_half set owner = ''`,
          Effect.flip(hasty.claim(0))
        ))
        assert.strictEqual(failed._tag === "SqlError" && failed.reason._tag, "LockTimeoutError")
        assert.isDefined(yield* other.claim(0))
      }))

    test("and a lock of depeche_db exclude each other, and its checkpoints are respected", () =>
      Effect.gen(function*() {
        yield* write(10)
        const sql = yield* SqlClient.SqlClient
        // The first 8 bytes of sha1("fenced.subscription-fenced-0"), little-endian, as Python computes them.
        const key = -5566071208766655743n
        const python = yield* SqlClient.SqlClient.use((client) => client.reserve).pipe(
          Effect.provide(yield* Layer.build(clientNamed("python")))
        )
        const ask = (statement: string) => Effect.map(python.executeValues(statement, [key]), ([row]) => row?.[0])
        const ours = yield* port("ours", "fenced")
        // As depeche_db begins a subscription, and acknowledges.
        yield* sql`insert into depeche_subscriptions_fenced (subscription_name, partition, position)
          values ('fenced', -1, -1), ('fenced', 0, 4)`

        yield* ask("select 1 from pg_advisory_lock($1)")
        assert.isUndefined(yield* ours.claim(0))
        const running = yield* Effect.forkScoped(
          consumer("consumer", 1, { name: "fenced", start: "beginning", pollInterval: "100 millis" })
        )
        yield* until(
          "our consumer has tried",
          Effect.map(
            sql`select from pg_stat_activity where application_name = 'consumer' and query like '%pg_try_advisory_lock%'`,
            (rows) => rows.length > 0
          )
        )
        assert.deepStrictEqual(yield* handled(), [])
        yield* ask("select pg_advisory_unlock($1)")
        yield* until("our consumer is done", Effect.map(checkpoint("fenced"), (position) => position === 9))
        assert.deepStrictEqual(yield* handled(), [5, 6, 7, 8, 9])
        assert.strictEqual(yield* ask("select pg_try_advisory_lock($1)"), false)
        yield* Fiber.interrupt(running)
        assert.strictEqual(yield* ask("select pg_try_advisory_lock($1)"), true)
        assert.isUndefined(yield* ours.claim(0))
        yield* ask("select pg_advisory_unlock($1)")
        assert.isDefined(yield* ours.claim(0))
        const [rows] =
          yield* sql`select count(*)::int as count, max(position) as last from depeche_subscriptions_fenced`
        assert.deepStrictEqual(rows, { count: 2, last: 9 })
      }))

    test("by a lease and one by a session exclude each other", () =>
      Effect.gen(function*() {
        yield* write(1)
        const session = yield* port("session", "mixed")
        const lease = yield* port("lease", "mixed", { _tag: "Lease", milliseconds: 60_000 })
        const first = (yield* session.claim(0)) ?? assert.fail("not claimed")
        assert.isUndefined(yield* lease.claim(0))
        assert.strictEqual(yield* first.confirm, "Confirmed")
        yield* first.release
        const second = (yield* lease.claim(0)) ?? assert.fail("not claimed")
        assert.isUndefined(yield* session.claim(0))
        assert.lengthOf(yield* lockers("session"), 0)
        assert.strictEqual(yield* second.confirm, "Confirmed")
        assert.strictEqual(yield* first.confirm, "Fenced")
        yield* second.release
        assert.strictEqual(yield* second.confirm, "Fenced")
        assert.isDefined(yield* session.claim(0))
      }))

    test("is by a lease where the client cannot open a session, which is told once", () =>
      Effect.gen(function*() {
        yield* write(3)
        const warnings: Array<string> = []
        const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
          if (logLevel === "Warn") warnings.push(String(Array.isArray(message) ? message[0] : message))
        })
        const sessionless = Layer.effect(
          SqlClient.SqlClient,
          Effect.map(SqlClient.SqlClient, (sql) =>
            new Proxy(sql, {
              get: (target, key) => key === "config" ? undefined : Reflect.get(target, key)
            }))
        )
        const running = Effect.gen(function*() {
          const worked = yield* stream(1)
          for (const name of ["one", "two"]) {
            const subscription = yield* worked.subscription({ name })
            yield* Effect.forkScoped(subscription.run(() => Effect.void))
            yield* until(`${name} is done`, Effect.map(subscription.lag, (lag) => lag === 0))
          }
        })
        yield* running.pipe(
          Effect.scoped,
          Effect.provide([Layer.fresh(Layer.provide(Work.layer, sessionless)), Logger.layer([logger])])
        )
        assert.deepStrictEqual(
          warnings.filter((line) => line.includes("leases of 30 seconds")).length,
          1,
          `${warnings}`
        )
        const sql = yield* SqlClient.SqlClient
        const [left] =
          yield* sql`select count(*)::int as count from effect_message_store_claims_one where expires_at > now()`
        assert.deepStrictEqual(left, { count: 0 })
      }))

    test("by a lease is kept while handlers have all connections of the pool", () =>
      Effect.gen(function*() {
        for (let i = 0; i < 20; i++) yield* write(1, `work-${i}`, 4)
        const calls: Array<number> = []
        const running = Effect.gen(function*() {
          const subscription = yield* (yield* stream(4)).subscription({
            name: "crowded",
            delivery: "transactional",
            claims: { lease: "1 second" },
            batchSize: 1
          })
          return yield* subscription.run((_, { partition, position }) =>
            Effect.suspend(() => {
              calls.push(partition)
              return position === 0 ? Effect.sleep("1500 millis") : Effect.void // longer than the lease
            })
          )
        }).pipe(Effect.provide(Layer.fresh(Layer.provideMerge(Work.layer, clientNamed("crowded", {}, 2)))))
        const fiber = yield* Effect.forkScoped(running)
        const subscription = yield* (yield* stream(4)).subscription({ name: "crowded" })
        yield* until("all is handled", Effect.map(subscription.lag, (lag) => lag === 0))
        assert.lengthOf(calls, 20)
        yield* Fiber.interrupt(fiber)
      }))

    test("whose connection is lost interrupts its handlers, and is made anew", () =>
      Effect.gen(function*() {
        for (let i = 0; i < 20; i++) yield* write(1, `work-${i}`, 4)
        const subscription = yield* (yield* stream(4)).subscription({ name: "interrupted" })
        const waiting = new Set<string>()
        const interrupted: Array<string> = []
        const again: Array<string> = []
        let isOpen = false
        const gate = yield* Deferred.make<void>()
        const partitions = (yield* subscription.status).length
        const running = subscription.run((_, { partition, position }) => {
          const at = `${partition} ${position}`
          if (isOpen) return Effect.sync(() => again.push(at))
          waiting.add(at)
          return Effect.onInterrupt(Deferred.await(gate), () => Effect.sync(() => interrupted.push(at)))
        })
        const name = "@effect/sql-pg"
        const fiber = yield* Effect.forkScoped(running)
        yield* until("all partitions wait", Effect.sync(() => waiting.size === partitions))
        isOpen = true
        assert.lengthOf(yield* lockers(name), 1)
        assert.strictEqual(yield* terminateLockers(name), 1)
        yield* until("they are interrupted", Effect.sync(() => interrupted.length === partitions))
        yield* until("all is done", Effect.map(subscription.lag, (lag) => lag === 0))
        assert.sameMembers(interrupted, [...waiting])
        assert.includeMembers(again, interrupted)
        assert.lengthOf(again, 20)
        yield* Fiber.interrupt(fiber)
        assert.lengthOf(yield* lockers(name), 0)
      }))
  })

  it.live("of two databases in one application have their own claims", () => {
    // Two layers of a store, each with its client, built with one memory.
    const one = (name: string) =>
      Effect.gen(function*() {
        const storage = yield* Storage
        const aggregated = yield* storage.aggregatedStream({
          name: `of_${name}`,
          patterns: ["%"],
          partitioner: { _tag: "StreamName", count: 1 }
        })
        const claims = yield* (yield* aggregated.subscription(`of_${name}`)).claims({ _tag: "Session" }, undefined)
        assert.isDefined(yield* claims.claim(0))
      }).pipe(
        Layer.effectDiscard,
        Layer.provide(PostgresStorage.layer(name)),
        Layer.provide(Layer.effectDiscard(Migrations.run(name))),
        Layer.provide(Layer.fresh(databaseLayer()))
      )
    return Effect.scoped(Layer.build(Layer.merge(one("one"), one("two"))))
  })
})
