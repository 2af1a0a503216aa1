/**
 * Messages that are looked for in the whole store, by a pattern or by tags, in the order of global positions.
 *
 * A planner that has no statistics, or old ones, or makes one plan for all that may be asked for, does not know how many
 * messages there are of a pattern or of a tag. So neither the time that a page takes, nor which plan there is, depends on that.
 */
import type { SqlClient } from "effect/sql/SqlClient"
import type * as Statement from "effect/sql/Statement"
import type { Direction, Ends, PatternQuery, TaggedQuery } from "../Storage.ts"
import { int8 } from "./client/values.ts"
import { queryArrays } from "./decide.ts"
import { editionOf, serverRun, type Store, tagLockKey } from "./objects.ts"

/** So many positions are looked at at a time. */
const stretchLength = 1000

const order = (direction: Direction): string => direction === "forward" ? "" : "desc"

const afterOf = ({ after = -1 }: TaggedQuery["queries"][number]) => int8(after)
const upToOf = ({ upTo = Number.MAX_SAFE_INTEGER }: TaggedQuery["queries"][number]) => int8(upTo)

/** What statements select from. They call the messages `m`. */
export const make = (sql: SqlClient, store: Store) => {
  const table = sql(store.table)
  const tags = sql(store.tagsTable)
  const stretch = sql.literal(String(stretchLength))

  /**
   * The messages of a pattern. For each page a planner might sort all that are left: so they are looked for in stretches of the
   * store, in their order, until there are enough. (Rows of a recursive query, and what is joined to each of them, come in
   * their order.) Only where an index finds streams by the beginning of their names, the planner has the choice.
   */
  const matching = ({ direction, fromPosition, pattern, toPosition }: PatternQuery): Statement.Fragment => {
    const [from, to] = [sql`${int8(fromPosition)}::int8`, sql`${int8(toPosition)}::int8`]
    const inOrder = sql.literal(`order by m.global_position ${order(direction)}`)
    const isForward = direction === "forward"
    const inRange = sql`m.global_position >= ${from} and m.global_position <= ${to}`
    const isLike = sql`stream operator(pg_catalog.~~) ${pattern}::text`
    if (store.ordersBytes && !/^[%_]/.test(pattern)) {
      return sql` from ${table} m where ${isLike} and ${inRange} ${inOrder}`
    }
    const further = isForward
      ? sql`m.global_position >= w.start + ${stretch} and m.global_position <= ${to}`
      : sql`m.global_position <= w.start - ${stretch} and m.global_position >= ${from}`
    const within = isForward
      ? sql`m.global_position >= w.start and m.global_position <= least(w.start + ${stretch} - 1, ${to})`
      : sql`m.global_position <= w.start and m.global_position >= greatest(w.start - ${stretch} + 1, ${from})`
    return sql` from (
          with recursive stretches(start) as (
            (select m.global_position from ${table} m where ${inRange} ${inOrder} limit 1)
            union all
            select n.global_position from stretches w
            cross join lateral (select m.global_position from ${table} m where ${further} ${inOrder} limit 1) n
          )
          select start from stretches
        ) w
        cross join lateral (
          select * from ${table} m where ${within} and ${isLike} ${inOrder}
        ) m`
  }

  /** A page of the positions that one query asks for. */
  const positions = (
    asked: Readonly<Record<"tag" | "types" | "others" | "after" | "upTo", Statement.Fragment>>,
    { direction, fromPosition, limit, toPosition }: TaggedQuery
  ) =>
    sql`select t.global_position from ${tags} t
      where t.tag = ${asked.tag} and t.global_position >= greatest(${asked.after} + 1, ${int8(fromPosition)}::int8)
        and t.global_position <= least(${asked.upTo}, ${int8(toPosition)}::int8)
        and (${asked.types} = '{}' or t.type = any(${asked.types}::text[]))
        and (${asked.others} = '{}' or pg_catalog.cardinality(${asked.others}::text[]) = (
          select pg_catalog.count(*) from ${tags} x
          where x.tag = any(${asked.others}::text[]) and x.global_position = t.global_position
        ))
      order by t.global_position ${sql.literal(order(direction))} limit ${limit}`

  /** The messages of a page of tags. */
  const tagged = (query: TaggedQuery): Statement.Fragment => {
    const { direction, limit, queries } = query
    const [only] = queries
    const given = queryArrays(queries)
    const found = queries.length === 1
      ? positions({
        tag: sql`${only.tags[0]}::text`,
        types: sql`${given.types[0]}::text`,
        others: sql`${given.others[0]}::text`,
        after: sql`${afterOf(only)}::int8`,
        upTo: sql`${upToOf(only)}::int8`
      }, query)
      : sql`select distinct t.global_position
          from unnest(${given.tags}::text[], ${given.types}::text[], ${given.others}::text[],
            ${queries.map(afterOf)}::int8[], ${queries.map(upToOf)}::int8[]) q(tag, types, others, after, up_to)
          cross join lateral (${
        positions({
          tag: sql.literal("q.tag"),
          types: sql.literal("q.types"),
          others: sql.literal("q.others"),
          after: sql.literal("q.after"),
          upTo: sql.literal("q.up_to")
        }, query)
      }) t
          order by t.global_position ${sql.literal(order(direction))} limit ${limit}`
    // By their positions, one after the other: a join would be planned by how many there might be.
    return sql` from ${table} m where m.global_position = any(array(${found}))
        order by m.global_position ${sql.literal(order(direction))}`
  }

  /** Of each query where its first tag ends, and the edition of that; and last the run of the server: an array's text. */
  const endsOf = (queries: TaggedQuery["queries"]): Statement.Fragment =>
    sql`(array(
        select told.value from pg_catalog.unnest(${
      queries.map((query) => query.tags[0])
    }::text[]) with ordinality s(tag, i)
        cross join lateral (
          select 1 as n, coalesce((
            select t.global_position from ${tags} t where t.tag = s.tag order by t.global_position desc limit 1
          ), 0) as value
          union all select 2, ${sql.literal(editionOf(store, tagLockKey(store, "s.tag")))}
        ) told
        order by s.i, told.n
      ) operator(pg_catalog.||) ${sql.literal(serverRun)})::text`

  return { matching, tagged, endsOf }
}

/** What `endsOf` has read. */
export const toEnds = (
  text: string
): { readonly ends: Pick<Ends, "tags" | "editions">; readonly run: number } => {
  const values = text.slice(1, -1).split(",").map(Number)
  const run = values.pop() ?? 0
  return { ends: { tags: values.filter((_, i) => i % 2 === 0), editions: values.filter((_, i) => i % 2 === 1) }, run }
}
