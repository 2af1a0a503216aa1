/**
 * Appends to one stream, by functions that do for one message, and for several, what those of migrations 5 and 6 do
 * for any (`lean.ts` tells when they are called). They decide nothing that is rare: where an id exists, nothing goes in.
 *
 * They answer with one text, since a row costs more: the version and the position of the last message, or the version alone, if
 * the stream is not as expected; `busy`, if another transaction has the stream, or a tag; `outdated`, if tags were declared that
 * the writer does not know; and null, if one of the other functions has to decide.
 *
 * The names in them are qualified as in migration 5, and for the same reason. Locks are asked for by `if`, and values assigned:
 * `perform` costs three times as much.
 */
import type { Objects } from "../../objects.ts"
import { inSchemaOf, making } from "../schema.ts"

export const lean = (objects: Objects): ReadonlyArray<string> => [
  inSchemaOf(objects.table),
  making(objects, singleFunction(objects)),
  making(objects, batchFunction(objects)),
  `update ${objects.settingsTable} set version = 11`
]

/** The key under which writers of a stream exclude each other, as in migration 5. */
const streamKey =
  `pg_catalog.left('x'::text operator(pg_catalog.||) pg_catalog.md5(<prefix>_stream), 17)::bit(64)::bigint`

/** The key that who writes a tag has alone, as in migration 6. */
const tagKey = (tag: string): string => `pg_catalog.hashtextextended(<tags> operator(pg_catalog.||) ${tag}, 0::bigint)`

/** How `_expected` says that any version will do, or any but 0, as in migration 5. */
const anyVersion = -2
const existing = -1

/** Up to the transaction's id: ends the function unless something is to be written behind the head of the stream. */
const decided = (objects: Objects, tagsAreFree: string): string =>
  `if (_known = pg_catalog.pg_sequence_last_value(<declared>::pg_catalog.regclass)) is not true then
    return case when _known < pg_catalog.pg_sequence_last_value(<declared>::pg_catalog.regclass) then 'outdated' end;
  end if;
  if not pg_catalog.pg_try_advisory_xact_lock(${streamKey}) then
    return 'busy';
  end if;
  ${tagsAreFree}
  select m.version into _head from <schema>.${objects.table} m
  where m.stream operator(pg_catalog.=) _stream order by m.version desc limit 1;
  if _head is null then
    _head := 0;
  end if;
  if _expected <> ${anyVersion} and _expected <> _head and (_expected <> ${existing} or _head = 0) then
    return _head::text;
  end if;
  _tx := pg_catalog.pg_current_xact_id(); -- before the positions`

/** Nothing is written where rows are left out by a trigger, or hidden, and with them what others have written. */
const keptOut = (objects: Objects): string =>
  `raise exception 'effect-message-store: a trigger or a policy keeps messages out of <schema>.${objects.table}, or hides them'
      using errcode = 'triggered_action_exception', hint = 'Triggers must let in every message as it is, and who writes must see all of them.'`

/** `_tags` are null if the message has none. */
const singleFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.singleFunction}(
  _stream text, _expected int, _metadata jsonb, _id uuid, _occurred timestamptz, _data text, _known bigint, _type text, _tags text[]
) returns text
language plpgsql set enable_seqscan to off set jit to off as $function$
declare
  _tag text;
  _head int;
  _tx xid8;
  _position bigint;
begin
  ${
    decided(
      objects,
      `if _tags is not null then
    foreach _tag in array _tags loop
      if not pg_catalog.pg_try_advisory_xact_lock(${tagKey("_tag")}) then
        return 'busy';
      end if;
    end loop;
  end if;`
    )
  }
  insert into <schema>.${objects.table}
    (message_id, global_position, added_at, stream, version, message, metadata, occurred_at, tx)
  values (_id, pg_catalog.nextval(<sequence>::pg_catalog.regclass), pg_catalog.now() at time zone <zone>, _stream, _head + 1,
    _data::<payload>, _metadata, _occurred, _tx)
  on conflict do nothing
  returning global_position into _position;
  if not found then
    return null;
  end if;
  if _tags is not null then
    foreach _tag in array _tags loop -- so few rows cost less one by one
      insert into <schema>.${objects.tagsTable} (tag, global_position, type) values (_tag, _position, _type);
    end loop;
  end if;
  return (_head + 1)::text operator(pg_catalog.||) ' '::text operator(pg_catalog.||) _position::text;
end
$function$`

/**
 * Of several items, `_each` has the metadata of each message, and the answer the positions of all; else it is null. The ids rise from
 * each message to the next: two calls that have the same new ids wait for each other in one order. If messages have tags, `_tags` are
 * all of these, in the order in which their locks are taken, and `_tag_message` has of each the index of its message; else these are
 * null.
 */
const batchFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.batchFunction}(
  _stream text, _expected int, _metadata jsonb, _ids uuid[], _occurred timestamptz[], _data text[], _known bigint,
  _types text[], _tags text[], _tag_message int[], _each jsonb[]
) returns text
language plpgsql set enable_seqscan to off set jit to off as $function$
declare
  _head int;
  _tx xid8;
  _added timestamp;
  _stored int;
  _position bigint;
  _positions bigint[];
begin
  ${
    decided(
      objects,
      `if _tags is not null and exists (
    select from pg_catalog.unnest(_tags) k(tag) where not pg_catalog.pg_try_advisory_xact_lock(${tagKey("k.tag")})
  ) then
    return 'busy';
  end if;`
    )
  }
  _added := pg_catalog.now() at time zone <zone>;
  begin
    if _tags is null and _each is null then
      insert into <schema>.${objects.table}
        (message_id, global_position, added_at, stream, version, message, metadata, occurred_at, tx)
      select m.id, pg_catalog.nextval(<sequence>::pg_catalog.regclass), _added, _stream, _head + m.i::int, m.data::<payload>,
        _metadata, m.occurred, _tx
      from unnest(_ids, _occurred, _data) with ordinality m(id, occurred, data, i);
      get diagnostics _stored = row_count;
    else
      _positions := array(
        select pg_catalog.nextval(<sequence>::pg_catalog.regclass) from pg_catalog.generate_series(1, pg_catalog.cardinality(_ids))
      );
      insert into <schema>.${objects.table}
        (message_id, global_position, added_at, stream, version, message, metadata, occurred_at, tx)
      select m.id, m.position, _added, _stream, _head + m.i::int, m.data::<payload>,
        coalesce(m.metadata, _metadata), m.occurred, _tx
      from unnest(_ids, _positions, _occurred, _data, _each) with ordinality m(id, position, occurred, data, metadata, i);
      get diagnostics _stored = row_count;
      if _tags is not null then
        insert into <schema>.${objects.tagsTable} (tag, global_position, type)
        select t.tag, _positions[t.message], _types[t.message] from unnest(_tags, _tag_message) t(tag, message);
      end if;
    end if;
  exception when unique_violation then
    return null;
  end;
  _head := _head + pg_catalog.cardinality(_ids);
  select m.global_position into _position from <schema>.${objects.table} m
  where m.stream operator(pg_catalog.=) _stream and m.version = _head;
  if _position is null or _stored < pg_catalog.cardinality(_ids) then
    ${keptOut(objects)};
  end if;
  return _head::text operator(pg_catalog.||) ' '::text operator(pg_catalog.||)
    case when _each is null then _position::text else pg_catalog.array_to_string(_positions, ' '::text) end;
end
$function$`
