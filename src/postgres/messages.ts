/**
 * The statements that read messages, one per shape. Operators and functions for which `pg_catalog` has no exact match are
 * written with their schema, so that no other one on the search path is found first.
 */
import { Effect } from "effect"
import type { Schema } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import type { StreamHead } from "../Message.ts"
import type {
  EncodedStoredMessage,
  Ends,
  Page,
  PatternQuery,
  SnapshotKey,
  StreamQuery,
  TaggedQuery
} from "../Storage.ts"
import { type Int8, milliseconds, toTime } from "./client/values.ts"
import { editionOf, serverRun, type Store, streamLockKey, tagLockKey, timeAdded } from "./objects.ts"
import * as Searches from "./searches.ts"
import * as Snapshots from "./snapshots.ts"

export interface Row {
  readonly message_id: string
  readonly version: number
  readonly global_position: Int8
  /** In milliseconds. */
  readonly added_at: number
  /** As text, whose size is known before it is sent; null if that is more than the driver reads at once. */
  readonly message: string | null
  /** Of message and metadata, in bytes. */
  readonly size: number
  /** As text: rows that were written together share it, and it is parsed once. */
  readonly metadata: string | null
}

export interface OfStream {
  readonly stream: string
}

interface OfSnapshot {
  readonly is_snapshot: boolean
}

/** Where a stream or a tag ends; or a snapshot, of which the other columns are null. */
interface EndRow extends Snapshots.Row {
  readonly global_position: Int8 | null
  readonly edition: Int8 | null
  readonly run: Int8
}

/** Messages that were written together share their metadata and their time: both are made once. */
export const toStored = <R extends Row>(
  rows: ReadonlyArray<R>,
  streamOf: (row: R) => string
): ReadonlyArray<EncodedStoredMessage> => {
  let text: string | null = null
  let metadata: Schema.JsonObject = {}
  let added = 0
  let addedAt = toTime(added)
  return rows.map((row) => {
    if (row.metadata !== text) {
      text = row.metadata
      metadata = text === null ? {} : JSON.parse(text)
    }
    if (row.added_at !== added) {
      added = row.added_at
      addedAt = toTime(added)
    }
    return {
      messageId: row.message_id,
      stream: streamOf(row),
      version: row.version,
      globalPosition: Number(row.global_position),
      addedAt,
      data: row.message === null ? null : JSON.parse(row.message),
      metadata,
      oversize: row.message === null ? row.size : undefined
    }
  })
}

/** A page ends with the row that brings what is sent of it, metadata included, to this size in bytes. */
export const pageBytes = 4 * 1024 * 1024

/**
 * Stored rows that are larger than this, in bytes, are read in pages of their own: what a row comes to as text shows when it
 * is made, and nobody should make a thousand large ones to send the first few. Compressed, it is less than the text: by a
 * factor of 90 at most, which the numbers of jsonb (`1e308`) multiply.
 */
const largeRow = 8192
const largeRowsAtATime = 16

/** What a driver reads at once, less the columns beside message and metadata. */
const readableBytes = (sql: SqlClient): number => {
  const { config } = sql as { readonly config?: { readonly maxMessageSize?: number | undefined } }
  return (config?.maxMessageSize ?? 16 * 1024 * 1024) - 4096
}

/** The message of a row, given as text, in a statement that is bounded by the number of its rows. */
export const readable = (sql: SqlClient, message = "m.message::text"): string => {
  const size = `pg_catalog.octet_length(${message})`
  return `case when ${size} <= ${readableBytes(sql)} then ${message} end as message, ${size} as size`
}

interface PageOptions {
  /** A row that has a state in `s.state` is that of a snapshot, and has it in place of its message. */
  readonly snapshot?: boolean
  /** A text that is read with the page, in one view, whether it has rows or not. */
  readonly beside?: Statement.Fragment
}

interface FoundPage<R> {
  readonly rows: ReadonlyArray<R>
  readonly beside: string | undefined
}

/**
 * Cuts the rows of a query off at the size of a page, in its order. The query calls the messages `m`; `shown` are columns
 * beside those of a {@link Row}, each with a comma behind it.
 */
