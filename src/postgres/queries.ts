/** What is read from the table, one statement per shape. */
import { DateTime, Effect } from "effect"
import type { Schema } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { StreamHead } from "../Message.ts"
import type { EncodedStoredMessage, PatternPage, StreamPage } from "../Storage.ts"
import type { Objects } from "./objects.ts"

interface Row {
  readonly message_id: string
  readonly stream: string
  readonly version: number
  readonly global_position: bigint | number
  readonly added_at: Date
  readonly message: Schema.Json
  readonly metadata: Schema.JsonObject | null
}

const toStored = (row: Row): EncodedStoredMessage => ({
  messageId: row.message_id,
  stream: row.stream,
  version: row.version,
  globalPosition: Number(row.global_position),
  addedAt: DateTime.fromDateUnsafe(row.added_at),
  data: row.message,
  metadata: row.metadata ?? {}
})

type Rows = Effect.Effect<ReadonlyArray<EncodedStoredMessage>, SqlError>

export const make = (sql: SqlClient, objects: Objects) => {
  const table = sql(objects.table)
  const columns = sql.literal("message_id, stream, version, global_position, added_at, message, metadata")
  const decode = (query: Effect.Effect<ReadonlyArray<Row>, SqlError>): Rows =>
    Effect.map(query, (rows) => rows.map(toStored))

  return {
    readStream: (page: StreamPage): Rows =>
      decode(
        page.direction === "forward"
          ? sql<Row>`select ${columns} from ${table}
              where stream = ${page.stream} and version >= ${page.fromVersion} and version <= ${page.toVersion}
              order by version limit ${page.limit}`
          : sql<Row>`select ${columns} from ${table}
              where stream = ${page.stream} and version >= ${page.fromVersion} and version <= ${page.toVersion}
              order by version desc limit ${page.limit}`
      ),

    readPattern: (page: PatternPage): Rows =>
      decode(
        page.direction === "forward"
          ? sql<Row>`select ${columns} from ${table}
              where stream like ${page.pattern}
                and global_position >= ${BigInt(page.fromPosition)} and global_position <= ${BigInt(page.toPosition)}
              order by global_position limit ${page.limit}`
          : sql<Row>`select ${columns} from ${table}
              where stream like ${page.pattern}
                and global_position >= ${BigInt(page.fromPosition)} and global_position <= ${BigInt(page.toPosition)}
              order by global_position desc limit ${page.limit}`
      ),

    readByIds: (messageIds: ReadonlyArray<string>): Rows =>
      decode(sql<Row>`select ${columns} from ${table} where message_id = any(${messageIds}::uuid[])`),

    messageIds: (page: { readonly stream: string; readonly fromVersion: number; readonly limit: number }) =>
      Effect.map(
        sql<{ readonly message_id: string }>`select message_id from ${table}
          where stream = ${page.stream} and version >= ${page.fromVersion}
          order by version limit ${page.limit}`,
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
