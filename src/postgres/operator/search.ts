/**
 * Searches, without an index of their own: nobody who writes pays for what an operator seldom asks. So many messages are
 * looked at, from the newest on as a rule, and the answer says where that has ended: whoever asks goes on there. Streams and
 * tags have their indexes.
 */
import { DateTime, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import type { EncodedStoredMessage, Looked, OperatorStorage, SearchQuery } from "../../Storage.ts"
import { int8, timeParameter } from "../client/values.ts"
import { type OfStream, toStored } from "../messages.ts"
import { type Store, timeAdded } from "../objects.ts"
import { type Row, sized } from "../pages.ts"

/** How long before it was committed a message may have been added, at most, in milliseconds: an hour. */
const longestTransaction = 3_600_000

interface LookedRow {
  readonly looked: number
  /** Of the last one that was looked at: a version, or a global position; as text. */
  readonly reached: string | null
  /** JSON text: the global positions of messages that were found. */
  readonly positions: string
}

/** Strings as they may stand in JSON text: as they are, and with escapes for what is not ASCII. */
const spellings = (text: string): ReadonlyArray<string> => {
  const plain = JSON.stringify(text)
  const escaped = plain.replaceAll(
    /[^\0-\x7f]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )
  return escaped === plain ? [plain] : [plain, escaped]
}

const escapeLike = (text: string): string => text.replaceAll(/[\\%_]/g, "\\$&")

export const make = (sql: SqlClient, store: Store): Pick<OperatorStorage, "search" | "positionsAt"> => {
  const table = sql(store.table)
  const tags = sql(store.tagsTable)
  const timeOf = timeParameter(sql)
  const added = sql.literal(timeAdded(store, "m"))
  const { page } = sized(sql, store)

  const conditions = (query: SearchQuery): ReadonlyArray<Statement.Fragment> => {
    const { causationId, correlationId, fromTime, mentions, pattern, related, tags: wanted, toTime } = query
    const metadata = (field: string) => sql`(m.metadata operator(pg_catalog.->>) ${field}::text)`
    return [
      ...pattern === undefined ? [] : [sql`m.stream operator(pg_catalog.~~) ${pattern}::text`],
      ...wanted.slice(1).map((tag) =>
        sql`exists (select from ${tags} x where x.tag = ${tag}::text and x.global_position = m.global_position)`
      ),
      ...correlationId === undefined
        ? []
        : [sql`${metadata("correlationId")} operator(pg_catalog.=) ${correlationId}::text`],
      ...causationId === undefined ? [] : [sql`${metadata("causationId")} operator(pg_catalog.=) ${causationId}::text`],
      ...related === undefined ? [] : [
        sql`(${metadata("causationId")} operator(pg_catalog.=) any(${related.causationIds}::text[])
          or ${metadata("correlationId")} operator(pg_catalog.=) ${related.correlationId ?? null}::text)`
      ],
      ...fromTime === undefined ? [] : [sql`${added} >= ${timeOf(fromTime)}::timestamptz`],
      ...toTime === undefined ? [] : [sql`${added} <= ${timeOf(toTime)}::timestamptz`],
      // The most expensive one comes last: texts may be large.
      ...mentions.length === 0 ? [] : [
        sql`m.message::text operator(pg_catalog.~~) any(${
          mentions.flatMap(spellings).map((text) => `%${escapeLike(text)}%`)
        }::text[])`
      ]
    ]
  }

  /** The messages that are looked at, in order, each with what the order is by. */
  const source = ({ after, direction, fromPosition, scan, stream, tags: [tag], toPosition }: SearchQuery) => {
    const order = sql.literal(direction === "forward" ? "" : " desc")
    const behind = sql.literal(direction === "forward" ? ">" : "<")
    const within = (column: string) =>
      sql`${sql.literal(column)} >= ${int8(fromPosition)}::int8 and ${sql.literal(column)} <= ${int8(toPosition)}::int8`
    const goOn = (column: string) =>
      after === undefined ? sql`` : sql`and ${sql.literal(column)} ${behind} ${int8(after)}::int8`
    if (stream !== undefined) {
      return sql`select m.*, m.version::int8 as at from ${table} m
        where m.stream operator(pg_catalog.=) ${stream}::text and ${within("m.global_position")} ${goOn("m.version")}
        order by m.version${order} limit ${scan}::int`
    }
    if (tag !== undefined) {
      return sql`select m.*, m.global_position as at from (
          select t.global_position from ${tags} t
          where t.tag = ${tag}::text and ${within("t.global_position")} ${goOn("t.global_position")}
          order by t.global_position${order} limit ${scan}::int
        ) t join ${table} m using (global_position)`
    }
    return sql`select m.*, m.global_position as at from ${table} m
      where ${within("m.global_position")} ${goOn("m.global_position")}
      order by m.global_position${order} limit ${scan}::int`
  }

  const look = (query: SearchQuery) => {
    const { direction, limit, stream, tags: [tag] } = query
    const all = [
      ...stream !== undefined && tag !== undefined
        ? [sql`exists (select from ${tags} x where x.tag = ${tag}::text and x.global_position = m.global_position)`]
        : [],
      ...conditions(query)
    ]
    const isFound = all.length === 0 ? sql`true` : all.reduce((both, one) => sql`${both} and ${one}`)
    const order = sql.literal(direction === "forward" ? "" : " desc")
    return sql<LookedRow>`
      with looked as materialized (
        select m.at, m.global_position, coalesce(${isFound}, false) as is_found from (${source(query)}) m
      )
      select (select pg_catalog.count(*)::int from looked) as looked,
        (select l.at::text from looked l order by l.at${
      sql.literal(direction === "forward" ? " desc" : "")
    } limit 1) as reached,
        pg_catalog.array_to_json(array(
          select l.global_position from looked l where l.is_found order by l.at${order} limit ${limit}::int
        ))::text as positions`
  }

  const search = Effect.fnUntraced(function*(
    query: SearchQuery
  ): Effect.fn.Return<Looked<EncodedStoredMessage, number>, SqlError> {
    const { direction, limit, scan, stream } = query
    const [row] = yield* look(query)
    const positions: ReadonlyArray<number> = JSON.parse(row?.positions ?? "[]")
    const end = row === undefined || row.reached === null || row.looked < scan ? undefined : Number(row.reached)
    if (positions.length === 0) return { found: [], reached: end }
    const order = sql.literal(direction === "forward" ? "" : " desc")
    const { more, rows } = yield* page<Row & OfStream>(
      "stream, ",
      sql` from ${table} m where m.global_position = any(${positions.map(int8)}::int8[])
        order by m.global_position${order}`,
      positions.length
    )
    const found = toStored(rows, (each) => each.stream)
    const last = found.at(-1)
    // A page may end early, with large messages.
    const isCut = positions.length === limit || (more && found.length < positions.length)
    return { found, reached: !isCut ? end : stream === undefined ? last?.globalPosition : last?.version }
  })

  /** The first global position behind which messages were added at a time or later: found by halves. */
  const firstSince = (time: DateTime.Utc) =>
    Effect.map(
      sql<{ readonly position: string | null }>`
        with recursive halves(low, high) as (
          select 0::int8, coalesce((select m.global_position::int8 from ${table} m order by m.global_position desc limit 1), 0) + 1
          union all
          select case when p.is_before then p.global_position else h.low end, case when p.is_before then h.high else h.middle end
          from (select low, high, low + (high - low) / 2 as middle from halves where high - low > 1) h
          cross join lateral (
            select p.global_position, p.is_before from (
              select m.global_position::int8 as global_position, ${added} < ${
        timeOf(time)
      }::timestamptz as is_before from ${table} m
              where m.global_position >= h.middle and m.global_position < h.high order by m.global_position limit 1
            ) p
            union all select 0::int8, false
            order by 1 desc limit 1
          ) p
        )
        select high::text as position from halves order by high - low limit 1`,
      ([row]) => Number(row?.position ?? 0)
    )

  const hours = (time: DateTime.Utc, by: number) => DateTime.makeUnsafe(time.epochMilliseconds + by)

  return {
    search,
    positionsAt: ({ from, to }) =>
      Effect.all({
        from: from === undefined
          ? Effect.succeed(0)
          : firstSince(hours(from, -longestTransaction)),
        to: to === undefined ? Effect.succeed(Number.MAX_SAFE_INTEGER) : firstSince(hours(to, longestTransaction + 1))
      })
  }
}
