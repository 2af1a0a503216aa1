/** An aggregated stream on PostgreSQL: reads of its tables, and its projection. */
import { DateTime, Effect } from "effect"
import type { Array as Arr } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import { earliestTime } from "../internal/checks.ts"
import {
  type AggregatedStorage,
  type OpenedDefinition,
  type PartitionHead,
  type PartitionQuery,
  PositionQuery
} from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import { withTransaction } from "./client/transaction.ts"
import { age, type Int8, int8, milliseconds, timeParameter, toTime } from "./client/values.ts"
import { type OfStream, toStored } from "./messages.ts"
import { serverRun, type Store, type StreamObjects, timeAdded } from "./objects.ts"
import { type Row, sized, sizedTogether } from "./pages.ts"
import * as Projection from "./projection.ts"

/** In the order in which 0.1 wrote them: definitions are compared as texts. */
const describedKeys = ["store", "patterns", "partitioner", "path", "count", "partition", "_tag"]

/** So many messages that no round has come to are looked at, at most. */
const maximumAhead = 10_000

type LinkedPage = Effect.Success<ReturnType<AggregatedStorage["readPartition"]>>

interface LinkedRow extends Row, OfStream {
  readonly position: number
  /** If it was asked for. */
  readonly run?: Int8
}

/**
 * Reads pages of partitions, as long as something holds that is asked in the same statement of the partition in `q`. The
 * partition is asked for as a range: of `partition = 7` the planner expects so few messages, while the table has no
 * statistics, that it reads and sorts all of them for each page; a range is walked in the order of its index.
 */
export const readPartition = (sql: SqlClient, store: Store, stream: StreamObjects, holds?: Statement.Fragment) => {
  const { page } = sized(sql, store)
  return ({ fromPosition, limit, partition, tellsRun = false }: PartitionQuery): Effect.Effect<LinkedPage, SqlError> =>
    Effect.map(
      page<LinkedRow>(
        tellsRun ? `stream, position, ${serverRun} as run, ` : "stream, position, ",
        sql`, l.position from ${sql(stream.table)} l join ${sql(store.table)} m using (message_id)
            where (l.partition, l.position) >= (${partition}, ${fromPosition}) and l.partition <= ${partition}${
          holds === undefined ? sql`` : sql` and (select ${holds} from (select ${partition}::int as partition) q)`
        }
            order by l.partition, l.position`,
        limit
      ),
      (found) => {
        store.answered.run = Number(found.rows[0]?.run ?? store.answered.run)
        return toPage(found)
      }
    )
}

/** Asks for a page behind a checkpoint, or, where that is not known, behind the one that is stored. */
interface BehindQuery extends Pick<PartitionQuery, "partition" | "limit"> {
  readonly checkpoint: number | undefined
}

/** The same, of several partitions at once, behind their checkpoints; the stored one is given as SQL of the partition in `a`. */
export const readBehind = (
  sql: SqlClient,
  store: Store,
  stream: StreamObjects,
  stored: Statement.Fragment,
  holds: Statement.Fragment
) => {
  const pages = sizedTogether(sql, store)
  const alone = readPartition(sql, store, stream, holds)
  return Effect.fnUntraced(function*(
    queries: Arr.NonEmptyReadonlyArray<BehindQuery>
  ): Effect.fn.Return<ReadonlyArray<LinkedPage & { readonly checkpoint: number }>, SqlError> {
    const limits = queries.map(({ limit }) => limit)
    const found = yield* pages<LinkedRow, { readonly checkpoint: number }>(
      "stream, position, ",
      sql`(
          select a.partition, a.max, a.i,
            case when a.is_known then a.checkpoint else coalesce((${stored}), -1) end as checkpoint
          from unnest(
            ${queries.map(({ partition }) => partition)}::int[], ${limits}::int[],
            ${queries.map((query) => query.checkpoint !== undefined)}::boolean[],
            ${queries.map((query) => query.checkpoint ?? -1)}::int[]
          ) with ordinality a(partition, max, is_known, checkpoint, i)
        ) q`,
      "q.checkpoint, ",
      sql`, l.position from ${sql(stream.table)} l join ${sql(store.table)} m using (message_id)
          where (l.partition, l.position) > (q.partition, q.checkpoint) and l.partition <= q.partition and ${holds}
          order by l.partition, l.position`,
      limits
    )
    return yield* Effect.forEach(queries, ({ limit, partition }, i) => {
      const { checkpoint, page } = found[i] as NonNullable<(typeof found)[number]> // one for each
      return page === undefined
        ? Effect.map(
          alone({ partition, limit, fromPosition: checkpoint + 1 }),
          (whole) => ({ ...whole, checkpoint })
        )
        : Effect.succeed({ ...toPage(page), checkpoint })
    })
  })
}

const toPage = ({ more, rows }: { readonly rows: ReadonlyArray<LinkedRow>; readonly more: boolean }): LinkedPage => ({
  messages: toStored(rows, (row) => row.stream).map((stored, i) => ({ ...stored, position: rows[i]?.position ?? 0 })),
  more
})

