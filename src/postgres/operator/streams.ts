/**
 * Streams in the order of their names: each is one look into the index of streams and versions, behind the one before it, so
 * that it does not matter how many messages they have.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { OperatorStorage, StreamSummary } from "../../Storage.ts"
import { type Int8, milliseconds, toTime } from "../client/values.ts"
import { type Store, timeAdded } from "../objects.ts"

interface Row {
  readonly looked: number
  readonly reached: string | null
  /** Null if none of those that were looked at is meant. */
  readonly stream: string | null
  readonly version: number
  readonly first: number
  readonly global_position: Int8
  readonly added_at: number
}

export const make = (sql: SqlClient, store: Store): OperatorStorage["streams"] => {
  const table = sql(store.table)
  const added = sql.literal(milliseconds(timeAdded(store, "m")))

  return ({ after, limit, pattern, scan }) =>
    Effect.map(
      sql<Row>`
        with recursive names(stream, n) as (
          (
            select m.stream::text, 1 from ${table} m ${
        after === undefined ? sql`` : sql`where m.stream operator(pg_catalog.>) ${after}::text`
      }
            order by m.stream limit 1
          )
          union all
          select (
            select m.stream::text from ${table} m where m.stream operator(pg_catalog.>) names.stream
            order by m.stream limit 1
          ), names.n + 1
          from names where names.stream is not null and names.n < ${scan}::int
        ), found as (
          select n.stream, n.n from names n
          where n.stream is not null ${
        pattern === undefined ? sql`` : sql`and n.stream operator(pg_catalog.~~) ${pattern}::text`
      }
          order by n.n limit ${limit}::int
        )
        select looked.looked, looked.reached, f.stream, h.version, first.version as first, h.global_position, h.added_at
        from (
          select pg_catalog.count(n.stream)::int as looked, (
            select n.stream from names n where n.stream is not null order by n.n desc limit 1
          ) as reached from names n
        ) looked
        left join found f on true
        left join lateral (
          select m.version, m.global_position, ${added} as added_at from ${table} m
          where m.stream operator(pg_catalog.=) f.stream order by m.version desc limit 1
        ) h on true
        left join lateral (
          select m.version from ${table} m where m.stream operator(pg_catalog.=) f.stream order by m.version limit 1
        ) first on true
        order by f.n`,
      (rows) => {
        const [head] = rows
        const found = rows.flatMap((row): ReadonlyArray<StreamSummary> =>
          row.stream === null ? [] : [{
            stream: row.stream,
            version: row.version,
            messages: row.version - row.first + 1,
            globalPosition: Number(row.global_position),
            addedAt: toTime(row.added_at)
          }]
        )
        if (found.length === limit) return { found, reached: found.at(-1)?.stream }
        return { found, reached: (head?.looked ?? 0) < scan ? undefined : head?.reached ?? undefined }
      }
    )
}
