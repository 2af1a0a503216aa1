/** A server whose time zone is not UTC: Python's columns keep what Python makes of them, and times are right all the same. */
import type { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Schema, Stream } from "effect"
import { MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { createDepecheStore } from "./support/depeche.ts"
import * as Release01 from "./support/release01.ts"
import { Clients, sharedDatabaseLayer } from "./support/sharedDatabase.ts"

const Registered = Schema.TaggedStruct("Registered", { event_id: Schema.String })

class Users extends MessageStore.Service<Users>()("test/Users", {
  name: "users",
  schema: Registered,
  typeField: "__typename__",
  id: (event) => event.event_id,
  time: () => MessageTime
}) {}

const MessageTime = Schema.decodeSync(Schema.DateTimeUtcFromString)("2020-01-01T00:00:00.000Z")

const event = () => Registered.make({ event_id: globalThis.crypto.randomUUID() })

const pythonWrites = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const { event_id } = event()
  yield* sql`select version from depeche_write_message_users(
    ${event_id}::uuid, 'u'::varchar, ${JSON.stringify({ event_id, __typename__: "Registered" })}::text::json)`
})

const timesOf = Effect.gen(function*() {
  const users = yield* Users
  return (yield* Stream.runCollect(users.read("u"))).map(({ addedAt }) => addedAt.epochMilliseconds)
})

/** What Python reads. */
const naive = Effect.map(
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql<{ readonly type: string; readonly local: string; readonly apart: number }>`
      select pg_typeof(added_at)::text as type, added_at::text as local,
        abs(extract(epoch from added_at - localtimestamp))::float8 as apart
      from depeche_msgs_users order by version`
  ),
  (rows) => rows
)

const columns = Effect.flatMap(
  SqlClient.SqlClient,
  (sql) =>
    sql<{ readonly column_name: string; readonly data_type: string; readonly column_default: string | null }>`
    select column_name, data_type, column_default from information_schema.columns
    where table_name = 'depeche_msgs_users' and column_name = 'added_at'`
)

/** A new client, in a database whose default is this zone. */
const inZone = (zone: string) =>
  Layer.unwrap(Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const { layer } = yield* Clients
    const { config } = sql as PgClient.PgClient
    yield* sql.unsafe(`alter database ${config.database} set timezone = '${zone}'`).unprepared
    return layer({})
  }))

const nearNow = (time: number | undefined) =>
  Effect.map(Clock.currentTimeMillis, (now) => assert.isBelow(Math.abs(now - (time ?? 0)), 60_000))

const test = (name: string, zone: string, body: Effect.Effect<void, unknown, SqlClient.SqlClient>) =>
  it.live(
    name,
    () => Effect.provide(Effect.scoped(body), Layer.fresh(Layer.provide(inZone(zone), sharedDatabaseLayer)))
  )

describe("PostgreSQL", () => {
  for (const zone of ["Asia/Tokyo", "America/New_York", "UTC"]) {
    describe(`in ${zone}`, () => {
      test(
        "a store of depeche_db keeps its columns, and its times are read in that zone",
        zone,
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* createDepecheStore("users")
          const before = yield* columns
          yield* pythonWrites
          yield* sql`update depeche_msgs_users set added_at = '2024-05-06 07:08:09.123456'`
          yield* Effect.gen(function*() {
            const users = yield* Users
            yield* pythonWrites
            yield* users.write("u", event())
            yield* users.write("u", [event(), event()])
            assert.deepStrictEqual(yield* columns, before)
            const read = yield* timesOf
            const [expected] = yield* sql<{ readonly at: Date }>`
            select timestamp '2024-05-06 07:08:09.123456' at time zone ${zone}::text as at`
            assert.strictEqual(read[0], expected?.at.getTime())
            assert.lengthOf(read, 5)
            yield* Effect.forEach(read.slice(1), nearNow)
          }).pipe(Effect.provide(Layer.fresh(Users.layer)))
          for (const { apart, type } of (yield* naive).slice(1)) {
            assert.strictEqual(type, "timestamp without time zone")
            assert.isBelow(apart, 60)
          }
        })
      )

      test(
        "a store made here looks to Python as if Python had written it",
        zone,
        Effect.gen(function*() {
          yield* Effect.gen(function*() {
            const users = yield* Users
            yield* users.write("u", event())
            yield* pythonWrites
            yield* users.write("u", [event(), event()])
            yield* Effect.forEach(yield* timesOf, nearNow)
          }).pipe(Effect.provide(Layer.fresh(Users.layer)))
          const rows = yield* naive
          assert.lengthOf(rows, 4)
          for (const { apart, type } of rows) {
            assert.strictEqual(type, "timestamp without time zone")
            assert.isBelow(apart, 60)
          }
        })
      )

      test(
        "a store of 0.1 gets Python's column back, and keeps its times",
        zone,
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* createDepecheStore("users")
          yield* pythonWrites
          yield* sql`update depeche_msgs_users set added_at = '2024-05-06 07:08:09.123456'`
          yield* Release01.createStore("users")
          yield* pythonWrites
          yield* Effect.gen(function*() {
            const read = yield* timesOf
            const [expected] = yield* sql<{ readonly at: Date }>`
            select timestamp '2024-05-06 07:08:09.123456' at time zone ${zone}::text as at`
            assert.strictEqual(read[0], expected?.at.getTime())
            yield* nearNow(read[1])
          }).pipe(Effect.provide(Layer.fresh(Users.layer)))
          const rows = yield* naive
          assert.strictEqual(rows[0]?.local, "2024-05-06 07:08:09.123456")
          assert.isBelow(rows[1]?.apart ?? Infinity, 60)
          assert.strictEqual(rows[1]?.type, "timestamp without time zone")
        })
      )
    })
  }

  test(
    "a table of 0.1 is not rewritten where the zone is UTC",
    "UTC",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Release01.createStore("users")
      yield* pythonWrites
      const file = sql<{ readonly file: string }>`select pg_relation_filenode('depeche_msgs_users')::text as file`
      const before = yield* file
      yield* Effect.provide(timesOf, Layer.fresh(Users.layer))
      assert.deepStrictEqual(yield* file, before)
    })
  )

  it.live("a client that asks for a zone of its own cannot adopt a store, and is told why", () =>
    Effect.gen(function*() {
      const { layer } = yield* Clients
      const opened = Effect.provide(
        Effect.asVoid(Users),
        Layer.provide(Layer.fresh(Users.layer), layer({ timeZone: "Pacific/Chatham" }))
      )
      const error = yield* Effect.flip(opened)
      assert.include(String(error), "asks for the time zone Pacific/Chatham")
    }).pipe(Effect.provide(Layer.fresh(sharedDatabaseLayer))))
})
