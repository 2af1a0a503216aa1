/**
 * Python's column `added_at` is local time without a zone, as depeche_db makes it and reads it; `recorded_at` beside it is
 * the exact time. What is fixed for a store is written down: the zone of its local times, and whether the locks of its
 * streams have depeche_db's keys.
 *
 * The zone is the database's default, in which Python's sessions run. A client that asks for a zone of its own when it
 * connects hides the default, and is refused. Version 0.1 had made `added_at` a column with time
 * zone, and had taken Python's local times for UTC: both are undone, which rewrites the table only where that zone is not
 * UTC.
 *
 * Locks of streams have depeche_db's keys in `public`, and where depeche_db made the table (its positions are int4). In
 * other schemas the name of the schema is part of the key: tenants of one database do not wait for each other.
 *
 * Positions come from a sequence without a cache: sessions with a stock of positions would write low ones late. ALTER
 * SEQUENCE takes from all sessions what they have in stock.
 */
import type { Objects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const times = (objects: Objects): ReadonlyArray<string> => [
  inSchemaOf(objects.table),

  `create table if not exists ${objects.settingsTable} (
  is_only boolean primary key default true check (is_only),
  version int not null,      -- the number of the migration that ran last
  time_zone text not null,   -- of the local times in added_at
  lock_prefix text not null, -- of the names of streams, where their locks are concerned
  declared bigint not null default 1 -- the number of the declaration of tags that came last
)`,

  // Whoever writes looks at it, and may: it is a number.
  `create sequence if not exists ${objects.declaredSequence}`,
  `grant select on sequence ${objects.declaredSequence} to public`,

  `do $migration$
declare
  _zone text := (
    select pg_catalog.substr(given.setting, 10)
    from pg_catalog.pg_db_role_setting s cross join lateral pg_catalog.unnest(s.setconfig) given(setting)
    where s.setrole operator(pg_catalog.=) 0::oid and s.setdatabase operator(pg_catalog.=) any(array[0::oid, (
        select d.oid from pg_catalog.pg_database d where d.datname operator(pg_catalog.=) pg_catalog.current_database()
      )]) and pg_catalog.lower(given.setting) operator(pg_catalog.~~) 'timezone=%'::text
    order by s.setdatabase desc limit 1
  );
  _prefix text := '';
begin
if exists (select from ${objects.settingsTable}) then
  return;
end if;
if _zone is null then
  select s.reset_val into _zone from pg_catalog.pg_settings s where s.name operator(pg_catalog.=) 'TimeZone'::text;
  if exists (
    select from pg_catalog.pg_settings s where s.name operator(pg_catalog.=) 'TimeZone'::text
      and s.source operator(pg_catalog.=) 'client'::text
      and s.reset_val operator(pg_catalog.<>) pg_catalog.current_setting('log_timezone')
  ) then
    raise exception 'this client asks for the time zone %, which hides in which zone Python writes its times', _zone
      using hint = 'Make the store with a client that asks for none, or ALTER DATABASE … SET timezone.';
  end if;
end if;
-- depeche_db's positions are int4, this library's int8.
if pg_catalog.current_schema() operator(pg_catalog.<>) 'public'::name and (
  select a.atttypid operator(pg_catalog.<>) 'int4'::pg_catalog.regtype::oid from pg_catalog.pg_attribute a
  where a.attrelid operator(pg_catalog.=) '${objects.table}'::pg_catalog.regclass::oid
    and a.attname operator(pg_catalog.=) 'global_position'::name
) then
  _prefix := pg_catalog.current_schema()::text operator(pg_catalog.||) '.'::text;
end if;
insert into ${objects.settingsTable} (version, time_zone, lock_prefix) values (4, _zone, _prefix);
perform pg_catalog.setval('${objects.declaredSequence}'::pg_catalog.regclass, 1::bigint);
end $migration$`,

  `alter table ${objects.table} add column if not exists recorded_at timestamptz`,

  `do $migration$
declare
  _zone constant text := (select time_zone from ${objects.settingsTable});
begin
if (
  select a.atttypid operator(pg_catalog.=) 'timestamptz'::pg_catalog.regtype::oid from pg_catalog.pg_attribute a
  where a.attrelid operator(pg_catalog.=) '${objects.table}'::pg_catalog.regclass::oid
    and a.attname operator(pg_catalog.=) 'added_at'::name
) then
  if pg_catalog.upper(_zone) in ('UTC', 'ETC/UTC', 'GMT', 'ETC/GMT', 'UCT', 'ETC/UCT', 'ZULU', 'UNIVERSAL') then
    perform pg_catalog.set_config('timezone', 'UTC', true);
    alter table ${objects.table} alter column added_at type timestamp; -- no row is rewritten
  else
    execute pg_catalog.format('alter table ${objects.table}
      alter column recorded_at type timestamptz using case when tx is not null then added_at end,
      alter column added_at type timestamp using added_at at time zone case when tx is null then ''UTC'' else %L end',
      _zone);
  end if;
end if;
if (
  select s.seqcache operator(pg_catalog.>) 1 from pg_catalog.pg_sequence s
  where s.seqrelid operator(pg_catalog.=) '${objects.sequence}'::pg_catalog.regclass::oid
) then
  alter sequence ${objects.sequence} cache 1;
end if;
end $migration$`,

  `alter table ${objects.table} alter column recorded_at set default pg_catalog.now()`
]
