/** Times of messages that Python wrote or linked. */
import type { Objects, StreamObjects } from "../../objects.ts"
import { storedTime } from "./0003_partition.ts"
import { searchPath } from "./0003_round.ts"

/** Python's time of a message: null where the text is none. One without a zone is UTC, as Effect reads it. */
export const timeFunction = (stream: StreamObjects): string =>
  String
    .raw`create or replace function ${stream.timeFunction}(_text text) returns timestamptz language plpgsql stable ${searchPath} as $function$
begin
  if _text ~ E'^\\d{4}-\\d\\d-\\d\\d[T ]\\d\\d:\\d\\d' then
    return (case when _text ~* E'(z|[-+]\\d\\d(:?\\d\\d)?)$' then _text else _text || 'Z' end)::timestamptz;
  end if;
  return null;
exception when data_exception then
  return null;
end
$function$`

/** When a message occurred that Python, or version 0.1, has linked; null: nobody can tell any more. */
export const occurredFunction = (store: Objects, stream: StreamObjects): string =>
  `create or replace function ${stream.occurredFunction}(_id uuid, _time_path text[]) returns timestamptz
language plpgsql stable ${searchPath} set enable_seqscan to off set jit to off as $function$
declare
  _unreadable constant boolean := true;
begin
  return (select coalesce(m.occurred_at, ${storedTime(stream)}) from ${store.table} m where m.message_id = _id);
end
$function$`
