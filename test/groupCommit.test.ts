/** Writes that leave together have the outcomes they would have had alone. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it, layer } from "@effect/vitest"
import { Arbitrary, Array as Arr, Deferred, Effect, Exit, Fiber, Layer, Result, Schema, Scope, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"

class Booked extends Schema.TaggedClass<Booked>()("Booked", { ...Message.fields, seat: Schema.Int }) {}

class Coalesced extends MessageStore.Service<Coalesced>()("test/Coalesced", { name: "coalesced", schema: Booked }) {}
class OneByOne extends MessageStore.Service<OneByOne>()("test/OneByOne", {
  name: "one_by_one",
  schema: Booked,
  coalesce: false
}) {}

type Store = MessageStore.MessageStore<Booked>

const booked = () => new Booked({ seat: 1 })

/** A write as numbers; ids come from a pool of each stream, so that duplicates do not depend on other streams. */
const Write = Schema.Struct({
  stream: Schema.Literals([0, 1, 2, 3]),
  expectedVersion: Schema.Literals(["any", "any", "exists", 0, 1, 2, 3, 4]),
  ids: Schema.Array(Schema.Literals([0, 1, 2, 3, 4, 5, 6, 7])).check(
    Schema.isMinLength(1),
    Schema.isMaxLength(3),
    Schema.isUnique()
  ),
  interrupted: Schema.Literals([false, false, false, true])
})
const Writes = Arbitrary.array(Arbitrary.schema(Write), { minLength: 1, maxLength: 24 })

const live = { excludeTestServices: true }

describe("PostgreSQL", () => {
  layer(Layer.merge(Coalesced.layer, OneByOne.layer).pipe(Layer.provideMerge(databaseLayer())), live)(
    "coalesced writes",
    (it) => {
      const show = (result: Result.Result<Message.MessagePosition, MessageStore.WriteError>): string => {
        if (Result.isSuccess(result)) return `written ${result.success.version}`
        const { failure } = result
        switch (failure._tag) {
          case "OptimisticConcurrencyError":
            return `version ${failure.actualVersion}`
          case "DuplicateMessageError":
            return `duplicate ${failure.messageId}`
          default:
            return failure.message
        }
      }

      it.effect.prop(
        "have the outcomes of the same writes one by one",
        [Writes],
        Effect.fnUntraced(function*([writes]) {
          const [coalesced, oneByOne] = [yield* Coalesced, yield* OneByOne]
          const streams = Arr.makeBy(4, () => globalThis.crypto.randomUUID())
          const messages = streams.map(() => Arr.makeBy(8, booked))
          // An interrupted write has messages of its own: what it left, if anything, shows whether it was on its way.
          const given = writes.map((write) =>
            Arr.map(
              write.ids as Arr.NonEmptyReadonlyArray<number>,
              (id) => write.interrupted ? booked() : messages[write.stream]?.[id] as Booked
            )
          )
          const run = (store: Store, write: typeof Write.Type, i: number) =>
            store.write(
              streams[write.stream] ?? "",
              given[i] as Arr.NonEmptyReadonlyArray<Booked>,
              write.expectedVersion === "any" ? {} : { expectedVersion: write.expectedVersion }
            )
          // All are under way before the first has its answer; some are interrupted then.
          const fibers = yield* Effect.forEach(
            writes,
            (write, i) => Effect.forkChild(Effect.result(run(coalesced, write, i)), { startImmediately: true })
          )
          yield* Effect.forEach(fibers, (fiber, i) => writes[i]?.interrupted ? Fiber.interrupt(fiber) : Effect.void)
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
              assert.strictEqual(show(exit.value), show(yield* Effect.result(run(oneByOne, write, i))))
              continue
            }
            assert.isTrue(write.interrupted && exit !== undefined && Exit.hasInterrupts(exit))
            const left = given[i]?.filter(({ messageId }) => stored.has(messageId)) ?? []
            assert.include([0, given[i]?.length], left.length)
            if (left.length > 0) yield* Effect.result(run(oneByOne, write, i))
          }
          for (const stream of streams) {
            const [left, right] = [coalesced, oneByOne].map((store) =>
              Effect.map(Stream.runCollect(store.read(stream)), (all) => all.map(({ messageId }) => messageId))
            )
            assert.deepStrictEqual(yield* left ?? Effect.succeed([]), yield* right ?? Effect.succeed([]))
          }
        })
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
          const sql = yield* SqlClient.SqlClient
          yield* sql`create function refuse() returns trigger language plpgsql as 'begin raise exception ''poison''; end'`
          yield* sql`create trigger refuse before insert on depeche_msgs_coalesced
            for each row when (new.stream = 'poison') execute function refuse()`
          const results = yield* Effect.forEach(
            Arr.range(1, 60),
            (i) => Effect.result(store.write(i === 30 ? "poison" : `fine-${i}`, booked())),
            { concurrency: "unbounded" }
          )
          yield* sql`drop trigger refuse on depeche_msgs_coalesced`
          const failures = results.flatMap((result, i) =>
            Result.isFailure(result) ? [[i + 1, result.failure._tag]] : []
          )
          assert.deepStrictEqual(failures, [[30, "SqlError"]])
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
