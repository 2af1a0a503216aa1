/**
 * The names of partitions' locks, as far as they are not fixed: depeche_db's own in `public` and where its table of
 * checkpoints was there before, which may be Python's or that of version 0.1; elsewhere the schema's name comes before
 * them, so that tenants of one database do not wait for each other. Decided once, before migration 1 makes the table.
 */
import type { SubscriptionObjects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const locks = (subscription: SubscriptionObjects): ReadonlyArray<string> => [
  inSchemaOf(subscription.table),
  `create table if not exists ${subscription.locksTable} (
  is_only boolean primary key default true check (is_only),
  prefix text not null
)`,
  `insert into ${subscription.locksTable} (prefix)
select case
  when pg_catalog.current_schema() operator(pg_catalog.=) 'public'::name
    or pg_catalog.to_regclass('${subscription.table}') is not null then ''
  else pg_catalog.current_schema()::text operator(pg_catalog.||) '.'::text
end
on conflict do nothing`
]
