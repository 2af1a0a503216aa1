/**
 * Tags of messages whose writers do not know them: Python, version 0.1, another build of the application. The database finds them
 * where they are declared to be, in the form that the serializer gives them, and refuses what it cannot find them in: a message
 * without a tag that it should have would be missed by every decision on that tag.
 *
 * The names in it are qualified as in migration 5, and for the same reason.
 */
import type { Objects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const tagging = (objects: Objects): ReadonlyArray<string> => [
  inSchemaOf(objects.table),
  making(objects, valuesFunction(objects)),
  making(objects, deriveFunction(objects)),
  making(objects, completeFunction(objects)),
  `update ${objects.settingsTable} set version = 7`
]

/** Fills in the schema. */
const making = (objects: Objects, text: string): string =>
  `do $migration$
declare
  _schema constant text := pg_catalog.quote_ident(pg_catalog.current_schema()::text);
  _text text := $text$${text}$text$;
begin
  _text := pg_catalog.replace(_text, '<declared>'::text,
    pg_catalog.quote_literal(_schema operator(pg_catalog.||) '.${objects.declaredSequence}'::text));
  execute pg_catalog.replace(_text, '<schema>'::text, _schema);
end $migration$`

/** How many tags a message may have, and how many characters each with its name. */
const maximumTags = 32
const maximumTagLength = 255

/** Stand for NUL and lone surrogates, which jsonb cannot hold: characters that no text has, let alone one behind the other. */
const unreadable = [0xfdd0, 0xfdef] as const
const mended = String.raw`\\1${unreadable.map((code) => String.raw`\\\\u${code.toString(16)}`).join("")}` // behind what came before it

/** The values at a path: arrays are stepped into, whether the path says so or not. */
const valuesFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.valuesFunction}(_value jsonb, _path text[]) returns setof jsonb
language plpgsql immutable as $function$
declare
  _kind constant text := pg_catalog.jsonb_typeof(_value);
begin
  if _kind = 'array' then
    if pg_catalog.cardinality(_path) > 0 and _path[1] is null then
      _path := _path[2:];
    end if;
    return query select v.value from pg_catalog.jsonb_array_elements(_value) e(value)
      cross join lateral <schema>.${objects.valuesFunction}(e.value, _path) v(value);
  elsif _kind = 'null' or _kind is null then
    return;
  elsif pg_catalog.cardinality(_path) = 0 then
    return next _value;
  elsif _kind = 'object' and _path[1] is not null then
    return query select v.value
      from <schema>.${objects.valuesFunction}(_value operator(pg_catalog.->) _path[1], _path[2:]) v(value);
  end if;
end
$function$`

/**
 * The tags that a message has by all that is declared, none twice, each with the type of the message. What has no tag that it
 * must have, or one that cannot be one, is refused: not as P0001, which Python reads as a wrong version.
 */
const deriveFunction = (objects: Objects): string =>
  String
    .raw`create or replace function <schema>.${objects.deriveFunction}(_data text) returns table (type text, tag text)
language plpgsql stable as $function$
#variable_conflict use_column
declare
  _declared constant bigint := pg_catalog.pg_sequence_last_value(<declared>::pg_catalog.regclass);
  _seen constant bigint := (select s.declared from <schema>.${objects.settingsTable} s);
  _message jsonb;
  _is_mended boolean := false;
  _type text;
  _place record;
  _value jsonb;
  _values jsonb[];
  _number numeric;
  _text text;
  _tags text[] := '{}';
  _found text[] := '{}';   -- the names of tags that the message has
  _missing text;
  _fault text;
