/** Writes that leave together have the outcomes they would have had alone. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it, layer } from "@effect/vitest"
import { Arbitrary, Array as Arr, Deferred, Effect, Exit, Fiber, Layer, Result, Schema, Scope, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { standsInLine } from "./support/appending.ts"
import { databaseLayer } from "./support/database.ts"
import { hold as holdOpen } from "./support/links.ts"

class Booked extends Schema.TaggedClass<Booked>()("Booked", { ...Message.fields, seat: Schema.Int }) {}

class Coalesced extends MessageStore.Service<Coalesced>()("test/Coalesced", { name: "coalesced", schema: Booked }) {}
class OneByOne extends MessageStore.Service<OneByOne>()("test/OneByOne", {
  name: "one_by_one",
  schema: Booked,
  coalesce: false
}) {}

/** The same, by the functions that append anything. */
class General extends MessageStore.Service<General>()("test/General", { name: "general", schema: Booked }) {}
const generalLayer = Layer.provide(
  General.layerStorage,
  PostgresStorage.layer("general", { coalesce: false, lean: false })
).pipe(Layer.provide(Layer.effectDiscard(Migrations.run("general"))))

type Store = MessageStore.MessageStore<Booked>

const booked = () => new Booked({ seat: 1 })

/** What `refuse` lets no store take. */
const poison = 13

/** The database refuses messages of this seat. */
const refuse = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* sql`create function refuse() returns trigger language plpgsql as 'begin raise exception ''poison''; end'`
  for (const table of ["depeche_msgs_coalesced", "depeche_msgs_one_by_one", "depeche_msgs_general"]) {
    yield* sql`create trigger refuse before insert on ${sql(table)}
      for each row when ((new.message->>'seat')::int = ${sql.literal(String(poison))}) execute function refuse()`
  }
})

/** Takes the locks of streams in a transaction of its own; returns what ends it. */
const hold = (streams: ReadonlyArray<string>) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      holdOpen(sql`select pg_advisory_xact_lock(left('x' || md5(s.stream), 17)::bit(64)::bigint)
      from unnest(${streams}::text[]) s(stream)`)
  )

/** A write as numbers; ids come from a pool of each stream, so that duplicates do not depend on other streams. */
const Write = Schema.Struct({
  stream: Schema.Literals([0, 1, 2, 3]),
  expectedVersion: Schema.Literals(["any", "any", "exists", 0, 1, 2, 3, 4]),
  ids: Schema.Array(Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7])).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(3),
    Schema.isUnique()
  ),
  interrupted: Schema.Literals([false, false, false, true]),
  /** Whether the database refuses it, and so the whole statement that it is in. */
  refused: Schema.Literals([false, false, false, false, false, true])
})
/** So many of one stream leave in halves, each while the other goes on. */
const ToOneStream = Schema.Struct({
  ...Write.fields,
  stream: Schema.Literals([0, 0, 0, 0, 0, 1]),
  expectedVersion: Schema.Literals(["any", "any", "any", "any", "exists", 2]),
  refused: Schema.Literals([...Arr.makeBy(40, () => false), true])
})
/** The streams that another transaction holds when the writes begin. */
const Held = Schema.Array(Schema.Literals([0, 1, 2, 3])).check(Schema.isUnique())
const Writes = Arbitrary.array(Arbitrary.schema(Write), { minLength: 1, maxLength: 24 })

const live = { excludeTestServices: true }

