/** Rounds: what is new, where a round begins to look, and what is remembered of it. */
import type { Objects, StreamObjects } from "../../objects.ts"

/** Of every function: nobody else's functions and operators come to run. */
export const searchPath = "set search_path to pg_catalog, pg_temp"

/** `null`: a message that was there before the column `tx` was. */
const sees = (snapshot: string): string =>
  `(m.tx is null or m.global_position <= _state.epoch or pg_visible_in_snapshot(m.tx, ${snapshot}))`

/** Whether a message belongs to the stream, and the last round did not see it. */
export const isUnseen = `m.stream like any(_patterns) and (_state.seen is null or not ${sees("_state.seen")})`

/** Whether a message is one that the round links. */
export const isNew = `${isUnseen} and ${sees("_state.target")}`

/** The transactions that `seen` did not see and that have ended: none of them has a position before this one. */
export const lookBack = `(
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
export const identity = `concat_ws('/',
    (select system_identifier from pg_control_system()),
    (select oid from pg_database where datname = current_database()),
    <messages>::regclass::oid,
    pg_relation_filenode(<messages>),
    pg_relation_filenode(<sequence>)
  )`

export const save = (stream: StreamObjects): string =>
  `update ${stream.projectionTable} set (definition, identity, epoch, marked, marks, seen, target, last, cursor, scanned,
    scanned_at) = (select _state.definition, _state.identity, _state.epoch, _state.marked, _state.marks, _state.seen,
    _state.target, _state.last, _state.cursor, _state.scanned, clock_timestamp()) where is_only`

export const advance = (stream: StreamObjects): string =>
  `_state.cursor := reached;
  _state.scanned := greatest(_state.scanned, reached);
  if state = 'done' then
    _state.seen := _state.target;
    _state.target := null;
  end if;
  ${save(stream)};`

/** Takes the lock, and begins a round unless one is under way. Without one, `state` says why. */
export const begin = (stream: StreamObjects): string =>
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

/** Begins a round, if something is new and none is under way; sets a mark. */
export const roundFunction = (store: Objects, stream: StreamObjects): string =>
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
