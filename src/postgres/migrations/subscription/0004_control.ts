/** What operators say to a subscription: which partitions are paused, and which parked messages are to be handled again. */
import type { SubscriptionObjects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const control = (subscription: SubscriptionObjects): ReadonlyArray<string> => [
  inSchemaOf(subscription.table),
  `create table if not exists ${subscription.pausedTable} (
  partition int,                -- null: the whole subscription
  paused_at timestamptz not null default now(),
  reason text,
  paused_by text
)`,
  `create unique index if not exists ${subscription.pausedTable}_uq
  on ${subscription.pausedTable} ((partition is null), (coalesce(partition, 0)))`,

  `alter table ${subscription.parkedTable}
  add column if not exists requeued_at timestamptz -- null: nobody has said that it should be handled again`,
  `create index if not exists ${subscription.parkedTable}_rq
  on ${subscription.parkedTable} (partition, position) where requeued_at is not null`
]
