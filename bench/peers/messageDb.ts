/** message-db (https://github.com/message-db/message-db) by its SQL functions, through node-postgres. */
import { Effect } from "effect"
import * as fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as path from "node:path"
import type { Pool, PoolClient } from "pg"
import { encode, loadedMetadata, makeMessage, metadata } from "../message.ts"
import { type Database, pageSize, rangeOf, type Subject } from "../subjects/Subject.ts"
import { isWrongVersion, makePool, withClient } from "./pg.ts"

/** What its `install.sh` runs; pgcrypto is not needed where PostgreSQL has `gen_random_uuid` itself, since 13. */
const files = [
  "schema/message-store",
  "tables/messages",
  "types/message",
  "functions/message-store-version",
  "functions/hash-64",
  "functions/acquire-lock",
  "functions/category",
  "functions/is-category",
  "functions/id",
  "functions/cardinal-id",
  "functions/stream-version",
  "functions/write-message",
  "functions/get-stream-messages",
  "functions/get-category-messages",
  "functions/get-last-stream-message",
  "indexes/messages-id",
  "indexes/messages-stream",
  "indexes/messages-category"
]

const install = async (pool: Pool) => {
  const home = path.dirname(createRequire(import.meta.url).resolve("@eventide/message-db/package.json"))
  for (const file of files) await pool.query(await fs.readFile(path.join(home, "database", `${file}.sql`), "utf8"))
}

const makeEntry = () => {
  const { _tag, messageId, ...data } = encode(makeMessage())
  return { id: messageId, type: _tag, data }
}

type Entry = ReturnType<typeof makeEntry>

interface Row {
  readonly position: string
  readonly data: string
  readonly metadata: string
}

export const make = (database: Database) =>
  Effect.gen(function*() {
    const pool = yield* makePool(database, { options: "-c search_path=message_store,public" })
    yield* Effect.tryPromise(() => install(pool))
    const { sql } = database

    const append = (client: PoolClient, stream: string, entry: Entry, expected: number | null) =>
      client.query({
        name: "write",
        text: "select message_store.write_message($1, $2, $3, $4, $5, $6)",
        values: [entry.id, stream, entry.type, JSON.stringify(entry.data), metadata, expected]
      })

    const write = (stream: string, entries: ReadonlyArray<Entry>) =>
      withClient(pool, async (client) => {
        const [first] = entries
        if (first !== undefined && entries.length === 1) {
          await append(client, stream, first, null)
          return
        }
        await client.query("begin")
        for (const entry of entries) await append(client, stream, entry, null)
        await client.query("commit")
      })

    const writeExpecting = async (stream: string, entry: Entry) => {
      while (true) {
        const head = await pool.query<{ readonly version: string | null }>({
          name: "version",
          text: "select message_store.stream_version($1) as version",
          values: [stream]
        })
        const expected = Number(head.rows[0]?.version ?? -1)
        try {
          await withClient(pool, (client) => append(client, stream, entry, expected))
          return
        } catch (error) {
          if (!isWrongVersion(error)) throw error
        }
      }
    }

    return {
      write: (stream, size) => {
        const entries = rangeOf(size, makeEntry)
        return Effect.tryPromise(() => write(stream, entries))
      },
      writeExpecting: (stream) => {
        const entry = makeEntry()
        return Effect.tryPromise(() => writeExpecting(stream, entry))
      },
      read: (stream) =>
        Effect.tryPromise(async () => {
          let read = 0
          for (let from = 0;;) {
            const { rows } = await pool.query<Row>({
              name: "read",
              text: "select * from message_store.get_stream_messages($1, $2, $3)",
              values: [stream, from, pageSize]
            })
            for (const row of rows) {
              const data: { readonly quantity: number } = JSON.parse(row.data)
              const { traceparent }: { readonly traceparent: string } = JSON.parse(row.metadata)
              if (data.quantity > 0 && traceparent !== "") read++
            }
            if (rows.length < pageSize) return read
            from = 1 + Number(rows.at(-1)?.position)
          }
        }),
      load: (streams, length) => {
        const { data, type } = makeEntry()
        return Effect.asVoid(sql`
          insert into message_store.messages (id, stream_name, position, type, data, metadata)
          select id, 'stored' || s || '-1', v - 1, ${type}, ${JSON.stringify(data)}::text::jsonb, ${
          sql.literal(loadedMetadata("id"))
        }::jsonb
          from generate_series(1, ${length}::int) v, generate_series(1, ${streams}::int) s,
            lateral (select gen_random_uuid() as id where s > 0 and v > 0) ids`)
      },
      clear: sql`truncate message_store.messages`,
      table: { name: "message_store.messages", streams: { name: "stream_name", version: "position", first: 0 } }
    } satisfies Subject
  })
