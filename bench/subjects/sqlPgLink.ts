/**
 * The floor of a projection: the same rows by bare SQL, into the same tables, in pages of a thousand, each committed on its
 * own. Partitions and positions are computed as they have to be; nothing is looked for that might be linked already, or
 * might be committed late, and the place that was reached is not stored.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import * as Migrations from "../../src/postgres/migrations/run.ts"
import type { Measurement } from "../measure.ts"
import { storeName } from "../message.ts"
import type { LinkWork, StreamWork } from "../work.ts"
import { tableName } from "./depecheTable.ts"

const pageSize = 1000
const name = "bare"

const hash = (text: string) => {
  const bytes = [0, 1, 2, 3].map((i) => `get_byte(sha256(convert_to(${text}, 'UTF8')), ${i})`)
  return `((${bytes[0]} * 16777216::bigint + ${bytes[1]} * 65536 + ${bytes[2]} * 256 + ${bytes[3]}) % 16)::int`
}

const expressions: Readonly<Record<LinkWork["partitioner"], string>> = {
  constant: "0",
  streamName: hash("stream"),
  field: hash("coalesce(message #>> '{address,country}', '')"),
  depeche: "get_byte(sha256(convert_to(stream, 'UTF8')), 0) + 256 * get_byte(sha256(convert_to(stream, 'UTF8')), 1)",
  function: "version % 16"
}

export const makeLink = (sql: SqlClient.SqlClient) => {
  let isMade = false

  const link = Effect.fnUntraced(function*({ partitioner }: LinkWork) {
    if (!isMade) yield* Migrations.runStream(storeName, name)
    isMade = true
    const [links, heads] = [sql(`depeche_stream_${name}`), sql(`depeche_stream_${name}_maxpos`)]
    const [range] = yield* sql<{ readonly low: bigint; readonly high: bigint }>`
      select min(global_position) as low, max(global_position) as high from ${sql(tableName)}`
    const start = performance.now()
    yield* sql`truncate ${links}, ${heads}`
    let units = 0
    for (let from = range?.low ?? 0n; from <= (range?.high ?? -1n); from += BigInt(pageSize)) {
      const [row] = yield* sql<{ readonly linked: number }>`
        with fresh as materialized (
          select message_id, stream, version, ${sql.literal(expressions[partitioner])} as partition, occurred_at,
            global_position, added_at
          from ${sql(tableName)} where global_position >= ${from} and global_position < ${from + BigInt(pageSize)}
        ), places as materialized (
          select f.*, coalesce((select x.max_position from ${heads} x where x.partition = f.partition), -1)
            + row_number() over (partition by partition order by global_position) as position
          from fresh f
        ), kept as (
          insert into ${heads} as x select partition, max(position) from places group by partition
          on conflict (partition) do update set max_position = excluded.max_position
        ), linked as (
          insert into ${links} (message_id, origin_stream, origin_stream_version, partition, position,
            message_occurred_at, origin_stream_global_position, origin_stream_added_at)
          select message_id, stream, version, partition, position, occurred_at, global_position, added_at from places
        )
        select count(*)::int as linked from places`
      units += row?.linked ?? 0
    }
    return { units, seconds: (performance.now() - start) / 1000 }
  })

  return (work: StreamWork): Effect.Effect<Measurement, unknown, SqlClient.SqlClient> =>
    work.kind === "link" ? link(work) : Effect.die(new Error(`the floor does not ${work.kind}`))
}
