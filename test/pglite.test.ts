/** Statements and transactions on PGlite. */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Latch, Stream } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import { BeginTransaction, SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { PgliteClient } from "../src/pglite/index.ts"
import { numbers, sqlError, streamOf } from "./support/pgliteClient.ts"

const { PgClient: Client } = PgClient

/** A client of the same database, and a latch that opens once it has sent a message that contains `text`. */
const watched = Effect.fnUntraced(function*(text: string) {
  const sql = yield* Client
  const sent = yield* Latch.make()
  const open = streamOf(sql)
  const stream = () => {
    const session = open()
    const write = session.write.bind(session)
    return Object.assign(session, {
      write: (chunk: Uint8Array) => {
        const result = write(chunk)
        if (Buffer.from(chunk).includes(text)) sent.openUnsafe()
        return result
      }
    })
  }
  const client = yield* PgClient.make({ ...sql.config, stream }).pipe(Effect.provide(Reactivity.layer))
  return { client, sent }
})

/** A transaction that has begun and stays open until `commit` is opened. */
const openTransaction = Effect.fnUntraced(function*<A, E, R>(body: Effect.Effect<A, E, R>) {
  const sql = yield* Client
  const begun = yield* Deferred.make<A, E | SqlError>()
  const commit = yield* Latch.make()
  const fiber = yield* body.pipe(
    Effect.flatMap((value) => Deferred.succeed(begun, value)),
    Effect.andThen(commit.await),
    sql.withTransaction,
    Effect.onError((cause) => Deferred.failCause(begun, cause)),
    Effect.forkChild
  )
  yield* Deferred.await(begun)
  return { fiber, commit }
})

const codeOf = (cause: unknown): unknown => cause instanceof Error && "code" in cause ? cause.code : undefined

it.layer(PgliteClient.layer(), { timeout: "60 seconds" })("PgliteClient", (it) => {
  it.effect("answers statements, with the types of a server", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table typed (id bigint primary key, at timestamptz, body jsonb, tags text[])`
      const at = new Date(1_700_000_000_000)
      const body = JSON.stringify({ a: [1, "é"] })
      yield* sql`insert into typed values (${1n}, ${at}, ${body}::jsonb, ${["x", "y"]}::text[])`
      assert.deepStrictEqual(yield* sql`select * from typed`, [{ id: 1n, at, body: { a: [1, "é"] }, tags: ["x", "y"] }])
    }))

  it.effect("reports refusals with their SQLSTATE, and goes on", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table refusing (id int constraint refusing_id primary key)`
      yield* sql`insert into refusing values (1)`
      const unique = yield* sqlError(sql`insert into refusing values (1)`)
      assert(unique._tag === "UniqueViolation")
      assert.strictEqual(unique.constraint, "refusing_id")
      assert.strictEqual(codeOf(unique.cause), "23505")
      const syntax = yield* sqlError(sql`selec 1`)
      assert.strictEqual(syntax._tag, "SqlSyntaxError")
      assert.deepStrictEqual(yield* sql`select id from refusing`, [{ id: 1 }])
    }))

  it.effect("loses no update of 50 concurrent transactions", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table counter as select 0 as n`
      const increment = sql.withTransaction(Effect.gen(function*() {
        const [row] = yield* sql<{ n: number }>`select n from counter`
        assert(row !== undefined)
        yield* Effect.yieldNow
        yield* sql`update counter set n = ${row.n + 1}`
      }))
      yield* Effect.all(Array.from({ length: 50 }, () => increment), { concurrency: "unbounded", discard: true })
      assert.deepStrictEqual(yield* sql`select n from counter`, [{ n: 50 }])
    }))

  it.effect("rolls a nested transaction back to its savepoint", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table nested (i int primary key)`
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`insert into nested values (1)`
        const inner = yield* Effect.exit(sql.withTransaction(
          Effect.andThen(sql`insert into nested values (2)`, sql`insert into nested values (1)`)
        ))
        assert(Exit.isFailure(inner))
        yield* sql`insert into nested values (3)`
      }))
      assert.deepStrictEqual(numbers(yield* sql`select i from nested order by i`), [1, 3])
    }))

  it.effect("rolls back a transaction that is interrupted, and serves the next", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table interrupted (i int)`
      const holder = yield* openTransaction(sql`insert into interrupted values (1)`)
      const { client, sent } = yield* watched("insert into interrupted values (2)")
      const waiter = yield* Effect.forkChild(client`insert into interrupted values (2)`)
      yield* sent.await
      yield* Fiber.interrupt(holder.fiber)
      yield* Fiber.join(waiter)
      assert.deepStrictEqual(numbers(yield* sql`select i from interrupted`), [2])
    }))

  it.effect("never runs a statement that is interrupted while it waits, and keeps its session", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table cancelled (i int)`
      const holder = yield* openTransaction(sql`insert into cancelled values (1)`)
      const { client, sent } = yield* watched("insert into cancelled values (2)")
      const waiter = yield* Effect.forkChild(client`insert into cancelled values (2)`)
      yield* sent.await
      yield* Fiber.interrupt(waiter)
      assert.isUndefined(holder.fiber.pollUnsafe())
      yield* holder.commit.open
      yield* Fiber.join(holder.fiber)
      assert.deepStrictEqual(numbers(yield* client`select i from cancelled`), [1])
    }))

  it.effect("answers 57014 to the cancel of a statement that waits", () =>
    Effect.gen(function*() {
      const sql = yield* Client
      const holder = yield* openTransaction(sql`select 1`)
      const waiting = yield* PgConnection.make({ ...sql.config, stream: streamOf(sql) })
      const statement = yield* Effect.forkChild(Effect.flip(waiting.query("select 2")), { startImmediately: true })
      yield* waiting.interrupt
      const { reason } = yield* Fiber.join(statement)
      assert.strictEqual(reason._tag, "StatementTimeoutError")
      assert.strictEqual(codeOf(reason.cause), "57014")
      yield* holder.commit.open
      assert.deepStrictEqual((yield* waiting.query("select 3 as n")).rows, [{ n: 3 }])
    }))

  it.effect("serves those who wait in the order of their arrival", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table arrivals (position int generated always as identity, i int)`
      const holder = yield* openTransaction(sql`select 1`)
      const waiters: Array<Fiber.Fiber<unknown, SqlError>> = []
      for (const i of [3, 1, 4, 5, 2]) {
        const statement = `insert into arrivals (i) values (${i})`
        const { client, sent } = yield* watched(statement)
        waiters.push(yield* Effect.forkChild(client.unsafe(statement)))
        yield* sent.await
      }
      yield* holder.commit.open
      yield* Fiber.joinAll(waiters)
      assert.deepStrictEqual(numbers(yield* sql`select i from arrivals order by position`), [3, 1, 4, 5, 2])
    }))

  it.effect("holds writers back while a snapshot is open, and lets them on afterwards", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table snapshotted as select 1 as i`
      const count = Effect.map(sql`select count(*)::int from snapshotted`, numbers)
      const { client, sent } = yield* watched("insert into snapshotted values (2)")
      const writer = yield* Effect.gen(function*() {
        const isolation = yield* sql`select current_setting('transaction_isolation')`
        assert.deepStrictEqual(numbers(isolation), ["repeatable read"])
        assert.deepStrictEqual(yield* count, [1])
        const fiber = yield* Effect.forkDetach(client`insert into snapshotted values (2)`)
        yield* sent.await
        assert.deepStrictEqual(yield* count, [1])
        assert.isUndefined(fiber.pollUnsafe())
        return fiber
      }).pipe(
        sql.withTransaction,
        Effect.provideService(BeginTransaction, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
      )
      yield* Fiber.join(writer)
      assert.deepStrictEqual(yield* count, [2])
    }))

  it.effect("refuses COPY without harm to the database", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* sql`create table copied (i int)`
      assert.strictEqual((yield* sqlError(sql`copy copied from stdin`))._tag, "ConnectionError")
      assert.strictEqual((yield* sqlError(sql`copy copied to stdout`))._tag, "ConnectionError")
      assert.deepStrictEqual(numbers(yield* sql`select count(*)::int from copied`), [0])
    }))

  it.effect("returns 200,000 rows", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      const rows = yield* sql<{ i: number; s: string }>`select i, 'row ' || i as s from generate_series(1, 200000) i`
      assert.strictEqual(rows.length, 200_000)
      assert.deepStrictEqual(rows.at(-1), { i: 200_000, s: "row 200000" })
    }))

  it.effect("streams a result in pieces, and may stop in the middle", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      const [first] = yield* sql`select i from generate_series(1, 200000) i`.stream.pipe(
        Stream.chunks,
        Stream.take(1),
        Stream.runCollect
      )
      assert(first !== undefined)
      assert.deepStrictEqual(numbers(first.slice(0, 3)), [1, 2, 3])
      assert.isBelow(first.length, 20_000)
      assert.deepStrictEqual(numbers(yield* sql`select 1`), [1])
    }))

  it.effect("takes and returns a value of 20 MB", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      const big = "0123456789".repeat(2_000_000)
      const rows = yield* sql<{ n: number; s: string }>`select length(${big}::text) as n, ${big}::text as s`
      assert.strictEqual(rows[0]?.n, big.length)
      assert.isTrue(rows[0]?.s === big)
    }))
})