export const sized = (sql: SqlClient, store: Store) => {
  const size = sql.literal(
    `coalesce(pg_catalog.octet_length(message), ${pageBytes}) + coalesce(pg_catalog.octet_length(metadata), 0)`
  )
  const stored = sql.literal(
    `message_id, version, global_position, ${milliseconds("added_at")} as added_at, metadata, size,
        case when size <= ${readableBytes(sql)} then message end as message`
  )
  const added = sql.literal(timeAdded(store, "m"))
  const fits = sql.literal(`bytes - size < ${pageBytes}`)
  const find = <R extends Row>(
    shown: string,
    found: Statement.Fragment,
    limit: number,
    largest: number,
    { beside, snapshot }: PageOptions
  ): Effect.Effect<FoundPage<R>, SqlError> => {
    const message = snapshot ? "s.state is not null as is_snapshot, case when s.state is not null then s.state" : "case"
    const rows = sql`(
        select *, ${size} as size, sum(${size}) over (rows unbounded preceding) as bytes
        from (
          select m.message_id, stream, version, global_position, ${added} as added_at, metadata::text as metadata,
            ${
      sql.literal(message)
    } when pg_catalog.pg_column_size(message) <= ${largest}::int then message::text end as message${found}
          limit ${limit}
        ) found
      ) sized`
    const columns = sql`${sql.literal(shown)}${stored}`
    if (beside === undefined) {
      return Effect.map(
        sql<R>`select ${columns} from ${rows} where ${fits}`,
        (all) => ({ rows: all, beside: undefined })
      )
    }
    // The first row has it; an empty page is one row that has nothing else.
    const page = sql<R & { readonly beside: string | null }>`
      select ${columns}, case when bytes > size then null else ${beside} end as beside
      from (values (1)) one left join ${rows} on ${fits}`
    return Effect.map(page, (all) => ({
      rows: all[0]?.size === null ? [] : all,
      beside: all[0]?.beside ?? undefined
    }))
  }

  return Effect.fnUntraced(function*<R extends Row>(
    shown: string,
    found: Statement.Fragment,
    limit: number,
    options: PageOptions = {}
  ): Effect.fn.Return<FoundPage<R> & { readonly more: boolean }, SqlError> {
    const page = yield* find<R>(shown, found, limit, largeRow, options)
    const large = page.rows.findIndex((row) => row.message === null)
    if (large > 0) return { ...page, rows: page.rows.slice(0, large), more: true }
    if (large < 0) return { ...page, more: isCut(page.rows, limit) }
    const atATime = Math.min(limit, largeRowsAtATime)
    const ofLarge = yield* find<R>(shown, found, atATime, 2 ** 31 - 1, options)
    return { ...ofLarge, more: isCut(ofLarge.rows, atATime) }
  })
}

const isCut = (rows: ReadonlyArray<Row>, limit: number): boolean =>
  rows.length === limit || rows.reduce((sum, { size }) => sum + size, 0) >= pageBytes

