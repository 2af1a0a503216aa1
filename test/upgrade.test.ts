/** What version 0.1 made and filled is read, written to, projected and consumed on, and processes of 0.1 go on beside it. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Layer, Queue, Stream } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"
import { moved } from "./support/links.ts"
import { pgliteLayer } from "./support/pglite.ts"
import * as Release01 from "./support/release01.ts"
import { type Moved, Transfers } from "./support/transfers.ts"

const merged = { name: "merged", patterns: "account-%", partitioner: Partitioner.constant(3) }

/** What 0.1 kept of a stream's definition, letter by letter. */
const definition =
  "{\"store\":\"depeche_msgs_transfers\",\"patterns\":[\"account-%\"],\"partitioner\":{\"partition\":3,\"_tag\":\"Constant\"}}"

/** The statement with which 0.1 appends; a batch of one stream. */
const append01 = Effect.fnUntraced(function*(stream: string, messages: ReadonlyArray<Moved>) {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly outcome: string; readonly version: number }>`
    select outcome, version from effect_message_store_append_transfers(
      ${[stream]}::text[], ${[0]}::int[], ${[-2]}::int[], ${["{\"by\":\"0.1\"}"]}::jsonb[], ${[messages.length]}::int[],
      ${messages.map(() => 1)}::int[], ${messages.map(({ messageId }) => messageId)}::uuid[],
      ${messages.map(() => new Date("2026-01-01T00:00:00Z"))}::timestamptz[],
      ${
    messages.map(({ amount, messageId }) =>
      JSON.stringify({ _tag: "Moved", messageId, occurredAt: "2026-01-01T00:00:00.000Z", amount })
    )
  }::text[], ${false}, ${true})`
  assert.strictEqual(row?.outcome, "written")
  return row?.version
})

/** Five messages, three of them handled, of which the second is parked. */
const made = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* Release01.createStore("transfers")
  yield* Release01.createStream("transfers", "merged")
  yield* Release01.createSubscription("consumer")
  const messages = Arr.makeBy(5, (i) => moved(i + 1))
  yield* append01("account-1", messages.slice(0, 2))
  yield* append01("account-2", messages.slice(2))
  const project = sql<{ readonly state: string }>`select state from effect_message_store_project_merged(
    ${definition}, ${["account-%"]}::text[], 'Constant', 3::bigint, '{}'::text[], 100)`
  yield* Effect.repeat(project, { until: ([row]) => row?.state === "done" })
  yield* sql`insert into effect_message_store_claims_consumer (partition, token, owner)
    select -1, numbering, 'merged' from effect_message_store_projection_merged`
  yield* sql`insert into effect_message_store_claims_consumer (partition, token, owner) values (3, 7, '')`
  yield* sql`insert into depeche_subscriptions_consumer values ('consumer', -1, -1), ('consumer', 3, 2)`
  yield* sql`insert into effect_message_store_parked_consumer (partition, position, message_id, error, attempts)
    values (3, 1, ${messages[1]?.messageId ?? ""}::uuid, 'Boom: it was 0.1', 4)`
  return messages
})

/** All that the database has in the schema of the tests, each in words of its own catalog; the order of columns aside. */
const objects = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly object: string }>`
    with relations as (select * from pg_class where relnamespace = 'public'::regnamespace),
    functions as (select * from pg_proc where pronamespace = 'public'::regnamespace)
    select concat_ws(' ', 'relation', relkind, relpersistence, relname, reloptions, relacl) as object from relations
    union all
    select concat_ws(' ', 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
      a.attidentity, a.attgenerated, a.attacl, pg_get_expr(d.adbin, d.adrelid))
    from pg_attribute a join relations c on c.oid = a.attrelid and c.relkind in ('r', 'v')
      left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attnum > 0 and not a.attisdropped
    union all
    select concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(oid)) from pg_constraint
    where connamespace = 'public'::regnamespace
    union all
    select concat_ws(' ', 'index', pg_get_indexdef(i.indexrelid)) from pg_index i join relations c on c.oid = i.indexrelid
    union all
    select concat_ws(' ', 'trigger', pg_get_triggerdef(t.oid)) from pg_trigger t join relations c on c.oid = t.tgrelid
    where not t.tgisinternal
    union all
    select concat_ws(' ', 'sequence', c.relname, format_type(s.seqtypid, null), s.seqstart, s.seqincrement, s.seqmax,
      s.seqmin, s.seqcache, s.seqcycle)
    from pg_sequence s join relations c on c.oid = s.seqrelid
    union all
    select concat_ws(' ', pg_get_functiondef(oid), proacl) from functions`
  return rows.map(({ object }) => object).toSorted()
})

