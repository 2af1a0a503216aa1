/** What migrations share, and what never changes. */

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
