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
import { keyOf } from "./locks.ts"
import { serverRun, type Store } from "./objects.ts"

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
        ? sql`union all select 2, g.i, null, null, null, null, null, null
          from pg_catalog.generate_series(1, ${keys.length}::int) g(i)`
        : sql`union all
          select 2, k.i, s.version, null, s.state, s.ends::text, null, null
          from unnest(${keys.map(({ source }) => source)}::text[], ${keys.map(({ fold }) => fold)}::text[], ${
          keys.map(({ fingerprint }) => fingerprint)
        }::text[]) with ordinality k(source, fold, fingerprint, i)
          left join ${snapshots} s on s.source = k.source and s.fold = k.fold and s.fingerprint = k.fingerprint`
  }
}

/**
 * Whoever raises an edition waits for those who save what was made in it, and they for it: they lock its row. So a snapshot is
 * either there when messages are deleted or redacted, and goes, or is not kept.
 */
export const makeSave = (sql: SqlClient, store: Store) => {
  const snapshots = sql(store.snapshotsTable)
  const editions = sql(store.editionsTable)
  const run = sql.literal(serverRun)
  const madeOf = (of: SavedSnapshot["madeOf"]) =>
    sql`(
      select distinct ${sql.literal(keyOf(store, "g.of_tag", "g.name"))} as key, g.edition
      from unnest(${of.map((one) => one.of === "tag")}::boolean[], ${of.map(({ name }) => name)}::text[],
        ${of.map(({ edition }) => int8(edition))}::int8[]) g(of_tag, name, edition)
    )`

  /** How many of the editions have no row yet: then nothing is saved. */
  const save = (
    { ends, fingerprint, fold, madeOf: of, source, state, version }: SavedSnapshot
  ): Effect.Effect<number, SqlError> =>
    // Builds that run side by side have one each; those of earlier ones go.
    Effect.map(
      sql<{ readonly missing: number }>`
      with made as materialized ${madeOf(of)}, locked as materialized (
        select e.key, ${run} + e.edition as edition from ${editions} e where e.key in (select m.key from made m) order by e.key for share
      ), saved as (
        insert into ${snapshots} as s (source, fold, fingerprint, version, ends, state, saved_at, keys)
        select ${source}::text, ${fold}::text, ${fingerprint}::text, ${version}::int, ${ends.map(int8)}::int8[],
          ${state}::text, pg_catalog.clock_timestamp(), array(select m.key from made m)
        where not exists (
          select from made m left join locked l on l.key = m.key where l.edition is distinct from m.edition
        )
        on conflict (source, fold, fingerprint) do update
          set version = excluded.version, ends = excluded.ends, state = excluded.state, saved_at = excluded.saved_at,
            keys = excluded.keys
          where s.ends operator(pg_catalog.<=) excluded.ends
        returning 1
      ), outdated as (
        delete from ${snapshots} s
        where s.source = ${source}::text and s.fold = ${fold}::text and s.fingerprint <> ${fingerprint}::text
          and exists (select from saved)
          and s.fingerprint <> (
            select o.fingerprint from ${snapshots} o
            where o.source = ${source}::text and o.fold = ${fold}::text and o.fingerprint <> ${fingerprint}::text
            order by o.saved_at desc limit 1
          )
      )
      select ((select pg_catalog.count(*) from made) - (select pg_catalog.count(*) from locked))::int as missing`,
      ([row]) => row?.missing ?? 0
    )

  return (snapshot: SavedSnapshot): Effect.Effect<void, SqlError> =>
    !store.snapshots.write
      ? Effect.void
      : Effect.flatMap(save(snapshot), (missing) =>
        missing === 0 ? Effect.void : Effect.andThen(
          sql`insert into ${editions} (key, edition) select m.key, 0 from ${madeOf(snapshot.madeOf)} m order by m.key
            on conflict do nothing`,
          save(snapshot)
        ))
}