begin
  if _declared is null then
    raise exception 'permission denied for sequence ${objects.declaredSequence}' using errcode = 'insufficient_privilege';
  elsif _seen is null
    or (_seen < _declared and pg_catalog.current_setting('transaction_isolation') <> 'read committed')
  then
    raise exception 'could not serialize access: tags were declared that this transaction cannot see'
      using errcode = 'serialization_failure';
  end if;

  begin
    _message := _data::jsonb;
  exception when untranslatable_character or invalid_text_representation then
    _is_mended := true;
    _message := pg_catalog.regexp_replace(
      pg_catalog.regexp_replace(
        pg_catalog.regexp_replace(_data, E'(?<!\\\\)((?:\\\\\\\\)*)\\\\u0000', E'${mended}', 'g'),
        E'(?<!\\\\)((?:\\\\\\\\)*)\\\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\\\u[dD][c-fC-F])', E'${mended}', 'g'
      ),
      E'(?<!\\\\u[dD][89abAB][0-9a-fA-F]{2})(?<!\\\\)((?:\\\\\\\\)*)\\\\u[dD][c-fC-F][0-9a-fA-F]{2}', E'${mended}', 'g'
    )::jsonb;
  end;

  for _place in
    select t.type, t.tag, t.path, t.is_required from <schema>.${objects.taggedTypesTable} t
    where t.type operator(pg_catalog.=) (_message operator(pg_catalog.->>) t.type_field) order by t.tag
  loop
    _type := _place.type;
    _value := _message operator(pg_catalog.->) _place.path[1];
    if pg_catalog.cardinality(_place.path) = 1 and pg_catalog.jsonb_typeof(_value) in ('string', 'number', 'boolean') then
      _values := array[_value];
    else
      _values := array(select v.value from <schema>.${objects.valuesFunction}(_message, _place.path) v(value));
    end if;
    if pg_catalog.cardinality(_values) > 0 then
      _found := pg_catalog.array_append(_found, _place.tag);
    elsif _place.is_required and _missing is null then
      _missing := _place.tag;
    end if;
    foreach _value in array _values loop
      _text := null;
      case pg_catalog.jsonb_typeof(_value)
        when 'string' then
          _text := _value operator(pg_catalog.#>>) '{}'::text[];
        when 'boolean' then
          _text := _value::text;
        when 'number' then -- as JavaScript reads it
          _number := _value::numeric;
          if pg_catalog.abs(_number) < 2.4e-324::numeric then
            _text := '0';
          elsif pg_catalog.abs(_number) > 0.5::numeric and pg_catalog.abs(_number) < 1e16::numeric
            and _number::float8 = pg_catalog.trunc(_number::float8)
            and pg_catalog.abs(_number::float8) <= 9007199254740991::float8
          then
            _text := _number::float8::bigint::text;
          end if;
        else null;
      end case;
      if _text is null then
        _fault := pg_catalog.format('its tag "%s" is neither a string, nor a boolean, nor a whole number', _place.tag);
      elsif _is_mended and pg_catalog.strpos(_text, pg_catalog.chr(${
    unreadable[0]
  }) operator(pg_catalog.||) pg_catalog.chr(${unreadable[1]})) > 0 then
        _fault := pg_catalog.format('its tag "%s" has NUL or a lone surrogate in it', _place.tag);
      else
        _text := _place.tag operator(pg_catalog.||) ':'::text operator(pg_catalog.||) _text;
        if pg_catalog.char_length(_text) > ${maximumTagLength} then
          _fault := pg_catalog.format('its tag "%s" has more than ${maximumTagLength} characters, its name included', _place.tag);
        elsif not _text operator(pg_catalog.=) any(_tags) then
          _tags := pg_catalog.array_append(_tags, _text);
        end if;
      end if;
    end loop;
  end loop;

  if _missing is not null then
    select t.tag into _missing from <schema>.${objects.taggedTypesTable} t
    where t.type operator(pg_catalog.=) _type and t.is_required and not t.tag operator(pg_catalog.=) any(_found)
    order by t.tag limit 1;
    if found then
      _fault := pg_catalog.format('it does not have its tag "%s" where it is declared to be', _missing);
    end if;
  end if;
  if _fault is null and pg_catalog.cardinality(_tags) > ${maximumTags} then
    _fault := pg_catalog.format('it has %s tags, more than ${maximumTags}', pg_catalog.cardinality(_tags));
  end if;
  if _fault is not null then
    raise exception 'a message of type % cannot be stored: %', _type, _fault
      using errcode = 'invalid_parameter_value', hint = 'The writer does not know the tags that are declared for the type, and '
        'without them decisions would miss the message: let a build write it that declares them.';
  end if;
  return query select _type, t.tag from pg_catalog.unnest(_tags) t(tag);
end
$function$`

/** Arguments and result are named as those of the function that writes on conditions. */
const completeFunction = (objects: Objects): string =>
  `create or replace function <schema>.${objects.completeFunction}(
  _item int[], _data text[], _types text[], _locks text[], _alone boolean[], _last_lock int[], _tags text[], _tag_message int[],
  out types text[], out locks text[], out alone boolean[], out last_lock int[], out tags text[], out tag_message int[]
) language plpgsql stable as $function$
declare
  _found_types text[];
  _found_tags text[];
  _found_message int[];
begin
  select pg_catalog.array_agg(d.type), pg_catalog.array_agg(d.tag), pg_catalog.array_agg(m.i::int)
  into _found_types, _found_tags, _found_message
  from pg_catalog.unnest(_data) with ordinality m(data, i) cross join lateral <schema>.${objects.deriveFunction}(m.data) d;
  types := _types;
  for _i in 1..coalesce(pg_catalog.cardinality(_found_types), 0) loop
    types[_found_message[_i]] := _found_types[_i];
  end loop;
  select coalesce(pg_catalog.array_agg(x.tag), '{}'), coalesce(pg_catalog.array_agg(x.message), '{}') into tags, tag_message
  from (
    select g.tag, g.message from unnest(_tags, _tag_message) g(tag, message)
    union select f.tag, f.message from unnest(_found_tags, _found_message) f(tag, message)
    order by 2, 1
  ) x;
  with every as (
    select x.item, x.tag, pg_catalog.bool_or(x.alone) as alone from (
      select i.i as item, k.tag, k.alone from pg_catalog.generate_series(1, pg_catalog.cardinality(_last_lock)) i(i)
      join unnest(_locks, _alone) with ordinality k(tag, alone, n) on k.n > coalesce(_last_lock[i.i - 1], 0) and k.n <= _last_lock[i.i]
      union all
      select _item[w.message], w.tag, true from unnest(tags, tag_message) w(tag, message)
    ) x(item, tag, alone) group by x.item, x.tag
  )
  select coalesce(pg_catalog.array_agg(e.tag order by e.item, e.tag), '{}'),
    coalesce(pg_catalog.array_agg(e.alone order by e.item, e.tag), '{}'),
    (
      select pg_catalog.array_agg((select pg_catalog.count(*) from every e where e.item <= i.i)::int order by i.i)
      from pg_catalog.generate_series(1, pg_catalog.cardinality(_last_lock)) i(i)
    )
  into locks, alone, last_lock from every e;
end
$function$`
