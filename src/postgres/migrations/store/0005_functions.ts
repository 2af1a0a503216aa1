/**
 * The functions that write: the append function (`append.ts` tells how it works), and the one that Python calls. They take
 * the place of those of 0.1, and of Python's.
 *
 * They run with the rights and the search path of whoever calls them, since a SET clause would cost each call. So nothing
 * in them depends on that path: tables have their schemas, and so has every function and operator for whose arguments
 * `pg_catalog` has no exact match, and which somebody else could make a better one for: those with polymorphic arguments,
 * those that compare varchar with text, and those that get a literal.
 *
 * What a writer does not know of the tags that are declared is found by the database, at the writer's expense: a call says which
 * declaration it knows, 1 if none, and one that knows another than the last goes to the function that writes tags. That number
 * comes from a sequence: it is read in a fraction of a microsecond, and is not hidden by an old snapshot.
 *
 * A transaction has its id before it takes positions, which projection.ts relies on. Rows that others insert have no id:
 * the column's default refuses them.
 */
import type { Objects } from "../../objects.ts"
import { inSchemaOf, making } from "../schema.ts"
import { keptOut, takesNone } from "./refusals.ts"

export const functions = (objects: Objects): ReadonlyArray<string> => [
  inSchemaOf(objects.table),
  // Python's trigger gives way to what its function tells.
  `drop trigger if exists depeche_storage_new_msg_${objects.name} on ${objects.table}`,
  making(objects, appendFunction(objects)),
  making(objects, earlierFunction(objects)),
  making(objects, pythonFunction(objects)),
  making(objects, refuseFunction(objects)),
  `alter table ${objects.table} alter column tx set default ${objects.refuseFunction}()`,
  `update ${objects.settingsTable} set version = 5`
]

/** The key under which writers of a stream exclude each other. */
const lockKey = (stream: string): string =>
  `pg_catalog.left('x'::text operator(pg_catalog.||) pg_catalog.md5(<prefix>${stream}), 17)::bit(64)::bigint`

/** How the function's `_expected` says that any version will do, or any but 0: arrays of nulls have no type to bind. */
const anyVersion = -2
const existing = -1

/** So many items cost less one by one than the statements that are for all of them. */
const few = 4

/**
 * The text of the function. Items and messages come as arrays: of each item its stream, the index of the previous item
 * of that stream (0: none), its expectation, its metadata and the index of its last message; of each message the index
 * of its item, its id, its time and its JSON. `_ascending` says that the ids rise from each message to the next, `_known`
 * which declaration of tags the writer knows. Of each item that expects a version, `_seen` says where the message of that
 * version was seen, and `_editions` in which edition of the stream (migration 10; -1: any); `_seen` is 0 if that does not matter, and null
 * if it matters nowhere.
 */
const appendFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.appendFunction}(
  _streams text[], _previous int[], _expected int[], _metadata jsonb[], _last int[],
  _item int[], _ids uuid[], _occurred timestamptz[], _data text[],
  _atomic boolean, _wait boolean, _ascending boolean, _known bigint, _seen bigint[], _editions bigint[]
) returns table (outcome text, version int, global_position bigint, duplicate uuid)
language plpgsql set enable_seqscan to off set jit to off set plan_cache_mode to force_generic_plan as $function$
#variable_conflict use_column
declare
  _items constant int := pg_catalog.cardinality(_streams);
  _many constant boolean := _items > ${few}; -- then locks and heads are had by one statement each
  _free boolean[];    -- whether this call has the lock of the item's stream
  _heads int[];       -- of the streams; null: not the first item of its stream
  _head int;
  _is_expected boolean;
  _first int;         -- index of the item's first message, less one
  _bases int[];       -- version of the message before the item's first one, less _first; null: refused
  _after int[];       -- head behind the item
  _duplicates uuid[];
  _duplicate uuid;
  _taken uuid[];
  _accepted int;
  _refused int;       -- the item because of which an atomic append writes nothing; 0: none
  _positions bigint[];
  _stored bigint;
  _done int := 0;     -- how many positions have been given out
  _table text;
  _careful boolean := false;
  _tx xid8;
  _added timestamp := pg_catalog.now() at time zone <zone>;
  _declared constant bigint := pg_catalog.pg_sequence_last_value(<declared>::pg_catalog.regclass);