describe("PostgreSQL", () => {
  layer(
    Layer.mergeAll(Coalesced.layer, OneByOne.layer, generalLayer).pipe(Layer.provideMerge(databaseLayer())),
    live
  )(
    "coalesced writes",
    (it) => {
      it.effect("have a database that refuses some", () => refuse)

      const show = (result: Result.Result<Message.MessagePosition, MessageStore.WriteError>): string => {
        if (Result.isSuccess(result)) return `written ${result.success.version}`
        const { failure } = result
        switch (failure._tag) {
          case "OptimisticConcurrencyError":
            return `version ${failure.actualVersion}`
          case "DuplicateMessageError":
            return `duplicate ${failure.messageId}`
          default:
            return failure._tag
        }
      }

      const agree = Effect.fnUntraced(
        function*([writes, held]: readonly [ReadonlyArray<typeof Write.Type>, typeof Held.Type]) {
          const coalesced = yield* Coalesced
          const others = [yield* OneByOne, yield* General]
          const streams = Arr.makeBy(4, () => globalThis.crypto.randomUUID())
          const messages = streams.map(() => Arr.makeBy(8, booked))
          // An interrupted write has messages of its own: what it left, if anything, shows whether it was on its way.
          const given = writes.map((write) =>
            Arr.map(
              write.ids as Arr.NonEmptyReadonlyArray<number>,
              (id) =>
                write.refused
                  ? new Booked({ seat: poison })
                  : write.interrupted
                  ? booked()
                  : messages[write.stream]?.[id] as Booked
            )
          )
          const run = (store: Store, write: typeof Write.Type, i: number) =>
            store.write(
              streams[write.stream] ?? "",
              given[i] as Arr.NonEmptyReadonlyArray<Booked>,
              write.expectedVersion === "any" ? {} : { expectedVersion: write.expectedVersion }
            )
          const release = yield* hold(held.map((stream) => streams[stream] ?? ""))
          // All are under way before the first has its answer; some are interrupted then.
          const fibers = yield* Effect.forEach(
            writes,
            (write, i) => Effect.forkChild(Effect.result(run(coalesced, write, i)), { startImmediately: true })
          )
          yield* Effect.forEach(fibers, (fiber, i) => writes[i]?.interrupted ? Fiber.interrupt(fiber) : Effect.void)
          yield* release
          const exits = yield* Effect.forEach(fibers, Fiber.await)
          const stored = new Set<string>()
          for (const stream of streams) {
            const all = yield* Stream.runCollect(coalesced.read(stream))
            assert.deepStrictEqual(all.map(({ version }) => version), all.map((_, i) => i + 1))
            for (const { messageId } of all) stored.add(messageId)
          }
          // The same one by one, without those that were taken out.
          for (const [i, write] of writes.entries()) {
            const exit = exits[i]
            if (exit !== undefined && Exit.isSuccess(exit)) {
              for (const other of others) {
                assert.strictEqual(show(exit.value), show(yield* Effect.result(run(other, write, i))))
              }
              continue
            }
            assert.isTrue(write.interrupted && exit !== undefined && Exit.hasInterrupts(exit))
            const left = given[i]?.filter(({ messageId }) => stored.has(messageId)) ?? []
            assert.include([0, given[i]?.length], left.length)
            if (left.length > 0) { for (const other of others) yield* Effect.result(run(other, write, i)) }
          }
          for (const stream of streams) {
            const ids = (store: Store) =>
              Effect.map(Stream.runCollect(store.read(stream)), (all) => all.map(({ messageId }) => messageId))
            const expected = yield* ids(coalesced)
            for (const other of others) assert.deepStrictEqual(yield* ids(other), expected)
          }
        }
      )

      it.effect.prop(
        "have the outcomes of the same writes one by one, by whichever function",
        [Writes, Arbitrary.schema(Held)],
        agree
      )

      it.effect.prop(
        "have the outcomes of the same writes one by one, many of them to one stream",
        [Arbitrary.array(Arbitrary.schema(ToOneStream), { minLength: 48, maxLength: 80 }), Arbitrary.schema(Held)],
        agree,
        { arbitrary: { runs: 12 } }
      )

      it.effect("leave in far fewer statements than there are writes", () =>
        Effect.gen(function*() {
          const store = yield* Coalesced
          const sql = yield* SqlClient.SqlClient
          const transactions = Effect.map(
            sql<{ readonly count: number }>`select count(distinct tx)::int as count from depeche_msgs_coalesced`,
            ([row]) => row?.count ?? 0
          )
          const before = yield* transactions
          yield* Effect.forEach(Arr.range(1, 300), (i) => store.write(`few-${i}`, booked()), {
            concurrency: "unbounded"
          })
          assert.isBelow((yield* transactions) - before, 20)
        }))

      it.effect("wait for nobody's stream but their own", () =>
        Effect.gen(function*() {
          const store = yield* Coalesced
          const [held, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
          const holder = yield* Effect.forkChild(store.withTransaction(Effect.gen(function*() {
            yield* store.write("__proto__", booked())
            yield* Deferred.succeed(held, undefined)
            yield* Deferred.await(release)
          })))
          yield* Deferred.await(held)
          const waiting = yield* Effect.forEach(Arr.range(1, 30), () =>
            Effect.forkChild(store.write("__proto__", booked()), { startImmediately: true }))
          yield* Effect.forEach(
            Arr.range(1, 200),
            (i) =>
              Effect.andThen(store.write(`free-${i}`, booked()), store.write(`free-${i % 7}`, booked())),
            { concurrency: "unbounded" }
          )
          assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
          // The first waits in the database, the others here: who is interrupted writes nothing.
          yield* Fiber.interruptAll([...waiting.slice(0, 2), ...waiting.slice(20)])
          yield* Deferred.succeed(release, undefined)
          yield* Fiber.join(holder)
          const positions = yield* Effect.forEach(waiting.slice(2, 20), Fiber.join)
          assert.deepStrictEqual(positions.map(({ version }) => version), Arr.range(2, 19))
          assert.strictEqual((yield* store.head("__proto__")).version, 19)
          // Those who waited here left together.
          const sql = yield* SqlClient.SqlClient
          const [row] = yield* sql<{ readonly statements: number }>`
            select count(distinct tx)::int as statements from depeche_msgs_coalesced where stream = '__proto__'`
          assert.isBelow(row?.statements ?? 0, 5)
        }))

      it.effect("are over when the fiber that was interrupted has ended", () =>
        Effect.gen(function*() {
          const store = yield* Coalesced
          for (let i = 0; i < 50; i++) {
            const fiber = yield* Effect.forkChild(store.write(`over-${i}`, booked()), { startImmediately: true })
            for (let turns = 0; turns < i % 10; turns++) yield* Effect.yieldNow
            yield* Fiber.interrupt(fiber)
            const { version } = yield* store.head(`over-${i}`)
            const next = yield* store.write(`over-${i}`, booked())
            assert.strictEqual(next.version, version + 1)
          }
        }))

      it.effect("fail alone where the database refuses one", () =>
        Effect.gen(function*() {
          const store = yield* Coalesced
          const results = yield* Effect.forEach(
            Arr.range(1, 60),
            (i) => Effect.result(store.write(`fine-${i}`, i === 30 ? new Booked({ seat: poison }) : booked())),
            { concurrency: "unbounded" }
          )
          const failures = results.flatMap((result, i) =>
            Result.isFailure(result) ? [[i + 1, result.failure._tag]] : []
          )
          assert.deepStrictEqual(failures, [[30, "SqlError"]])
        }))

      it.effect("are not written when their batch was refused after they were interrupted", () =>
        Effect.gen(function*() {
          const store = yield* Coalesced
          const sql = yield* SqlClient.SqlClient
          yield* sql`create function wait() returns trigger language plpgsql as
            'begin perform pg_advisory_xact_lock(42); return new; end'`
          yield* sql`create trigger wait before insert on depeche_msgs_coalesced
            for each row when (new.stream = 'slow') execute function wait()`
          const [held, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
          const holder = yield* Effect.forkChild(sql.withTransaction(Effect.gen(function*() {
            yield* sql`select pg_advisory_xact_lock(42)`
            yield* Deferred.succeed(held, undefined)
            yield* Deferred.await(release)
          })))
          yield* Deferred.await(held)
          // The first leaves alone, and the others together: refused, they are sent one by one, and "slow" waits.
          const fork = (stream: string, message = booked()) =>
            Effect.forkChild(Effect.result(store.write(stream, message)), { startImmediately: true })
          const fibers = [
            yield* fork("alone"),
            yield* fork("refused", new Booked({ seat: poison })),
            yield* fork("slow")
          ]
          const victim = yield* fork("victim")
          yield* standsInLine
          yield* Fiber.interrupt(victim)
          yield* Deferred.succeed(release, undefined)
          yield* Fiber.join(holder)
          const results = yield* Effect.forEach(fibers, Fiber.join)
          assert.deepStrictEqual(results.map(Result.isSuccess), [true, false, true])
          assert.strictEqual((yield* store.write("victim", booked())).version, 1)
          yield* sql`drop trigger wait on depeche_msgs_coalesced`
        }))

      it.effect("are safe to repeat when the connection is lost under them", () =>
        Effect.gen(function*() {
          const store = yield* Coalesced
          const sql = yield* PgClient.PgClient
          const messages = Arr.makeBy(40, booked)
          // The batch is on its way and waits for the table, when its backend is terminated.
          const locked = yield* Deferred.make<void>()
          const holder = yield* Effect.forkChild(sql.withTransaction(Effect.gen(function*() {
            yield* sql`lock table depeche_msgs_coalesced in exclusive mode`
            yield* Deferred.succeed(locked, undefined)
            while (true) {
              const ended = yield* sql`
                with waiting as materialized (
                  select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
                ) select pg_terminate_backend(pid) from waiting`
              if (ended.length > 0) return
            }
          })))
          yield* Deferred.await(locked)
          const results = yield* Effect.forEach(
            messages,
            (message, i) => Effect.result(store.write(`lost-${i}`, message)),
            { concurrency: "unbounded" }
          )
          yield* Fiber.join(holder)
          const failed = results.filter(Result.isFailure)
          assert.isAbove(failed.length, 0)
          for (const { failure } of failed) {
            assert.isTrue(failure._tag === "SqlError" && failure.reason._tag === "ConnectionError", String(failure))
          }
          const heads = yield* Effect.forEach(messages, (message, i) => store.synchronize(`lost-${i}`, [message]), {
            concurrency: "unbounded"
          })
          assert.isTrue(heads.every(({ version }) => version === 1))
        }))
    }
  )

  const client: Readonly<Record<string, { readonly maxConnections?: number; readonly multiplex?: boolean }>> = {
    "a pool of 2": { maxConnections: 2 },
    "multiplexed connections": { multiplex: true }
  }
  for (const [title, options] of Object.entries(client)) {
    it.live(`with ${title}, streams that others hold block nobody else`, () =>
      Effect.gen(function*() {
        const store = yield* Coalesced
        const streams = Arr.makeBy(12, (i) => `held-${i}`)
        // Held from outside of the pool.
        const elsewhere = PgClient.layer((yield* PgClient.PgClient).config)
        const others = yield* Layer.build(Layer.fresh(elsewhere))
        const release = yield* Effect.provide(hold(streams), others)
        const waiting = yield* Effect.forEach([...streams, ...streams], (stream) =>
          Effect.forkChild(store.write(stream, booked()), { startImmediately: true }))
        // Who shares a connection with one of these waits behind it (docs/limits.md).
        const heldTogether = options.multiplex === true ? [] : streams
        const together = yield* Effect.forEach(heldTogether, (stream) =>
          Effect.forkChild(
            store.writeAll([{ stream: `with-${stream}`, messages: booked() }, { stream, messages: booked() }])
          ))
        for (let i = 0; i < 100; i++) {
          yield* Effect.forEach(["a", "b", "c"], (stream) =>
            store.write(stream, booked()), { concurrency: "unbounded" })
          yield* Effect.sleep(1)
        }
        assert.isTrue([...waiting, ...together].every((fiber) => fiber.pollUnsafe() === undefined))
        const sql = yield* SqlClient.SqlClient
        const inLine = yield* sql`select from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock'`
        // A single write, and as many of several streams as the pool may spare.
        assert.isAtMost(inLine.length, 1 + Math.max(1, (options.maxConnections ?? 10) - 2))
        yield* release
        yield* Fiber.joinAll([...waiting, ...together])
        const heads = yield* Effect.forEach(streams, (stream) => store.head(stream))
        assert.deepStrictEqual(
          heads.map(({ version }) => version),
          streams.map(() => 2 + heldTogether.length / streams.length)
        )
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Coalesced.layer, databaseLayer(options)))), 20_000)
  }

  it.live(
    "a lock_timeout fails those who have waited together, and not one after the other",
    () =>
      Effect.gen(function*() {
        const store = yield* Coalesced
        const release = yield* hold(["x", "y"])
        const results = yield* Effect.forEach(
          Arr.range(1, 40),
          (i) => Effect.result(store.write(i % 2 === 0 ? "x" : "y", booked())),
          { concurrency: "unbounded" }
        ).pipe(Effect.timeout("5 seconds"))
        assert.isTrue(results.every((result) =>
          Result.isFailure(result) && result.failure._tag === "SqlError" &&
          result.failure.reason._tag === "LockTimeoutError"
        ))
        yield* release
        assert.strictEqual((yield* store.write("x", booked())).version, 1)
      }).pipe(
        Effect.provide(
          Layer.provideMerge(Coalesced.layer, databaseLayer({ startupParameters: { lock_timeout: "500ms" } }))
        )
      ),
    20_000
  )

  it.live(
    "a batch that waits for another transaction keeps no other back, however few they are",
    () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const store = yield* Coalesced
        const message = booked()
        const [inserted, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const other = yield* Effect.forkChild(sql.withTransaction(Effect.gen(function*() {
          yield* store.write("elsewhere", message)
          yield* Deferred.succeed(inserted, undefined)
          yield* Deferred.await(release)
        })))
        yield* Deferred.await(inserted)
        // The database can say whether it is a duplicate when the other transaction has ended.
        const duplicate = yield* Effect.forkChild(Effect.flip(store.write("duplicate", message)))
        yield* standsInLine
        assert.strictEqual((yield* Effect.timeout(store.write("free", booked()), "5 seconds")).version, 1)
        assert.isUndefined(duplicate.pollUnsafe())
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(other)
        assert.strictEqual((yield* Fiber.join(duplicate))._tag, "DuplicateMessageError")
      }).pipe(Effect.provide(Layer.provideMerge(Coalesced.layer, databaseLayer()))),
    20_000
  )

  it.live("a lone write that meets a held stream ends with the layer", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const store = yield* Effect.provide(Coalesced, yield* Layer.buildWithScope(Coalesced.layer, scope))
      const release = yield* hold(["lone"])
      // Its statement gets a connection, and finds the stream held, when the layer is closed already.
      const freeConnection = yield* hold(["other"])
      const lone = yield* Effect.forkChild(store.write("lone", booked()), { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      yield* freeConnection
      assert.isTrue(Exit.hasInterrupts(yield* Effect.timeout(Fiber.await(lone), "5 seconds")))
      yield* release
    }).pipe(Effect.provide(databaseLayer({ maxConnections: 2 }))), 20_000)

  it.live("ends with the layer: who waits is interrupted", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(Coalesced.layer, scope)
      const store = yield* Effect.provide(Coalesced, context)
      const held = yield* Deferred.make<void>()
      const holder = yield* Effect.forkChild(store.withTransaction(Effect.gen(function*() {
        yield* store.write("__proto__", booked())
        yield* Deferred.succeed(held, undefined)
        return yield* Effect.never
      })))
      yield* Deferred.await(held)
      const waiting = yield* Effect.forEach(Arr.range(1, 10), () =>
        Effect.forkChild(store.write("__proto__", booked()), { startImmediately: true }))
      yield* store.write("other", booked())
      yield* Scope.close(scope, Exit.void)
      for (const fiber of waiting) {
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      }
      assert.isTrue(Exit.hasInterrupts(yield* Effect.exit(store.write("late", booked()))))
      yield* Fiber.interrupt(holder)
    }).pipe(Effect.provide(databaseLayer())))
})
