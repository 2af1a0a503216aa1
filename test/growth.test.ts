/**
 * An empty table takes a million rows without reconnecting: plans that a session made when statistics said that there
 * is nothing, and keeps, do not scan the table that there is later.
 */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Layer, Schema, Stream } from "effect"
import { Message, MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { Storage } from "../src/Storage.ts"
import { databaseLayer } from "./support/database.ts"

class Counted extends Schema.TaggedClass<Counted>()("Counted", { ...Message.fields, count: Schema.Int }) {}

class Counts extends MessageStore.Service<Counts>()("test/Counts", { name: "counts", schema: Counted }) {}

const counted = () => new Counted({ count: 1 })

/** A plan may become generic, and be kept, from the sixth execution on. */
const enough = 8

describe("PostgreSQL", () => {
  it.live("an empty table takes a million rows without reconnecting", () =>
    Effect.gen(function*() {
      const counts = yield* Counts
      const sql = yield* SqlClient.SqlClient
      const known = counted()

      const uses = (stream: string): ReadonlyArray<[name: string, use: Effect.Effect<unknown, unknown>]> => [
        ["a write", counts.write(stream, counted())],
        ["a write of several", counts.write(stream, [counted(), counted()])],
        ["a write expecting a version", Effect.flip(counts.write(stream, counted(), { expectedVersion: 0 }))],
        ["a write of what is stored", Effect.flip(counts.write(stream, known))],
        ["a write of several of which one is stored", Effect.flip(counts.write(stream, [counted(), known]))],
        [
          "a write to several streams",
          counts.writeAll([{ stream, messages: counted() }, { stream: "b", messages: counted() }])
        ],
        [
          "depeche_db's function",
          sql`select * from depeche_write_message_counts(${counted().messageId}::uuid, ${`${stream}-depeche`}, '{}'::json, null)`
        ],
        ["a head", counts.head(stream)],
        ["a stream", Stream.runDrain(counts.read(stream, { limit: 2 }))],
        ["a stream from a version on", Stream.runDrain(counts.read(stream, { fromVersion: 2, limit: 2 }))],
        ["a stream backwards", Stream.runDrain(counts.read(stream, { direction: "backward", limit: 2 }))],
        [
          "a message by its id",
          Effect.scoped(Effect.flatMap(counts.reader, (all) => all.getMessageById(known.messageId)))
        ],
        ["a synchronization", Effect.flip(counts.synchronize(stream, [counted()]))]
      ]

      // No ANALYZE comes by chance either.
      yield* sql`alter table depeche_msgs_counts set (autovacuum_enabled = false)`
      yield* counts.write("a", known)
      for (let i = 0; i < enough; i++) yield* Effect.forEach(uses("a"), ([, use]) => use)

      yield* sql`
        insert into depeche_msgs_counts (message_id, global_position, stream, version, message, tx)
        select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
          nextval('depeche_msgs_counts_global_seq'), 'stream-' || n % 1000, 1 + n / 1000, '{}',
          pg_current_xact_id()
        from generate_series(0, 999999) n`

      const scans = Effect.map(
        sql<{ readonly seq_scan: bigint; readonly idx_scan: bigint }>`
          select seq_scan, idx_scan from pg_stat_xact_user_tables where relname = 'depeche_msgs_counts'`,
        ([row]) => ({ sequential: row?.seq_scan ?? 0n, byIndex: row?.idx_scan ?? 0n })
      )
      const found: Array<string> = []
      for (const [name, use] of uses("a")) {
        // In one transaction, whose own scans the view counts.
        yield* counts.withTransaction(Effect.gen(function*() {
          const before = yield* scans
          yield* use
          const after = yield* scans
          if (after.sequential > before.sequential || after.byIndex === before.byIndex) found.push(name)
        }))
      }
      assert.deepStrictEqual(found, [])
    }).pipe(Effect.provide(Layer.provideMerge(Counts.layer, databaseLayer({ maxConnections: 1 })))))

  it.live("a page of a new aggregated stream is read from its index, before there are statistics", () =>
    Effect.gen(function*() {
      const counts = yield* Counts
      const sql = yield* SqlClient.SqlClient
      const stream = yield* counts.aggregatedStream({
        name: "counted",
        patterns: "%",
        partitioner: Partitioner.constant()
      })
      yield* sql`alter table depeche_stream_counted set (autovacuum_enabled = false)`
      yield* sql`
        insert into depeche_msgs_counts (message_id, global_position, stream, version, message, tx)
        select gen_random_uuid(), nextval('depeche_msgs_counts_global_seq'), 'a', n, '{}', pg_current_xact_id()
        from generate_series(1, 30000) n`
      yield* stream.projector.runOnce
      yield* sql`analyze depeche_msgs_counts`
      const fetched = Effect.map(
        sql<{ readonly fetched: number }>`select (seq_tup_read + idx_tup_fetch)::int as fetched
          from pg_stat_xact_user_tables where relname = 'depeche_msgs_counts'`,
        ([row]) => row?.fetched ?? 0
      )
      yield* Effect.gen(function*() {
        const storage = yield* Storage
        const linked = yield* storage.aggregatedStream({
          name: "counted",
          patterns: ["%"],
          partitioner: { _tag: "Constant", partition: 0 }
        })
        yield* storage.withTransaction(Effect.gen(function*() {
          const before = yield* fetched
          const { messages, more } = yield* linked.readPartition({ partition: 0, fromPosition: 100, limit: 10 })
          assert.deepStrictEqual(messages.map(({ position }) => position), Arr.range(100, 109))
          assert.isTrue(more)
          assert.isAtMost((yield* fetched) - before, 20)
        }))
      }).pipe(Effect.provide(PostgresStorage.layer("counts")))
    }).pipe(Effect.provide(Layer.provideMerge(Counts.layer, databaseLayer({ maxConnections: 4 })))))

  it.live("what may not scan tables is not compiled either: a scan of a table of one row would be dear enough", () =>
    Effect.gen(function*() {
      const counts = yield* Counts
      yield* (yield* counts.aggregatedStream({
        name: "compiled",
        patterns: "%",
        partitioner: Partitioner.constant(0)
      })).subscription({ name: "compiled" })
      const sql = yield* SqlClient.SqlClient
      const functions = yield* sql<{ readonly name: string; readonly compiled: boolean }>`
        select proname as name, not 'jit=off' = any(proconfig) as compiled from pg_proc
        where pronamespace = 'public'::regnamespace and 'enable_seqscan=off' = any(proconfig)`
      assert.isAtLeast(functions.length, 5)
      assert.deepStrictEqual(functions.filter(({ compiled }) => compiled), [])
    }).pipe(Effect.provide(Layer.provideMerge(Counts.layer, Layer.fresh(databaseLayer())))))
})
