/** The tables of an aggregated stream: depeche_db's two, where they do not exist, and how far the projector has come. */
import type { Objects, StreamObjects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const tables = (store: Objects, stream: StreamObjects): ReadonlyArray<string> => [
  inSchemaOf(store.table),
  // Autovacuum's lock is in the way of the projector's: rather often for 50 milliseconds than seldom for the second
  // after which PostgreSQL ends an autovacuum that keeps others waiting.
  `create table if not exists ${stream.table} (
  message_id uuid primary key,
  origin_stream varchar(255) not null,
  origin_stream_version int not null,
  partition int not null,
  position int not null,
  message_occurred_at timestamp not null,
  origin_stream_global_position bigint not null,
  origin_stream_added_at timestamp not null,
  constraint ${stream.positionConstraint} unique (partition, position)
) with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 20000)`,
  // By its column: depeche_db shortens long names in a way of its own.
  `do $migration$ begin
if not exists (
  select from pg_catalog.pg_index i join pg_catalog.pg_attribute a
    on a.attrelid operator(pg_catalog.=) i.indrelid and a.attnum operator(pg_catalog.=) i.indkey[0]
  where i.indrelid operator(pg_catalog.=) '${stream.table}'::pg_catalog.regclass::oid
    and a.attname operator(pg_catalog.=) 'origin_stream_global_position'::name and i.indpred is null and i.indisvalid
) then
  create index ${stream.globalPositionIndex} on ${stream.table} (origin_stream_global_position);
end if;
end $migration$`,
  `create table if not exists ${stream.maximumTable} (partition int primary key, max_position int not null)`,

  `create table if not exists ${stream.projectionTable} (
  is_only boolean primary key default true check (is_only),
  store text not null default '${store.name}',
  numbering bigint not null default (1 + pg_catalog.random() * 9e15)::bigint, -- another one when positions are given from the start
  definition text,                  -- what the links follow; null: not projected yet
  epoch bigint not null default 0,  -- up to this position, transaction ids are another cluster's
  marked xid8[] not null default '{}',
  marks bigint[] not null default '{}',
  seen pg_snapshot,                 -- the target of the last round; null: there was none
  target pg_snapshot,               -- of the round that is under way; null: there is none
  last bigint,                      -- where the last round ends: its target sees no message behind this position
  cursor bigint not null default 0  -- the position up to which the round has come
)`,
  `insert into ${stream.projectionTable} default values on conflict do nothing`
]