begin
  if _known <> _declared or _declared is null then -- tags have locks, too
    return query select d.outcome, d.version, d.global_position, d.message_id from <schema>.${objects.decideFunction}(
      _streams, _previous, _expected, _metadata, _last, _item, _ids, _occurred, _data, _atomic, _wait,
      pg_catalog.array_fill(''::text, array[pg_catalog.cardinality(_ids)]), '{}', '{}',
      pg_catalog.array_fill(0, array[_items]), '{}', '{}', pg_catalog.array_fill(0, array[_items]),
      '{}', '{}', '{}', '{}', '{}', _known, _seen, _editions, '{}'
    ) d;
    return;
  end if;

  if _wait and _items = 1 then
    perform pg_catalog.pg_advisory_xact_lock(${lockKey("_streams[1]")});
  elsif _wait then
    perform pg_catalog.pg_advisory_xact_lock(locks.key) from (
      select distinct ${lockKey("s.stream")} as key from pg_catalog.unnest(_streams) s(stream) order by 1
    ) locks;
    _free := pg_catalog.array_fill(true, array[_items]);
  elsif _many then
    _free := array(
      select s.previous = 0 and pg_catalog.pg_try_advisory_xact_lock(${lockKey("s.stream")})
      from unnest(_streams, _previous) with ordinality s(stream, previous, i) order by s.i
    );
  end if;

  for _attempt in 1..10 loop
    if _many then
      _heads := array(
        select case when s.previous = 0 and s.free then coalesce((
          select m.version from <schema>.${objects.table} m
          where m.stream operator(pg_catalog.=) s.stream order by m.version desc limit 1
        ), 0) end from unnest(_streams, _previous, _free) with ordinality s(stream, previous, free, i) order by s.i
      );
    end if;
    _bases := pg_catalog.array_fill(null::int, array[_items]);
    _after := _bases;
    _duplicates := pg_catalog.array_fill(null::uuid, array[_items]);
    _taken := '{}';
    _accepted := 0;
    _refused := 0;
    for _i in 1.._items loop
      if _previous[_i] > 0 then
        _free[_i] := _free[_previous[_i]];
        continue when not _free[_i];
        _head := _after[_previous[_i]];
      elsif _many then
        continue when not _free[_i];
        _head := _heads[_i];
      else
        _free[_i] := _wait or pg_catalog.pg_try_advisory_xact_lock(${lockKey("_streams[_i]")});
        continue when not _free[_i];
        select m.version into _head from <schema>.${objects.table} m
        where m.stream operator(pg_catalog.=) _streams[_i] order by m.version desc limit 1;
        _head := coalesce(_head, 0);
      end if;
      _is_expected := _expected[_i] = ${anyVersion} or _expected[_i] = _head or (_expected[_i] = ${existing} and _head > 0);
      if _is_expected and _seen[_i] > 0 then
        _is_expected := exists (
          select from <schema>.${objects.table} m
          where m.stream operator(pg_catalog.=) _streams[_i] and m.version = _head and m.global_position = _seen[_i]
        ) and (_editions[_i] < 0 or _editions[_i] = <run> + coalesce((
          select e.edition from <schema>.${objects.editionsTable} e where e.key = ${lockKey("_streams[_i]")}
        ), 0));
      end if;
      if _is_expected then
        _first := case when _i = 1 then 0 else _last[_i - 1] end;
        _duplicate := null;
        if _careful then
          select given.id into _duplicate
          from pg_catalog.unnest(_ids[_first + 1:_last[_i]]) with ordinality given(id, i)
          where given.id operator(pg_catalog.=) any(_taken) or exists (select from <schema>.${objects.table} m where m.message_id = given.id)
          order by given.i limit 1;
        end if;
        if _duplicate is null then
          _bases[_i] := _head - _first;
          _head := _head + _last[_i] - _first;
          _accepted := _accepted + _last[_i] - _first;
          if _careful then
            _taken := _taken operator(pg_catalog.||) _ids[_first + 1:_last[_i]];
          end if;
        else
          _duplicates[_i] := _duplicate;
        end if;
      end if;
      _after[_i] := _head;
      if _atomic and _bases[_i] is null then
        _refused := _i;
        exit;
      end if;
    end loop;

    if _refused > 1 and not _careful then
      _careful := true; -- one before it may be a duplicate, and then that is the reason
      continue;
    end if;
    if _refused > 0 then
      _accepted := 0;
    end if;
    exit when _accepted = 0;

    _tx := pg_catalog.pg_current_xact_id(); -- before the positions
    if pg_catalog.cardinality(_ids) = 1 then
      insert into <schema>.${objects.table}
        (message_id, global_position, added_at, stream, version, message, metadata, occurred_at, tx)
      values (_ids[1], pg_catalog.nextval(<sequence>::pg_catalog.regclass), _added, _streams[1], _bases[1] + 1,
        _data[1]::<payload>, _metadata[1], _occurred[1], _tx)
      on conflict do nothing
      returning array[global_position] into _positions;
      exit when found;
    else
      begin
        if _ascending then
          with written as (
            insert into <schema>.${objects.table}
              (message_id, global_position, added_at, stream, version, message, metadata, occurred_at, tx)
            select m.id, pg_catalog.nextval(<sequence>::pg_catalog.regclass), _added, _streams[m.item],
              _bases[m.item] + m.i, m.data::<payload>, _metadata[m.item], m.occurred, _tx
            from unnest(_ids, _item, _occurred, _data) with ordinality m(id, item, occurred, data, i)
            where _bases[m.item] is not null
            returning global_position
          )
          select pg_catalog.array_agg(written.global_position) into _positions from written;
          _stored := coalesce(pg_catalog.cardinality(_positions), 0);
        else
          with given as materialized (
            select m.item, m.i, m.id, m.occurred, m.data,
              pg_catalog.nextval(<sequence>::pg_catalog.regclass) as position
            from unnest(_ids, _item, _occurred, _data) with ordinality m(id, item, occurred, data, i)
            where _bases[m.item] is not null
          ), written as (
            insert into <schema>.${objects.table}
              (message_id, global_position, added_at, stream, version, message, metadata, occurred_at, tx)
            select g.id, g.position, _added, _streams[g.item], _bases[g.item] + g.i, g.data::<payload>,
              _metadata[g.item], g.occurred, _tx
            from given g order by g.id
            returning 1
          )
          select pg_catalog.array_agg(g.position), (select pg_catalog.count(*) from written) into _positions, _stored
          from given g;
        end if;
        if _stored < _accepted then
          ${keptOut(objects)};
        end if;
        exit;
      exception when unique_violation then -- as above, a row less
        get stacked diagnostics _table = table_name;
        if _table operator(pg_catalog.<>) '${objects.table}'::text then
          raise; -- by a trigger
        end if;
      end;
    end if;

    if _careful and pg_catalog.current_setting('transaction_isolation') <> 'read committed' then
      raise exception 'could not serialize access: a message was written that this transaction cannot see'
        using errcode = 'serialization_failure';
    elsif _attempt = 10 then
      ${takesNone(objects)};
    end if;
    _careful := true;
  end loop;

  for _i in 1.._items loop
    version := _after[_i];
    global_position := null;
    duplicate := _duplicates[_i];
    if not _free[_i] then
      outcome := 'busy';
    elsif _refused > 0 and _refused <> _i then
      outcome := 'skipped';
    elsif duplicate is not null then
      outcome := 'duplicate';
    elsif _bases[_i] is null then
      outcome := 'wrong_version';
    else
      outcome := 'written';
      _done := _done + _last[_i] - case when _i = 1 then 0 else _last[_i - 1] end;
      global_position := _positions[_done];
    end if;
    return next;
  end loop;
