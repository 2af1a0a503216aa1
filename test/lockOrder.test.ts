/** One call each, no two of whatever kind can wait for each other: decisions, writes of one and several streams, Python's. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, DateTime, Effect, Layer, Random } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { type AppendItem, Storage } from "../src/Storage.ts"
import { databaseLayer } from "./support/database.ts"

const streams = Arr.makeBy(4, (i) => `stream-${i}`)
const tags = Arr.makeBy(4, (i) => `tag:${i}`)

/** Some of these, at least one, in any order. */
const some = Effect.fnUntraced(function*(of: ReadonlyArray<string>, most: number) {
  const count = yield* Random.nextIntBetween(1, most + 1)
  return (yield* Random.shuffle(of)).slice(0, count) as unknown as Arr.NonEmptyArray<string>
})

const randomItem = Effect.fnUntraced(function*(stream: string, isWritten: boolean) {
  const kind = yield* Random.nextIntBetween(0, 3)
  const [written, asked] = [yield* some(tags, 3), yield* some(tags, 2)]
  const item: AppendItem = {
    stream,
    expectedVersion: undefined,
    metadata: "{}",
    messages: isWritten
      ? [{
        messageId: globalThis.crypto.randomUUID(),
        occurredAt: DateTime.makeUnsafe(0),
        data: "{}",
        tagged: kind === 0 ? undefined : { type: "A", tags: written }
      }]
      : [],
    // They hold: what matters is what is locked for them.
    conditions: kind === 2 ? asked.map((tag) => ({ tags: [tag], types: ["B"], after: 0 })) : []
  }
  return item
})

/** A call of one kind or another. */
const call = Effect.gen(function*() {
  const storage = yield* Storage
  const sql = yield* SqlClient.SqlClient
  const kind = yield* Random.nextIntBetween(0, 10)
  if (kind === 0) {
    const [stream] = yield* some(streams, 1)
    const data = JSON.stringify({ _tag: "A" })
    return yield* sql`select version from depeche_write_message_ordered(
      gen_random_uuid(), ${stream}::text::varchar, ${data}::text::json)`
  }
  const given = yield* some(streams, kind < 6 ? 1 : 4)
  const items = yield* Effect.forEach(given, (stream, i) => randomItem(stream, kind < 6 || i % 3 !== 2))
  const append = storage.append(items as unknown as Arr.NonEmptyReadonlyArray<AppendItem>, { atomic: kind !== 9 })
  const outcomes = yield* kind === 8 ? storage.withTransaction(append) : append
  for (const { _tag } of outcomes) assert.include(["Written", "Unchanged"], _tag)
  return undefined
})

describe("PostgreSQL", () => {
  it.live(
    "calls of all kinds come to an end, without a deadlock",
    () =>
      Effect.gen(function*() {
        const sql = yield* PgClient.PgClient
        yield* Migrations.run("ordered")
        const callers = Effect.forEach(Arr.range(1, 16), () => Effect.repeat(call, { times: 40 }), {
          concurrency: "unbounded",
          discard: true
        })
        // Two processes, as far as the database can tell.
        const connected = Layer.provideMerge(PostgresStorage.layer("ordered"), PgClient.layer(sql.config))
        const inProcess = Effect.suspend(() => Effect.provide(callers, Layer.fresh(connected)))
        yield* Effect.all([inProcess, inProcess], { concurrency: "unbounded" })
        // Their sessions have ended, and told of deadlocks that an append survived.
        yield* sql`select pg_stat_force_next_flush()`
        const [row] = yield* sql<{ readonly deadlocks: number }>`
          select deadlocks::int as deadlocks from pg_stat_database where datname = current_database()`
        assert.strictEqual(row?.deadlocks, 0)
      }).pipe(Effect.provide(databaseLayer({ startupParameters: { deadlock_timeout: "100ms" } }))),
    60_000
  )
})
