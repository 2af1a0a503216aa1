/** A client of a PGlite that the application has opened itself. */
import * as PgClient from "@effect/sql-pg/PgClient"
import { assert, describe, it } from "@effect/vitest"
import { PGlite } from "@electric-sql/pglite"
import { Context, Effect, Exit, Latch, Layer, Queue, Scope } from "effect"
import { PgliteClient } from "../src/pglite/index.ts"
import { image } from "./support/pglite.ts"
import { numbers, sqlError } from "./support/pgliteClient.ts"

const { PgClient: Client } = PgClient

describe("layerFrom", () => {
  /** A database of the test's own, which the test may break. */
  const given = Effect.acquireRelease(
    Effect.flatMap(image, (loadDataDir) => Effect.promise(() => PGlite.create({ loadDataDir }))),
    (database) => Effect.promise(async () => database.closed ? undefined : database.close())
  )
  const clientOf = (database: PGlite) =>
    Effect.map(Layer.build(PgliteClient.layerFrom(database)), (context) => Context.get(context, Client))

  it.effect("leaves the database open, with nothing of the client left in it", () =>
    Effect.gen(function*() {
      const database = yield* given
      const scope = yield* Scope.make()
      const sql = yield* Scope.provide(clientOf(database), scope)
      yield* sql`create table left_over (i int)`
      yield* sql`insert into left_over values (1)`
      yield* Scope.close(scope, Exit.void)
      const { rows } = yield* Effect.promise(() => database.query("select count(*)::int as n from left_over"))
      assert.deepStrictEqual(rows, [{ n: 1 }])
    }).pipe(Effect.scoped))

  it.effect("makes the database's own statements wait for a transaction of the client", () =>
    Effect.gen(function*() {
      const database = yield* given
      const sql = yield* clientOf(database)
      yield* sql`create table mixed (i int)`
      let direct: Promise<unknown> | undefined
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`insert into mixed values (1)`
        direct = database.query("insert into mixed select count(*) + 10 from mixed")
        yield* sql`insert into mixed values (2)`
      }))
      yield* Effect.promise(async () => direct)
      assert.deepStrictEqual(numbers(yield* sql`select i from mixed`), [1, 2, 12])
    }).pipe(Effect.scoped))

  it.effect("fails every session when the database is closed under them", () =>
    Effect.gen(function*() {
      const database = yield* given
      const sql = yield* clientOf(database)
      const notifications = yield* sql.listen("news")
      const closed = yield* Latch.make()
      yield* sql.withTransaction(Effect.gen(function*() {
        yield* sql`select 1`
        void database.close().then(() => closed.openUnsafe())
        assert.deepStrictEqual(numbers(yield* sql`select 2`), [2])
      }))
      yield* closed.await
      assert.strictEqual((yield* sqlError(sql`select 3`))._tag, "ConnectionError")
      assert.strictEqual((yield* sqlError(sql.withTransaction(sql`select 4`)))._tag, "ConnectionError")
      const { reason } = yield* Effect.flip(Queue.take(notifications))
      assert.strictEqual(reason._tag, "ConnectionError")
    }).pipe(Effect.scoped))

  it.effect("fails those who wait, and calls PGlite no more, when it breaks", () =>
    Effect.gen(function*() {
      const database = yield* given
      const sql = yield* clientOf(database)
      yield* sql`select 1`
      let calls = 0
      Object.assign(database, {
        execProtocolRawStream: () => {
          calls++
          return Promise.reject(new Error("unreachable"))
        }
      })
      const reasons = yield* Effect.all(Array.from({ length: 20 }, (_, i) => sqlError(sql`select ${i}::int`)), {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(new Set(reasons.map((reason) => reason._tag)), new Set(["ConnectionError"]))
      assert.strictEqual(calls, 1)
      Reflect.deleteProperty(database, "execProtocolRawStream")
    }).pipe(Effect.scoped))
})
