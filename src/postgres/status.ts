/** What the partitions of a subscription are at: how far, by whom, and why not further. */
import { Duration, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import type { PartitionsQuery, PartitionStatus } from "../Storage.ts"
import { age as ageOf, milliseconds, toTime } from "./client/values.ts"
import { lockedKeys } from "./leases.ts"
import { type Store, type StreamObjects, type SubscriptionObjects, timeAdded } from "./objects.ts"
import * as Parked from "./parked.ts"

interface StatusRow {
  readonly partition: number
  readonly position: number
  readonly checkpoint: number
  readonly acknowledged_at: number | null
  readonly age: number | null
  readonly claimed_by: string | null
  readonly claimed_at: number | null
  readonly parked: number
  readonly requeued: number
  readonly halted_at: number | null
  readonly halted_position: number
  readonly message_id: string
  readonly error: string
  readonly attempts: number
  readonly unknown_type: string | null
  readonly paused_at: number | null
  readonly reason: string | null
  readonly paused_by: string | null
}

/** The age, in milliseconds, of the first message behind the checkpoint `c` of the head `h`, if there is one. */
export const firstBehind = (sql: SqlClient, store: Store, stream: StreamObjects): Statement.Fragment =>
  sql`lateral (
    select ${sql.literal(ageOf(timeAdded(store, "m")))} as age
    from ${sql(stream.table)} l join ${sql(store.table)} m using (message_id)
    where l.partition = h.partition and l.position > coalesce(c.position, -1) order by l.position limit 1
  ) first`

/** Whether a row of claims stands: its lease has not ended, or its session lives. */
export const isClaimed = (row: string): string =>
  `${row}.held_by is not null and (${row}.expires_at > clock_timestamp() or ${row}.lock_key in (${lockedKeys}))`

export const make = (sql: SqlClient, store: Store, stream: StreamObjects, subscription: SubscriptionObjects) => {
  const paused = sql(subscription.pausedTable)
  const parked = sql(subscription.parkedTable)
  const standing = sql.literal(isClaimed("o"))

  /** All partitions, or those that are asked for. */
  return (asked?: PartitionsQuery): Effect.Effect<ReadonlyArray<PartitionStatus>, SqlError> => {
    const which = asked === undefined ? sql`` : sql`where h.partition > ${asked.after ?? -1}::int and (
        not ${asked.onlyUnfinished}::boolean or h.max_position > coalesce(c.position, -1) or z.paused_at is not null
        or s.partition is not null or p.parked > 0
      )`
    return Effect.map(
      sql<StatusRow>`
        select h.partition, h.max_position as position, coalesce(c.position, -1) as checkpoint,
          ${sql.literal(milliseconds("c.acknowledged_at"))} as acknowledged_at, first.age,
          o.owner as claimed_by, ${sql.literal(milliseconds("o.claimed_at"))} as claimed_at,
          p.parked, p.requeued,
          ${sql.literal(milliseconds("s.halted_at"))} as halted_at, s.position as halted_position, s.message_id,
          s.error::text as error, s.attempts, s.unknown_type, ${
        sql.literal(milliseconds("z.paused_at"))
      } as paused_at, z.reason,
          z.paused_by
        from ${sql(stream.maximumTable)} h
        left join ${sql(subscription.table)} c
          on c.subscription_name::text = ${subscription.name}::text and c.partition = h.partition
        left join ${sql(subscription.claimsTable)} o on o.partition = h.partition and ${standing}
        left join ${sql(subscription.haltedTable)} s
          on s.partition = h.partition and s.position > coalesce(c.position, -1)
        cross join lateral (
          select count(*)::int as parked, pg_catalog.count(p.requeued_at)::int as requeued
          from ${parked} p where p.partition = h.partition
        ) p
        left join lateral (
          select * from ${paused} z where z.partition is null or z.partition = h.partition
          order by z.partition nulls first limit 1
        ) z on true
        left join ${firstBehind(sql, store, stream)} on h.max_position > coalesce(c.position, -1)
        ${which}
        order by h.partition limit ${asked?.limit ?? null}::int`,
      (rows) => rows.map(toStatus)
    )
  }
}

const timeOf = (at: number | null) => at === null ? undefined : toTime(at)

const toStatus = (row: StatusRow): PartitionStatus => ({
  partition: row.partition,
  position: row.position,
  checkpoint: row.checkpoint,
  acknowledgedAt: timeOf(row.acknowledged_at),
  age: row.age === null ? undefined : Duration.millis(row.age),
  claimedBy: row.claimed_by ?? undefined,
  claimedAt: timeOf(row.claimed_at),
  parked: row.parked,
  requeued: row.requeued,
  unknownType: row.halted_at === null || row.unknown_type === null ? undefined : {
    type: row.unknown_type,
    position: row.halted_position,
    messageId: row.message_id,
    since: toTime(row.halted_at)
  },
  halted: row.halted_at === null || row.unknown_type !== null ? undefined : {
    position: row.halted_position,
    messageId: row.message_id,
    error: Parked.toFailure(row.error),
    attempts: row.attempts,
    since: toTime(row.halted_at)
  },
  paused: row.paused_at === null ? undefined : {
    since: toTime(row.paused_at),
    reason: row.reason ?? undefined,
    by: row.paused_by ?? undefined
  }
})
