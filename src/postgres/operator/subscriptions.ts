/** Subscriptions as a whole, and their partitions page by page. */
import { Duration, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { CataloguedConsumer, OperatorStorage, ParkedError, SubscriptionTotals } from "../../Storage.ts"
import { milliseconds, toTime } from "../client/values.ts"
import * as Objects from "../objects.ts"
import { errorMessage, errorTag } from "../parked.ts"
import { firstBehind, isClaimed, make as makeStatus } from "../status.ts"

interface TotalsRow {
  readonly partitions: number
  readonly lag: number
  readonly age: number | null
  readonly claimed: number
  readonly claimed_by: ReadonlyArray<string> | null
  readonly halted: number
  readonly unknown_type: number
  readonly paused_partitions: number
  readonly paused_at: number | null
  readonly reason: string | null
  readonly paused_by: string | null
  readonly parked: number
  readonly requeued: number
  readonly acknowledged_at: number | null
  readonly is_void: boolean
}

interface ErrorRow {
  readonly tag: string
  readonly message: string
  readonly count: number
  readonly first: number
  readonly last: number
}

/** So many owners of claims are told, at most. */
const maximumOwners = 100

export const make = (
  sql: SqlClient,
  store: Objects.Store
): Pick<OperatorStorage, "totals" | "partitions" | "parkedErrors"> => {
  /** The catalogue has names of objects that are there. */
  const objectsOf = ({ aggregatedStream, name }: CataloguedConsumer) =>
    Effect.orDie(Effect.all({
      stream: Effect.fromResult(Objects.forStream(aggregatedStream)),
      subscription: Effect.fromResult(Objects.forSubscription(name))
    }))

  const totals = Effect.fnUntraced(function*(
    consumer: CataloguedConsumer
  ): Effect.fn.Return<SubscriptionTotals, SqlError> {
    const { stream, subscription } = yield* objectsOf(consumer)
    const parked = sql(subscription.parkedTable)
    const paused = sql(subscription.pausedTable)
    const claims = sql(subscription.claimsTable)
    const standing = sql.literal(isClaimed("o"))
    const [row] = yield* sql<TotalsRow>`
      select t.*, z.*, (select pg_catalog.count(*)::int from ${parked}) as parked,
        (select pg_catalog.count(*)::int from ${parked} where requeued_at is not null) as requeued,
        (select pg_catalog.count(*)::int from ${claims} o where ${standing}) as claimed,
        array(
          select distinct o.owner from ${claims} o where ${standing} and o.owner is not null
          order by 1 limit ${maximumOwners}
        ) as claimed_by,
        (select pg_catalog.count(*)::int from ${paused} where partition is not null) as paused_partitions,
        (
          select o.numbering is not null and o.numbering <> n.numbering
          from ${sql(subscription.originTable)} o, ${sql(stream.projectionTable)} n
        ) as is_void
      from (
        select pg_catalog.count(*)::int as partitions,
          coalesce(pg_catalog.sum(greatest(h.max_position - coalesce(c.position, -1), 0)), 0)::float8 as lag,
          pg_catalog.max(first.age) as age,
          pg_catalog.count(*) filter (where s.position > coalesce(c.position, -1) and s.unknown_type is null)::int as halted,
          pg_catalog.count(*) filter (
            where s.position > coalesce(c.position, -1) and s.unknown_type is not null
          )::int as unknown_type,
          ${sql.literal(milliseconds("pg_catalog.max(c.acknowledged_at)"))} as acknowledged_at
        from ${sql(stream.maximumTable)} h
        left join ${sql(subscription.table)} c
          on c.subscription_name::text = ${subscription.name}::text and c.partition = h.partition
        left join ${sql(subscription.haltedTable)} s on s.partition = h.partition
        left join ${firstBehind(sql, store, stream)} on h.max_position > coalesce(c.position, -1)
      ) t
      left join (
        select ${sql.literal(milliseconds("paused_at"))} as paused_at, reason, paused_by from ${paused}
        where partition is null
      ) z on true`
    const { age = null, paused_at: pausedAt = null } = row ?? {}
    return {
      partitions: row?.partitions ?? 0,
      lag: row?.lag ?? 0,
      age: age === null ? undefined : Duration.millis(age),
      claimed: row?.claimed ?? 0,
      claimedBy: row?.claimed_by ?? [],
      halted: row?.halted ?? 0,
      unknownType: row?.unknown_type ?? 0,
      pausedPartitions: row?.paused_partitions ?? 0,
      paused: pausedAt === null
        ? undefined
        : { since: toTime(pausedAt), reason: row?.reason ?? undefined, by: row?.paused_by ?? undefined },
      parked: row?.parked ?? 0,
      requeued: row?.requeued ?? 0,
      acknowledgedAt: typeof row?.acknowledged_at === "number" ? toTime(row.acknowledged_at) : undefined,
      isVoid: row?.is_void ?? false
    }
  })

  return {
    totals,

    partitions: (consumer, query) =>
      Effect.flatMap(
        objectsOf(consumer),
        ({ stream, subscription }) => makeStatus(sql, store, stream, subscription)(query)
      ),

    parkedErrors: (consumer, limit) =>
      Effect.flatMap(objectsOf(consumer), ({ subscription }) =>
        Effect.map(
          sql<ErrorRow>`
            select e.tag, e.message, pg_catalog.count(*)::int as count,
              ${sql.literal(milliseconds("pg_catalog.min(e.parked_at)"))} as first,
              ${sql.literal(milliseconds("pg_catalog.max(e.parked_at)"))} as last
            from (
              select ${sql.literal(errorTag("p"))} as tag, ${sql.literal(errorMessage("p"))} as message, p.parked_at
              from ${sql(subscription.parkedTable)} p
            ) e
            group by e.tag, e.message order by count desc, e.tag collate "C", e.message collate "C" limit ${limit}::int`,
          (rows) =>
            rows.map(({ count, first, last, message, tag }): ParkedError => ({
              tag,
              message,
              count,
              firstParkedAt: toTime(first),
              lastParkedAt: toTime(last)
            }))
        ))
  }
}