it.live("makes of the objects of 0.1 those that a new store has", () => {
  const opened = Effect.gen(function*() {
    const transfers = yield* Transfers
    yield* (yield* transfers.aggregatedStream(merged)).subscription({ name: "consumer" })
    return yield* objects
  })
  const open = (before: Effect.Effect<void, unknown, SqlClient.SqlClient>) =>
    Effect.andThen(before, Effect.provide(opened, Layer.fresh(Transfers.layer))).pipe(
      Effect.provide(Layer.fresh(databaseLayer()))
    )
  return Effect.gen(function*() {
    const expected = yield* open(Effect.void)
    const upgraded = yield* open(Effect.gen(function*() {
      yield* Release01.createStore("transfers")
      yield* Release01.createStream("transfers", "merged")
      yield* Release01.createSubscription("consumer")
    }))
    assert.isAbove(expected.length, 100)
    assert.deepStrictEqual(upgraded, expected)
  })
})

for (const [name, database] of [["PostgreSQL", databaseLayer()], ["PGlite", pgliteLayer]] as const) {
  describe(name, () => {
    it.live("goes on with a store, an aggregated stream and a subscription of 0.1", () =>
      Effect.gen(function*() {
        const messages = yield* made
        yield* Effect.gen(function*() {
          const transfers = yield* Transfers
          const stored = yield* Stream.runCollect(transfers.read("account-2"))
          assert.deepStrictEqual(stored.map(({ messageId }) => messageId), messages.slice(2).map((m) => m.messageId))
          assert.deepInclude(stored[0], { version: 1, globalPosition: 3, metadata: { by: "0.1" } })
          assert.strictEqual((yield* transfers.write("account-1", moved(6), { expectedVersion: 2 })).globalPosition, 6)

          const stream = yield* transfers.aggregatedStream(merged)
          assert.lengthOf(yield* Stream.runCollect(stream.read(3)), 5)
          assert.include(yield* stream.projector.runOnce, { linked: 1 })
          const subscription = yield* stream.subscription({ name: "consumer", start: "next" })
          assert.strictEqual(yield* subscription.lag, 3)
          const amounts = yield* Queue.unbounded<number>()
          yield* Effect.forkScoped(subscription.run((message) => Effect.asVoid(Queue.offer(amounts, message.amount))))
          assert.deepStrictEqual(yield* Queue.takeN(amounts, 3), [4, 5, 6])

          const [parked] = yield* subscription.parked
          assert.deepInclude(parked, {
            partition: 3,
            position: 1,
            attempts: 4,
            messageId: messages[1]?.messageId ?? "",
            error: { tag: "Error", message: "Boom: it was 0.1" }
          })
          const place = { partition: 3, position: 1 }
          const failing = () => Effect.fail("again")
          assert.deepStrictEqual(yield* subscription.replay(failing, [place]), { handled: 0, failed: 1 })
          const [again] = yield* subscription.parked
          assert.deepInclude(again, { ...place, attempts: 5 })
          assert.include(again?.error, { message: "again" })
          const replayed: Array<number> = []
          const replay = ({ amount }: Moved) => Effect.sync(() => replayed.push(amount))
          assert.deepStrictEqual(yield* subscription.replay(replay), { handled: 1, failed: 0 })
          assert.deepStrictEqual([replayed, yield* subscription.parked], [[2], []])

          // A process of 0.1 that runs still.
          const sql = yield* SqlClient.SqlClient
          yield* sql`insert into effect_message_store_parked_consumer (partition, position, message_id, error, attempts)
            values (3, 2, ${messages[2]?.messageId ?? ""}::uuid, ${"{\"it\": 0.1"}, 1)`
          assert.deepInclude((yield* subscription.parked)[0]?.error, { tag: "Error", message: "{\"it\": 0.1" })
          assert.strictEqual(yield* append01("account-1", [moved(7), moved(8)]), 5)
          assert.strictEqual((yield* transfers.head("account-1")).version, 5)
          assert.include(yield* stream.projector.runOnce, { linked: 2 })
          assert.deepStrictEqual(yield* Queue.takeN(amounts, 2), [7, 8])
        }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Transfers.layer)))
      }).pipe(Effect.provide(Layer.fresh(database))))
  })
}
