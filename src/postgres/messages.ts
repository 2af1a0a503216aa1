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
import type { EncodedStoredMessage, Page, PatternQuery, StreamQuery } from "../Storage.ts"
import { type Int8, int8, milliseconds, toJson, toTime } from "./client/values.ts"
import { type Store, timeAdded } from "./objects.ts"

export interface Row {
  readonly message_id: string
  readonly version: number
  readonly global_position: Int8
  /** In milliseconds. */
  readonly added_at: number
  /** As the driver parses it: a cast to text costs the server, and the driver, more than parsing it here would save. */
  readonly message: Schema.Json
  /** As text: rows that were written together share it, and it is parsed once. */
  readonly metadata: string | null
}

export interface OfStream {
  readonly stream: string
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
      data: toJson(row.message),
      metadata
    }
  })
}

/**
 * A page ends with the row that brings its messages to this size, in bytes as they are stored (compressed, if they are
 * large), so that pages of large messages do not fill the memory.
 */
export const pageBytes = 4 * 1024 * 1024

export interface SizedRow extends Row {
  /** The size of the page up to this message. */
  readonly bytes: number
}

/** Cuts the rows of a query off at the size of a page, in its order. The query calls the messages `m`. */
export const sized = (sql: SqlClient, store: Store) =>
<R extends SizedRow>(
  shown: Statement.Fragment,
  found: Statement.Fragment,
  limit: number
): Effect.Effect<{ readonly rows: ReadonlyArray<R>; readonly more: boolean }, SqlError> =>
  Effect.map(
    sql<R>`select ${shown}, bytes::int as bytes from (
        select *, sum(size) over (rows unbounded preceding) as bytes
        from (
          select m.message_id, stream, version, global_position, ${
      sql.literal(timeAdded(store, "m"))
    } as added_at, message,
            metadata, pg_catalog.pg_column_size(message) as size${found} limit ${limit}
        ) found
      ) sized where bytes - size < ${pageBytes}`,
    (rows) => ({ rows, more: rows.length === limit || (rows.at(-1)?.bytes ?? 0) >= pageBytes })
  )

/** The columns of a {@link Row}. */
export const storedColumns = `message_id, version, global_position, ${milliseconds("added_at")} as added_at, message,
  metadata::text as metadata`

export const make = (sql: SqlClient, store: Store) => {
  const table = sql(store.table)
  const columns = sql.literal(storedColumns)
  const page = sized(sql, store)

  return {
    readStream: ({ direction, fromVersion, limit, stream, toVersion }: StreamQuery): Effect.Effect<Page, SqlError> => {
      const range = sql` from ${table} m
        where stream operator(pg_catalog.=) ${stream}::text and version >= ${fromVersion} and version <= ${toVersion} order by version`
      return Effect.map(
        page(columns, direction === "forward" ? range : sql`${range} desc`, limit),
        ({ more, rows }) => ({ messages: toStored(rows, () => stream), more })
      )
    },

    readPattern: (
      { direction, fromPosition, limit, pattern, toPosition }: PatternQuery
    ): Effect.Effect<Page, SqlError> => {
      const range = sql` from ${table} m where stream operator(pg_catalog.~~) ${pattern}::text
        and global_position >= ${int8(fromPosition)}::int8 and global_position <= ${int8(toPosition)}::int8
        order by global_position`
      return Effect.map(
        page<SizedRow & OfStream>(
          sql`stream, ${columns}`,
          direction === "forward" ? range : sql`${range} desc`,
          limit
        ),
        ({ more, rows }) => ({ messages: toStored(rows, (row) => row.stream), more })
      )
    },

    readByIds: (messageIds: ReadonlyArray<string>) =>
      Effect.map(
        sql<Row & OfStream>`select stream, message_id, version, global_position,
            ${sql.literal(milliseconds(timeAdded(store, "m")))} as added_at, message, metadata::text as metadata
          from ${table} m where message_id = any(${messageIds}::uuid[])`,
        (rows) => toStored(rows, (row) => row.stream)
      ),

    messageIds: (query: { readonly stream: string; readonly fromVersion: number; readonly limit: number }) =>
      Effect.map(
        sql<{ readonly message_id: string }>`select message_id from ${table}
          where stream operator(pg_catalog.=) ${query.stream}::text and version >= ${query.fromVersion}
          order by version limit ${query.limit}`,
        (rows) => rows.map((row) => row.message_id)
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

    truncate: Effect.asVoid(sql`truncate table ${table}`)
  }
}
