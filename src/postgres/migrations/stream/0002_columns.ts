/**
 * The columns that version 0.1 did not have, Python's time columns as Python has them, and the trigger that tells of
 * Python's links.
 */
import type { Objects, StreamObjects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const columns = (store: Objects, stream: StreamObjects): ReadonlyArray<string> => [
  inSchemaOf(store.table),
  // Version 0.1 made them timestamptz, which ends Python processes. depeche_db's are local times of the database's time
  // zone; where that is UTC, no row is rewritten.
  `do $migration$
declare
  _zone constant text := (select s.time_zone from ${store.settingsTable} s);
begin
if exists (
  select from pg_catalog.pg_attribute a
  where a.attrelid operator(pg_catalog.=) '${stream.table}'::pg_catalog.regclass::oid
    and a.attname operator(pg_catalog.=) 'message_occurred_at'::name
    and a.atttypid operator(pg_catalog.=) 'timestamptz'::pg_catalog.regtype::oid
) then
  perform pg_catalog.set_config('timezone', _zone, true);
  alter table ${stream.table} alter column message_occurred_at type timestamp,
    alter column origin_stream_added_at type timestamp;
end if;
end $migration$`,
  // The exact time of what this library links; null: linked by Python, or by version 0.1.
  `alter table ${stream.table} add column if not exists occurred_at timestamptz`,
  `alter table ${stream.projectionTable} drop column if exists cluster`,
  `alter table ${stream.projectionTable}
  -- of the table that the transaction ids belong to
  add column if not exists identity text,
  -- the highest position that a round has come to, and when a projector last looked for new messages
  add column if not exists scanned bigint not null default 0,
  add column if not exists scanned_at timestamptz`,
  ...trigger(stream)
]

/** The new heads of so many partitions are told, as a hint. */
const maximumTold = 100

/**
 * Tells listeners of what Python has linked: once a statement, in place of Python's own trigger, which is called for
 * every row and has the same name, so that Python does not make it again. The functions of this library have
 * `effect_message_store.projecting` on: they return what they linked, and listeners are told after the commit, since a
 * NOTIFY in a transaction takes a lock of the whole database at its commit.
 */
const trigger = (stream: StreamObjects): ReadonlyArray<string> => [
  `create or replace function ${stream.triggerFunction}() returns trigger language plpgsql
set search_path to pg_catalog, pg_temp as $function$
begin
  perform pg_notify('${stream.channel}', json_build_object(
    'message_id', head.message_id, 'partition', head.partition, 'position', head.position
  )::text)
  from (
    select distinct on (l.partition) l.message_id, l.partition, l.position
    from linked l order by l.partition, l.position desc limit ${maximumTold}
  ) head;
  return null;
end
$function$`,
  `drop trigger if exists ${stream.triggerFunction} on ${stream.table}`,
  `create trigger ${stream.triggerFunction} after insert on ${stream.table} referencing new table as linked
for each statement when (pg_catalog.current_setting('effect_message_store.projecting', true) is distinct from 'on')
execute function ${stream.triggerFunction}()`
]