end
$function$`

/** What processes of version 0.1 call. */
const earlierFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.appendFunction}(
  _streams text[], _previous int[], _expected int[], _metadata jsonb[], _last int[],
  _item int[], _ids uuid[], _occurred timestamptz[], _data text[],
  _atomic boolean, _wait boolean
) returns table (outcome text, version int, global_position bigint, duplicate uuid) language sql as $function$
select a.outcome, a.version, a.global_position, a.duplicate from <schema>.${objects.appendFunction}(
  _streams, _previous, _expected, _metadata, _last, _item, _ids, _occurred, _data, _atomic, _wait, false, 1::bigint, null, null
) a
$function$`

/** The key under which writers of a tag exclude each other, and those who ask about it. */
const tagKey = (tag: string): string => `pg_catalog.hashtextextended(<tags> operator(pg_catalog.||) ${tag}, 0::bigint)`

/** depeche_db's own function. Python reads P0001 as a wrong version. */
const pythonFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.writeFunction}(
  message_id uuid, stream varchar, message json, expected_version bigint default null,
  out version bigint, out global_position bigint
) language plpgsql set enable_seqscan to off set jit to off as $function$
#variable_conflict use_column
declare
  _stream constant text := ${objects.writeFunction}.stream::text;
  _head bigint;
  _tx xid8;
  _types text[];
  _tags text[];
