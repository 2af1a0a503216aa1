/**
 * What decisions need: the tags of messages, what folds came to, and the function that writes on conditions (`decide.ts` tells how it works). The
 * function that writes without them stays as it is, and knows nothing of tags: who has none pays nothing.
 *
 * The names in it are qualified as in migration 5, and for the same reason.
 */
import type { Objects } from "../../objects.ts"
import { inSchemaOf, making } from "../schema.ts"
import { keptOut, takesNone } from "./refusals.ts"

export const decisions = (objects: Objects): ReadonlyArray<string> => [
  inSchemaOf(objects.table),

  // Without `include (type)`: equal tags are stored once in an index whose entries are equal.
  `create table if not exists ${objects.tagsTable} (
  tag text collate "C" not null,
  global_position bigint not null,
  type text collate "C" not null,
  primary key (tag, global_position)
)`,

  // Where the tags of a type are. Messages that were stored before they were declared have them up to a position.
  `create table if not exists ${objects.taggedTypesTable} (
  type text collate "C" not null,
  tag text collate "C" not null,
  path text[] not null,        -- of fields; null: into an array
  type_field text not null,    -- which names the type
  is_required boolean not null,
  is_complete boolean not null default false,
  waits_for text[],            -- the transactions that were open when it was declared; null: it is not in force
  position bigint not null default 0,
  up_to bigint,                -- where it is complete; null: not known
  primary key (type, tag, path)
)`,

  // Snapshots: found by what was folded, the name of the fold, and a fingerprint of how it folds.
  `create table if not exists ${objects.snapshotsTable} (
  source text collate "C" not null,
  fold text collate "C" not null,
  fingerprint text collate "C" not null,
  version int not null,
  ends bigint[] not null,
  state text not null,
  saved_at timestamptz not null,
  primary key (source, fold, fingerprint)
)`,

  making(objects, decideFunction(objects)),
  `update ${objects.settingsTable} set version = 6`
]

/** The key under which writers of a stream exclude each other, as in migration 5. */
const streamKey = (stream: string): string =>
  `pg_catalog.left('x'::text operator(pg_catalog.||) pg_catalog.md5(<prefix>${stream}), 17)::bit(64)::bigint`

/** The key that who writes a tag has alone, and who asks about it shares. */
const tagKey = (tag: string): string => `pg_catalog.hashtextextended(<tags> operator(pg_catalog.||) ${tag}, 0::bigint)`

/** How the function's `_expected` says that any version will do, or any but 0: arrays of nulls have no type to bind. */
const anyVersion = -2
const existing = -1
/** And that none will: another message stands at the one that is expected. */
const noVersion = -3

/** As many locks cost less one by one than the statement that takes them all. */
const fewLocks = 6

/**
 * The text of the function. Its first arguments are those of the function that stands, except that an item may have no
 * message: then it is a condition, that its stream is as expected. Behind them:
 *
 * - of each message its type (`_types`);
 * - the tags whose locks are taken (`_locks`), and whether alone (`_alone`); of each item the index of the last one
 *   (`_last_lock`);
 * - the tags of messages (`_tags`), and of each the index of its message (`_tag_message`);
 * - the queries about which nothing may have been added: of each item the index of the last one (`_last_query`); of each
 *   query the tag that is locked (`_asked`), whether an earlier item of the call writes it (`_asked_earlier`), the last
 *   position that was seen of it (`_after`), and as array literals the types (`_asked_types`; empty: any) and
 *   the other tags (`_asked_tags`) that a match has; the arrays of queries are null if there are none;
 * - which declaration of tags the writer knows (`_known`);
 * - as of the function that stands, where the messages of expected versions were seen, and in which editions (`_seen`,
 *   `_editions`); and of each query in which edition its tag was seen (`_asked_editions`).
 */
const decideFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.decideFunction}(
  _streams text[], _previous int[], _expected int[], _metadata jsonb[], _last int[],
  _item int[], _ids uuid[], _occurred timestamptz[], _data text[],
  _atomic boolean, _wait boolean,
  _types text[], _locks text[], _alone boolean[], _last_lock int[], _tags text[], _tag_message int[],
  _last_query int[], _asked text[], _asked_earlier boolean[], _after bigint[], _asked_types text[], _asked_tags text[],
  _known bigint, _seen bigint[], _editions bigint[], _asked_editions bigint[]
) returns table (outcome text, version int, global_position bigint, message_id uuid, query int)
language plpgsql set enable_seqscan to off set jit to off set plan_cache_mode to force_generic_plan as $function$
#variable_conflict use_column
declare
  _items constant int := pg_catalog.cardinality(_streams);
  _count int;         -- of the item's messages
  _free boolean[];    -- whether this call has the locks of the item
  _locked int;        -- index of the item's first lock, less one
  _found_heads int[]; -- head of the item's stream; null: the item is not the first of its stream
  _head int;
  _first int;         -- index of the item's first message, less one
  _bases int[];       -- version of the message before the item's first one, less _first; null: refused
  _heads int[];       -- head behind the item
  _found bigint[];    -- of each query the position of a message that was added; 0: something was deleted or redacted
  _conflict bigint;
  _conflicts bigint[]; -- of each item the position of that message; of one of this call its index, negated
  _queries int[];     -- of each item the query that has the conflict
  _duplicates uuid[];
  _duplicate uuid;
  _taken uuid[];
  _accepted int;
  _refused int;       -- the item because of which an atomic append writes nothing; 0: none
  _positions bigint[]; -- of each message; null: its item is refused
  _stored bigint;
  _table text;
  _careful boolean := false;
  -- A snapshot that is older than the locks does not see what was added before they were had.
  _stale constant boolean := pg_catalog.current_setting('transaction_isolation') in ('repeatable read', 'serializable');
  _unknown boolean[] := '{}'; -- whether the item asks about what may have been added so
  _tx xid8;
  _added timestamp := pg_catalog.now() at time zone <zone>;
  _declared constant bigint := pg_catalog.pg_sequence_last_value(<declared>::pg_catalog.regclass);
