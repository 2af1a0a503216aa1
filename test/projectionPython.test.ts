/** Projecting a store and an aggregated stream that Python's depeche_db works on as well. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe } from "@effect/vitest"
import { DateTime, Effect, Fiber, Layer, Queue, type Scope, Stream } from "effect"
import { type AggregatedStream, type MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { createDepecheStore } from "./support/depeche.ts"
import { assertLinked, blocked, fill, hold, inspect, moved, several, test } from "./support/links.ts"
import { until } from "./support/processes.ts"
import { Moved, Transfers } from "./support/transfers.ts"

const inSql = { name: "a", patterns: "%", partitioner: Partitioner.constant(7) }
const inCode = { name: "a", patterns: "%", partitioner: () => 7 }
const definitions = [["in the database", inSql], ["in the application", inCode]] as const

/** What depeche_db 0.13 makes for an aggregated stream. */
const createDepecheStream = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const statements = [
    `create table depeche_stream_a (
      message_id uuid not null primary key,
      origin_stream varchar(255) not null,
      origin_stream_version integer not null,
      partition integer not null,
      position integer not null,
      message_occurred_at timestamp without time zone not null,
      origin_stream_global_position integer not null,
      origin_stream_added_at timestamp without time zone not null,
      constraint depeche_stream_a_uq unique (partition, position)
    )`,
    "create index ix_depeche_stream_a_partition on depeche_stream_a (partition)",
    `create index ix_depeche_stream_a_shortened_in_another_way
      on depeche_stream_a (origin_stream_global_position)`,
    "create table depeche_stream_a_maxpos (partition integer primary key, max_position integer not null)",
    `create function depeche_stream_new_msg_a() returns trigger language plpgsql as $$
    begin
      perform pg_notify('depeche_a_messages', json_build_object(
        'message_id', new.message_id, 'partition', new.partition, 'position', new.position)::text);
      return new;
    end $$`,
    `create trigger depeche_stream_new_msg_a after insert on depeche_stream_a
      for each row execute procedure depeche_stream_new_msg_a()`
  ]
  for (const statement of statements) yield* sql.unsafe(statement).unprepared
})

/** Links this many of the messages that are not linked, as depeche_db does: under its lock, with `_maxpos`. */
const python = Effect.fnUntraced(function*(count: number, partition = 7) {
  const sql = yield* SqlClient.SqlClient
  yield* sql.withTransaction(Effect.gen(function*() {
    yield* sql`lock table depeche_stream_a in exclusive mode nowait`
    yield* sql`insert into depeche_stream_a
      select message_id, stream, version, ${partition}::int,
        coalesce((select max_position from depeche_stream_a_maxpos where partition = ${partition}), -1)
          + row_number() over (order by global_position), (message ->> 'occurredAt')::timestamptz, global_position,
          added_at
      from depeche_msgs_transfers m
      where not exists (select from depeche_stream_a l where l.message_id = m.message_id)
      order by global_position limit ${count}`
    yield* sql`insert into depeche_stream_a_maxpos
      select partition, max(position) from depeche_stream_a where partition = ${partition} group by partition
      on conflict (partition) do update set max_position = excluded.max_position`
  }))
})

/** Python's function, and the text that it writes: `fields` are JSON, as Python's `json.dumps` may leave them. */
const pythonWrites = (stream: string, fields = "\"occurredAt\":\"2026-01-01T00:00:00.000Z\",\"amount\":1") =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const { messageId } = moved()
    const message = `{"_tag":"Moved","messageId":"${messageId}",${fields}}`
    yield* sql`select version from depeche_write_message_transfers(
      ${messageId}::uuid, ${stream}::varchar, ${message}::text::json)`
    return message
  })

/** What a listener like Python's hears from now on. */
const hear = Effect.fnUntraced(function*(channel: string) {
  const sql = yield* PgClient.PgClient
  const heard: Array<Readonly<Record<string, unknown>>> = []
  const notifications = yield* sql.listen(channel)
  yield* Effect.forkScoped(Effect.forever(
    Effect.map(Queue.take(notifications), ({ payload }) => heard.push(JSON.parse(payload)))
  ))
  return heard
})

