/** An aggregated stream of a store: its calls of the projection functions, and what is read from its tables. */
import { DateTime, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import { StreamDefinitionError } from "../errors.ts"
import { earliestTime } from "../internal/checks.ts"
import type { BuiltIn } from "../Partitioner.ts"
import type { AggregatedStorage, PartitionHead, ProjectedPage, Round, StreamDefinition } from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import { withTransaction } from "./client/transaction.ts"
import { type Int8, int8, milliseconds, timeParameter } from "./client/values.ts"
import { type OfStream, pageBytes, sized, type SizedRow, storedColumns, toStored } from "./messages.ts"
import { type Store, type StreamObjects, timeAdded } from "./objects.ts"
import { lastPosition } from "./projection.ts"

/** What the projection functions answer. */
interface Outcome {
  /** `more` or `done`: a page was linked; `idle`: nothing is new; `moved`: somebody else was faster. */
  readonly state: "more" | "done" | "idle" | "moved" | "mismatch"
  /** Of what the links were made so far. */
  readonly stored: string | null
  readonly began: boolean | null
  readonly linked: Int8
  /** Of partitions that have grown, a hundred at most: their numbers, last positions, and the messages there. */
  readonly partitions: ReadonlyArray<number> | null
  readonly positions: ReadonlyArray<number> | null
  readonly ids: ReadonlyArray<string> | null
  readonly reached: Int8 | null
  readonly last: Int8 | null
}

interface BeginOutcome extends Outcome {
  readonly seen: string | null
  readonly target: string | null
  readonly epoch: Int8
}

interface LinkedRow extends SizedRow, OfStream {
  readonly position: number
}

export const make = (
  sql: SqlClient,
  store: Store,
  stream: StreamObjects,
  definition: StreamDefinition,
  wakeup: Wakeup["Service"],
  subscription: AggregatedStorage["subscription"]
): AggregatedStorage => {
  const { name, partitioner, patterns } = definition
  const table = sql(stream.table)
  const messages = sql(store.table)
  const page = sized(sql, store)
  const timeOf = timeParameter(sql)
  const description = JSON.stringify({ store: store.table, patterns, partitioner: partitioner ?? "function" })

  const matching = <A extends Outcome>(outcome: A | undefined): Effect.Effect<A, StreamDefinitionError> =>
    outcome === undefined
      ? Effect.die(new Error("a function of one row returned none"))
      : outcome.state === "mismatch"
      ? Effect.fail(
        new StreamDefinitionError({ aggregatedStream: name, stored: String(outcome.stored), given: description })
      )
      : Effect.succeed(outcome)

  /** Tells who listens of new heads, as depeche_db does. */
  const tell = ({ ids, partitions, positions }: Outcome): Effect.Effect<void> =>
    partitions === null
      ? Effect.void
      : wakeup.signal(
        stream.channel,
        partitions.map((partition, i) => ({
          key: String(partition),
          payload: { message_id: ids?.[i], partition, position: positions?.[i] }
        }))
      )

  return {
    project: (limit) =>
      sql<Outcome>`select * from ${sql(stream.projectFunction)}(
        ${description}, ${patterns}::text[], ${partitioner?._tag ?? null}, ${numberOf(partitioner)}::bigint,
        ${partitioner?._tag === "Field" ? partitioner.path : []}::text[], ${limit}::int
      )`.pipe(
        Effect.flatMap(([outcome]) => matching(outcome)),
        Effect.tap(tell),
        Effect.map(toPage)
      ),

    beginRound: sql<BeginOutcome>`select * from ${sql(stream.beginFunction)}(${description})`.pipe(
      Effect.flatMap(([outcome]) => matching(outcome)),
      Effect.repeat({ until: ({ state, target }) => target !== null || state === "idle" }),
      Effect.map((outcome): Round | ProjectedPage =>
        outcome.target === null ? toPage(outcome) : {
          began: outcome.began === true,
          cursor: Number(outcome.reached),
          last: Number(outcome.last),
          target: outcome.target,
          seen: outcome.seen ?? undefined,
          epoch: Number(outcome.epoch)
        }
      )
    ),

    scan: ({ epoch, last, seen, target }, from, limit) =>
      Effect.map(
        sql<SizedRow & OfStream & { readonly is_new: boolean }>`
          with scanned as (
            select m.*, m.stream like any(${patterns}::text[])
              and (m.tx is null or m.global_position <= ${int8(epoch)}::int8
                or pg_visible_in_snapshot(m.tx, ${target}::text::pg_snapshot))
              and (${seen ?? null}::text is null or not (m.tx is null or m.global_position <= ${int8(epoch)}::int8
                or pg_visible_in_snapshot(m.tx, ${seen ?? null}::text::pg_snapshot))) as is_new
            from ${messages} m
            where m.global_position > ${int8(from)}::int8 and m.global_position <= ${int8(last)}::int8
            order by m.global_position limit ${limit}
          )
          select is_new, global_position, message_id, stream, version,
            ${sql.literal(milliseconds(timeAdded(store, "summed")))} as added_at,
            case when is_new then message end as message, case when is_new then metadata::text end as metadata,
            bytes::int as bytes
          from (
            select *, sum(size) over (order by global_position rows unbounded preceding) as bytes
            from (select *, case when is_new then pg_column_size(message) else 0 end as size from scanned) sized
          ) summed where bytes - size < ${pageBytes} order by global_position`,
        (rows) => ({
          messages: toStored(rows.filter((row) => row.is_new), (row) => row.stream),
          from,
          to: Number(rows.at(-1)?.global_position ?? from),
          done: rows.length < limit && (rows.at(-1)?.bytes ?? 0) < pageBytes
        })
      ),

    link: (round, { done, from, to }, links) =>
      sql<Outcome>`select * from ${sql(stream.linkFunction)}(
        ${round.target}, ${int8(from)}::int8, ${int8(to)}::int8, ${done},
        ${links.map(({ messageId }) => messageId)}::uuid[], ${links.map(({ partition }) => partition)}::int[]
      )`.pipe(
        Effect.flatMap(([outcome]) => Effect.orDie(matching(outcome))),
        Effect.tap(tell),
        Effect.map((outcome) => outcome.state === "moved" ? undefined : { ...toPage(outcome), began: round.began })
      ),

    readPartition: ({ fromPosition, limit, partition }) =>
      Effect.map(
        page<LinkedRow>(
          sql.literal(`position, stream, ${storedColumns}`),
          sql`, l.position from ${table} l join ${messages} m using (message_id)
            where l.partition = ${partition} and l.position >= ${fromPosition} order by l.position`,
          limit
        ),
        ({ more, rows }) => ({
          messages: toStored(rows, (row) => row.stream).map((stored, i) => ({
            ...stored,
            position: rows[i]?.position ?? 0
          })),
          more
        })
      ),

    partitions: sql<PartitionHead>`select partition, max_position as position from ${sql(stream.maximumTable)}
      order by partition`,

    positionsAtTime: (time) =>
      sql<PartitionHead>`select partition,
          coalesce(min(position) filter (where message_occurred_at >= ${
        timeOf(DateTime.max(time, earliestTime))
      }::timestamptz), max(position) + 1)
            as position
        from ${table} group by partition order by partition`,

    // In the lower half all links up to there, in the upper half each partition from its end: the less of the two.
    positionsAtGlobalPosition: (position) =>
      sql<PartitionHead>`with asked as materialized (
          select ${int8(position)}::int8 < (
            select l.origin_stream_global_position from ${table} l order by l.origin_stream_global_position desc limit 1
          ) / 2 as is_low
        ), low as (
          select l.partition, max(l.position) as position from ${table} l
          where (select is_low from asked) and l.origin_stream_global_position <= ${int8(position)}::int8
          group by l.partition
        )
        select x.partition, coalesce(case when (select is_low from asked) then low.position else (
          select l.position from ${table} l
          where l.partition = x.partition and l.origin_stream_global_position <= ${int8(position)}::int8
          order by l.position desc limit 1
        ) end, -1) as position
        from ${sql(stream.maximumTable)} x left join low using (partition) order by x.partition`,

    positionsAfterGlobalPosition: (position) =>
      sql<PartitionHead>`select x.partition, coalesce(after.position, x.max_position + 1) as position
        from ${sql(stream.maximumTable)} x left join (
          select l.partition, min(l.position) as position from ${table} l
          where l.origin_stream_global_position > ${int8(position)}::int8 group by l.partition
        ) after using (partition) order by x.partition`,

    progress: Effect.map(
      sql<{ readonly linked: Int8 | null; readonly stored: Int8 }>`select
        (select l.origin_stream_global_position from ${table} l
          order by l.origin_stream_global_position desc limit 1)::bigint as linked,
        ${sql.literal(lastPosition(store))} as stored`,
      ([row]) => ({ linked: Number(row?.linked ?? 0), stored: Number(row?.stored ?? 0) })
    ),

    reset: withTransaction(sql)(Effect.gen(function*() {
      yield* sql`truncate table ${table}, ${sql(stream.maximumTable)}`
      // With the definition: a projector of the old one, in another process, must not be the first.
      yield* sql`update ${sql(stream.projectionTable)} set definition = ${description}, marked = '{}', marks = '{}',
        seen = null, target = null, last = null, cursor = 0, numbering = default`
    })),

    drop: withTransaction(sql)(Effect.gen(function*() {
      for (const each of [stream.projectFunction, stream.beginFunction, stream.linkFunction, stream.roundFunction]) {
        yield* sql`drop function if exists ${sql(each)}`
      }
      yield* sql`drop table if exists ${table}, ${sql(stream.maximumTable)}, ${sql(stream.projectionTable)},
        ${sql(stream.migrationsTable)}`
      yield* sql`drop function if exists ${sql(stream.triggerFunction)}()`
    })),

    listen: wakeup.listen(stream.channel),
    subscription
  }
}

const numberOf = (partitioner: BuiltIn | undefined): string | null => {
  switch (partitioner?._tag) {
    case "StreamName":
    case "Field":
      return int8(partitioner.count)
    case "Constant":
      return int8(partitioner.partition)
    case "Depeche":
    case undefined:
      return null
  }
}

const toPage = ({ began, last, linked, reached, state }: Outcome): ProjectedPage => ({
  linked: Number(linked),
  position: Number(reached),
  target: Number(last ?? reached),
  began: state === "idle" || began === true,
  done: state === "idle" || state === "done"
})
