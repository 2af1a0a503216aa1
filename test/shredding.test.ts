/** Forgetting on PostgreSQL: forced interleavings of writers and `forget`, what is in the database and its files, and roles. */
import { assert, describe, layer } from "@effect/vitest"
import {
  Array as Arr,
  DateTime,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Option,
  Result,
  Schedule,
  Schema,
  Stream
} from "effect"
import { Archive, Fold, KeyEncryption, MessageStore, Personal } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { outsider } from "../src/testing/fixture.ts"
import {
  canary,
  type CustomerEvent,
  Customers,
  emailsOf,
  encryption,
  Renamed,
  renamed,
  Returning,
  wrappingKeys
} from "../src/testing/messageStore/personalFixture.ts"
import { type As, Clients, createRole, sharedDatabaseLayer } from "./support/sharedDatabase.ts"

class Elsewhere extends MessageStore.Service<Elsewhere>()("test/Elsewhere", { name: "moved", schema: Renamed }) {}

const live = { excludeTestServices: true, timeout: "1 minute" } as const
const database = Layer.mergeAll(Customers.layer, Returning.layer).pipe(
  Layer.provideMerge(encryption),
  Layer.provideMerge(sharedDatabaseLayer)
)

/** Waits until so many sessions wait for a lock of the database. */
const waits = (count: number) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* Effect.repeat(
      sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      { until: (rows) => rows.length >= count, schedule: Schedule.spaced("2 millis") }
    )
  })

/** A transaction that has run an effect, and waits to be committed, or rolled back. */
const held = Effect.fnUntraced(function*<A, E>(store: Customers["Service"], effect: Effect.Effect<A, E>) {
  const [isHeld, release] = [yield* Deferred.make<void, E>(), yield* Deferred.make<boolean>()]
  const holder = yield* Effect.forkChild(Effect.exit(store.withTransaction(Effect.gen(function*() {
    yield* Effect.onExit(effect, (exit) => Deferred.done(isHeld, Exit.asVoid(exit)))
    if (!(yield* Deferred.await(release))) return yield* Effect.fail("rolled back")
  }))))
  yield* Deferred.await(isHeld)
  const end = (commits: boolean) => Effect.andThen(Deferred.succeed(release, commits), Fiber.join(holder))
  return { commit: end(true), rollBack: end(false) }
})

let customers = 0
const newCustomer = () => `c${++customers}`

