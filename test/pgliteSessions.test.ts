/** What belongs to one of the many sessions on PGlite's one backend: what it listens to, and what it leaves behind. */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { assert, it } from "@effect/vitest"
import { Effect, Queue } from "effect"
import { pgliteLayer } from "./support/pglite.ts"
import { numbers, streamOf } from "./support/pgliteClient.ts"

const { PgClient: Client } = PgClient

it.layer(pgliteLayer, { timeout: "3 minutes" })("a session on PGlite", (it) => {
  it.effect("notifies every listener of a channel, after the commit, and no other", () =>
    Effect.gen(function*() {
      const sql = yield* Client
      const first = yield* sql.listen("news")
      const second = yield* sql.listen("news")
      const other = yield* sql.listen("other")
      const undone = sql.withTransaction(Effect.andThen(sql`select pg_notify('news', 'undone')`, Effect.fail("undone")))
      assert.strictEqual(yield* Effect.flip(undone), "undone")
      yield* sql.withTransaction(sql`select pg_notify('news', 'kept'), pg_notify('other', 'sports')`)
      const [one, two, three] = [yield* Queue.take(first), yield* Queue.take(second), yield* Queue.take(other)]
      assert.deepStrictEqual([one.payload, two.payload, three.payload], ["kept", "kept", "sports"])
      assert.strictEqual(yield* Queue.size(first), 0)
      assert.strictEqual(yield* Queue.size(other), 0)
      const sender = yield* PgConnection.make(sql.config)
      yield* sender.query("select pg_notify('news', 'signed')")
      assert.strictEqual((yield* Queue.take(first)).processId, sender.processId)
    }).pipe(Effect.scoped))

  it.effect("keeps LISTEN and UNLISTEN to the session that said it, from the commit on", () =>
    Effect.gen(function*() {
      const sql = yield* Client
      const received: Array<string> = []
      // what arrives on the wire, ahead of what the driver filters
      const connect = (name: string) =>
        PgConnection.make({
          ...sql.config,
          stream: () => {
            const session = streamOf(sql)()
            session.on("data", (chunk: Buffer) => {
              for (const payload of chunk.toString("latin1").match(/payload-\d/g) ?? []) {
                received.push(`${name} ${payload}`)
              }
            })
            return session
          }
        })
      const a = yield* connect("a")
      const b = yield* connect("b")
      const notify = (payload: string) => sql`select pg_notify('Mixed "case"', ${payload})`
      const heard = Effect.sync(() => received.splice(0).toSorted())
      yield* a.query(`LISTEN "Mixed ""case"""`)
      yield* b.query(`LISTEN "Mixed ""case"""`)
      yield* notify("payload-1")
      assert.deepStrictEqual(yield* heard, ["a payload-1", "b payload-1"])

      yield* a.query(`UNLISTEN "Mixed ""case"""`)
      yield* notify("payload-2")
      assert.deepStrictEqual(yield* heard, ["b payload-2"])

      // prepared by now: only Bind and Execute are sent
      yield* a.query(`LISTEN "Mixed ""case"""`)
      yield* b.query("UNLISTEN *")
      yield* notify("payload-3")
      assert.deepStrictEqual(yield* heard, ["a payload-3"])

      yield* b.query("BEGIN")
      yield* b.query(`LISTEN "Mixed ""case"""`)
      yield* b.query("ROLLBACK")
      yield* a.query("BEGIN")
      yield* a.query(`UNLISTEN "Mixed ""case"""`)
      yield* a.query("ROLLBACK")
      yield* notify("payload-4")
      assert.deepStrictEqual(yield* heard, ["a payload-4"])
    }).pipe(Effect.scoped))

  it.effect("rolls back a session that disconnects in a transaction, and closes its statements", () =>
    Effect.gen(function*() {
      const sql = yield* Client
      yield* sql`create table disconnected (i int)`
      const prepared = Effect.map(
        sql`select count(*)::int from pg_prepared_statements where statement like 'insert into disconnected%'`,
        numbers
      )
      // statements end synchronously: let the session come to rest before it disconnects
      const rest = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))
      yield* Effect.gen(function*() {
        const session = yield* PgConnection.make(sql.config)
        yield* session.query("insert into disconnected values (1)")
        yield* rest
        assert.deepStrictEqual(yield* prepared, [1])
      }).pipe(Effect.scoped)
      assert.deepStrictEqual(yield* prepared, [0])

      yield* Effect.gen(function*() {
        const session = yield* PgConnection.make({ ...sql.config, prepare: false })
        yield* session.query("begin")
        yield* session.query("insert into disconnected values (2)")
        yield* rest
      }).pipe(Effect.scoped)
      assert.deepStrictEqual(numbers(yield* sql`select i from disconnected`), [1])
      assert.deepStrictEqual(yield* prepared, [0])
    }))
})
