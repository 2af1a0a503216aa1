import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { PGlite } from "@electric-sql/pglite"
import { Context, Deferred, Effect, Exit, Fiber, Latch, Layer, Queue, Scope, Stream } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import { BeginTransaction, SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { spawn, spawnSync } from "node:child_process"
import * as NodeFs from "node:fs"
import * as NodeOs from "node:os"
import * as NodePath from "node:path"
import type { Duplex } from "node:stream"
import { PgliteClient } from "../src/pglite/index.ts"

const { PgClient: Client } = PgClient

/** The session factory that `sql` makes its connections of. */
const streamOf = (sql: PgClient.PgClient): () => Duplex => {
  const { stream } = sql.config
  assert(stream !== undefined)
  return stream
}

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

const sqlError = <A, R>(effect: Effect.Effect<A, SqlError, R>) =>
  Effect.map(Effect.flip(effect), (error) => error.reason)
const codeOf = (cause: unknown): unknown => cause instanceof Error && "code" in cause ? cause.code : undefined
const numbers = (rows: ReadonlyArray<object>): ReadonlyArray<unknown> => rows.map((row) => Object.values(row)[0])

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

describe("a directory", () => {
  let root: string
  let database: string
  beforeAll(async () => {
    root = NodeFs.mkdtempSync(NodePath.join(NodeOs.tmpdir(), "pglite-"))
    database = NodePath.join(root, "parent", "database")
    await Effect.runPromise(withClient(database, (sql) => sql`create table kept as select 7 as i`))
  })
  afterAll(() => NodeFs.rmSync(root, { recursive: true }))

  const withClient = <A, E>(dataDir: string, f: (sql: PgClient.PgClient) => Effect.Effect<A, E>) =>
    Effect.provide(Effect.flatMap(Client, f), PgliteClient.layer({ dataDir }))
  const kept = (sql: PgClient.PgClient) => Effect.map(sql`select i from kept`, numbers)
  const refusal = (dataDir: string) =>
    Effect.map(sqlError(withClient(dataDir, kept)), (reason) => {
      assert.strictEqual(reason._tag, "ConnectionError")
      return reason.message ?? ""
    })
  const copy = (name: string) => {
    const path = NodePath.join(root, name)
    NodeFs.cpSync(database, path, { recursive: true })
    return path
  }

  it.effect("keeps what was committed", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* withClient(database, kept), [7])
    }))

  it.effect("is refused to a second layer, and free again afterwards", () =>
    Effect.gen(function*() {
      yield* withClient(database, () =>
        Effect.gen(function*() {
          const link = NodePath.join(root, "link")
          NodeFs.symlinkSync(database, link)
          assert.include(yield* refusal(link), "already open in this process")
        }))
      assert.deepStrictEqual(yield* withClient(database, kept), [7])
    }))

  it.effect("is refused while another process has it, and taken over from one that ended", () =>
    Effect.gen(function*() {
      const lock = NodePath.join(database, "effect-message-store.lock")
      const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"])
      NodeFs.writeFileSync(lock, `${other.pid}\n`)
      assert.include(yield* refusal(database), `process ${other.pid} has it open`)
      other.kill()
      const ended = spawnSync(process.execPath, ["-e", ""])
      NodeFs.writeFileSync(lock, `${ended.pid}\n`)
      assert.deepStrictEqual(yield* withClient(database, kept), [7])
      assert.isFalse(NodeFs.existsSync(lock))
    }))

  it.effect("survives the kill of its process", () =>
    Effect.gen(function*() {
      const path = copy("killed")
      const program = `
        import { Effect } from "effect"
        import { SqlClient } from "effect/sql/SqlClient"
        import { PgliteClient } from ${JSON.stringify(new URL("../src/pglite/index.ts", import.meta.url).href)}
        Effect.gen(function*() {
          const sql = yield* SqlClient
          yield* sql\`insert into kept values (8)\`
          yield* sql.withTransaction(Effect.andThen(
            sql\`insert into kept values (9)\`,
            Effect.sync(() => process.kill(process.pid, "SIGKILL"))
          ))
        }).pipe(Effect.provide(PgliteClient.layer({ dataDir: ${JSON.stringify(path)} })), Effect.runPromise)`
      const killed = spawnSync(process.execPath, ["--input-type=module", "-e", program], { encoding: "utf8" })
      assert.strictEqual(killed.signal, "SIGKILL", killed.stderr)
      assert.isTrue(NodeFs.existsSync(NodePath.join(path, "effect-message-store.lock")))
      assert.deepStrictEqual(yield* withClient(path, kept), [7, 8])
    }))

  it.effect("begins anew where the creation of the database was cut off", () =>
    Effect.gen(function*() {
      const path = NodePath.join(root, "cut-off")
      const ended = spawnSync(process.execPath, ["-e", ""])
      NodeFs.mkdirSync(NodePath.join(path, "base"), { recursive: true })
      NodeFs.writeFileSync(NodePath.join(path, "base", "1"), "half a file")
      NodeFs.writeFileSync(NodePath.join(path, "effect-message-store.lock"), `${ended.pid} creating\n`)
      const made = yield* withClient(path, (sql) => Effect.andThen(sql`create table kept as select 1 as i`, kept(sql)))
      assert.deepStrictEqual(made, [1])
      assert.deepStrictEqual(yield* withClient(path, kept), [1])
    }))

  it.effect("is refused if it cannot hold or holds no database of this version", () =>
    Effect.gen(function*() {
      const file = NodePath.join(root, "file")
      NodeFs.writeFileSync(file, "")
      assert.include(yield* refusal(file), "EEXIST")
      assert.include(yield* refusal(root), "other files and no database")
      assert.include(yield* refusal("memory://"), "not a URL")
      const corrupt = copy("corrupt")
      NodeFs.writeFileSync(NodePath.join(corrupt, "global", "pg_control"), "garbage")
      assert.include(yield* refusal(corrupt), "pg_control")
      const old = copy("old")
      NodeFs.writeFileSync(NodePath.join(old, "PG_VERSION"), "14\n")
      assert.include(yield* refusal(old), "incompatible")
      assert.isFalse(NodeFs.existsSync(NodePath.join(old, "effect-message-store.lock")))
    }))
})

describe("layerFrom", () => {
  let seed: Awaited<ReturnType<PGlite["dumpDataDir"]>>
  beforeAll(async () => {
    const empty = await PGlite.create()
    seed = await empty.dumpDataDir("none")
    await empty.close()
  })

  /** A database of the test's own, which the test may break. */
  const given = Effect.acquireRelease(
    Effect.promise(() => PGlite.create({ loadDataDir: seed })),
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