export const make = (
  sql: SqlClient,
  store: Store,
  stream: StreamObjects,
  definition: OpenedDefinition,
  wakeup: Wakeup["Service"],
  consumers: Pick<AggregatedStorage, "subscription" | "projection">
): AggregatedStorage => {
  const { partitioner, patterns, timePath = null } = definition
  const table = sql(stream.table)
  const messages = sql(store.table)
  const maxima = sql(stream.maximumTable)
  const read = readPartition(sql, store, stream)
  const timeOf = timeParameter(sql)
  const description = JSON.stringify(
    { store: store.table, patterns, partitioner: partitioner ?? "function" },
    describedKeys
  )

  return {
    ...Projection.make(sql, store, stream, definition, description, wakeup),

    readPartition: (query) => read(query),

    partitions: Effect.map(
      sql<PartitionHead & { readonly run: Int8 }>`
        select partition, max_position as position, ${sql.literal(serverRun)} as run from ${maxima} order by partition`,
      (rows) => {
        store.answered.run = Number(rows[0]?.run ?? store.answered.run)
        return rows.map(({ partition, position }) => ({ partition, position }))
      }
    ),

    messageIds: (places) =>
      Effect.map(
        sql<PartitionHead & { readonly message_id: string }>`select l.partition, l.position, l.message_id
          from unnest(${places.map(({ partition }) => partition)}::int[], ${
          places.map(({ position }) => position)
        }::int[]) p(partition, position)
          join ${table} l on l.partition = p.partition and l.position = p.position`,
        (rows) => rows.map(({ message_id, partition, position }) => ({ partition, position, messageId: message_id }))
      ),

    positions: PositionQuery.$match({
      // Of messages that Python linked, the message itself may have the exact time.
      SinceTime: ({ time }) =>
        sql<PartitionHead>`select x.partition,
            coalesce(min(timed.position) filter (where timed.occurred_at >= ${
          timeOf(DateTime.max(time, earliestTime))
        }::timestamptz), x.max_position + 1)
              as position
          from ${maxima} x left join (
            select l.partition, l.position, coalesce(l.occurred_at,
              ${sql(stream.occurredFunction)}(l.message_id, ${timePath}::text[]),
              l.message_occurred_at at time zone ${store.timeZone}::text
            ) as occurred_at from ${table} l
          ) timed using (partition) group by x.partition, x.max_position order by x.partition`,

      AfterGlobalPosition: ({ globalPosition }) =>
        sql<PartitionHead>`select x.partition, coalesce(after.position, x.max_position + 1) as position
          from ${maxima} x left join (
            select l.partition, min(l.position) as position from ${table} l
            where l.origin_stream_global_position > ${int8(globalPosition)}::int8 group by l.partition
          ) after using (partition) order by x.partition`,

      // In the lower half all links up to there, in the upper half each partition from its end: the less of the two.
      UpToGlobalPosition: ({ globalPosition }) =>
        sql<PartitionHead>`with asked as materialized (
            select ${int8(globalPosition)}::int8 < (
              select l.origin_stream_global_position from ${table} l order by l.origin_stream_global_position desc limit 1
            ) / 2 as is_low
          ), low as (
            select l.partition, max(l.position) as position from ${table} l
            where (select is_low from asked) and l.origin_stream_global_position <= ${int8(globalPosition)}::int8
            group by l.partition
          )
          select x.partition, coalesce(case when (select is_low from asked) then low.position else (
            select l.position from ${table} l
            where l.partition = x.partition and l.origin_stream_global_position <= ${int8(globalPosition)}::int8
            order by l.position desc limit 1
          ) end, -1) as position
          from ${maxima} x left join low using (partition) order by x.partition`
    }),

    progress: Effect.map(
      sql<
        {
          readonly linked: Int8 | null
          readonly scanned: Int8
          readonly scanned_at: number | null
          readonly stored: Int8 | null
        }
      >`select
        (select max(l.origin_stream_global_position) from ${table} l)::bigint as linked,
        p.scanned, ${sql.literal(milliseconds("p.scanned_at"))} as scanned_at,
        (select max(m.global_position) from ${messages} m)::bigint as stored
        from ${sql(stream.projectionTable)} p`,
      ([row]) => ({
        linked: Number(row?.linked ?? 0),
        scanned: Number(row?.scanned ?? 0),
        scannedAt: typeof row?.scanned_at === "number" ? toTime(row.scanned_at) : undefined,
        stored: Number(row?.stored ?? 0)
      })
    ),

    waitingFor: Effect.map(
      sql<{ readonly age: number }>`
        select ${sql.literal(age(timeAdded(store, "m")))} as age
        from (
          select m.* from ${messages} m where m.global_position > greatest(
            (select max(l.origin_stream_global_position) from ${table} l),
            (select p.scanned from ${sql(stream.projectionTable)} p)
          ) order by m.global_position limit ${maximumAhead}
        ) m where m.stream::text like any (${patterns}::text[]) order by m.global_position limit 1`,
      ([row]) => row?.age
    ),

    reset: withTransaction(sql)(Effect.gen(function*() {
      yield* sql`truncate table ${table}, ${sql(stream.maximumTable)}`
      // Together with the definition: a projector in another process with the old one must not come first.
      yield* sql`update ${sql(stream.projectionTable)} set definition = ${description}, marked = '{}', marks = '{}',
        seen = null, target = null, last = null, cursor = 0, scanned = 0, numbering = default`
    })),

    drop: withTransaction(sql)(Effect.gen(function*() {
      const { linkFunction, occurredFunction, projectFunction, roundFunction, scanFunction, timeFunction } = stream
      const functions = [projectFunction, scanFunction, linkFunction, roundFunction, occurredFunction, timeFunction]
      for (const each of [...functions, stream.waitingFunction]) yield* sql`drop function if exists ${sql(each)}`
      yield* sql`drop table if exists ${table}, ${sql(stream.maximumTable)}, ${sql(stream.projectionTable)},
        ${sql(stream.migrationsTable)}`
      yield* sql`drop function if exists ${sql(stream.triggerFunction)}()`
    })),

    listen: wakeup.listen(stream.channel),
    ...consumers
  }
}
