/** The views of a projection: what readers use, whatever version is promoted. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Fragment } from "effect/sql/Statement"
import { tableOf } from "../storage/versions.ts"
import { literal } from "./objects.ts"

/**
 * Makes the views show the tables of a version, in the transaction that is open. A view whose columns stay what they are,
 * or get others behind them, is replaced; any other is made anew, with the rights that its readers had. That fails while
 * other objects depend on it.
 *
 * All names are those that `checkTableName` let pass, or come from the catalog.
 */
export const showVersion = (
  sql: SqlClient,
  place: string,
  version: number,
  tables: ReadonlyArray<string>
): Effect.Effect<void, SqlError> =>
  Effect.forEach(tables, (table) => sql.unsafe(showing(place, table, tableOf(table, version))).unprepared, {
    discard: true
  })

/** Removes the views of tables that the promoted version does not have. */
export const hideViews = (
  sql: SqlClient,
  place: string,
  tables: ReadonlyArray<string>
): Effect.Effect<void, SqlError> =>
  Effect.forEach(tables, (table) => sql`drop view if exists ${qualified(sql, place, table)}`, { discard: true })

/** A name in a schema. Schemas may have dots in their names. */
export const qualified = (sql: SqlClient, place: string, name: string): Fragment =>
  sql.literal(`"${place.replaceAll("\"", "\"\"")}"."${name}"`)

const showing = (place: string, view: string, table: string): string =>
  `do $show$
declare
  _place constant text := ${literal(place)};
  _made constant text := pg_catalog.format('view %I.${view} as select * from %I.${table}', _place, _place);
  _grants text[];
  _grant text;
begin
  execute 'create or replace '::text operator(pg_catalog.||) _made;
exception when invalid_table_definition then
  select pg_catalog.array_agg(pg_catalog.format('grant %s on %I.${view} to %s%s', a.privilege_type, _place,
    case when a.grantee operator(pg_catalog.=) 0::oid then 'public' else pg_catalog.quote_ident(r.rolname::text) end,
    case when a.is_grantable then ' with grant option' else '' end))
  into _grants
  from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
  cross join lateral pg_catalog.aclexplode(c.relacl) a
  left join pg_catalog.pg_roles r on r.oid operator(pg_catalog.=) a.grantee
  where n.nspname operator(pg_catalog.=) _place::name and c.relname operator(pg_catalog.=) ${literal(view)}::name
    and a.grantee operator(pg_catalog.<>) c.relowner;
  execute pg_catalog.format('drop view %I.${view}', _place);
  execute 'create '::text operator(pg_catalog.||) _made;
  foreach _grant in array coalesce(_grants, '{}'::text[]) loop
    execute _grant;
  end loop;
end $show$`