export const make = (sql: SqlClient, store: Store) => {
  const table = sql(store.table)
  const tags = sql(store.tagsTable)
  const run = sql.literal(serverRun)
  const page = sized(sql, store)
  const snapshots = Snapshots.make(sql, store)
  const { endsOf, matching, tagged } = Searches.make(sql, store)

  /** The edition of a stream, beside its page. */
  const edition = ({ stream, withEdition = false }: StreamQuery): Pick<PageOptions, "beside"> =>
    withEdition
      ? {
        beside: sql`(
          select ${
          sql.literal(editionOf(store, streamLockKey(store, "k.name")))
        } from (select ${stream}::text as name) k
        )::text`
      }
      : {}
  const toEdition = (beside: string | undefined): number | undefined =>
    beside === undefined ? undefined : Number(beside)

  const readStream = (query: StreamQuery): Effect.Effect<Page, SqlError> => {
    const { direction, fromVersion, limit, stream, toVersion } = query
    if (query.snapshot !== undefined && store.snapshots.read) return readBehind(query, query.snapshot)
    const range = sql` from ${table} m
        where stream operator(pg_catalog.=) ${stream}::text and version >= ${fromVersion} and version <= ${toVersion} order by version`
    return Effect.map(
      page<Row>("", direction === "forward" ? range : sql`${range} desc`, limit, edition(query)),
      ({ beside, more, rows }) => ({ messages: toStored(rows, () => stream), more, edition: toEdition(beside) })
    )
  }

  /** The row of the snapshot's last message comes first, with the state: that it is there says that the snapshot stands. */
  const readBehind = Effect.fnUntraced(function*(
    query: StreamQuery,
    key: SnapshotKey
  ): Effect.fn.Return<Page, SqlError> {
    const { limit, stream } = query
    const { beside, more, rows: [first, ...others] } = yield* page<Row & OfSnapshot>(
      "is_snapshot, ",
      snapshots.behind(query, key),
      limit,
      { ...edition(query), snapshot: true }
    )
    const seen = { edition: toEdition(beside) }
    if (first?.is_snapshot !== true) {
      return { ...seen, messages: toStored(first === undefined ? [] : [first, ...others], () => stream), more }
    }
    const { global_position, message, version } = first
    const snapshot = { state: message ?? "", version, ends: [Number(global_position)] }
    // A page ended with the snapshot: what follows is large.
    if (others.length === 0 && more) {
      return { ...(yield* readStream({ ...query, fromVersion: version + 1, snapshot: undefined })), ...seen, snapshot }
    }
    return { ...seen, messages: toStored(others, () => stream), more, snapshot }
  })

  return {
    readStream,

    readPattern: (query: PatternQuery): Effect.Effect<Page, SqlError> =>
      Effect.map(
        page<Row & OfStream>("stream, ", matching(query), query.limit),
        ({ more, rows }) => ({ messages: toStored(rows, (row) => row.stream), more })
      ),

    readTagged: (query: TaggedQuery): Effect.Effect<Page, SqlError> => {
      const { limit, queries } = query
      const isBounded = queries[0].upTo !== undefined
      return Effect.map(
        page<Row & OfStream>("stream, ", tagged(query), limit, isBounded ? {} : { beside: endsOf(queries) }),
        ({ beside, more, rows }) => {
          const told = beside === undefined ? undefined : Searches.toEnds(beside)
          if (told !== undefined) store.answered.run = told.run
          return { messages: toStored(rows, (row) => row.stream), more, ends: told?.ends }
        }
      )
    },

    ends: (
      streams: ReadonlyArray<string>,
      given: ReadonlyArray<string>,
      keys: ReadonlyArray<SnapshotKey> = []
    ): Effect.Effect<Ends, SqlError> => {
      // Who asks about streams alone needs no rights on tags.
      const ofTags = given.length === 0 ? sql.literal("") : sql`union all
          select 1, s.i, null, h.global_position, null, null, ${
        sql.literal(editionOf(store, tagLockKey(store, "s.tag")))
      }, ${run}
          from pg_catalog.unnest(${given}::text[]) with ordinality s(tag, i)
          left join lateral (
            select t.global_position from ${tags} t where t.tag = s.tag order by t.global_position desc limit 1
          ) h on true`
      return Effect.map(
        sql<EndRow>`
          select 0 as kind, s.i, h.version, h.global_position, null as state, null as ends,
            ${sql.literal(editionOf(store, streamLockKey(store, "s.stream")))} as edition, ${run} as run
          from pg_catalog.unnest(${streams}::text[]) with ordinality s(stream, i)
          left join lateral (
            select m.version, m.global_position from ${table} m
            where m.stream operator(pg_catalog.=) s.stream order by m.version desc limit 1
          ) h on true
          ${ofTags} ${snapshots.ofKeys(keys)}
          order by 1, 2`,
        (rows) => {
          store.answered.run = Number(rows[0]?.run ?? store.answered.run)
          return {
            heads: streams.map((stream, i) => {
              const { global_position: at, version } = rows[i] ?? { global_position: null, version: null }
              return { stream, version: version ?? 0, globalPosition: at === null ? undefined : Number(at) }
            }),
            tags: given.map((_, i) => Number(rows[streams.length + i]?.global_position ?? 0)),
            editions: [...streams, ...given].map((_, i) => Number(rows[i]?.edition ?? 0)),
            snapshots: keys.map((_, i) => Snapshots.toEncoded(rows[streams.length + given.length + i]))
          }
        }
      )
    },

    readByIds: (messageIds: ReadonlyArray<string>) =>
      Effect.map(
        sql<Row & OfStream>`select stream, message_id, version, global_position,
            ${sql.literal(milliseconds(timeAdded(store, "m")))} as added_at, ${sql.literal(readable(sql))},
            metadata::text as metadata
          from ${table} m where message_id = any(${messageIds}::uuid[])`,
        (rows) => toStored(rows, (row) => row.stream)
      ),

    messageIds: (query: { readonly stream: string; readonly fromVersion: number; readonly limit: number }) =>
      Effect.map(
        sql<Pick<Row, "version" | "message_id">>`select version, message_id from ${table}
          where stream operator(pg_catalog.=) ${query.stream}::text and version >= ${query.fromVersion}
          order by version limit ${query.limit}`,
        (rows) => rows.map(({ message_id, version }) => ({ version, messageId: message_id }))
      ),

    head: (stream: string): Effect.Effect<StreamHead, SqlError> =>
      Effect.map(
        sql<Pick<Row, "version" | "global_position">>`select version, global_position from ${table}
          where stream operator(pg_catalog.=) ${stream}::text order by version desc limit 1`,
        ([row]) => ({
          stream,
          version: row?.version ?? 0,
          globalPosition: row === undefined ? undefined : Number(row.global_position)
        })
      ),

    truncate: Effect.asVoid(
      sql`truncate table ${table}, ${tags}, ${sql(store.snapshotsTable)}, ${sql(store.scheduledTable)}`
    )
  }
}
