/**
 * Checkpoints move: alone, in the transaction that is open, or together with those of other partitions.
 *
 * A reset comes before or after: it deletes the checkpoint's row, for which an update waits, and then finds nothing. The first
 * checkpoint has no row yet: there the claim's row is locked until the commit, so that a reset waits for it, or comes first
 * and raises the token. Claims and renewals do not wait for that lock. Of several, rows are locked in the order of
 * partitions, as a reset does.
 */
import { Effect } from "effect"
import type { Array as Arr } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Advance, ClaimToken } from "../Storage.ts"
import { isOfRun } from "./claims.ts"
import { int8 } from "./client/values.ts"
import { serverRun, type SubscriptionObjects } from "./objects.ts"

/** A checkpoint that is to be moved. */
export interface Advancing {
  readonly claim: ClaimToken
  readonly from: number
  readonly to: number
}

interface Advanced {
  readonly is_wanted: boolean
}

const outcomeOf = (row: Pick<Advanced, "is_wanted"> | undefined): Advance =>
  row === undefined ? "Fenced" : row.is_wanted ? "Wanted" : "Advanced"

export const make = (sql: SqlClient, { claimsTable, name, table }: SubscriptionObjects) => {
  const checkpoints = sql(table)
  const claimed = sql(claimsTable)

  const one = ({ claim: given, from, to }: Advancing): Effect.Effect<Advance, SqlError> => {
    const { partition, token } = given
    const claim = sql`select is_wanted from ${claimed}
      where partition = ${partition} and token = ${int8(token)}::int8 and ${to}::int > ${from}::int${
      isOfRun(sql, given)
    }`
    const advanced = from >= 0
      ? sql`with claim as (${claim}), advanced as (
          update ${checkpoints} set position = ${to}, acknowledged_at = now()
          where subscription_name::text = ${name}::text and partition = ${partition} and position = ${from}
            and exists (select from claim)
          returning 1
        )`
      : sql`with claim as materialized (${claim} for key share), advanced as (
          insert into ${checkpoints} as c (subscription_name, partition, position, acknowledged_at)
          select ${name}, ${partition}::int, ${to}::int, now() from claim
          on conflict (subscription_name, partition) do update
          set position = excluded.position, acknowledged_at = excluded.acknowledged_at where c.position = -1
          returning 1
        )`
    return Effect.map(
      sql<Advanced>`${advanced} select is_wanted from claim, advanced`,
      ([row]) => outcomeOf(row)
    )
  }

  const several = (all: ReadonlyArray<Advancing>): Effect.Effect<ReadonlyArray<Advance>, SqlError> => {
    // Row by row, by the index, whatever the planner took the tables for when this was planned: they may have been empty.
    const asked = sql`(
        select * from unnest(
          ${all.map(({ claim }) => claim.partition)}::int[], ${all.map(({ claim }) => int8(claim.token))}::int8[],
          ${all.map(({ from }) => from)}::int[], ${all.map(({ to }) => to)}::int[],
          ${all.map(({ claim: { run } }) => run !== undefined)}::boolean[],
          ${all.map(({ claim: { run = 0 } }) => int8(run))}::int8[]
        ) with ordinality a(partition, token, from_position, to_position, has_run, run, i)
        order by a.partition
      ) a cross join lateral (
        select c.is_wanted from ${claimed} c where c.partition = a.partition and c.token = a.token
          and (not a.has_run or a.run = ${sql.literal(serverRun)})`
    return Effect.map(
      sql<Advanced & { readonly i: number }>`with first as materialized (
          select a.*, c.is_wanted from ${asked} for key share of c
          ) c where a.from_position = -1 and a.to_position > -1
        ), next as materialized (
          select a.*, c.is_wanted from ${asked} offset 0
          ) c cross join lateral (
            select p.partition from ${checkpoints} p where p.subscription_name::text = ${name}::text
              and p.partition = a.partition and p.position = a.from_position for no key update of p
          ) p where a.from_position >= 0 and a.to_position > a.from_position
        ), begun as (
          insert into ${checkpoints} as c (subscription_name, partition, position, acknowledged_at)
          select ${name}, first.partition, first.to_position, now() from first order by first.partition
          on conflict (subscription_name, partition) do update
          set position = excluded.position, acknowledged_at = excluded.acknowledged_at where c.position = -1
          returning partition
        ), moved as (
          insert into ${checkpoints} (subscription_name, partition, position, acknowledged_at)
          select ${name}, next.partition, next.to_position, now() from next order by next.partition
          on conflict (subscription_name, partition) do update
          set position = excluded.position, acknowledged_at = excluded.acknowledged_at
          returning partition
        )
        select i::int as i, is_wanted from first join begun using (partition)
        union all select i::int, is_wanted from next join moved using (partition)`,
      (rows) => {
        const advanced = new Map(rows.map((row) => [row.i, row]))
        return all.map((_, i) => outcomeOf(advanced.get(i + 1)))
      }
    )
  }

  /** Of partitions that differ: else the database refuses it. */
  return (all: Arr.NonEmptyReadonlyArray<Advancing>): Effect.Effect<ReadonlyArray<Advance>, SqlError> =>
    all.length === 1 ? Effect.map(one(all[0]), (advance) => [advance]) : several(all)
}
