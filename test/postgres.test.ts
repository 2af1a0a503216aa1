/** What is PostgreSQL's own: isolation levels, connections, migrations, and the store that Python shares. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Queue, Result, Schema, Stream } from "effect"
import { Message, MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { Storage } from "../src/Storage.ts"
import { databaseLayer } from "./support/database.ts"
import { createDepecheStore } from "./support/depeche.ts"

class Placed extends Schema.TaggedClass<Placed>()("Placed", { ...Message.fields, order: Schema.String }) {}

class Orders extends MessageStore.Service<Orders>()("test/Orders", { name: "orders", schema: Placed }) {}

const placed = (order = "1") => new Placed({ order })

const live = { excludeTestServices: true }

describe("PostgreSQL", () => {
  layer(Orders.layer.pipe(Layer.provideMerge(databaseLayer())), live)("transactions", (it) => {
    const levels = ["repeatable read", "serializable"]

    for (const level of levels) {
      const transaction = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          return yield* sql.withTransaction(effect)
        }).pipe(Effect.provideService(SqlClient.BeginTransaction, `begin isolation level ${level}`))

      // The transaction has its snapshot; another writer commits; then the transaction writes.
      const lostRace = Effect.fnUntraced(function*(
        stream: string,
        other: Placed,
        write: Effect.Effect<unknown, MessageStore.WriteError>
      ) {
        const orders = yield* Orders
        const [ready, done] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const outside = yield* Effect.forkChild(Effect.gen(function*() {
          yield* Deferred.await(ready)
          yield* orders.write(stream, other)
          yield* Deferred.succeed(done, undefined)
        }))
        const result = yield* Effect.result(transaction(Effect.gen(function*() {
          yield* orders.head(stream)
          yield* Deferred.succeed(ready, undefined)
          yield* Deferred.await(done)
          yield* write
        })))
        yield* Fiber.join(outside)
        return result
      })

      const isLost = (result: Result.Result<unknown, MessageStore.WriteError>) =>
        Result.isFailure(result) && (result.failure._tag === "OptimisticConcurrencyError" ||
          (result.failure._tag === "SqlError" && result.failure.isRetryable &&
            result.failure.reason._tag === "SerializationError"))

      it.effect(`a lost race under ${level} is a conflict or retryable`, () =>
        Effect.gen(function*() {
          const orders = yield* Orders
          const stream = `race-${level}`
          yield* orders.write(stream, placed())
          const cases = [
            orders.write(stream, placed()),
            orders.write(stream, [placed(), placed()], { expectedVersion: "exists" })
          ]
          for (const write of cases) assert.isTrue(isLost(yield* lostRace(stream, placed(), write)))
          const { version } = yield* orders.head(stream)
          const stale = orders.write(stream, placed(), { expectedVersion: version })
          assert.isTrue(isLost(yield* lostRace(stream, placed(), stale)))
          const same = placed()
          assert.isTrue(isLost(yield* lostRace(stream, same, orders.write(`${stream}-other`, same))))
          const versions = (yield* Stream.runCollect(orders.read(stream))).map((stored) => stored.version)
          assert.deepStrictEqual(versions, versions.map((_, i) => i + 1))
        }))

      it.effect(`writes, reads and refuses under ${level} as ever`, () =>
        Effect.gen(function*() {
          const orders = yield* Orders
          const stream = `plain-${level}`
          const first = placed()
          yield* transaction(Effect.gen(function*() {
            yield* orders.write(stream, first, { expectedVersion: 0 })
            const stale = yield* Effect.flip(orders.write(stream, placed(), { expectedVersion: 0 }))
            assert.strictEqual(stale._tag, "OptimisticConcurrencyError")
            const duplicate = yield* Effect.flip(orders.write(stream, [placed(), first]))
            assert.strictEqual(duplicate._tag, "DuplicateMessageError")
            yield* orders.write(stream, placed(), { expectedVersion: 1 })
          }))
          assert.strictEqual((yield* orders.head(stream)).version, 2)
        }))
    }

    it.effect("holds no connection and no transaction after 100 fibers were interrupted at random points", () =>
      Effect.gen(function*() {
        const orders = yield* Orders
        const sql = yield* SqlClient.SqlClient
        yield* orders.write("interrupted", [placed(), placed()])
        for (let i = 0; i < 100; i++) {
          const reached = yield* Deferred.make<void>()
          const at = (point: number) => i % 5 === point ? Deferred.succeed(reached, undefined) : Effect.void
          const fiber = yield* Effect.forkChild(
            orders.withTransaction(Effect.scoped(Effect.gen(function*() {
              yield* at(1)
              yield* orders.write("interrupted", placed())
              yield* at(2)
              const reader = yield* orders.reader
              yield* at(3)
              yield* Stream.runDrain(reader.read("interrupted"))
              yield* at(4)
              return yield* Effect.never
            }))),
            { startImmediately: true }
          )
          if (i % 5 !== 0) yield* Deferred.await(reached)
          yield* Fiber.interrupt(fiber)
        }
        const sessions = yield* sql<{ readonly state: string; readonly count: number }>`
          select state, count(*)::int as count from pg_stat_activity
          where datname = current_database() and pid <> pg_backend_pid() group by state`
        assert.deepStrictEqual(sessions.filter(({ state }) => state !== "idle"), [])
        const connections = sessions.reduce((sum, { count }) => sum + count, 1)
        assert.isAtMost(connections, 10)
        assert.strictEqual((yield* orders.head("interrupted")).version, 2)
        // All ten connections of the pool can be had at once.
        const all = yield* Deferred.make<void>()
        let open = 0
        yield* Effect.all(
          Array.from(
            { length: 10 },
            () =>
              orders.withTransaction(
                Effect.suspend(() =>
                  Effect.andThen(++open === 10 ? Deferred.succeed(all, undefined) : Effect.void, Deferred.await(all))
                )
              )
          ),
          { concurrency: "unbounded" }
        )
      }))

    it.effect("ends a page where its messages become large, and says that there are more", () =>
      Effect.gen(function*() {
        const orders = yield* Orders
        const storage = yield* Storage
        // 16,000 numbers at a time is all that getRandomValues gives
        const random = () =>
          Array.from({ length: 6 }, () => globalThis.crypto.getRandomValues(new Uint32Array(16_000)).join("")).join("")
        for (let i = 0; i < 12; i++) yield* orders.write("large", placed(random()))
        const query = { stream: "large", toVersion: 100, direction: "forward" as const, limit: 1000 }
        const { messages, more } = yield* storage.readStream({ ...query, fromVersion: 1 })
        assert.isTrue(messages.length > 1 && messages.length < 12, String(messages.length))
        assert.isTrue(more)
        const rest = yield* storage.readStream({ ...query, fromVersion: 12 })
        assert.deepStrictEqual([rest.messages.length, rest.more], [1, false])
      }).pipe(Effect.provide(PostgresStorage.layer("orders"))))

    it.effect("commits and rolls back with the tables of the application", () =>
      Effect.gen(function*() {
        const orders = yield* Orders
        const sql = yield* SqlClient.SqlClient
        yield* sql`create table totals (stream text primary key, count int not null)`
        const both = (stream: string) =>
          sql.withTransaction(Effect.andThen(
            sql`insert into totals values (${stream}, 1)`,
            orders.write(stream, placed(), { expectedVersion: 0 })
          ))
        yield* both("together")
        yield* sql`delete from totals`
        const error = yield* Effect.flip(both("together"))
        assert.strictEqual(error._tag, "OptimisticConcurrencyError")
        assert.deepStrictEqual(yield* sql`select * from totals`, [])
        yield* orders.withTransaction(sql`insert into totals values ('mine', 1)`)
        assert.strictEqual((yield* sql`select * from totals`).length, 1)
      }))
  })

  layer(databaseLayer(), live)("migrations", (it) => {
    it.effect("run once, however many processes start at once", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.all(
          Array.from({ length: 8 }, () =>
            Effect.flatMap(Orders, (orders) => orders.write("o", placed())).pipe(
              Effect.provide(Layer.fresh(Orders.layer))
            )),
          { concurrency: "unbounded" }
        )
        const count = yield* Effect.flatMap(Orders, (orders) => orders.head("o")).pipe(Effect.provide(Orders.layer))
        assert.strictEqual(count.version, 8)
        const done = yield* sql<{ readonly name: string }>`
          select name from effect_message_store_migrations_orders order by migration_id`
        assert.deepStrictEqual(done.map(({ name }) => name), [
          "messages",
          "columns",
          "times",
          "functions",
          "decisions",
          "tagging",
          "scheduled",
          "subject keys",
          "forgetting",
          "lean"
        ])
      }))

    it.effect("can be run by hand, from their text", () =>
      Effect.gen(function*() {
        class ByHand extends MessageStore.Service<ByHand>()("test/ByHand", { name: "by_hand", schema: Placed }) {}
        const sql = yield* SqlClient.SqlClient
        for (const { statements } of yield* ByHand.migrations) {
          for (const statement of statements) yield* sql.unsafe(statement).unprepared
        }
        const write = Effect.flatMap(ByHand, (store) => store.write("a", placed()))
        assert.strictEqual((yield* Effect.provide(write, ByHand.layerNoMigrations)).version, 1)
        assert.strictEqual((yield* Effect.provide(write, ByHand.layer)).version, 2)
      }))

    it.effect("can be run by hand for aggregated streams and subscriptions", () =>
      Effect.gen(function*() {
        class ByHand extends MessageStore.Service<ByHand>()("test/ByHand2", { name: "by_hand_2", schema: Placed }) {}
        const sql = yield* SqlClient.SqlClient
        const migrations = [
          ...yield* ByHand.migrations,
          ...yield* ByHand.streamMigrations("by_hand_stream"),
          ...yield* ByHand.subscriptionMigrations("by_hand_subscription")
        ]
        for (const { statements } of migrations) {
          for (const statement of statements) yield* sql.unsafe(statement).unprepared
        }
        yield* Effect.gen(function*() {
          const store = yield* ByHand
          yield* store.write("a", placed())
          const stream = yield* store.aggregatedStream({
            name: "by_hand_stream",
            patterns: "a",
            partitioner: Partitioner.constant()
          })
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          const subscription = yield* stream.subscription({ name: "by_hand_subscription" })
          assert.strictEqual(yield* subscription.lag, 1)
        }).pipe(Effect.provide(ByHand.layerNoMigrations))
        const made = yield* sql`select 1 from pg_class where relname = 'effect_message_store_streamed_by_hand_stream'`
        assert.lengthOf(made, 0)
      }))

    it.effect("without tables, the store says which are missing and what makes them", () =>
      Effect.gen(function*() {
        class Missing extends MessageStore.Service<Missing>()("test/Missing", { name: "missing", schema: Placed }) {}
        const write = Effect.flatMap(Missing, (store) => store.write("a", placed()))
        const error = yield* Effect.flip(Effect.provide(write, Missing.layerNoMigrations))
        assert.strictEqual(error._tag, "SetupError")
        assert.strictEqual(
          error.message,
          "\"missing\" does not exist: there is no table depeche_msgs_missing in the schemas of the search path; " +
            "run what `migrations` prints"
        )
      }))

    it.effect("keeps two stores of one database apart", () =>
      Effect.gen(function*() {
        class Left extends MessageStore.Service<Left>()("test/Left", { name: "left", schema: Placed }) {}
        class Right extends MessageStore.Service<Right>()("test/Right", { name: "right", schema: Placed }) {}
        yield* Effect.gen(function*() {
          const [left, right] = [yield* Left, yield* Right]
          const message = placed()
          yield* left.write("same", message)
          yield* right.write("same", [placed(), message])
          const failed = left.withTransaction(Effect.andThen(
            Effect.all([left.write("same", placed()), right.write("same", placed())]),
            Effect.fail("no")
          ))
          assert.strictEqual(yield* Effect.flip(failed), "no")
          assert.deepStrictEqual([(yield* left.head("same")).version, (yield* right.head("same")).version], [1, 2])
        }).pipe(Effect.provide(Layer.merge(Left.layer, Right.layer)))
      }))

    it.effect("refuses names that are no identifiers, in every layer", () =>
      Effect.gen(function*() {
        for (const name of ["", "Orders", "1st", "a-b", "a b", "a;drop table x", "x".repeat(40), "ö"]) {
          class Bad extends MessageStore.Service<Bad>()("test/Bad", { name, schema: Placed }) {}
          for (const bad of [Bad.layer, Bad.layerNoMigrations, Bad.layerMemory]) {
            const error = yield* Effect.flip(Effect.provide(Effect.asVoid(Bad), bad))
            assert.strictEqual(error._tag, "InvalidNameError", name)
          }
          assert.isTrue(Exit.isFailure(yield* Effect.exit(Bad.migrations)))
        }
      }))
  })

  layer(databaseLayer(), live)("shared with Python", (it) => {
    const PythonEvent = Schema.TaggedStruct("UserRegistered", { event_id: Schema.String, name: Schema.String })

    class Users extends MessageStore.Service<Users>()("test/Users", {
      name: "users",
      schema: PythonEvent,
      typeField: "__typename__",
      aliases: { UserCreated: "UserRegistered" },
      id: (event) => event.event_id,
      time: () => placed().occurredAt
    }) {}

    const event = (name: string) => PythonEvent.make({ event_id: globalThis.crypto.randomUUID(), name })

    it.effect("adopts a store of depeche_db, and loses nothing", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const rows = ["a", "b", "c"].map((name, i) => {
          const { _tag, ...fields } = event(name)
          return {
            message_id: fields.event_id,
            stream: "user-1",
            version: i + 1,
            message: { ...fields, __typename__: i === 0 ? "UserCreated" : _tag }
          }
        })
        yield* createDepecheStore("users", rows)
        yield* Effect.gen(function*() {
          const users = yield* Users
          const stored = yield* Stream.runCollect(users.read("user-1"))
          assert.deepStrictEqual(stored.map(({ message }) => message.name), ["a", "b", "c"])
          assert.deepStrictEqual(stored.map(({ messageId }) => messageId), rows.map((row) => row.message_id))
          assert.deepStrictEqual(stored.map(({ globalPosition }) => globalPosition), [1, 2, 3])
          assert.strictEqual(stored[0]?.addedAt.toJSON(), "2024-05-06T07:08:09.123Z")
          const written = yield* users.write("user-1", event("d"), { expectedVersion: 3 })
          assert.deepStrictEqual(written, { stream: "user-1", version: 4, globalPosition: 4 })
        }).pipe(Effect.provide(Users.layer))
        const [last] = yield* sql<{ readonly message: unknown }>`
          select message from depeche_msgs_users where version = 4`
        assert.deepInclude(Object(last?.message), { __typename__: "UserRegistered", name: "d" })
        assert.notProperty(last?.message, "_tag")
        const [payload] = yield* sql<{ readonly data_type: string }>`select data_type from information_schema.columns
          where table_name = 'depeche_msgs_users' and column_name = 'message'`
        assert.strictEqual(payload?.data_type, "jsonb")
      }))

    for (const made of ["here", "by depeche_db"]) {
      it.effect(`Python's write function works on in a store made ${made}`, () =>
        Effect.gen(function*() {
          const name = made === "here" ? "ours" : "theirs"
          class Shared extends MessageStore.Service<Shared>()(`test/${name}`, {
            name,
            schema: PythonEvent,
            typeField: "__typename__",
            id: (given) => given.event_id,
            time: () => placed().occurredAt
          }) {}
          const sql = yield* PgClient.PgClient
          if (made !== "here") yield* createDepecheStore(name)
          const python = (expected: number | null) => {
            const { _tag, ...fields } = event("python")
            return sql<{ readonly version: bigint; readonly global_position: bigint }>`
              select version, global_position from ${sql(`depeche_write_message_${name}`)}(
                ${fields.event_id}::uuid, 's'::varchar,
                ${JSON.stringify({ ...fields, __typename__: _tag })}::text::json, ${expected}::bigint)`
          }
          yield* Effect.gen(function*() {
            const shared = yield* Shared
            const heard = yield* sql.listen(`depeche_${name}_messages`)
            yield* shared.write("s", event("effect"))
            assert.deepStrictEqual(yield* python(1), [{ version: 2n, global_position: 2n }])
            assert.deepStrictEqual((yield* python(null)).map(({ version }) => version), [3n])
            const error = yield* Effect.flip(python(7))
            const { code, message } = Object(error.reason.cause)
            assert.deepStrictEqual([code, message], [
              "P0001",
              "Wrong expected version: 7 (Stream: s, Stream Version: 3)"
            ])
            yield* shared.write("s", event("effect"), { expectedVersion: 3 })
            const stored = yield* Stream.runCollect(shared.read("s"))
            assert.deepStrictEqual(
              stored.map(({ message: { name: writer }, version }) => [version, writer]),
              [[1, "effect"], [2, "python"], [3, "python"], [4, "effect"]]
            )
            let hint: unknown
            do hint = JSON.parse((yield* Queue.take(heard)).payload)
            while (Object(hint).version !== 3)
            assert.deepStrictEqual(hint, {
              message_id: stored[2]?.messageId,
              stream: "s",
              version: 3,
              global_position: 3
            })
          }).pipe(Effect.scoped, Effect.provide(Shared.layer))
        }))
    }

    it.effect("Python and Effect writers of one stream exclude each other", () =>
      Effect.gen(function*() {
        class Mixed extends MessageStore.Service<Mixed>()("test/Mixed", { name: "mixed", schema: Placed }) {}
        const sql = yield* SqlClient.SqlClient
        const python = sql`select depeche_write_message_mixed(
          gen_random_uuid(), 'm'::varchar, '{"_tag":"Placed"}'::json)`
        yield* Effect.gen(function*() {
          const mixed = yield* Mixed
          yield* Effect.all(
            Array.from({ length: 64 }, (_, i) => i % 2 === 0 ? python : Effect.asVoid(mixed.write("m", placed()))),
            { concurrency: "unbounded", discard: true }
          )
          const versions = yield* sql<{ readonly version: number }>`
            select version from depeche_msgs_mixed order by global_position`
          assert.deepStrictEqual(versions.map(({ version }) => version), Array.from({ length: 64 }, (_, i) => i + 1))
        }).pipe(Effect.provide(Mixed.layer))
      }))
  })
})
