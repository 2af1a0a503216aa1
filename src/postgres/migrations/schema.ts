/** What migrations share, and what never changes. */
import { literal, type Objects, serverRun } from "../objects.ts"

/**
 * Makes a migration work in the schema of a table, where that is visible, else in the one where objects are made: a role
 * with a schema of its own finds the table that Python made in another. Functions and operators of other schemas on the
 * path are out of reach until the transaction ends.
 */
export const inSchemaOf = (table: string): string =>
  `select pg_catalog.set_config('search_path', coalesce((
  select pg_catalog.quote_ident(n.nspname::text) from pg_catalog.pg_class c join pg_catalog.pg_namespace n
    on n.oid operator(pg_catalog.=) c.relnamespace
  where c.oid operator(pg_catalog.=) pg_catalog.to_regclass('${table}')::oid
), pg_catalog.quote_ident(pg_catalog.current_schema()::text)), true)`

/**
 * Makes a function of a text with placeholders for what only the database knows: the schema, the messages and their sequence, their type, the
 * zone of local times, the keys of locks, and how to tell the run of the server.
 */
export const making = (objects: Objects, text: string): string =>
  `do $migration$
declare
  _schema constant text := pg_catalog.quote_ident(pg_catalog.current_schema()::text);
  _text text := $text$${text}$text$;
  _placeholder record;
begin
  for _placeholder in select given.name, given.value from ${objects.settingsTable} s cross join lateral (values
    ('<schema>', _schema),
    ('<messages>', pg_catalog.quote_literal(_schema operator(pg_catalog.||) '.${objects.table}'::text)),
    ('<sequence>', pg_catalog.quote_literal(_schema operator(pg_catalog.||) '.${objects.sequence}'::text)),
    ('<declared>', pg_catalog.quote_literal(_schema operator(pg_catalog.||) '.${objects.declaredSequence}'::text)),
    ('<tags>', pg_catalog.quote_literal(
      pg_catalog.current_schema()::text operator(pg_catalog.||) '.${objects.tagsTable}:'::text
    ) operator(pg_catalog.||) '::text'::text),
    ('<run>', ${literal(serverRun)}),
    ('<zone>', pg_catalog.quote_literal(s.time_zone)),
    ('<prefix>', case when s.lock_prefix operator(pg_catalog.=) '' then ''
      else pg_catalog.quote_literal(s.lock_prefix) operator(pg_catalog.||) '::text operator(pg_catalog.||) '::text end),
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
