/** What is read from the table, one statement per shape. */
import { DateTime, Effect } from "effect"
import type { Schema } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import type { StreamHead } from "../Message.ts"
import type { EncodedStoredMessage, Page, PatternQuery, StreamQuery } from "../Storage.ts"
import type { Objects } from "./objects.ts"

/** JSON comes as text: parsing it here costs less than the driver's codec. */
interface Row {
  readonly message_id: string
  readonly stream: string
  readonly version: number
  readonly global_position: bigint | number
  readonly added_at: Date
  readonly message: string
  readonly metadata: string | null
}

const toStored = (rows: ReadonlyArray<Row>): ReadonlyArray<EncodedStoredMessage> => {
  // Messages that were written together have the same metadata.
  let text: string | null = null
  let metadata: Schema.JsonObject = {}
  return rows.map((row) => {
    if (row.metadata !== text) {
      text = row.metadata
      metadata = text === null ? {} : JSON.parse(text)
    }
    return {
      messageId: row.message_id,
      stream: row.stream,
      version: row.version,
      globalPosition: Number(row.global_position),
      addedAt: DateTime.fromDateUnsafe(row.added_at),
      data: JSON.parse(row.message),
      metadata
    }
  })
}

/**
 * A page ends with the row that brings its messages to this size, in bytes as they are stored (compressed, if they are
 * large): pages of large messages do not fill the memory.
 */
const pageBytes = 4 * 1024 * 1024

interface SizedRow extends Row {
  /** Of the messages before this one in the page. */
  readonly bytes_before: bigint
  readonly bytes: number
}

export const make = (sql: SqlClient, objects: Objects) => {
  const table = sql(objects.table)
  const columns = sql.literal(
    "message_id, stream, version, global_position, added_at, message::text as message, metadata::text as metadata"
  )

  /** Cuts off at the size of a page what a query finds in its order. */
  const page = (rows: Statement.Fragment, limit: number): Effect.Effect<Page, SqlError> =>
    Effect.map(
      sql<SizedRow>`select * from (
        select *, sum(bytes) over (rows unbounded preceding) - bytes as bytes_before
        from (select ${columns}, pg_column_size(message) as bytes from ${table} ${rows} limit ${limit}) found
      ) sized where bytes_before < ${pageBytes}`,
      (found) => {
        const last = found.at(-1)
        const isCut = last !== undefined && Number(last.bytes_before) + last.bytes >= pageBytes
        return { messages: toStored(found), more: found.length === limit || isCut }
      }
    )

  return {
    readStream: ({ direction, fromVersion, limit, stream, toVersion }: StreamQuery) =>
      page(
        direction === "forward"
          ? sql`where stream = ${stream} and version >= ${fromVersion} and version <= ${toVersion} order by version`
          : sql`where stream = ${stream} and version >= ${fromVersion} and version <= ${toVersion}
              order by version desc`,
        limit
      ),

    readPattern: ({ direction, fromPosition, limit, pattern, toPosition }: PatternQuery) => {
      const [from, to] = [BigInt(fromPosition), BigInt(toPosition)]
      return page(
        direction === "forward"
          ? sql`where stream like ${pattern} and global_position >= ${from} and global_position <= ${to}
              order by global_position`
          : sql`where stream like ${pattern} and global_position >= ${from} and global_position <= ${to}
              order by global_position desc`,
        limit
      )
    },

    readByIds: (messageIds: ReadonlyArray<string>) =>
      Effect.map(
        sql<Row>`select ${columns} from ${table} where message_id = any(${messageIds}::uuid[])`,
        toStored
      ),

    messageIds: (query: { readonly stream: string; readonly fromVersion: number; readonly limit: number }) =>
      Effect.map(
        sql<{ readonly message_id: string }>`select message_id from ${table}
          where stream = ${query.stream} and version >= ${query.fromVersion}
          order by version limit ${query.limit}`,
        (rows) => rows.map((row) => row.message_id)
      ),

    head: (stream: string): Effect.Effect<StreamHead, SqlError> =>
      Effect.map(
        sql<Pick<Row, "version" | "global_position">>`select version, global_position from ${table}
          where stream = ${stream} order by version desc limit 1`,
        ([row]) => ({
          stream,
          version: row?.version ?? 0,
          globalPosition: row === undefined ? undefined : Number(row.global_position)
        })
      ),

    truncate: Effect.asVoid(sql`truncate table ${table}`)
  }
}
