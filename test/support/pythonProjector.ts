/** What Python's depeche_db does to a store and an aggregated stream. */
import { PgClient } from "@effect/sql-pg"
import { assert } from "@effect/vitest"
import { Effect, Queue } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { moved } from "./links.ts"

export const inSql = { name: "a", patterns: "%", partitioner: Partitioner.constant(7) }
export const inCode = { name: "a", patterns: "%", partitioner: () => 7 }
export const definitions = [["in the database", inSql], ["in the application", inCode]] as const

/** What depeche_db 0.13 makes for an aggregated stream. */
export const createDepecheStream = Effect.gen(function*() {
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
export const python = Effect.fnUntraced(function*(count: number, partition = 7) {
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
export const pythonWrites = (stream: string, fields = "\"occurredAt\":\"2026-01-01T00:00:00.000Z\",\"amount\":1") =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const { messageId } = moved()
    const message = `{"_tag":"Moved","messageId":"${messageId}",${fields}}`
    yield* sql`select version from depeche_write_message_transfers(
      ${messageId}::uuid, ${stream}::varchar, ${message}::text::json)`
    return message
  })

/** What a listener like Python's hears from now on. */
export const hear = Effect.fnUntraced(function*(channel: string) {
  const sql = yield* PgClient.PgClient
  const heard: Array<Readonly<Record<string, unknown>>> = []
  const notifications = yield* sql.listen(channel)
  yield* Effect.forkScoped(Effect.forever(
    Effect.map(Queue.take(notifications), ({ payload }) => heard.push(JSON.parse(payload)))
  ))
  return heard
})

/** What a consumer of depeche_db reads: links, and then their messages, each of which it takes for granted. */
export const pythonReads = Effect.fnUntraced(function*(from: number, partition = 7) {
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
