/** What operators say to a subscription: which partitions are paused. */
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
  on ${subscription.pausedTable} ((partition is null), (coalesce(partition, 0)))`
]
