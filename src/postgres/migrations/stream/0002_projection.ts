/** The functions that project (`projection.ts` tells how they work). Migration 1 of version 0.1 made them with the tables. */
import type { Objects, StreamObjects } from "../../objects.ts"

/** `null`: a message that was there before the column `tx` was. */
const sees = (snapshot: string): string =>
  `(m.tx is null or m.global_position <= _state.epoch or pg_visible_in_snapshot(m.tx, ${snapshot}))`

/** Whether a message is one that the round links. */
const isNew = `m.stream like any(_patterns) and ${sees("_state.target")}
      and (_state.seen is null or not ${sees("_state.seen")})`

/**
 * Who looks back, or comes behind Python, meets messages that are linked. They are looked for where links are within
 * reach, or where one was met after all: a message that was removed, and written again elsewhere.
 */
const isUnlinked = (stream: StreamObjects): string =>
  `not (_overlaps and exists (select from ${stream.table} l where l.message_id = m.message_id))`

const overlaps = (stream: StreamObjects, to: string): string =>
  `_overlaps := exists (
    select from ${stream.table} l
    where l.origin_stream_global_position > _state.cursor and l.origin_stream_global_position <= ${to}
  );`

/** The new heads of so many partitions are told, as a hint: a page may have a message in each of a thousand. */
const maximumTold = 100

/** Links, and once more with care where that met a message that is linked. */
const linking = (stream: StreamObjects, fresh: string): string =>
  `for _attempt in 1..2 loop
    begin
      with fresh as materialized (
        ${fresh}
      ), ${link(stream)}
      select (select count(*) from places),
        array_agg(h.partition), array_agg(h.position), array_agg(h.message_id)
      into linked, partitions, positions, ids
      from (select * from places where is_last limit ${maximumTold}) h;
      exit;
    exception when unique_violation then
      if _overlaps then
        raise;
      end if;
      _overlaps := true;
    end;
  end loop;`

const key = `case _kind when 'Field' then coalesce((
        select case jsonb_typeof(v) when 'string' then v #>> '{}' when 'boolean' then v::text when 'number' then
          case when v::numeric % 1 = 0 and abs(v::numeric) <= 9007199254740991 then trunc(v::numeric)::text end end
        from (select (m.message #> _path)::jsonb as v) value
      ), '') else m.stream end`

const partition = `case _kind
      when 'Constant' then _number::int
      when 'Depeche' then get_byte(hash, 0) + 256 * get_byte(hash, 1)
      else ((
        get_byte(hash, 0) * 16777216::bigint + get_byte(hash, 1) * 65536 + get_byte(hash, 2) * 256 + get_byte(hash, 3)
      ) % _number)::int
    end`

/** Links what `fresh` has, behind what each partition has already. */
const link = (stream: StreamObjects): string =>
  `numbered as (
    select f.*, row_number() over (partition by f.partition order by f.global_position) as number,
      lead(f.partition) over (partition by f.partition order by f.global_position) is null as is_last
    from fresh f
  ), places as materialized (
    select n.*, (n.number + max(case when n.number = 1 then coalesce(
      (select x.max_position from ${stream.maximumTable} x where x.partition = n.partition),
      (select l.position from ${stream.table} l where l.partition = n.partition order by l.position desc limit 1),
      -1
    ) end) over (partition by n.partition))::int as position
    from numbered n
  ), linked as (
    insert into ${stream.table} (message_id, origin_stream, origin_stream_version, partition, position,
      message_occurred_at, origin_stream_global_position, origin_stream_added_at)
    select message_id, stream, version, partition, position, coalesce(occurred_at, added_at), global_position, added_at
    from places
  ), maxima as (
    insert into ${stream.maximumTable} as x (partition, max_position)
    select partition, position from places where is_last
    on conflict (partition) do update set max_position = excluded.max_position
  )`

const save = (stream: StreamObjects): string =>
  `update ${stream.projectionTable} set (definition, cluster, epoch, marked, marks, seen, target, last, cursor) =
    (select _state.definition, _state.cluster, _state.epoch, _state.marked, _state.marks, _state.seen, _state.target,
      _state.last, _state.cursor) where is_only`

const advance = (stream: StreamObjects): string =>
  `_state.cursor := reached;
  if state = 'done' then
    _state.seen := _state.target;
    _state.target := null;
  end if;
  ${save(stream)};`

/** Takes the lock, and begins a round unless one is under way. Without one, `state` says why. */
const begin = (stream: StreamObjects): string =>
  `lock table ${stream.table} in exclusive mode;
  select * into _state from ${stream.projectionTable} where is_only;
  linked := 0;
  stored := _state.definition;
  if _state.definition <> _definition then
    state := 'mismatch';
    return;
  end if;
  began := _state.target is null;
  _state := ${stream.roundFunction}(_state);
  _state.definition := _definition;
  reached := _state.cursor;
  last := _state.last;
  if _state.target is null then
    state := case when _state.seen is null then 'more' else 'idle' end;
    if state = 'more' then
      ${save(stream)};
    end if;
    return;
  end if;`

const results = `out state text, out stored text, out began boolean, out linked bigint,
  out partitions int[], out positions int[], out ids uuid[], out reached bigint, out last bigint`

const declare = (stream: StreamObjects): string =>
  `language plpgsql set enable_seqscan to off set jit to off set lock_timeout to '5s' as $function$
#variable_conflict use_column
declare
  _state ${stream.projectionTable};`

/** The highest position that was given out; 0: none. */
const lastPosition = (store: Objects): string => `coalesce(pg_sequence_last_value('${store.sequence}'), 0)`

