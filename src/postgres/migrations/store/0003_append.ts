/** The functions that write: the append function (`append.ts` tells how it works), and the one that Python calls. */
import type { Objects } from "../../objects.ts"

export const append = (objects: Objects): ReadonlyArray<string> => [generalFunction(objects), pythonFunction(objects)]

const lockKey = (stream: string): string => `left('x' || md5(${stream}), 17)::bit(64)::bigint`

/** How the function's `_expected` says that any version will do, or any but 0: arrays of nulls have no type to bind. */
const anyVersion = -2
const existing = -1

/**
 * The text of the function. Items and messages come as arrays: of each item its stream, the index of the previous item
 * of that stream (0: none), its expectation, its metadata and the index of its last message; of each message the index
 * of its item, its id, its time and its JSON.
 *
 * `payload` is the type of the message column.
 */
const appendFunction = (objects: Objects, payload: string): string =>
  `create or replace function ${objects.appendFunction}(
  _streams text[], _previous int[], _expected int[], _metadata jsonb[], _last int[],
  _item int[], _ids uuid[], _occurred timestamptz[], _data text[],
  _atomic boolean, _wait boolean
) returns table (outcome text, version int, global_position bigint, duplicate uuid)
language plpgsql set enable_seqscan to off as $function$
#variable_conflict use_column
declare
  _items constant int := cardinality(_streams);
  _free boolean[];    -- whether this call has the lock of the item's stream
  _head int;
  _first int;         -- index of the item's first message, less one
  _bases int[];       -- version of the message before the item's first one, less _first; null: refused
  _after int[];       -- head behind the item
  _duplicates uuid[];
  _duplicate uuid;
  _taken uuid[];
  _accepted int;
  _refused int;       -- the item because of which an atomic append writes nothing; 0: none
  _positions bigint[];
  _done int := 0;     -- how many positions have been given out
  _careful boolean := false;
begin
  if _wait and _items = 1 then
    perform pg_advisory_xact_lock(${lockKey("_streams[1]")});
  elsif _wait then
    perform pg_advisory_xact_lock(locks.key) from (
      select distinct ${lockKey("s.stream")} as key from unnest(_streams) s(stream) order by 1
    ) locks;
  end if;

  for _attempt in 1..10 loop
    _bases := array_fill(null::int, array[_items]);
    _after := _bases;
    _duplicates := array_fill(null::uuid, array[_items]);
    _taken := '{}';
    _accepted := 0;
    _refused := 0;
    for _i in 1.._items loop
      if _previous[_i] > 0 then
        _free[_i] := _free[_previous[_i]];
        continue when not _free[_i];
        _head := _after[_previous[_i]];
      else
        _free[_i] := _wait or pg_try_advisory_xact_lock(${lockKey("_streams[_i]")});
        continue when not _free[_i];
        select m.version into _head from ${objects.table} m
        where m.stream = _streams[_i] order by m.version desc limit 1;
        _head := coalesce(_head, 0);
      end if;
      if _expected[_i] = ${anyVersion} or _expected[_i] = _head or (_expected[_i] = ${existing} and _head > 0) then
        _first := case when _i = 1 then 0 else _last[_i - 1] end;
        _duplicate := null;
        if _careful then
          select given.id into _duplicate
          from unnest(_ids[_first + 1:_last[_i]]) with ordinality given(id, i)
          where given.id = any(_taken) or exists (select from ${objects.table} m where m.message_id = given.id)
          order by given.i limit 1;
        end if;
        if _duplicate is null then
          _bases[_i] := _head - _first;
          _head := _head + _last[_i] - _first;
          _accepted := _accepted + _last[_i] - _first;
          if _careful then
            _taken := _taken || _ids[_first + 1:_last[_i]];
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

    perform pg_current_xact_id(); -- before the positions: projection.ts relies on it
    if cardinality(_ids) = 1 then
      insert into ${objects.table} (message_id, global_position, stream, version, message, metadata, occurred_at)
      values (_ids[1], nextval('${objects.sequence}'), _streams[1], _bases[1] + 1, _data[1]::${payload},
        _metadata[1], _occurred[1])
      on conflict do nothing
      returning array[global_position] into _positions;
      exit when found;
    else
      begin
        with written as (
          insert into ${objects.table} (message_id, global_position, stream, version, message, metadata, occurred_at)
          select m.id, nextval('${objects.sequence}'), _streams[m.item], _bases[m.item] + m.i, m.data::${payload},
            _metadata[m.item], m.occurred
          from unnest(_ids, _item, _occurred, _data) with ordinality m(id, item, occurred, data, i)
          where _bases[m.item] is not null
          returning global_position
        )
        select array_agg(written.global_position) into _positions from written;
        exit;
      exception when unique_violation then
        null; -- as above, a row less
      end;
    end if;

    if _careful and current_setting('transaction_isolation') <> 'read committed' then
      raise exception 'could not serialize access: a message was written that this transaction cannot see'
        using errcode = 'serialization_failure';
    elsif _attempt = 10 then
      raise exception 'effect-message-store: ${objects.sequence} gives positions that ${objects.table} already has'
        using hint = 'set the sequence to the highest global_position of the table';
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

/** Made from a text, since only the table itself tells whether its messages are json or jsonb. */
const generalFunction = (objects: Objects): string =>
  `do $migration$ begin
execute replace($text$${appendFunction(objects, "<payload>")}$text$, '<payload>', (
  select format_type(a.atttypid, null) from pg_attribute a
  where a.attrelid = '${objects.table}'::regclass and a.attname = 'message'
));
end $migration$`

/**
 * depeche_db's own function, which Python calls. It replaces the one that Python made: a transaction has to have its id
 * before it takes positions, which projection.ts relies on, and takes them under the lock of the table. Where Python's
 * trigger tells listeners of every row, this does not.
 */
const pythonFunction = (objects: Objects): string =>
  `do $migration$ begin
execute replace($text$create or replace function ${objects.writeFunction}(
  message_id uuid, stream varchar, message json, expected_version bigint default null,
  out version bigint, out global_position bigint
) language plpgsql set enable_seqscan to off as $function$
#variable_conflict use_column
declare
  _head bigint;
begin
  perform pg_advisory_xact_lock(${lockKey(`${objects.writeFunction}.stream`)});
  select m.version into _head from ${objects.table} m
  where m.stream = ${objects.writeFunction}.stream order by m.version desc limit 1;
  _head := coalesce(_head, 0);
  if ${objects.writeFunction}.expected_version <> _head then
    raise exception 'Wrong expected version: % (Stream: %, Stream Version: %)',
      ${objects.writeFunction}.expected_version, ${objects.writeFunction}.stream, _head;
  end if;
  version := _head + 1;
  perform pg_current_xact_id();
  insert into ${objects.table} as m (message_id, global_position, stream, version, message)
  values (
    ${objects.writeFunction}.message_id, nextval('${objects.sequence}'),
    ${objects.writeFunction}.stream, ${objects.writeFunction}.version, ${objects.writeFunction}.message
  ) returning m.global_position into global_position;
  <notify>
end
$function$$text$, '<notify>', case
  when exists (select from pg_trigger where tgrelid = '${objects.table}'::regclass and not tgisinternal) then ''
  else $notify$perform pg_notify('${objects.channel}', json_build_object(
    'message_id', ${objects.writeFunction}.message_id, 'stream', ${objects.writeFunction}.stream,
    'version', ${objects.writeFunction}.version, 'global_position', ${objects.writeFunction}.global_position
  )::text);$notify$
end);
end $migration$`
