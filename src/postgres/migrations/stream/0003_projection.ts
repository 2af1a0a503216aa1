/**
 * The functions that project (`projection.ts` tells how they work). They replace those of version 0.1.
 *
 * They run with a search path of their own: they are called for a page, not for a message. What only the database knows
 * is filled in when they are made: `<schema>`, the type of messages, the time zone of Python's columns.
 */
import type { Objects, StreamObjects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"
import { partitionOf, storedTime, timeAdded, timeOf } from "./0003_partition.ts"

export const projection = (objects: Objects, unqualified: StreamObjects): ReadonlyArray<string> => {
  const { beginFunction, linkFunction, projectFunction, roundFunction: name } = unqualified
  const store: Objects = { ...objects, table: `<schema>.${objects.table}` }
  const stream = inSchema(unqualified)
  const texts = [
    timeFunction(stream),
    occurredFunction(store, stream),
    roundFunction(store, stream),
    projectFunctionText(store, stream),
    scanFunctionText(store, stream),
    linkFunctionText(store, stream),
    waitingFunctionText(store, stream)
  ]
  return [
    inSchemaOf(objects.table),
    ...[name, projectFunction, beginFunction, linkFunction].map((each) => `drop function if exists ${each}`),
    ...texts.map((text) => making(objects, text))
  ]
}

const inSchema = (stream: StreamObjects): StreamObjects => ({
  ...stream,
  table: `<schema>.${stream.table}`,
  maximumTable: `<schema>.${stream.maximumTable}`,
  projectionTable: `<schema>.${stream.projectionTable}`,
  roundFunction: `<schema>.${stream.roundFunction}`,
  projectFunction: `<schema>.${stream.projectFunction}`,
  scanFunction: `<schema>.${stream.scanFunction}`,
  linkFunction: `<schema>.${stream.linkFunction}`,
  waitingFunction: `<schema>.${stream.waitingFunction}`,
  timeFunction: `<schema>.${stream.timeFunction}`,
  occurredFunction: `<schema>.${stream.occurredFunction}`
})

const making = (objects: Objects, text: string): string =>
  `do $migration$
declare
  _schema constant text := pg_catalog.quote_ident(pg_catalog.current_schema()::text);
  _text text := $text$${text}$text$;
  _placeholder record;
begin
  for _placeholder in select given.name, given.value from ${objects.settingsTable} s cross join lateral (values
    ('<messages>', pg_catalog.quote_literal(_schema operator(pg_catalog.||) '.${objects.table}'::text)),
    ('<sequence>', pg_catalog.quote_literal(_schema operator(pg_catalog.||) '.${objects.sequence}'::text)),
    ('<schema>', _schema),
    ('<zone>', pg_catalog.quote_literal(s.time_zone)),
    ('<payload>', (
      select pg_catalog.format_type(a.atttypid, null) from pg_catalog.pg_attribute a
      where a.attrelid operator(pg_catalog.=) '${objects.table}'::pg_catalog.regclass::oid
        and a.attname operator(pg_catalog.=) 'message'::name
    ))
  ) given(name, value) loop
    _text := pg_catalog.replace(_text, _placeholder.name, _placeholder.value);
  end loop;
  execute _text;
end $migration$`

/** `null`: a message that was there before the column `tx` was. */
const sees = (snapshot: string): string =>
  `(m.tx is null or m.global_position <= _state.epoch or pg_visible_in_snapshot(m.tx, ${snapshot}))`

/** Whether a message belongs to the stream, and the last round did not see it. */
const isUnseen = `m.stream like any(_patterns) and (_state.seen is null or not ${sees("_state.seen")})`

/** Whether a message is one that the round links. */
const isNew = `${isUnseen} and ${sees("_state.target")}`

/** The transactions that `seen` did not see and that have ended: none of them has a position before this one. */
const lookBack = `(
      select greatest(_state.epoch, min((
        select coalesce(max(m.mark), 0) from unnest(_state.marked, _state.marks) m(xid, mark) where m.xid <= pending.xid
      )))
      from (
        select x as xid from pg_snapshot_xip(_state.seen) x where pg_visible_in_snapshot(x, _state.target)
        union all select pg_snapshot_xmax(_state.seen)
      ) pending
    )`

/**
 * Which table of which database of which cluster, whether it was emptied or rewritten since, and whether the sequence was
 * changed: ALTER SEQUENCE gives it another file.
 */
const identity = `concat_ws('/',
    (select system_identifier from pg_control_system()),
    (select oid from pg_database where datname = current_database()),
    <messages>::regclass::oid,
    pg_relation_filenode(<messages>),
    pg_relation_filenode(<sequence>)
  )`

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

/** Links what `fresh` has, behind what each partition has already. Python's time column has the local time, as Python writes it. */
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
    select message_id, stream, version, partition, position, occurred_at at time zone <zone>, global_position, added_at,
      occurred_at
    from places
  ), maxima as (
    insert into ${stream.maximumTable} as x (partition, max_position)
    select partition, position from places where is_last
    on conflict (partition) do update set max_position = excluded.max_position
  )`

const save = (stream: StreamObjects): string =>
  `update ${stream.projectionTable} set (definition, identity, epoch, marked, marks, seen, target, last, cursor, scanned,
    scanned_at) = (select _state.definition, _state.identity, _state.epoch, _state.marked, _state.marks, _state.seen,
    _state.target, _state.last, _state.cursor, _state.scanned, clock_timestamp()) where is_only`

const advance = (stream: StreamObjects): string =>
  `_state.cursor := reached;
  _state.scanned := greatest(_state.scanned, reached);
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
  elsif not has_sequence_privilege(<sequence>, 'usage, select') then
    state := 'unreadable';
  else
    began := _state.target is null;
    _state := ${stream.roundFunction}(_state);
    -- Looked at behind the mark, and never older than it: pg_sequence would be read in the transaction's snapshot.
    if began and exists (
      select from pg_sequence_parameters(<sequence>::regclass) s
      where s.cache_size > 1 or s.increment < 1 or s.cycle_option
    ) then
      state := 'unordered';
    end if;
  end if;
  if state is null then
    _state.definition := _definition;
    reached := _state.cursor;
    last := _state.last;
    if _state.target is not null then
      state := 'more';
    elsif _state.seen is null then
      state := 'marked';
      ${save(stream)};
    else
      state := 'idle';
      -- Tells that somebody looks; seldom, since it is a transaction.
      update ${stream.projectionTable} p set scanned_at = clock_timestamp()
      where p.scanned_at is null or abs(extract(epoch from clock_timestamp() - p.scanned_at)) > 10;
    end if;
  end if;`

const results = `out state text, out stored text, out began boolean, out linked bigint,
  out partitions int[], out positions int[], out ids uuid[], out reached bigint, out last bigint`

const searchPath = "set search_path to pg_catalog, pg_temp"

const settings = `${searchPath} set enable_seqscan to off set jit to off set lock_timeout to '5s'
set effect_message_store.projecting to 'on'`

const declare = (stream: StreamObjects): string =>
  `language plpgsql ${settings} as $function$