/** What a consumer of depeche_db reads: links, and then their messages, each of which it takes for granted. */
const pythonReads = Effect.fnUntraced(function*(from: number, partition = 7) {
  const sql = yield* SqlClient.SqlClient
  const links = yield* sql<{ readonly message_id: string; readonly position: number }>`
    select message_id, position from depeche_stream_a
    where partition = ${partition} and position >= ${from} order by position limit 10`
  const messages = yield* sql<{ readonly message_id: string; readonly amount: number }>`
    select message_id, (message ->> 'amount')::int as amount from depeche_msgs_transfers
    where message_id = any(${links.map(({ message_id }) => message_id)}::uuid[])`
  const byId = new Map(messages.map(({ amount, message_id }) => [message_id, amount]))
  return links.map(({ message_id, position }) => [
    position,
    byId.get(message_id) ?? assert.fail(`no message at ${position}`)
  ])
})

describe("PostgreSQL", () => {
  describe("a store that Python reads", () => {
    for (const [where, definition] of definitions) {
      test(`has a message behind every link, whatever is deleted and redacted, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          const messages = several(6)
          yield* transfers.write("s", messages)
          yield* python(4)
          assert.include(yield* stream.projector.runOnce, { linked: 2 })
          yield* transfers.delete("s", { toVersion: 3 })
          yield* transfers.redact(
            messages.at(-1)?.messageId ?? "",
            (message) => message._tag === "Moved" ? new Moved({ ...message, amount: 77 }) : message
          )
          assert.deepStrictEqual((yield* pythonReads(0)).map(([position]) => position), [3, 4, 5])
          assert.deepStrictEqual((yield* pythonReads(5)).map(([, amount]) => amount), [77])
          // It writes on behind what is left, by its own function.
          yield* pythonWrites("s")
          const [head] = yield* sql<{ readonly version: number }>`
            select max(version) as version from depeche_msgs_transfers where stream = 's'`
          assert.strictEqual(head?.version, 7)

          // Deleted, and not committed: no projector links it meanwhile, and Python's gives way.
          const commit = yield* hold(transfers.delete("s", { toVersion: 7 }))
          const refused = yield* Effect.flip(python(10))
          assert.deepInclude<object>(Object(refused.reason.cause), { code: "55P03" })
          const projecting = yield* Effect.forkChild(stream.projector.runOnce)
          yield* blocked("effect_message_store_")
          yield* commit
          assert.include(yield* Fiber.join(projecting), { linked: 0 })
          yield* python(10)
          assert.deepStrictEqual(yield* pythonReads(0), [])
          yield* pythonWrites("s")
          yield* python(10)
          assert.deepStrictEqual((yield* pythonReads(0)).map(([position]) => position), [6])
          assert.include(yield* stream.projector.runOnce, { linked: 0 })
        }))
    }
  })

  describe("a projector beside Python's", () => {
    for (const [where, definition] of definitions) {
      test(`goes on behind what that one has linked, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(10))
          yield* python(4)
          assert.include(yield* stream.projector.runOnce, { linked: 6 })
          yield* assertLinked("a", 10)
          for (let round = 1; round <= 5; round++) {
            yield* transfers.write("s", several(4))
            yield* transfers.write("t", several(4))
            if (round > 2) yield* python(round)
            assert.include(yield* stream.projector.runOnce, { linked: round > 2 ? 8 - round : 8 })
            assert.include(yield* stream.projector.runOnce, { linked: 0 })
            yield* assertLinked("a", 10 + 8 * round)
          }
          yield* transfers.write("s", several(3))
          yield* python(3)
          assert.include(yield* stream.projector.runOnce, { linked: 0 })
          yield* transfers.write("s", moved())
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          yield* assertLinked("a", 54)
        }))

      test(`goes on behind it in the middle of a round, and of a late transaction, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          yield* fill(3500, 10)
          yield* Stream.runDrain(stream.projector.pages.pipe(Stream.takeUntil(({ linked }) => linked > 0)))
          const { links } = yield* inspect("a")
          assert.isTrue(links >= 1000 && links < 2500, String(links))
          yield* python(300)
          assert.include(yield* stream.projector.runOnce, { linked: 3200 - links })
          yield* assertLinked("a", 3500)
          const release = yield* hold(transfers.write("late", several(3)))
          yield* transfers.write("early", several(3))
          assert.include(yield* stream.projector.runOnce, { linked: 3 })
          yield* release
          yield* transfers.write("early", moved())
          yield* python(2)
          assert.include(yield* stream.projector.runOnce, { linked: 2 })
          yield* assertLinked("a", 3507)
        }))

      test(`waits for that one's lock, and holds it itself, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const sql = yield* SqlClient.SqlClient
          const stream = yield* transfers.aggregatedStream(definition)
          yield* transfers.write("s", several(10))
          const release = yield* hold(sql`lock table depeche_stream_a in exclusive mode`)
          const waiting = yield* Effect.forkScoped(stream.projector.runOnce)
          const first = yield* blocked("effect_message_store_")
          // One statement, which waits; none is sent again and again.
          for (let look = 0; look < 100; look++) {
            assert.deepStrictEqual(yield* blocked("effect_message_store_"), first)
          }
          assert.lengthOf(first, 1)
          yield* transfers.write("s", moved()) // writers wait for nobody
          yield* release
          assert.isAtLeast((yield* Fiber.join(waiting)).linked, 10)
          yield* stream.projector.runOnce

          // A page that is stopped when it has linked, and before it ends.
          yield* transfers.write("s", moved())
          const releaseMaxima = yield* hold(sql`lock table depeche_stream_a_maxpos in share mode`)
          const linking = yield* Effect.forkScoped(stream.projector.runOnce)
          yield* blocked("effect_message_store_")
          const error = yield* Effect.flip(python(1))
          assert.strictEqual(Object(error.reason.cause).code, "55P03")
          yield* releaseMaxima
          assert.include(yield* Fiber.join(linking), { linked: 1 })
          yield* python(1)
          yield* assertLinked("a", 12)
        }))

      for (const made of ["here", "by depeche_db"]) {
        test(`links what Python writes to a store made ${made}, partitioned ${where}`, () =>
          Effect.gen(function*() {
            const sql = yield* SqlClient.SqlClient
            if (made !== "here") {
              for (
                const statement of [
                  "drop table depeche_msgs_transfers, effect_message_store_migrations_transfers",
                  "drop sequence depeche_msgs_transfers_global_seq",
                  "drop function depeche_write_message_transfers"
                ]
              ) yield* sql.unsafe(statement)
              const { messageId } = moved()
              const message = { _tag: "Moved", messageId, occurredAt: "2026-01-01T00:00:00.000Z", amount: 1 }
              yield* createDepecheStore("transfers", [{ message_id: messageId, stream: "s", version: 1, message }])
            } else yield* pythonWrites("s")
            yield* Effect.gen(function*() {
              const transfers = yield* Transfers
              const stream = yield* transfers.aggregatedStream(definition)
              yield* transfers.write("s", moved(), { expectedVersion: 1 })
              yield* pythonWrites("s")
              assert.include(yield* stream.projector.runOnce, { linked: 3 })
              // Python's transaction has its id, and then its position, late.
              const release = yield* hold(Effect.andThen(pythonWrites("late"), pythonWrites("later")))
              yield* pythonWrites("s")
              yield* transfers.write("s", moved(), { expectedVersion: 4 })
              assert.include(yield* stream.projector.runOnce, { linked: 2 })
              yield* release
              assert.include(yield* stream.projector.runOnce, { linked: 2 })
              yield* assertLinked("a", 7)
              assert.lengthOf(yield* Stream.runCollect(stream.read(7)), 7)
            }).pipe(Effect.provide(Layer.fresh(Transfers.layer)))
          }))
      }
    }
  })

  for (const made of ["here", "by depeche_db"]) {
    test(`Python's projector wakes who listens to a stream made ${made}, once a statement; ours does so after the commit`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const transfers = yield* Transfers
        if (made !== "here") yield* createDepecheStream
        const stream = yield* transfers.aggregatedStream(inSql)
        const subscription = yield* stream.subscription({ name: "listening", pollInterval: "1 day" })
        let handled = 0
        yield* Effect.forkScoped(subscription.run(() => Effect.sync(() => handled++)))
        const heard = yield* hear("depeche_a_messages")
        yield* until(
          "it listens",
          Effect.map(sql`select pg_notify('depeche_a_messages', '{}')`, () => heard.length > 0)
        )
        // What was sent until it listened is heard first.
        const told = Effect.sync(() => heard.filter((each) => "partition" in each))

        yield* transfers.write("s", several(250))
        yield* python(150, 7)
        yield* python(100, 8)
        yield* until("both are heard", Effect.map(told, ({ length }) => length >= 2))
        yield* until("the subscription is woken", Effect.sync(() => handled === 250))
        const ids = yield* sql<{ readonly id: string }>`select message_id::text as id from depeche_stream_a
          where (partition, position) in ((7, 149), (8, 99)) order by partition`
        assert.deepStrictEqual(yield* told, [
          { message_id: ids[0]?.id, partition: 7, position: 149 },
          { message_id: ids[1]?.id, partition: 8, position: 99 }
        ])

        yield* transfers.write("s", several(3))
        yield* stream.projector.runOnce
        yield* until("ours is heard", Effect.map(told, ({ length }) => length >= 3))
        yield* sql`select pg_notify('depeche_a_messages', '{"partition":"the end"}')`
        yield* until("the end is heard", Effect.map(told, (all) => all.at(-1)?.["partition"] === "the end"))
        assert.deepStrictEqual(
          (yield* told).slice(2).map(({ partition, position }) => [partition, position]),
          [[7, 152], ["the end", undefined]]
        )
        // Python would call it for each row.
        const rowTriggers = yield* sql`select tgname from pg_trigger
          where tgrelid = 'depeche_stream_a'::regclass and not tgisinternal and tgtype & 1 = 1`
        assert.deepStrictEqual(rowTriggers, [])
      }))
  }

  describe("fields that Python writes", () => {
    const texts = [
      String.raw`"note":"NUL\u0000elsewhere","key":"plain"`,
      String.raw`"key":"plain","note":"half \ud83d"`,
      String.raw`"key":"a\u0000b"`,
      String.raw`"key":"a\u0000"`,
      String.raw`"key":"a"`,
      String.raw`"key":"a\\u0000b"`,
      String.raw`"key":"a\\\u0000b"`,
      String.raw`"key":"\ud83d\ude00","note":"\u0000"`,
      String.raw`"key":"😀"`,
      String.raw`"key":"\ud83d"`,
      String.raw`"key":"\ude00\ud83d x"`,
      String.raw`"key":"\ud83d\ud83d\ude00"`,
      String.raw`"key":"\\ud83d\ude00"`,
      String.raw`"key":"caf\u00e9 \uD83D\uDE00"`,
      String.raw`"key\u0000":"other","note":1`,
      String.raw`"key":"first","key":"last"`,
      String.raw`"key":{"a":"\u0000"}`,
      String.raw`"key":["x"]`,
      String.raw`"key":null`,
      String.raw`"key":true`,
      String.raw`"key":7`,
      String.raw`"key":7.0`,
      String.raw`"key":7e0`,
      String.raw`"key":0.7E+1`,
      String.raw`"key":-0`,
      String.raw`"key":-0.0`,
      String.raw`"key":7.5`,
      String.raw`"key":9007199254740991`,
      String.raw`"key":9007199254740992`,
      String.raw`"key":1e308`,
      String.raw`"key":1e400`,
      String.raw`"key":-1e99999`,
      String.raw`"key":1e-300`,
      `"key":${"9".repeat(5000)}`
    ]
    const field = Partitioner.field("key", 1_000_000)
    const definition = { name: "a", patterns: "%", partitioner: field }

    test("count as they do in memory, and none stops the projection", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const transfers: MessageStore.MessageStore<Moved> = yield* Transfers
        const stream = yield* transfers.aggregatedStream(definition)
        const written = yield* Effect.forEach(texts, (fields, i) => pythonWrites(`s-${i}`, fields))
        assert.include(yield* stream.projector.runOnce, { linked: texts.length })
        const links = yield* sql<{ readonly partition: number; readonly stream: string }>`
          select partition, origin_stream as stream from depeche_stream_a order by origin_stream_global_position`
        const expected = yield* Effect.forEach(
          written,
          (data, i) =>
            Effect.map(
              Partitioner.partitionOf(field, { stream: `s-${i}`, data: JSON.parse(data) }),
              (partition) => ({ partition, stream: `s-${i}` })
            )
        )
        for (const [i, link] of links.entries()) assert.deepStrictEqual(link, expected[i], texts[i])
        assert.isAbove(new Set(links.map(({ partition }) => partition)).size, 15)
      }))

    test("count the same in a jsonb store, which has fewer of them", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* sql`alter table depeche_msgs_transfers alter column message type jsonb using message::text::jsonb`
        const transfers: MessageStore.MessageStore<Moved> = yield* Transfers
        const stream = yield* transfers.aggregatedStream(definition)
        for (
          const fields of [
            "\"key\":7.0",
            "\"key\":7e0",
            "\"key\":1e308",
            "\"key\":\"caf\\u00e9\"",
            "\"key\":true",
            "\"key\":{\"a\":1}"
          ]
        ) {
          yield* sql`insert into depeche_msgs_transfers (message_id, global_position, stream, version, message, tx)
            select gen_random_uuid(), nextval('depeche_msgs_transfers_global_seq'), ${fields}, 1,
              ${`{${fields}}`}::text::jsonb, pg_current_xact_id()`
        }
        yield* stream.projector.runOnce
        const links = yield* sql<{ readonly partition: number; readonly stream: string }>`
          select partition, origin_stream as stream from depeche_stream_a order by origin_stream_global_position`
        assert.lengthOf(links, 6)
        for (const { partition, stream: fields } of links) {
          const expected = yield* Partitioner.partitionOf(field, { stream: fields, data: JSON.parse(`{${fields}}`) })
          assert.strictEqual(partition, expected, fields)
        }
      }))
  })

  /** Does this with a store and a stream that depeche_db made, in a database of this time zone. */
  const adoptedIn = <E>(
    zone: string,
    prepare: Effect.Effect<unknown, E, SqlClient.SqlClient>,
    inside: Effect.Effect<void, unknown, Transfers | SqlClient.SqlClient | PgClient.PgClient | Scope.Scope>
  ) =>
    Effect.gen(function*() {
      const sql = yield* PgClient.PgClient
      for (const statement of ["drop schema public cascade", "create schema public"]) {
        yield* sql.unsafe(statement).unprepared
      }
      const [row] = yield* sql<{ readonly name: string }>`select current_database() as name`
      yield* sql`alter database ${sql(row?.name ?? "")} set timezone to ${sql.literal(`'${zone}'`)}`
      const there = yield* Layer.build(Layer.fresh(PgClient.layer(sql.config)))
      yield* Effect.provide(Effect.andThen(createDepecheStream, prepare), there)
      yield* Effect.provide(inside, Layer.fresh(Layer.provideMerge(Transfers.layer, Layer.succeedContext(there))))
    })

  const columnTypes = Effect.flatMap(
    SqlClient.SqlClient,
    (sql) =>
      sql`select column_name::text as name, data_type::text as type from information_schema.columns
      where table_name = 'depeche_stream_a' and column_name in ('message_occurred_at', 'origin_stream_added_at')
      order by column_name`
  )

  const naive = [
    { name: "message_occurred_at", type: "timestamp without time zone" },
    { name: "origin_stream_added_at", type: "timestamp without time zone" }
  ]

  /** Before and after these times, in milliseconds, which is the first position? */
  const firstsAround = Effect.fnUntraced(function*(
    stream: AggregatedStream.AggregatedStream<Moved>,
    times: ReadonlyArray<string>
  ) {
    const firsts: Array<number | undefined> = []
    for (const time of times) {
      for (const step of [0, 1]) {
        const at = DateTime.add(DateTime.makeUnsafe(time), { milliseconds: step })
        firsts.push((yield* stream.positionsAtTime(at)).get(7))
      }
    }
    return firsts
  })

  for (const [where, definition] of definitions) {
    test(`leaves Python's time columns as they are, and tells exact times in any time zone, partitioned ${where}`, () =>
      adoptedIn(
        "America/New_York",
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const message = (messageId: string, occurredAt: string) => ({
            _tag: "Moved",
            messageId,
            occurredAt,
            amount: 1
          })
          const ids = [0, 1].map(() => moved().messageId)
          yield* createDepecheStore("transfers", [
            {
              message_id: ids[0] ?? "",
              stream: "s",
              version: 1,
              message: message(ids[0] ?? "", "2024-07-01T12:00:00.123Z")
            },
            {
              message_id: ids[1] ?? "",
              stream: "s",
              version: 2,
              message: message(ids[1] ?? "", "2024-07-01T14:00:00+02:00")
            }
          ])
          // Python's projector has linked the first one, as local time.
          yield* sql`insert into depeche_stream_a
            select message_id, stream, version, 7, 0, '2024-07-01 08:00:00.123', global_position, added_at
            from depeche_msgs_transfers where version = 1`
          yield* sql`insert into depeche_stream_a_maxpos values (7, 0)`
        }),
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          assert.deepStrictEqual(yield* sql`show timezone`, [{ TimeZone: "America/New_York" }])
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(definition)
          assert.deepStrictEqual(yield* columnTypes, naive)
          // In New York this hour comes twice: local time cannot tell.
          const [first, again] = ["2024-11-03T05:30:00.000Z", "2024-11-03T06:30:00.000Z"].map((time) =>
            new Moved({ amount: 1, occurredAt: DateTime.makeUnsafe(time) as DateTime.Utc })
          )
          yield* transfers.write("s", [first as Moved, again as Moved])
          assert.include(yield* stream.projector.runOnce, { linked: 3 })
          const times = yield* sql`select message_occurred_at::text as occurred,
              origin_stream_added_at = m.added_at as same_added
            from depeche_stream_a l join depeche_msgs_transfers m using (message_id) order by position`
          assert.deepStrictEqual(times, [
            { occurred: "2024-07-01 08:00:00.123", same_added: true },
            { occurred: "2024-07-01 08:00:00", same_added: true },
            { occurred: "2024-11-03 01:30:00", same_added: true },
            { occurred: "2024-11-03 01:30:00", same_added: true }
          ])
          const asked = ["2024-07-01T12:00:00.123Z", "2024-11-03T05:30:00Z", "2024-11-03T06:30:00Z"]
          assert.deepStrictEqual(yield* firstsAround(stream, asked), [0, 2, 2, 3, 3, 4])
          yield* transfers.write("s", several(2))
          yield* python(1)
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          assert.include(yield* inspect("a"), { links: 6, missing: 0, wrong: 0, gaps: 0, disorder: 0, heads: 0 })
          assert.deepStrictEqual(yield* columnTypes, naive)
        })
      ))
  }

  test("makes Python's time columns as Python does", () =>
    Effect.gen(function*() {
      const transfers = yield* Transfers
      yield* transfers.aggregatedStream(inSql)
      assert.deepStrictEqual(yield* columnTypes, naive)
    }))

  test("takes a message's time from the message, whoever links it", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const transfers = yield* Transfers
      const times = [
        "2020-05-05T05:05:05.500+02:00",
        "2021-01-01T00:00:00Z",
        "2021-06-01 12:00:00.250000+00:00",
        "2022-02-02T02:02:02.123456Z",
        "2023-03-03T03:03"
      ]
      for (const time of times) yield* pythonWrites("s", `"occurredAt":"${time}","amount":1`)
      const around = (stream: AggregatedStream.AggregatedStream<Moved>) =>
        firstsAround(stream, [
          "2020-05-05T03:05:05.500Z",
          "2021-01-01T00:00:00.000Z",
          "2021-06-01T12:00:00.250Z",
          "2022-02-02T02:02:02.123Z",
          "2023-03-03T03:03:00.000Z"
        ])
      const expected = [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
      const linkers = [
        ["in the database", inSql],
        ["in the application", inCode],
        ["in Python, with the projector of the database", inSql]
      ] as const
      for (const [who, definition] of linkers) {
        const stream = yield* transfers.aggregatedStream(definition)
        if (who.includes("Python")) yield* python(10)
        yield* stream.projector.runOnce
        assert.deepStrictEqual(yield* around(stream), expected, who)
        yield* stream.drop
      }
      // What is no time does not stop the projection: such messages have the time at which they were added.
      yield* Effect.forEach(
        [
          "\"soon\"",
          "17",
          "null",
          "\"2020-02-31T00:00:00Z\"",
          "\"2020-05-05\"",
          "\"infinity\"",
          "{\"a\":1}",
          "\"2020-01-01T00:00:00+99:99\""
        ],
        (time) => pythonWrites("t", `"occurredAt":${time},"amount":1,"note":"\\u0000"`)
      )
      yield* pythonWrites("t", "\"occurredAt\":\"2020-02-02T02:02:02Z\",\"amount\":1,\"note\":\"\\u0000\"")
      const stream = yield* transfers.aggregatedStream({ ...inSql, patterns: "t" })
      assert.include(yield* stream.projector.runOnce, { linked: 9 })
      assert.deepStrictEqual(
        yield* sql`select count(*)::int as count, min(occurred_at) = '2020-02-02T02:02:02Z' as is_told,
          count(*) filter (where occurred_at = coalesce(recorded_at, added_at))::int as added
          from (select l.occurred_at, m.recorded_at, m.added_at
            from depeche_stream_a l join depeche_msgs_transfers m using (message_id)) times`,
        [{ count: 9, is_told: true, added: 8 }]
      )
    }))

  test("takes the indexes of an adopted stream that are there, and leaves nothing of it when it is dropped", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const transfers = yield* Transfers
      yield* createDepecheStream
      const stream = yield* transfers.aggregatedStream(inSql)
      const [indexes] = yield* sql<{ readonly count: number }>`select count(*)::int as count from pg_indexes
        where tablename = 'depeche_stream_a' and indexdef like '%(origin_stream_global_position)'`
      assert.deepStrictEqual(indexes, { count: 1 })
      yield* stream.drop
      assert.deepStrictEqual(
        yield* sql`select relname::text as name from pg_class where relname like '%stream\_a%'
          union all select proname::text from pg_proc where proname like '%stream%\_a'`,
        []
      )
    }))

  test("goes on behind an older depeche_db's links, which had no _maxpos", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const transfers = yield* Transfers
      yield* transfers.write("s", several(6))
      yield* createDepecheStream
      yield* sql`drop table depeche_stream_a_maxpos`
      yield* sql`insert into depeche_stream_a
        select message_id, stream, version, 7, version - 1, occurred_at at time zone 'UTC', global_position,
          added_at at time zone 'UTC' from depeche_msgs_transfers where version <= 4`
      const stream = yield* transfers.aggregatedStream(inSql)
      assert.include(yield* stream.projector.runOnce, { linked: 2 })
      yield* assertLinked("a", 6)
    }))
})