export const projection = (store: Objects, stream: StreamObjects): ReadonlyArray<string> => [
  `create or replace function ${stream.roundFunction}(_state ${stream.projectionTable})
returns ${stream.projectionTable} language plpgsql as $function$
declare
  _cluster constant bigint := (select system_identifier from pg_control_system());
  _newest constant int := cardinality(_state.marks);
  _mark bigint;
begin
  if _state.cluster is distinct from _cluster then
    _state.cluster := _cluster;
    _state.marked := '{}';
    _state.marks := '{}';
    _state.seen := null;
    _state.target := null;
  elsif _state.target is not null then
    return _state;
  end if;

  _mark := ${lastPosition(store)};
  if cardinality(_state.marks) = 0 then
    select greatest(_state.epoch, max(m.global_position)) into _state.epoch from ${store.table} m
    where not pg_visible_in_snapshot(m.tx, (select pg_current_snapshot()))
      and m.tx is distinct from pg_current_xact_id_if_assigned();
    -- Committed before the first round begins, so that the second one has a mark to look back to.
    _state.marked := array[pg_current_xact_id()];
    _state.marks := array[_mark];
    return _state;
  elsif _mark = _state.marks[_newest] and pg_snapshot_xmax(_state.seen) >= _state.marked[_newest]
    and not exists (
      select from pg_snapshot_xip(_state.seen) x where pg_visible_in_snapshot(x, pg_current_snapshot())
    )
  then
    return _state; -- nothing was written since, and none has ended that was running then
  end if;

  _state.marked := _state.marked || pg_current_xact_id();
  _state.marks := _state.marks || _mark;
  _state.target := pg_current_snapshot();
  select greatest(_state.cursor, max(m.global_position)) into _state.last from ${store.table} m;
  if _state.seen is null then
    _state.cursor := 0;
  else
    select greatest(_state.epoch, min(
      (select coalesce(max(m.mark), 0) from unnest(_state.marked, _state.marks) m(xid, mark) where m.xid <= pending.xid)
    )) into _state.cursor
    from (
      select x as xid from pg_snapshot_xip(_state.seen) x where pg_visible_in_snapshot(x, _state.target)
      union all select pg_snapshot_xmax(_state.seen)
    ) pending;
  end if;
  -- Kept are the marks below those that the target does not see.
  select array_agg(m.xid order by m.i), array_agg(m.mark order by m.i) into _state.marked, _state.marks
  from unnest(_state.marked, _state.marks) with ordinality m(xid, mark, i)
  where m.i = cardinality(_state.marks) or m.xid in (
    select (select max(earlier::text::bigint)::text::xid8 from unnest(_state.marked) earlier where earlier <= pending.xid)
    from (
      select x as xid from pg_snapshot_xip(_state.target) x
      union all select pg_snapshot_xmax(_state.target)
    ) pending
  );
  return _state;
end
$function$`,

  // With a built-in partitioner: one page, in one round trip.
  `create or replace function ${stream.projectFunction}(
  _definition text, _patterns text[], _kind text, _number bigint, _path text[], _limit int, ${results}
) ${declare(stream)}
  _scanned bigint;
  _overlaps boolean;
begin
  ${begin(stream)}
  select count(*), max(m.global_position) into _scanned, reached from (
    select m.global_position from ${store.table} m
    where m.global_position > _state.cursor and m.global_position <= _state.last
    order by m.global_position limit _limit
  ) m;
  state := 'more';
  if _scanned < _limit then
    state := 'done';
    reached := _state.last;
  end if;
  ${overlaps(stream, "reached")}
  ${
    linking(
      stream,
      `select m.message_id, m.stream, m.version, m.global_position, m.added_at, m.occurred_at, ${partition} as partition
        from ${store.table} m
        cross join lateral (
          select case when _kind <> 'Constant' then sha256(convert_to(${key}, 'UTF8')) end as hash offset 0
        ) hashed
        where m.global_position > _state.cursor and m.global_position <= reached and ${isNew} and ${isUnlinked(stream)}`
    )
  }
  ${advance(stream)}
end
$function$`,

  // With the application's partitioner: begin, read pages, link each.
  `create or replace function ${stream.beginFunction}(
  _definition text, ${results}, out seen text, out target text, out epoch bigint
) ${declare(stream)}
begin
  ${begin(stream)}
  state := 'more';
  seen := _state.seen;
  target := _state.target;
  epoch := _state.epoch;
  if began then
    ${save(stream)};
  end if;
end
$function$`,

  `create or replace function ${stream.linkFunction}(
  _target text, _from bigint, _to bigint, _done boolean, _ids uuid[], _partitions int[], ${results}
) ${declare(stream)}
  _overlaps boolean;
begin
  lock table ${stream.table} in exclusive mode;
  select * into _state from ${stream.projectionTable} where is_only;
  if _state.target::text is distinct from _target or _state.cursor <> _from then
    state := 'moved';
    linked := 0;
    return;
  end if;
  ${overlaps(stream, "_to")}
  ${
    linking(
      stream,
      `select m.message_id, m.stream, m.version, m.global_position, m.added_at, m.occurred_at, given.partition
        from unnest(_ids, _partitions) given(id, partition) join ${store.table} m on m.message_id = given.id
        where ${isUnlinked(stream)}`
    )
  }
  last := _state.last;
  state := case when _done then 'done' else 'more' end;
  reached := case when _done then last else _to end;
  ${advance(stream)}
end
$function$`
]
