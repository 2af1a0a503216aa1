/**
 * What operators say to a subscription: which partitions are paused, and which parked messages are to be handled again; and
 * what processes say to each other: which messages are left to those that know their types.
 */
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

  // Null: nobody has said that it should be handled again.
  `alter table ${subscription.parkedTable} add column if not exists requeued_at timestamptz`,
  // What stands behind a parked message with the same key waits for it; null: nothing does.
  `alter table ${subscription.parkedTable} add column if not exists key text`,
  `create index if not exists ${subscription.parkedTable}_key
  on ${subscription.parkedTable} (partition, key, position) where key is not null`,
  `create index if not exists ${subscription.parkedTable}_rq
  on ${subscription.parkedTable} (partition, position) where requeued_at is not null`,

  // When the claim that has the partition was made; null: by version 0.1, or free.
  `alter table ${subscription.claimsTable} add column if not exists claimed_at timestamptz`,
  // When this library moved the checkpoint last; null: not yet, or by Python.
  `alter table ${subscription.table} add column if not exists acknowledged_at timestamptz`,

  // Of a message that was left to processes that know its type; null: its handler failed.
  `alter table ${subscription.haltedTable} add column if not exists unknown_type text`,
  // Of the messages behind which no more are parked; null: the partition is halted for another reason.
  `alter table ${subscription.haltedTable} add column if not exists key text`
]
