/**
 * The statements that read messages, one per shape. Operators and functions for which `pg_catalog` has no exact match are
 * written with their schema, so that no other one on the search path is found first.
 */
import { Effect } from "effect"
import type { Schema } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
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
import { type PageOptions, readable, type Row, sized, type SmallRow } from "./pages.ts"
import * as Searches from "./searches.ts"
import * as Snapshots from "./snapshots.ts"

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
const toMessages = () => {
  let text: string | null = null
  let metadata: Schema.JsonObject = {}
  let time = 0
  let addedAt = toTime(time)
  return (
    stream: string,
    messageId: string,
    version: number,
    position: Int8,
    added: number,
    message: string | null,
    metadataText: string | null,
    size: number | undefined
  ): EncodedStoredMessage => {
    if (metadataText !== text) {
      text = metadataText
      metadata = text === null ? {} : JSON.parse(text)
    }
    if (added !== time) {
      time = added
      addedAt = toTime(time)
    }
    return {
      messageId,
      stream,
      version,
      globalPosition: Number(position),
      addedAt,
      data: message === null ? null : JSON.parse(message),
      metadata,
      oversize: message === null ? size : undefined
    }
  }
}

export const toStored = <R extends Row>(
  rows: ReadonlyArray<R>,
  streamOf: (row: R) => string
): ReadonlyArray<EncodedStoredMessage> => {
  const toMessage = toMessages()
  return rows.map((row) =>
    toMessage(
      streamOf(row),
      row.message_id,
      row.version,
      row.global_position,
      row.added_at,
      row.message,
      row.metadata,
      row.size
    )
  )
}

const toSmall = (rows: ReadonlyArray<SmallRow>, stream: string): ReadonlyArray<EncodedStoredMessage> => {
  const toMessage = toMessages()
  return rows.map((row) => toMessage(stream, row[0], row[1], row[2], row[3], row[4], row[5], undefined))
}

export const make = (sql: SqlClient, store: Store) => {
  const table = sql(store.table)
  const tags = sql(store.tagsTable)
  const run = sql.literal(serverRun)
  const { page, small } = sized(sql, store)
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

  const ofStream = ` from ${store.table} m
    where stream operator(pg_catalog.=) $1::text and version >= $2 and version <= $3 order by version`
  const smallOf = { forward: small(ofStream, 3), backward: small(`${ofStream} desc`, 3) }

  const readStream = (query: StreamQuery): Effect.Effect<Page, SqlError> => {
    const { direction, fromVersion, limit, stream, toVersion } = query
    if (query.snapshot !== undefined && store.snapshots.read) return readBehind(query, query.snapshot)
    if (query.withEdition) return readPage(query)
    return Effect.flatMap(
      smallOf[direction]([stream, fromVersion, toVersion], limit),
      (rows) =>
        rows === undefined
          ? readPage(query)
          : Effect.succeed({ messages: toSmall(rows, stream), more: rows.length === limit })
    )
  }

  const readPage = (query: StreamQuery): Effect.Effect<Page, SqlError> => {
    const { direction, fromVersion, limit, stream, toVersion } = query
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