describe("PostgreSQL", () => {
  layer(database, live)("a writer and who forgets", (it) => {
    it.effect("who forgets waits for a transaction that writes, and forgets what that has written", () =>
      Effect.gen(function*() {
        const store = yield* Customers
        for (const isFirst of [false, true]) {
          const customer = newCustomer()
          if (!isFirst) yield* store.write(customer, renamed(customer))
          const writer = yield* held(store, store.write(customer, renamed(customer)))
          const forgetting = yield* Effect.forkChild(store.forget(customer))
          yield* waits(1)
          yield* writer.commit
          yield* Fiber.join(forgetting)
          assert.deepStrictEqual(yield* emailsOf(store, customer), isFirst ? [null] : [null, null])
        }
      }))

    it.effect("what is written while somebody is being forgotten is refused, or forgotten, and never known", () =>
      Effect.gen(function*() {
        const store = yield* Customers
        const customer = newCustomer()
        yield* store.write(customer, renamed(customer))
        const forgetting = yield* held(store, store.forget(customer))
        // Outside of a transaction nobody waits: it counts as written before.
        yield* store.write(`${customer} outside`, renamed(customer))
        const inTransaction = yield* Effect.forkChild(
          Effect.result(store.withTransaction(store.write(`${customer} inside`, renamed(customer))))
        )
        yield* waits(1)
        yield* forgetting.commit
        const refused = yield* Fiber.join(inTransaction)
        assert.isTrue(Result.isFailure(refused) && refused.failure._tag === "SerializationError")
        assert.deepStrictEqual(yield* emailsOf(store, `${customer} outside`), [null])
        assert.strictEqual((yield* store.head(`${customer} inside`)).version, 0)
        // One that is rolled back was never forgotten.
        const other = newCustomer()
        yield* store.write(other, renamed(other, "1"))
        const back = yield* held(store, store.forget(other))
        const waiting = yield* Effect.forkChild(store.withTransaction(store.write(other, renamed(other, "2"))))
        yield* waits(1)
        yield* back.rollBack
        yield* Fiber.join(waiting)
        assert.deepStrictEqual(yield* emailsOf(store, other), ["1", "2"])
      }))

    it.effect("a key that a transaction has added is waited for, and is void if that is rolled back", () =>
      Effect.gen(function*() {
        const store = yield* Customers
        for (const commits of [true, false]) {
          const customer = newCustomer()
          const first = yield* held(store, store.write(`${customer} first`, renamed(customer, "first")))
          const second = yield* Effect.forkChild(store.write(customer, renamed(customer, "second")))
          yield* waits(1)
          yield* (commits ? first.commit : first.rollBack)
          yield* Fiber.join(second)
          assert.deepStrictEqual(yield* emailsOf(store, customer), ["second"])
          assert.deepStrictEqual(yield* emailsOf(store, `${customer} first`), commits ? ["first"] : [])
        }
      }))

    it.effect("two transactions that forget several do not deadlock", () =>
      Effect.gen(function*() {
        const store = yield* Customers
        const outside = yield* outsider
        const [first, second] = [newCustomer(), newCustomer()]
        for (const customer of [first, second]) yield* store.write(customer, renamed(customer))
        const other = yield* store.withTransaction(Effect.gen(function*() {
          yield* store.forget(first)
          const forgetting = yield* Effect.forkDetach(outside(store.forget(second)))
          yield* waits(1)
          yield* store.forget(second)
          return forgetting
        }))
        yield* Fiber.join(other)
        for (const customer of [first, second]) assert.deepStrictEqual(yield* emailsOf(store, customer), [null])
      }))

    it.effect("two transactions that write for somebody who was forgotten do not deadlock", () =>
      Effect.gen(function*() {
        const store = yield* Returning
        const customer = newCustomer()
        yield* store.write(customer, renamed(customer))
        yield* store.forget(customer)
        const first = yield* held(store, store.write(`${customer} first`, renamed(customer, "first")))
        const second = yield* Effect.forkChild(
          store.withTransaction(store.write(`${customer} second`, renamed(customer, "second")))
        )
        yield* waits(1)
        yield* first.commit
        yield* Fiber.join(second)
        assert.deepStrictEqual(yield* emailsOf(store, `${customer} first`), ["first"])
        assert.deepStrictEqual(yield* emailsOf(store, `${customer} second`), ["second"])
        assert.deepStrictEqual(yield* emailsOf(store, customer), [null])
      }))

    it.effect("keys of several subjects are locked in one order, whatever characters these have", () =>
      Effect.gen(function*() {
        const [sql, store] = [yield* SqlClient.SqlClient, yield* Returning]
        const customer = newCustomer()
        // In the order of code points, which is not that of the units of UTF-16.
        const [first, second] = [`\uff61${customer}`, `\u{1f600}${customer}`]
        for (const subject of [first, second]) {
          yield* store.write(customer, renamed(subject))
          yield* store.forget(subject)
        }
        const holder = yield* held(store, store.write(`${customer} first`, renamed(first)))
        const both = yield* Effect.forkChild(
          store.withTransaction(store.write(`${customer} both`, [renamed(first), renamed(second)]))
        )
        yield* waits(1)
        const free = yield* sql`select subject from effect_message_store_keys_contract
          where subject = ${second} for update skip locked`
        yield* holder.commit
        yield* Fiber.join(both)
        assert.deepStrictEqual(free, [{ subject: second }])
      }))

    it.effect("who wraps keys anew waits for transactions that use them in any order, and does not deadlock", () =>
      Effect.gen(function*() {
        const [sql, store] = [yield* SqlClient.SqlClient, yield* Customers]
        const outside = yield* outsider
        const stream = newCustomer()
        const several = Arr.makeBy(8, newCustomer)
        for (const customer of several) yield* store.write(stream, renamed(customer))
        const rewrap = (...ids: ReadonlyArray<string>) =>
          Effect.flatMap(Customers, ({ rewrapKeys }) => rewrapKeys).pipe(
            Effect.provide(Layer.provide(Layer.fresh(Customers.layer), KeyEncryption.layer(wrappingKeys(...ids)))),
            Effect.provideService(SqlClient.SqlClient, sql)
          )
        const rewrapping = yield* store.withTransaction(Effect.gen(function*() {
          yield* store.write(stream, renamed(several[4] ?? ""))
          const other = yield* Effect.forkDetach(outside(rewrap("r2", "k1")))
          yield* waits(1)
          yield* store.forget(several[0] ?? "")
          for (const customer of several.slice(1)) yield* store.write(stream, renamed(customer))
          return other
        }))
        assert.isAtLeast(yield* Fiber.join(rewrapping), 7)
        assert.isAtLeast(yield* rewrap("k1", "r2"), 7)
      }))

    it.effect("under repeatable read a key that was forgotten meanwhile can be retried", () =>
      Effect.gen(function*() {
        const store = yield* Customers
        const outside = yield* outsider
        const customer = newCustomer()
        yield* store.write(customer, renamed(customer))
        const error = yield* Effect.flip(
          store.withTransaction(Effect.gen(function*() {
            yield* store.head(customer)
            yield* outside(store.forget(customer))
            yield* store.write(customer, renamed(customer))
          })).pipe(Effect.provideService(SqlClient.BeginTransaction, "begin isolation level repeatable read"))
        )
        assert.isTrue(error._tag === "SqlError" && error.isRetryable)
      }))
  })

  layer(database, live)("the database", (it) => {
    it.effect("has nothing personal in its tables, its files and its log", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const store = yield* Customers
        const secret = `secret-${globalThis.crypto.randomUUID()}`
        const customer = newCustomer()
        const [{ start = "" } = {}] = yield* sql<{ readonly start: string }>`
          select pg_walfile_name(pg_current_wal_lsn()) as start`
        const fold = Fold.withSnapshot(
          Fold.make<CustomerEvent>()({
            initial: [] as ReadonlyArray<Personal.Personal<string>>,
            EmailChanged: (sofar, message) => [...sofar, message.email]
          }),
          { name: "emails", schema: Schema.Array(Personal.schema(Schema.String)), every: 1 }
        )
        const stream = yield* store.aggregatedStream({ name: "stored", patterns: "%", partitioner: () => 0 })
        const subscription = yield* stream.subscription({ name: "stored", retry: Schedule.recurs(0) })
        yield* store.write(customer, renamed(customer, secret))
        yield* store.update(customer, fold, () => renamed(customer, secret))
        yield* store.update(customer, fold, () => [])
        yield* store.schedule(customer, renamed(customer, secret), {
          at: DateTime.addDuration(yield* DateTime.now, "1 day")
        })
        yield* stream.projector.runOnce
        yield* subscription.drain((given, delivery) => Effect.fail({ given, delivery }))
        assert.strictEqual((yield* subscription.parked).length, 2)
        yield* Effect.repeat(sql`select from effect_message_store_snapshots_contract`, {
          until: (rows) => rows.length > 0,
          schedule: Schedule.spaced("2 millis")
        })

        const tables = yield* sql<{ readonly name: string }>`
          select c.relname::text as name from pg_class c where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'`
        assert.isAbove(tables.length, 10)
        const rows = yield* Effect.forEach(tables, ({ name }) =>
          sql<{ readonly text: string }>`select t::text as text from ${sql(name)} t`)
        const dump = rows.flat().map(({ text }) =>
          text
        )
        assert.isAbove(dump.filter((text) => text.includes("~personal:1:")).length, 3)
        assert.deepStrictEqual(dump.filter((text) => text.includes(secret)), [])

        yield* sql`checkpoint`
        const found = yield* sql<{ readonly file: string; readonly has_name: boolean }>`
          with files as (
            select pg_relation_filepath(c.oid::regclass) as file from pg_class c
            where c.relkind in ('r', 't', 'i') and c.relnamespace <> 'pg_catalog'::regnamespace
            union all
            select 'pg_wal/' || w.name from pg_ls_waldir() w where w.name >= ${start}
              and w.name <= pg_walfile_name(pg_current_wal_lsn())
          ), contents as (select file, pg_read_binary_file(file) as content from files)
          select file, position(convert_to(${customer}::text || '"', 'UTF8') in content) > 0 as has_name from contents
          where position(convert_to(${secret}::text, 'UTF8') in content) > 0
             or position(convert_to(${customer}::text || '"', 'UTF8') in content) > 0`
        // What is not personal is there: the search finds what there is.
        assert.isAbove(found.filter(({ has_name }) => has_name).length, 0)
        assert.deepStrictEqual(found.filter(({ has_name }) => !has_name), [])
      }))

    it.effect("is read where an archive of it is imported, once its keys are there, as docs/forgetting.md copies them", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const [store, elsewhere] = [yield* Customers, yield* Elsewhere]
        const [known, forgotten] = [newCustomer(), newCustomer()]
        const streamOf = (customer: string) => `moving ${customer}`
        for (const customer of [known, forgotten]) yield* store.write(streamOf(customer), renamed(customer))
        yield* store.forget(forgotten)
        const archive = yield* Stream.runCollect(Archive.of(store).export({ pattern: "moving %" }))
        yield* Stream.runDrain(Archive.of(elsewhere).import(Stream.fromIterable(archive)))
        const emailOf = (customer: string) =>
          Effect.map(
            Stream.runHead(elsewhere.read(streamOf(customer))),
            (found) => Option.map(found, ({ message }) => Personal.toOption(message.email))
          )
        for (const customer of [known, forgotten]) {
          const error = yield* Effect.flip(emailOf(customer))
          assert.isTrue(error._tag === "SerializationError" && String(error.cause).includes("copy them from the store"))
        }
        yield* sql`insert into effect_message_store_keys_moved
          select * from effect_message_store_keys_contract where subject <> ''`
        assert.deepStrictEqual(yield* emailOf(known), Option.some(Option.some(canary)))
        assert.deepStrictEqual(yield* emailOf(forgotten), Option.some(Option.none()))
        const refused = yield* Effect.flip(elsewhere.write(streamOf(forgotten), renamed(forgotten)))
        assert.include(String(refused.cause), "is forgotten")
      }).pipe(Effect.provide(Layer.provide(Elsewhere.layer, encryption))))

    it.effect("that is restored without the keys says that they are lost, and knows nothing", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const store = yield* Customers
        const customer = newCustomer()
        yield* store.write(customer, renamed(customer))
        yield* sql`delete from effect_message_store_keys_contract where subject = ${customer}`
        const another = yield* Layer.build(Layer.fresh(Layer.provide(Customers.layerNoMigrations, encryption)))
        const error = yield* Effect.flip(emailsOf(yield* Effect.provide(Customers, another), customer))
        assert.isTrue(error._tag === "SerializationError" && String(error.cause).includes("restore the keys"))
      }))

    it.effect("keeps of who is forgotten the name, and that it was", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const store = yield* Customers
        const customer = newCustomer()
        yield* store.write(customer, renamed(customer))
        for (let i = 0; i < 2; i++) yield* store.forget(customer)
        assert.deepStrictEqual(
          yield* sql`select generation, wrapped, wrapped_by, forgotten_at is not null as forgotten
            from effect_message_store_keys_contract where subject = ${customer}`,
          [{ generation: 1, wrapped: null, wrapped_by: null, forgotten: true }]
        )
      }))

    it.effect("needs no more rights on keys than these", () =>
      Effect.scoped(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const clients = yield* Clients
        const store = yield* Customers
        const customer = newCustomer()
        yield* store.write(customer, renamed(customer, "1"))
        const keys = "effect_message_store_keys_contract"
        for (const role of ["esm_reads", "esm_writes", "esm_forgets"]) {
          yield* createRole(role)
          for (
            const grant of [
              "usage on schema public",
              "select, insert on depeche_msgs_contract, effect_message_store_tags_contract",
              "select on effect_message_store_settings_contract, effect_message_store_tagged_contract",
              "usage on sequence depeche_msgs_contract_global_seq"
            ]
          ) {
            yield* sql.unsafe(`grant ${grant} to ${role}`).unprepared
          }
        }
        yield* sql.unsafe(`grant select on ${keys} to esm_reads, esm_writes`).unprepared
        yield* sql.unsafe(`grant insert on ${keys} to esm_writes`).unprepared
        yield* sql.unsafe(`grant select, insert, update on ${keys} to esm_forgets`).unprepared
        const as = <A>(role: string, use: (store: Customers["Service"]) => Effect.Effect<A, unknown>) =>
          Effect.result(
            Effect.scoped(Effect.gen(function*() {
              const own = Layer.provide(Layer.fresh(Customers.layerNoMigrations), [
                clients.layer({ role } as As),
                encryption
              ])
              return yield* use(yield* Effect.provide(Customers, yield* Layer.build(own)))
            }))
          )
        const denied = <A>(result: Result.Result<A, unknown>) =>
          Result.isFailure(result) &&
          String(Object(result.failure).reason?.cause?.message).includes(`permission denied for table ${keys}`)
        const write = (own: Customers["Service"]) => own.write(newCustomer(), renamed(newCustomer()))
        assert.deepStrictEqual(yield* as("esm_reads", (own) => emailsOf(own, customer)), Result.succeed(["1"]))
        assert.isTrue(denied(yield* as("esm_reads", write)))
        // In a transaction the key is locked, which needs the right to update.
        assert.isTrue(denied(yield* as("esm_writes", (own) => own.withTransaction(write(own)))))
        assert.isTrue(Result.isSuccess(yield* as("esm_forgets", (own) => own.withTransaction(write(own)))))
        assert.isTrue(denied(yield* as("esm_writes", (own) => own.forget(customer))))
        assert.isTrue(Result.isSuccess(yield* as("esm_forgets", (own) => own.forget(customer))))
      })))
  })
})
