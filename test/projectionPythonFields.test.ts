/** The fields and times of messages that Python's depeche_db writes, and the columns that it reads them from. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe } from "@effect/vitest"
import { DateTime, Effect, Layer, type Scope } from "effect"
import { type AggregatedStream, type MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { createDepecheStore } from "./support/depeche.ts"
import { inspect, moved, several, test } from "./support/links.ts"
import { createDepecheStream, definitions, inCode, inSql, python, pythonWrites } from "./support/pythonProjector.ts"
import { Moved, Transfers } from "./support/transfers.ts"

describe("PostgreSQL", () => {
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

    const counted = () =>
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
      })
    test("count as they do in memory, and none stops the projection", counted)
    test("count the same where backslashes in strings are escapes", counted, {
      startupParameters: { standard_conforming_strings: "off" }
    })

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
})