begin
  if _known <> _declared or _declared is null then -- the database finds the tags that the writer does not know
    select c.types, c.locks, c.alone, c.last_lock, c.tags, c.tag_message
    into _types, _locks, _alone, _last_lock, _tags, _tag_message
    from <schema>.${objects.completeFunction}(
      _item, _data, _types, _locks, _alone, _last_lock, _tags, _tag_message
    ) c;
    _asked_earlier := pg_catalog.array_fill(true, array[coalesce(pg_catalog.cardinality(_asked), 0)]);
  end if;

  if _stale then
    select pg_catalog.array_agg(
      _last[i] = coalesce(_last[i - 1], 0) or _last_query[i] > coalesce(_last_query[i - 1], 0)
    ) into _unknown from pg_catalog.generate_series(1, _items) i;
    if _atomic and true operator(pg_catalog.=) any(_unknown) then
      return query select 'isolation'::text, 0, null::bigint, null::uuid, null::int
        from pg_catalog.generate_series(1, _items);
      return;
    end if;
  end if;

  if _wait then
    perform case when locks.alone then pg_catalog.pg_advisory_xact_lock(locks.key)
      else pg_catalog.pg_advisory_xact_lock_shared(locks.key) end
    from (
      select k.key, pg_catalog.bool_or(k.alone) as alone from (
        select ${streamKey("_streams[i]")}, _last[i] > coalesce(_last[i - 1], 0)
          from pg_catalog.generate_series(1, _items) i
        union all
        select ${tagKey("_locks[i]")}, _alone[i] from pg_catalog.generate_series(1, pg_catalog.cardinality(_locks)) i
      ) k(key, alone) group by k.key order by k.key
    ) locks;
    _free := pg_catalog.array_fill(true, array[_items]);
  else
    for _i in 1.._items loop
      _free[_i] := case
        when _previous[_i] > 0 and not _free[_previous[_i]] then false
        when _last[_i] > coalesce(_last[_i - 1], 0) then pg_catalog.pg_try_advisory_xact_lock(${
    streamKey("_streams[_i]")
  })
        else pg_catalog.pg_try_advisory_xact_lock_shared(${streamKey("_streams[_i]")}) end;
      _locked := coalesce(_last_lock[_i - 1], 0);
      if _free[_i] and _last_lock[_i] - _locked > ${fewLocks} then -- in their order, up to the first that is not free
        _free[_i] := not exists (
          select from unnest(_locks[_locked + 1:_last_lock[_i]], _alone[_locked + 1:_last_lock[_i]]) k(tag, alone)
          where not case when k.alone then pg_catalog.pg_try_advisory_xact_lock(${tagKey("k.tag")})
            else pg_catalog.pg_try_advisory_xact_lock_shared(${tagKey("k.tag")}) end
        );
      else
        for _k in _locked + 1.._last_lock[_i] loop
          exit when not _free[_i];
          _free[_i] := case when _alone[_k] then pg_catalog.pg_try_advisory_xact_lock(${tagKey("_locks[_k]")})
            else pg_catalog.pg_try_advisory_xact_lock_shared(${tagKey("_locks[_k]")}) end;
        end loop;
      end if;
    end loop;
  end if;

  -- Under the locks nothing can be added to what is asked about, nor to the streams: one look for all.
  if pg_catalog.cardinality(_asked) > 0 then
    select pg_catalog.array_agg(coalesce((
      select t.global_position from <schema>.${objects.tagsTable} t
      where t.tag operator(pg_catalog.=) q.tag and t.global_position > q.after
        and (q.types operator(pg_catalog.=) '{}'::text or t.type operator(pg_catalog.=) any(q.types::text[]))
        and (q.tags operator(pg_catalog.=) '{}'::text or pg_catalog.cardinality(q.tags::text[]) = ( -- by index, whatever the planner thinks
          select pg_catalog.count(*) from <schema>.${objects.tagsTable} x
          where x.tag operator(pg_catalog.=) any(q.tags::text[]) and x.global_position = t.global_position
        ))
      order by t.global_position limit 1
    ), (
      select 0 where q.edition >= 0 and q.edition <> <run> + coalesce((
        select e.edition from <schema>.${objects.editionsTable} e where e.key = ${tagKey("q.tag")}
      ), 0)
    ))) into _found from unnest(_asked, _after, _asked_types, _asked_tags, _asked_editions)
      q(tag, after, types, tags, edition);
  end if;
  if _seen is not null then
    select pg_catalog.array_agg(case when s.position = 0 or (exists (
      select from <schema>.${objects.table} m
      where m.stream operator(pg_catalog.=) s.stream and m.version = s.expected and m.global_position = s.position
    ) and (s.edition < 0 or s.edition = <run> + coalesce((
      select e.edition from <schema>.${objects.editionsTable} e where e.key = ${streamKey("s.stream")}
    ), 0))) then s.expected else ${noVersion} end order by s.i) into _expected
    from unnest(_streams, _expected, _seen, _editions) with ordinality s(stream, expected, position, edition, i);
  end if;
  if _items = 1 then
    select m.version into _head from <schema>.${objects.table} m
    where m.stream operator(pg_catalog.=) _streams[1] order by m.version desc limit 1;
    _found_heads := array[coalesce(_head, 0)];
  else
    select pg_catalog.array_agg(case when s.previous = 0 and s.free then coalesce((
      select m.version from <schema>.${objects.table} m
      where m.stream operator(pg_catalog.=) s.stream order by m.version desc limit 1
    ), 0) end) into _found_heads from unnest(_streams, _previous, _free) s(stream, previous, free);
  end if;

  for _attempt in 1..10 loop
    _bases := '{}';
    _heads := '{}';
    _queries := '{}';
    _conflicts := '{}';
    _duplicates := '{}';
    _taken := '{}';
    _accepted := 0;
    _refused := 0;
    for _i in 1.._items loop
      continue when not _free[_i];
      _head := coalesce(_found_heads[_i], _heads[_previous[_i]]);
      if _unknown[_i] then
        null; -- nothing is decided
      elsif _expected[_i] = ${anyVersion} or _expected[_i] = _head or (_expected[_i] = ${existing} and _head > 0) then
        for _q in coalesce(_last_query[_i - 1], 0) + 1.._last_query[_i] loop
          _conflict := _found[_q];
          if _conflict is null and _asked_earlier[_q] and not _atomic then
            select -w.message into _conflict from unnest(_tags, _tag_message) w(tag, message)
            where w.tag operator(pg_catalog.=) _asked[_q] and _item[w.message] < _i and _bases[_item[w.message]] is not null
              and (_asked_types[_q] operator(pg_catalog.=) '{}'::text or _types[w.message] operator(pg_catalog.=) any(_asked_types[_q]::text[]))
              and not exists (
                select from pg_catalog.unnest(_asked_tags[_q]::text[]) o(tag) where not exists (
                  select from unnest(_tags, _tag_message) v(tag, message)
                  where v.message = w.message and v.tag operator(pg_catalog.=) o.tag
                )
              )
            order by w.message limit 1;
          end if;
          if _conflict is not null then
            _conflicts[_i] := _conflict;
            _queries[_i] := _q - coalesce(_last_query[_i - 1], 0);
            exit;
          end if;
        end loop;
        _first := coalesce(_last[_i - 1], 0);
        _count := _last[_i] - _first;
        _duplicate := null;
        if _careful and _conflicts[_i] is null then
          select given.id into _duplicate
          from pg_catalog.unnest(_ids[_first + 1:_last[_i]]) with ordinality given(id, i)
          where given.id operator(pg_catalog.=) any(_taken) or exists (select from <schema>.${objects.table} m where m.message_id = given.id)
          order by given.i limit 1;
        end if;
        if _conflicts[_i] is null and _duplicate is null then
          _bases[_i] := _head - _first;
          _head := _head + _count;
          _accepted := _accepted + _count;
          if _careful then
            _taken := _taken operator(pg_catalog.||) _ids[_first + 1:_last[_i]];
          end if;
        else
          _duplicates[_i] := _duplicate;
        end if;
      end if;
      _heads[_i] := _head;
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
      values (_ids[1], pg_catalog.nextval(<sequence>::pg_catalog.regclass), _added, _streams[_item[1]],
        _bases[_item[1]] + 1, _data[1]::<payload>, _metadata[_item[1]], _occurred[1], _tx)
      on conflict do nothing
      returning array[global_position] into _positions;
      if found then
        insert into <schema>.${objects.tagsTable} (tag, global_position, type)
        select t.tag, _positions[1], _types[1] from pg_catalog.unnest(_tags) t(tag);
        exit;
      end if;
    else
      begin
        select pg_catalog.array_agg(
          case when _bases[m.item] is not null then pg_catalog.nextval(<sequence>::pg_catalog.regclass) end
        ) into _positions from pg_catalog.unnest(_item) m(item);
        insert into <schema>.${objects.table}
          (message_id, global_position, added_at, stream, version, message, metadata, occurred_at, tx)
        select m.id, _positions[m.i], _added, _streams[m.item], _bases[m.item] + m.i, m.data::<payload>,
          _metadata[m.item], m.occurred, _tx
        from unnest(_ids, _item, _occurred, _data) with ordinality m(id, item, occurred, data, i)
        where _bases[m.item] is not null order by m.id;
        get diagnostics _stored = row_count;
        if _stored < _accepted then
          ${keptOut(objects)};
        end if;
        insert into <schema>.${objects.tagsTable} (tag, global_position, type)
        select t.tag, _positions[t.message], _types[t.message] from unnest(_tags, _tag_message) t(tag, message)
        where _positions[t.message] is not null order by t.tag;
        exit;
      exception when unique_violation then -- as above, a row less
        get stacked diagnostics _table = table_name;
        if not _table operator(pg_catalog.=) any(array['${objects.table}', '${objects.tagsTable}']::text[]) then
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
    version := _heads[_i];
    global_position := null;
    message_id := _duplicates[_i];
    query := null;
    _first := coalesce(_last[_i - 1], 0);
    if not _free[_i] then
      outcome := 'busy';
    elsif _refused > 0 and _refused <> _i then
      outcome := 'skipped';
    elsif _unknown[_i] then
      outcome := 'isolation';
    elsif _conflicts[_i] = 0 then
      outcome := 'outdated';
      query := _queries[_i];
    elsif _conflicts[_i] is not null then
      outcome := 'conflict';
      query := _queries[_i];
      if _conflicts[_i] > 0 then
        global_position := _conflicts[_i];
        select m.message_id into message_id from <schema>.${objects.table} m where m.global_position = _conflicts[_i];
      else
        message_id := _ids[-_conflicts[_i]];
        global_position := _positions[-_conflicts[_i]];
      end if;
    elsif message_id is not null then
      outcome := 'duplicate';
    elsif _bases[_i] is null then
      outcome := 'wrong_version';
    elsif _last[_i] = _first then
      outcome := 'unchanged';
    else
      outcome := 'written';
      global_position := _positions[_last[_i]];
    end if;
    return next;
  end loop;
end
$function$`
