/**
 * Snapshots, beside the messages that they were made of.
 *
 * A snapshot comes with what it stands behind, in one statement. Whoever may not read the table has none; whoever may not write
 * it keeps none.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import type { EncodedSnapshot, SavedSnapshot, SnapshotKey, StreamQuery } from "../Storage.ts"
import { int8 } from "./client/values.ts"
import type { Store } from "./objects.ts"

/** As it is read with ends; the columns of another kind of row are null. */
export interface Row {
  readonly version: number | null
  readonly state: string | null
  /** An array's text. */
  readonly ends: string | null
}

export const toEncoded = (row: Row | undefined): EncodedSnapshot | undefined =>
  row === undefined || row.state === null || row.ends === null
    ? undefined
    : { state: row.state, version: row.version ?? 0, ends: row.ends.slice(1, -1).split(",").map(Number) }

export const make = (sql: SqlClient, store: Store) => {
  const table = sql(store.table)
  const snapshots = sql(store.snapshotsTable)
  const isOf = ({ fingerprint, fold, source }: SnapshotKey) =>
    sql`s.source = ${source}::text and s.fold = ${fold}::text and s.fingerprint = ${fingerprint}::text`

  return {
    /**
     * The messages `m` of a stream, in the order of versions: from the last one of the snapshot on, if it stands. Beside that
     * one is its state, `s.state`.
     */
    behind: ({ fromVersion, stream, toVersion }: StreamQuery, key: SnapshotKey): Statement.Fragment =>
      sql` from ${table} m
        left join (
          select s.version as snapshot_version, s.ends[1] as snapshot_position, s.state
          from ${snapshots} s where ${isOf(key)}
        ) s on s.snapshot_version = m.version and s.snapshot_position = m.global_position
        where stream operator(pg_catalog.=) ${stream}::text and version <= ${toVersion} and version >= coalesce((
          select x.version from ${snapshots} s join ${table} x
            on x.stream operator(pg_catalog.=) ${stream}::text and x.version = s.version
              and x.global_position = s.ends[1]
          where ${isOf(key)} and x.version <= ${toVersion}
        ), ${fromVersion})
        order by version`,

    /** A row for each key, behind those of \`ends\`. */
    ofKeys: (keys: ReadonlyArray<SnapshotKey>): Statement.Fragment =>
      keys.length === 0
        ? sql.literal("")
        : !store.snapshots.read
        ? sql`union all select 2, g.i, null, null, null, null
          from pg_catalog.generate_series(1, ${keys.length}::int) g(i)`
        : sql`union all
          select 2, k.i, s.version, null, s.state, s.ends::text
          from unnest(${keys.map(({ source }) => source)}::text[], ${keys.map(({ fold }) => fold)}::text[], ${
          keys.map(({ fingerprint }) => fingerprint)
        }::text[]) with ordinality k(source, fold, fingerprint, i)
          left join ${snapshots} s on s.source = k.source and s.fold = k.fold and s.fingerprint = k.fingerprint`
  }
}

export const makeSave =
  (sql: SqlClient, store: Store) =>
  ({ ends, fingerprint, fold, source, state, version }: SavedSnapshot): Effect.Effect<void, SqlError> => {
    if (!store.snapshots.write) return Effect.void
    const snapshots = sql(store.snapshotsTable)
    // Builds that run side by side have one each; those of earlier ones go.
    return Effect.asVoid(sql`
      with saved as (
        insert into ${snapshots} as s (source, fold, fingerprint, version, ends, state, saved_at)
        values (${source}::text, ${fold}::text, ${fingerprint}::text, ${version}::int, ${ends.map(int8)}::int8[],
          ${state}::text, pg_catalog.clock_timestamp())
        on conflict (source, fold, fingerprint) do update
          set version = excluded.version, ends = excluded.ends, state = excluded.state, saved_at = excluded.saved_at
          where s.ends operator(pg_catalog.<=) excluded.ends
        returning 1
      )
      delete from ${snapshots} s
      where s.source = ${source}::text and s.fold = ${fold}::text and s.fingerprint <> ${fingerprint}::text
        and exists (select from saved)
        and s.fingerprint <> (
          select o.fingerprint from ${snapshots} o
          where o.source = ${source}::text and o.fold = ${fold}::text and o.fingerprint <> ${fingerprint}::text
          order by o.saved_at desc limit 1
        )`)
  }
