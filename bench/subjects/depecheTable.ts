/** The table of this library and of depeche_db, for the subjects that write to it with SQL of their own. */
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { encode, loadedMetadata, makeMessage, Orders, storeName } from "../message.ts"
import type { Database, Subject, Table } from "./Subject.ts"

export const tableName = `depeche_msgs_${storeName}`
export const sequenceName = `${tableName}_global_seq`

const table: Table = { name: tableName, streams: { name: "stream", version: "version", first: 1 } }

/** The table and its functions, as the library's migrations make them. */
export const migrate = ({ sql }: Database) =>
  Effect.asVoid(Layer.build(Layer.provide(Orders.layer, Layer.succeed(SqlClient.SqlClient, sql))))

/** How many rows one statement stores, unless a version of all streams is more. */
const rowsAtATime = 200_000

/** Rows as the library writes them, in the order in which concurrent streams grow; ids rise like UUIDv7 do. */
export const fill = Effect.fnUntraced(function*(
  sql: Database["sql"],
  streams: number,
  length: number,
  payload: "json" | "jsonb" = "json"
) {
  const { messageId, ...rest } = encode(makeMessage())
  const [before, after] = JSON.stringify({ messageId, ...rest }).split(messageId)
  const versions = Math.max(1, Math.floor(rowsAtATime / streams))
  for (let from = 1; from <= length; from += versions) {
    yield* sql`
      insert into ${sql(tableName)} (message_id, global_position, stream, version, message, metadata, occurred_at, tx)
      select id, nextval(${sequenceName}), 'stored' || s || '-1', v,
        (${before}::text || id || ${after}::text)::${sql.literal(payload)}, ${
      sql.literal(loadedMetadata("id"))
    }::jsonb, now(),
        pg_current_xact_id()
      from (
        select s, v, ('01900000-0000-7000-8000-' || lpad(to_hex((v - 1) * ${streams}::bigint + s), 12, '0'))::uuid as id
        from generate_series(${from}::int, ${Math.min(from + versions - 1, length)}::int) v,
          generate_series(1, ${streams}::int) s
      ) rows`
  }
})

export const stored = (
  { sql }: Database,
  payload: "json" | "jsonb" = "json"
): Pick<Subject, "load" | "clear" | "table"> => ({
  load: (streams, length) => fill(sql, streams, length, payload),
  clear: sql`truncate ${sql(tableName)}`,
  table
})