begin
  if pg_catalog.pg_sequence_last_value(<declared>::pg_catalog.regclass) = 1::bigint then
    perform pg_catalog.pg_advisory_xact_lock(${lockKey("_stream")});
  else
    select pg_catalog.array_agg(d.type), pg_catalog.array_agg(d.tag) into _types, _tags
    from <schema>.${objects.deriveFunction}(${objects.writeFunction}.message::text) d;
    perform pg_catalog.pg_advisory_xact_lock(locks.key) from (
      select ${lockKey("_stream")} as key
      union select ${tagKey("t.tag")} from pg_catalog.unnest(_tags) t(tag) order by 1
    ) locks;
  end if;
  select m.version into _head from <schema>.${objects.table} m
  where m.stream operator(pg_catalog.=) _stream order by m.version desc limit 1;
  _head := coalesce(_head, 0);
  if ${objects.writeFunction}.expected_version <> _head then
    raise exception 'Wrong expected version: % (Stream: %, Stream Version: %)',
      ${objects.writeFunction}.expected_version, _stream, _head;
  end if;
  version := _head + 1;
  _tx := pg_catalog.pg_current_xact_id(); -- before the position
  insert into <schema>.${objects.table} as m (message_id, global_position, stream, version, message, tx)
  values (
    ${objects.writeFunction}.message_id, pg_catalog.nextval(<sequence>::pg_catalog.regclass), _stream,
    ${objects.writeFunction}.version, ${objects.writeFunction}.message::<payload>, _tx
  ) returning m.global_position into global_position;
  if not found then
    ${keptOut(objects)};
  end if;
  if _tags is not null then
    insert into <schema>.${objects.tagsTable} (tag, global_position, type)
    select t.tag, ${objects.writeFunction}.global_position, _types[1] from pg_catalog.unnest(_tags) t(tag);
  end if;
  perform pg_catalog.pg_notify('${objects.channel}', pg_catalog.json_build_object(
    'message_id', ${objects.writeFunction}.message_id, 'stream', _stream,
    'version', ${objects.writeFunction}.version, 'global_position', ${objects.writeFunction}.global_position
  )::text);
end
$function$`

const refuseFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.refuseFunction}() returns xid8 language plpgsql as $function$
begin
  raise exception 'messages are not inserted into ${objects.table} directly: call ${objects.writeFunction}(message_id, stream, message, expected_version)'
    using detail = 'A position that is taken before its transaction has an id, or without the lock of its stream, would '
      'never be projected.', hint = 'A call that was under way while the store was migrated can be made again.';
end
$function$`
