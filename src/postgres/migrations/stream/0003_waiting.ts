/** What waits to be linked. */
import type { Objects, StreamObjects } from "../../objects.ts"
import { identity, isUnseen, lookBack, searchPath } from "./0003_round.ts"

/** So many messages that no round has come to are looked at, at most; those behind them count whether or not they match. */
const maximumNew = 10_000

/** Among so many before them, at most, those are looked for that a transaction has left late. */
const maximumLate = 50_000

/**
 * How many messages wait to be linked. What a round has come to, and what is before the last link, waits only if its
 * transaction has ended since, or if Python has left it out.
 */
export const waitingFunction = (store: Objects, stream: StreamObjects): string =>
  `create function ${stream.waitingFunction}(_patterns text[]) returns bigint
language plpgsql stable ${searchPath} set enable_seqscan to off set jit to off as $function$
declare
  _state ${stream.projectionTable};
  _from bigint;
  _known bigint;
  _new bigint;
  _late bigint;
  _looked bigint;
  _reached bigint;
begin
  select * into _state from ${stream.projectionTable} p where p.is_only;
  if _state.identity is distinct from ${identity} then
    _state.seen := null;
  end if;
  _state.target := pg_current_snapshot();
  _from := case when _state.seen is null then 0 else ${lookBack} end;
  select greatest(max(l.origin_stream_global_position), case when _state.seen is null then 0 else _state.scanned end)
  into _known from ${stream.table} l;

  select count(*) filter (where w.is_unseen), count(*), max(w.global_position) into _new, _looked, _reached from (
    select m.global_position, ${isUnseen} as is_unseen
    from ${store.table} m where m.global_position > greatest(_from, _known)
    order by m.global_position limit ${maximumNew}
  ) w;
  if _looked = ${maximumNew} then
    select _new + max(m.global_position) - _reached into _new from ${store.table} m;
  end if;
  select count(*) into _late from (
    select m.message_id, ${isUnseen} as is_unseen
    from ${store.table} m where m.global_position > _from and m.global_position <= _known
    order by m.global_position desc limit ${maximumLate}
  ) w
  where w.is_unseen and not exists (select from ${stream.table} l where l.message_id = w.message_id);
  return _new + _late;
end
$function$`