#variable_conflict use_column
declare
  _state ${stream.projectionTable};`

/** Python's time of a message: null where the text is none. One without a zone is UTC, as Effect reads it. */
const timeFunction = (stream: StreamObjects): string =>
  `create or replace function ${stream.timeFunction}(_text text) returns timestamptz language plpgsql stable ${searchPath} as $function$
begin
  if _text ~ '^\\d{4}-\\d\\d-\\d\\d[T ]\\d\\d:\\d\\d' then
    return (case when _text ~* '(z|[-+]\\d\\d(:?\\d\\d)?)$' then _text else _text || 'Z' end)::timestamptz;
  end if;
  return null;
exception when data_exception then
  return null;
end
$function$`

/** When a message occurred that Python, or version 0.1, has linked; null: nobody can tell any more. */
const occurredFunction = (store: Objects, stream: StreamObjects): string =>
  `create or replace function ${stream.occurredFunction}(_id uuid, _time_path text[]) returns timestamptz
language plpgsql stable ${searchPath} set enable_seqscan to off as $function$
begin
  return (select coalesce(m.occurred_at, ${storedTime(stream)}) from ${store.table} m where m.message_id = _id);
end
$function$`

const roundFunction = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.roundFunction}(_state ${stream.projectionTable})
returns ${stream.projectionTable} language plpgsql ${searchPath} as $function$
declare
  _identity constant text := ${identity};
  _mark bigint;
  _newest int;
begin
  if _state.identity is distinct from _identity then
    _state.identity := _identity;
    _state.marked := '{}';
    _state.marks := '{}';
    _state.seen := null;
    _state.target := null;
  elsif _state.target is not null then
    return _state;
  end if;

  _mark := coalesce(pg_sequence_last_value(<sequence>), 0); -- null: none was given out
  _newest := cardinality(_state.marks);
  if _mark < _state.marks[_newest] then -- somebody has set the sequence back: earlier marks hold no more
    _state.marked := '{}';
    _state.marks := '{}';
    _state.seen := null;
    _newest := 0;
  end if;
  if _newest = 0 then
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
  _state.cursor := case when _state.seen is null then 0 else ${lookBack} end;
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
$function$`

