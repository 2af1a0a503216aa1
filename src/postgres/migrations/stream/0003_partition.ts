/** What the projection functions compute of a message: its partition and its time, of `m`, a row of the messages. */
import type { StreamObjects } from "../../objects.ts"

/**
 * Stored JSON may hold what PostgreSQL's text cannot: NUL and halves of surrogate pairs, as Python writes them. Where
 * one is anywhere in a message, its fields cannot be read. They count as U+FFFD, as they do in UTF-8. Escaped backslashes
 * go first, so that every other backslash begins an escape.
 */
const readable = String.raw`regexp_replace(regexp_replace(replace(replace(
          m.message::text, E'\\\\', E'\\u005c'), E'\\u0000', E'\\ufffd'),
          E'\\\\u[dD][89abAB][[:xdigit:]]{2}(?!\\\\u[dD][c-fC-F])', E'\\\\ufffd', 'g'),
          E'(?<!\\\\u[dD][89abAB][[:xdigit:]]{2})\\\\u[dD][c-fC-F][[:xdigit:]]{2}', E'\\\\ufffd', 'g')::json`

/** A field of a message. Only where a page could not be read, `_unreadable` is true, and each message is looked at. */
const at = (path: string): string =>
  String.raw`(case when _unreadable and pg_typeof(m.message) = 'json'::regtype
          and m.message::text ~ E'\\\\u(0000|[dD][89a-fA-F])'
        then ${readable} #> ${path} else (m.message #> ${path})::json end)`

/** Numbers as JavaScript reads them: whole ones up to 2^53 by their digits. Most are written so. */
const key = String.raw`case _kind when 'Field' then coalesce((
        select case json_typeof(v) when 'string' then v #>> '{}' when 'boolean' then v::text when 'number' then
          case when length(v::text) < 16 and translate(v::text, '0123456789', '') = '' then v::text
          when v::text ~ E'^-?\\d{1,200}(\\.\\d{1,200})?([eE][-+]?\\d{1,2})?$' then (
            select case when n = trunc(n) and abs(n) <= 9007199254740991 then n::bigint::text end
            from (select v::text::float8 as n) number
          ) end end
        from (select ${at("_path")} as v) value
      ), '') else m.stream end`

export const partitionOf = {
  hash: `select case when _kind <> 'Constant' then sha256(convert_to(${key}, 'UTF8')) end as hash offset 0`,
  partition: `case _kind
      when 'Constant' then _number::int
      when 'Depeche' then get_byte(hash, 0) + 256 * get_byte(hash, 1)
      else ((
        get_byte(hash, 0) * 16777216::bigint + get_byte(hash, 1) * 65536 + get_byte(hash, 2) * 256 + get_byte(hash, 3)
      ) % _number)::int
    end`
}

/** What the message's field says, if it is known; null where that is no time. */
export const storedTime = (stream: StreamObjects): string => `${stream.timeFunction}((${at("_time_path")}) #>> '{}')`

/** When a message was added. */
export const timeAdded = "coalesce(m.recorded_at, m.added_at at time zone <zone>)"

/** Of what this library wrote, the time it wrote; of Python's, what the message says, else when it was added. */
export const timeOf = (stream: StreamObjects): string => `coalesce(m.occurred_at, ${storedTime(stream)}, ${timeAdded})`
