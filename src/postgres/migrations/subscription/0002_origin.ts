/**
 * What had no column of its own gets one: the stream that a subscription belongs to, the token that holds a partition
 * (another than the last token, once a reset has fenced it), halted partitions.
 */
import type { SubscriptionObjects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const origin = (subscription: SubscriptionObjects): ReadonlyArray<string> => [
  inSchemaOf(subscription.table),
  `create table if not exists ${subscription.originTable} (
  is_only boolean primary key default true check (is_only),
  stream text not null,         -- the aggregated stream that had the subscription first
  numbering bigint              -- of the positions that the checkpoints are of; null: not initialised
)`,
  `insert into ${subscription.originTable} (stream, numbering)
select owner, nullif(token, 0) from ${subscription.claimsTable} where partition = -1
on conflict do nothing`,
  `delete from ${subscription.claimsTable} where partition = -1`,

  `alter table ${subscription.claimsTable}
  add column if not exists held_by bigint, -- the token of the claim that has the partition; null: free
  alter column owner drop not null`,
  `create table if not exists ${subscription.haltedTable} (
  partition int primary key,
  position int not null,        -- of the message that could not be handled; behind it, the partition goes on
  message_id uuid not null,
  error jsonb not null,
  attempts int not null,
  halted_at timestamptz not null default now()
)`
]