/** With a built-in partitioner: one page, in one round trip. */
const projectFunctionText = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.projectFunction}(
  _definition text, _patterns text[], _kind text, _number bigint, _path text[], _time_path text[], _limit int, ${results}
) ${declare(stream)}
  _scanned bigint;
  _overlaps boolean;
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
const scanFunctionText = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.scanFunction}(
  _definition text, _patterns text[], _after text, _limit int, _bytes bigint
) returns table (
  state text, stored text, began boolean, linked bigint, reached bigint, last bigint, token text,
  message_id uuid, stream text, version int, global_position bigint, added_at timestamptz, message <payload>, metadata text
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
  for message_id, stream, version, global_position, added_at, message, metadata, _is_new, _size in
    select m.message_id, m.stream, m.version, m.global_position, ${timeAdded}, m.message, m.metadata::text, n.is_new,
      case when n.is_new then octet_length(m.message::text) + coalesce(octet_length(m.metadata::text), 0) end
    from ${store.table} m cross join lateral (select ${isNew} as is_new offset 0) n
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
    'from', _state.cursor, 'cursor', _to, 'done', state = 'done', 'began', began);
  message_id := null;
  message := null;
  metadata := null;
  return next;
end
$function$`

/** Links messages of the page that a scan told of by its token: all, or those up to a position, where its rest is left. */
const linkFunctionText = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.linkFunction}(
  _token text, _through bigint, _ids uuid[], _partitions int[], _times text[], ${results}
) ${declare(stream)}
  _page constant jsonb := _token;
  _overlaps boolean;
begin
  lock table ${stream.table} in exclusive mode;
  select * into _state from ${stream.projectionTable} where is_only;
  began := (_page ->> 'began')::boolean;
  if _state.target::text is distinct from _page ->> 'target' or _state.cursor <> (_page ->> 'from')::bigint then
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

/** So many messages on each side of the last link are looked at, at most. */
const window = 10_000

/**
 * How many messages wait to be linked. Behind the last link each that matches counts, and behind the window every
 * message; before the last link those of the window that are not linked.
 */
const waitingFunctionText = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.waitingFunction}(_patterns text[]) returns bigint
language plpgsql stable ${searchPath} set enable_seqscan to off set jit to off as $function$
declare
  _state ${stream.projectionTable};
  _from bigint;
  _head bigint;
  _waiting bigint;
  _late bigint;
  _scanned bigint;
  _reached bigint;
begin
  select * into _state from ${stream.projectionTable} p where p.is_only;
  if _state.identity is distinct from ${identity} then
    _state.seen := null;
  end if;
  _state.target := pg_current_snapshot();
  _from := case when _state.seen is null then 0 else ${lookBack} end;
  select coalesce(max(l.origin_stream_global_position), 0) into _head from ${stream.table} l;

  select count(*) filter (where w.is_unseen), count(*), max(w.global_position) into _waiting, _scanned, _reached from (
    select m.global_position, ${isUnseen} as is_unseen
    from ${store.table} m where m.global_position > greatest(_from, _head)
    order by m.global_position limit ${window}
  ) w;
  if _scanned = ${window} then
    select _waiting + max(m.global_position) - _reached into _waiting from ${store.table} m;
  end if;
  select count(*) into _late from (
    select m.message_id, ${isUnseen} as is_unseen
    from ${store.table} m where m.global_position > _from and m.global_position <= _head
    order by m.global_position desc limit ${window}
  ) w
  where w.is_unseen and not exists (select from ${stream.table} l where l.message_id = w.message_id);
  return _waiting + _late;
end
$function$`
