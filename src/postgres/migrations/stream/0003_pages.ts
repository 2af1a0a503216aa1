/** Pages of a round: scanned and linked, in one function or in two. */
import type { Objects, StreamObjects } from "../../objects.ts"
import { partitionOf, timeAdded, timeOf } from "./0003_partition.ts"
import { advance, begin, isNew, save, searchPath } from "./0003_round.ts"

const results = `out state text, out stored text, out began boolean, out linked bigint,
  out partitions int[], out positions int[], out ids uuid[], out reached bigint, out last bigint`

const settings = `${searchPath} set enable_seqscan to off set jit to off set lock_timeout to '5s'
set timezone to <zone>`

const declare = (stream: StreamObjects): string =>
  `language plpgsql ${settings} as $function$
#variable_conflict use_column
declare
  _state ${stream.projectionTable};`

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

/**
 * Links, and once more with care where that met a message that is linked, or one whose fields cannot be read as they are.
 * The setting is made by a call: a role that is no
 * superuser may not name one of our own in a SET clause.
 */
const linking = (stream: StreamObjects, fresh: string): string =>
  `perform pg_catalog.set_config('effect_message_store.projecting', 'on', true);
  for _attempt in 1..3 loop
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
    when untranslatable_character or invalid_text_representation then
      if _unreadable then
        raise;
      end if;
      _unreadable := true;
    end;
  end loop;
  perform pg_catalog.set_config('effect_message_store.projecting', 'off', true);`

/** Links what `fresh` has, behind what each partition has already. Python's time column has the time of the session's zone. */
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
      message_occurred_at, origin_stream_global_position, origin_stream_added_at, occurred_at)
    select message_id, stream, version, partition, position, occurred_at::timestamp, global_position, added_at,
      occurred_at
    from places
  ), maxima as (
    insert into ${stream.maximumTable} as x (partition, max_position)
    select partition, position from places where is_last
    on conflict (partition) do update set max_position = excluded.max_position
  )`

/** With a built-in partitioner: one page, in one round trip. */
export const projectFunction = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.projectFunction}(
  _definition text, _patterns text[], _kind text, _number bigint, _path text[], _time_path text[], _limit int, ${results}
) ${declare(stream)}
  _scanned bigint;
  _overlaps boolean;
  _unreadable boolean := false;
begin
  ${begin(stream)}
  if state <> 'more' then
    return;
  end if;
  select count(*), max(m.global_position) into _scanned, reached from (
    select m.global_position from ${store.table} m
    where m.global_position > _state.cursor and m.global_position <= _state.last
    order by m.global_position limit _limit
  ) m;
  if _scanned < _limit then
    state := 'done';
    reached := _state.last;
  end if;
  ${overlaps(stream, "reached")}
  ${
    linking(
      stream,
      `select m.message_id, m.stream, m.version, m.global_position, m.added_at, ${timeOf(stream)} as occurred_at,
          ${partitionOf.partition} as partition
        from ${store.table} m
        cross join lateral (${partitionOf.hash}) hashed
        where m.global_position > _state.cursor and m.global_position <= reached and ${isNew} and ${isUnlinked(stream)}`
    )
  }
  ${advance(stream)}
end
$function$`

/**
 * With the application's partitioner: the new messages of a page, behind those that `_after` ends with, and a last row
 * that tells of the page. It ends with the message that brings it to `_bytes`.
 */
export const scanFunction = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.scanFunction}(
  _definition text, _patterns text[], _after text, _limit int, _bytes bigint
) returns table (
  state text, stored text, began boolean, linked bigint, reached bigint, last bigint, token text,
  message_id uuid, stream text, version int, global_position bigint, added_at timestamptz, is_timed boolean, message text, metadata text
) ${declare(stream)}
  _to bigint;
  _scanned int := 0;
  _is_new boolean;
  _size bigint;
begin
  if _after is null then
    ${begin(stream)}
    if state <> 'more' then
      return next;
      return;
    elsif began then
      ${save(stream)};
    end if;
  else
    _state := jsonb_populate_record(null::${stream.projectionTable}, _after::jsonb);
    began := (_after::jsonb ->> 'began')::boolean;
  end if;

  state := null;
  _to := _state.cursor;
  for message_id, stream, version, global_position, added_at, is_timed, message, metadata, _is_new, _size in
    select m.message_id, m.stream, m.version, m.global_position, ${timeAdded}, m.occurred_at is not null, t.message,
      t.metadata, n.is_new, octet_length(t.message) + coalesce(octet_length(t.metadata), 0)
    from ${store.table} m cross join lateral (select ${isNew} as is_new offset 0) n
    cross join lateral (
      select case when n.is_new then m.message::text end as message,
        case when n.is_new then m.metadata::text end as metadata offset 0
    ) t
    where m.global_position > _state.cursor and m.global_position <= _state.last
    order by m.global_position limit _limit
  loop
    _to := global_position;
    _scanned := _scanned + 1;
    if _is_new then
      return next;
      _bytes := _bytes - _size;
      exit when _bytes <= 0;
    end if;
  end loop;

  state := case when _scanned < _limit and _bytes > 0 then 'done' else 'more' end;
  token := jsonb_build_object('target', _state.target, 'seen', _state.seen, 'epoch', _state.epoch, 'last', _state.last,
    'from', _state.cursor, 'cursor', _to, 'done', state = 'done', 'began', began,
    'run', coalesce(_after::jsonb ->> 'run', <run>::text));
  message_id := null;
  message := null;
  metadata := null;
  return next;
end
$function$`

/** Links messages of the page that a scan told of by its token: all, or those up to a position, where its rest is left. */
export const linkFunction = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.linkFunction}(
  _token text, _through bigint, _ids uuid[], _partitions int[], _times text[], ${results}
) ${declare(stream)}
  _page constant jsonb := _token;
  _overlaps boolean;
  _unreadable boolean := false;
begin
  lock table ${stream.table} in exclusive mode;
  select * into _state from ${stream.projectionTable} where is_only;
  began := (_page ->> 'began')::boolean;
  if _state.target::text is distinct from _page ->> 'target' or _state.cursor <> (_page ->> 'from')::bigint
    or _page ->> 'run' is distinct from <run>::text -- transaction ids may be given once more after a failover
  then
    state := 'moved';
    linked := 0;
    return;
  end if;
  last := _state.last;
  state := case when _through is null and (_page ->> 'done')::boolean then 'done' else 'more' end;
  reached := case when state = 'done' then last else coalesce(_through, (_page ->> 'cursor')::bigint) end;
  ${overlaps(stream, "reached")}
  ${
    linking(
      stream,
      `select m.message_id, m.stream, m.version, m.global_position, m.added_at,
          coalesce(m.occurred_at, nullif(given.occurred_at, '')::timestamptz, ${timeAdded})
            as occurred_at, given.partition
        from unnest(_ids, _partitions, _times) given(id, partition, occurred_at)
        join ${store.table} m on m.message_id = given.id
        where ${isUnlinked(stream)}`
    )
  }
  ${advance(stream)}
end
$function$`
