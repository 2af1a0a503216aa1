/**
 * The append function: a batch of items in, an outcome per item out, in one round trip.
 *
 * **Algorithm**
 *
 * 1. The locks of all streams are taken, in the order of their keys, so that no two calls can wait for each other; or,
 *    without waiting, those that are free: the items of the other streams are left alone.
 * 2. The head of each stream is read after its lock: at READ COMMITTED this sees all that earlier holders wrote.
 * 3. Item by item, in the order given, the versions are decided, each on what the previous item of its stream left; an
 *    item whose expectation does not hold is left out.
 * 4. The transaction gets its id, if it has none, and then positions; all messages of the accepted items go in with one
 *    insert, in order, so that versions have no gaps and global positions rise within each stream.
 * 5. Where that meets an id that exists, nothing goes in, and the items are decided once more, now looking each id up:
 *    a duplicate refuses its item as a whole and shifts the versions of those behind it. Duplicates are rare; nobody
 *    else pays for the check. (`on conflict do nothing` costs a multi-row insert a third of its speed, a subtransaction
 *    next to nothing. For a single message it is the other way round.)
 *
 * Heads and ids are found by index alone (`enable_seqscan` off): a plan that was made while statistics said that the
 * table is empty would be kept by its session, and scan the table as it grows.
 *
 * At REPEATABLE READ and SERIALIZABLE the heads may be older than the locks; then the insert meets a row that it cannot
 * see, and the append fails with a serialization failure (40001), which is retryable.
 */
import { DateTime, Effect } from "effect"
import type { Array as Arr } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type AppendItem, AppendOutcome } from "../Storage.ts"
import { withTransaction } from "./client/transaction.ts"
import { type Objects, streamLockKey } from "./objects.ts"

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
export const functionSql = (objects: Objects, payload: string): string =>
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
    perform pg_advisory_xact_lock(${streamLockKey("_streams[1]")});
  elsif _wait then
    perform pg_advisory_xact_lock(locks.key) from (
      select distinct ${streamLockKey("s.stream")} as key from unnest(_streams) s(stream) order by 1
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
        _free[_i] := _wait or pg_try_advisory_xact_lock(${streamLockKey("_streams[_i]")});
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

interface Row {
  readonly outcome: "written" | "wrong_version" | "duplicate" | "skipped" | "busy"
  readonly version: number
  readonly global_position: bigint | null
  readonly duplicate: string | null
}

/**
 * Calls the function. With `wait: false`, an item whose stream another transaction is writing to is left alone, and has
 * no outcome.
 */
export const append = (sql: SqlClient, objects: Objects) =>
(
  items: Arr.NonEmptyReadonlyArray<AppendItem>,
  options: { readonly atomic: boolean; readonly wait: boolean }
): Effect.Effect<ReadonlyArray<AppendOutcome | undefined>, SqlError> => {
  const streams: Array<string> = []
  const previous: Array<number> = []
  const expected: Array<number> = []
  const metadata: Array<string> = []
  const last: Array<number> = []
  const item: Array<number> = []
  const ids: Array<string> = []
  const occurred: Array<Date> = []
  const data: Array<string> = []
  const latest = new Map<string, number>()
  for (const { expectedVersion, messages, metadata: itemMetadata, stream } of items) {
    const index = streams.push(stream)
    previous.push(latest.get(stream) ?? 0)
    latest.set(stream, index)
    expected.push(
      expectedVersion === undefined ? anyVersion : expectedVersion === "exists" ? existing : expectedVersion
    )
    metadata.push(itemMetadata)
    for (const message of messages) {
      item.push(index)
      ids.push(message.messageId)
      occurred.push(DateTime.toDateUtc(message.occurredAt))
      data.push(message.data)
    }
    last.push(ids.length)
  }
  return Effect.map(
    sql<Row>`select outcome, version, global_position, duplicate from ${sql(objects.appendFunction)}(
      ${streams}::text[], ${previous}::int[], ${expected}::int[], ${metadata}::jsonb[], ${last}::int[],
      ${item}::int[], ${ids}::uuid[], ${occurred}::timestamptz[], ${data}::text[], ${options.atomic}, ${options.wait})`,
    (rows) => rows.map(toOutcome)
  )
}

/** Runs an effect in a transaction that has the lock of a stream. */
export const withLock =
  (sql: SqlClient) => <A>(stream: string, effect: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
    withTransaction(sql)(Effect.andThen(
      sql`select pg_advisory_xact_lock(${sql.literal(streamLockKey("locked.stream"))}) from (
        select ${stream}::text as stream
      ) locked`,
      effect
    ))

const toOutcome = (row: Row): AppendOutcome | undefined => {
  switch (row.outcome) {
    case "written":
      return AppendOutcome.Written({ version: row.version, globalPosition: Number(row.global_position) })
    case "wrong_version":
      return AppendOutcome.WrongVersion({ actualVersion: row.version })
    case "duplicate":
      return AppendOutcome.Duplicate({ messageId: String(row.duplicate) })
    case "skipped":
      return AppendOutcome.Skipped()
    case "busy":
      return undefined
  }
}
