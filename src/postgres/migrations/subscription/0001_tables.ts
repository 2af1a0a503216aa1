/** depeche_db's table of checkpoints, where it does not exist, and ours of claims and of parked messages. */
import type { SubscriptionObjects } from "../../objects.ts"

export const tables = (subscription: SubscriptionObjects): ReadonlyArray<string> => [
  `create table if not exists ${subscription.table} (
  subscription_name varchar not null,
  partition int not null,
  position int not null,
  primary key (subscription_name, partition)
)`,
  `create table if not exists ${subscription.claimsTable} (
  partition int primary key,    -- -1: of the aggregated stream, its name and the numbering of its positions
  token bigint not null,        -- of the claim made last
  owner text not null,
  lock_key bigint,              -- of the lock of the session that holds it,
  expires_at timestamptz,       -- or when the lease ends
  is_wanted boolean not null default false
)`,
  `create table if not exists ${subscription.parkedTable} (
  partition int not null,
  position int not null,
  message_id uuid not null,
  error text not null,          -- JSON; of 0.1, which may still run beside it: any text
  attempts int not null,
  parked_at timestamptz not null default now(),
  primary key (partition, position)
)`
]
