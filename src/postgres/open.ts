/**
 * Opens what exists: reads what was fixed when the objects were made, and refuses what is not as the library needs it.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError, SetupError } from "../errors.ts"
import type { Int8 } from "./client/values.ts"
import * as Objects from "./objects.ts"

/** The number of the migration that makes the store that this version works with. */
const currentVersion = 11

interface Found {
  readonly version: number
  readonly time_zone: string
  readonly lock_prefix: string
  readonly schema: string
  readonly cache: number
  readonly may_read: boolean
  readonly may_write: boolean
  readonly is_partial: boolean
  readonly orders_bytes: boolean
  readonly run: Int8
}

/** Fails unless the table that the last migrations make is there; `first` is the one that was there before. */
const requireTables = Effect.fnUntraced(function*(identifier: string, first: string, last: string) {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const [exists] = yield* sql<{ readonly first: boolean; readonly last: boolean; readonly is_standby: boolean }>`
    select to_regclass(${first}::text) is not null as first, to_regclass(${last}::text) is not null as last,
      pg_catalog.pg_is_in_recovery() as is_standby`
  if (exists?.last === true) return
  const where = exists?.is_standby === true ? " on the primary, and start again when this standby has it" : ""
  return yield* new SetupError({
    identifier,
    reason: exists?.first === true
      ? `was made by depeche_db or by an earlier version: run what \`migrations\` prints${where}`
      : `does not exist: there is no table ${first} in the schemas of the search path; run what \`migrations\` prints${where}`
  })
})

/** A store whose migrations have run. */
export const openStore = Effect.fnUntraced(function*(
  name: string
): Effect.fn.Return<Objects.Store, InvalidNameError | SetupError | SqlError, SqlClient.SqlClient> {
  const objects = yield* Effect.fromResult(Objects.forStore(name))
  const { editionsTable, sequence, settingsTable, snapshotsTable, table } = objects
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  yield* requireTables(name, table, settingsTable)
  const [row] = yield* sql<Found>`
    select version, time_zone, lock_prefix, ${sql.literal(Objects.serverRun)} as run,
      (select s.seqcache::int from pg_catalog.pg_sequence s
        where s.seqrelid operator(pg_catalog.=) ${sequence}::text::regclass::oid) as cache,
      (select n.nspname::text from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid operator(pg_catalog.=) c.relnamespace
        where c.oid operator(pg_catalog.=) ${table}::text::regclass::oid) as schema,
      coalesce(pg_catalog.has_table_privilege(to_regclass(${snapshotsTable}::text)::oid, 'select'::text), false) as may_read,
      coalesce((
        select pg_catalog.bool_and(pg_catalog.has_table_privilege(to_regclass(${snapshotsTable}::text)::oid, p.privilege))
        from pg_catalog.unnest(array['select', 'insert', 'update', 'delete']::text[]) p(privilege)
      ) and (
        select pg_catalog.bool_and(pg_catalog.has_table_privilege(to_regclass(${editionsTable}::text)::oid, p.privilege))
        from pg_catalog.unnest(array['insert', 'update']::text[]) p(privilege)
      ), false) as may_write,
      (pg_catalog.row_security_active(${table}::text::regclass::oid) and (
        select pg_catalog.bool_and(p.polpermissive)
          and pg_catalog.bool_or(pg_catalog.pg_get_expr(p.polqual, p.polrelid) operator(pg_catalog.=) 'true'::text)
        from pg_catalog.pg_policy p
        where p.polrelid operator(pg_catalog.=) ${table}::text::regclass::oid and p.polcmd::text in ('r', '*') and exists (
          select from pg_catalog.unnest(p.polroles) r(id)
          where case when r.id operator(pg_catalog.=) 0::oid then true else pg_catalog.pg_has_role(r.id, 'usage'::text) end
        )
      ) is not true) as is_partial,
      (select d.datlocprovider::text operator(pg_catalog.=) 'b'::text
          or (d.datlocprovider::text operator(pg_catalog.=) 'c'::text and d.datcollate::text in ('C', 'POSIX'))
        from pg_catalog.pg_database d where d.datname operator(pg_catalog.=) pg_catalog.current_database()) as orders_bytes
    from ${sql(settingsTable)}`
  if (row === undefined) {
    return yield* new SetupError({
      identifier: name,
      reason: `has no settings that this role is shown: row-level security hides the row of ${settingsTable} ` +
        "(docs/operating.md, Row-level security and triggers)"
    })
  }
  if (row.version < currentVersion) {
    return yield* new SetupError({
      identifier: name,
      reason: "was made by an earlier version: run what `migrations` prints"
    })
  }
  if (row.cache > 1) {
    return yield* new SetupError({
      identifier: name,
      reason:
        `gives positions from a sequence with a cache of ${row.cache}, of which each session keeps a stock: messages with ` +
        `positions from a stock would never be projected. Run "alter sequence ${sequence} cache 1", and start again`
    })
  }
  return {
    ...objects,
    timeZone: row.time_zone,
    lockPrefix: row.lock_prefix,
    schema: row.schema,
    snapshots: { read: row.may_read, write: row.may_write },
    isPartial: row.is_partial,
    ordersBytes: row.orders_bytes,
    answered: { run: Number(row.run) }
  }
})

/** What projects and handles would skip the messages that it is not shown. */
export const seesAll = (store: Objects.Store, identifier: string): Effect.Effect<void, SetupError> =>
  store.isPartial
    ? Effect.fail(
      new SetupError({
        identifier,
        reason:
          `would skip messages without a word: row-level security may hide rows of ${store.table} from this role. Give it ` +
          "BYPASSRLS, or a policy for select that is \"using (true)\" (docs/operating.md, Row-level security and triggers)"
      })
    )
    : Effect.void

/** Of two stores that want a stream of one name, the first one has it: its functions link the messages of that one. */
export const checkStore = Effect.fnUntraced(function*(
  storeName: string,
  name: string
): Effect.fn.Return<void, InvalidNameError | SetupError | SqlError, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const { projectionTable, table } = yield* Effect.fromResult(Objects.forStream(name))
  yield* requireTables(name, table, projectionTable)
  const [row] = yield* sql<{ readonly store: string }>`select store from ${sql(projectionTable)}`
  yield* checkOwner(storeName, name, row?.store)
})

/** The same, when it is known which store has it. */
export const checkOwner = (
  storeName: string,
  name: string,
  owner: string | undefined
): Effect.Effect<void, InvalidNameError> =>
  owner === undefined || owner === storeName
    ? Effect.void
    : Effect.fail(
      new InvalidNameError({
        identifier: name,
        reason: `is taken by an aggregated stream of the store "${owner}"`
      })
    )

/** A subscription whose migrations have run. */
export const openSubscription = Effect.fnUntraced(function*(
  name: string
): Effect.fn.Return<Objects.OpenedSubscription, InvalidNameError | SetupError | SqlError, SqlClient.SqlClient> {
  const objects = yield* Effect.fromResult(Objects.forSubscription(name))
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  yield* requireTables(name, objects.table, objects.pausedTable)
  const [row] = yield* sql<{ readonly prefix: string }>`select prefix from ${sql(objects.locksTable)}`
  return { ...objects, lockPrefix: row?.prefix ?? "" }
})

/** A projection whose migrations have run. */
export const openProjection = Effect.fnUntraced(function*(
  name: string
): Effect.fn.Return<Objects.ProjectionObjects, InvalidNameError | SetupError | SqlError, SqlClient.SqlClient> {
  const objects = yield* Effect.fromResult(Objects.forProjection(name))
  yield* requireTables(name, objects.versionsTable, objects.versionsTable)
  return objects
})
