/**
 * COPY by node-postgres, which the driver of this library does not have: rows with everything known beforehand but their
 * transaction and positions, in transactions of a thousand.
 */
import { Effect } from "effect"
import { Buffer } from "node:buffer"
import type { Connection, PoolClient, Submittable } from "pg"
import { metadata } from "../message.ts"
import { migrate, sequenceName, stored, tableName } from "../subjects/depecheTable.ts"
import { intoEmptyTable, makeBatches, makeRow } from "../subjects/imports.ts"
import type { Database, Subject } from "../subjects/Subject.ts"
import { makePool, withClient } from "./pg.ts"

export const make = (database: Database) =>
  Effect.gen(function*() {
    yield* migrate(database)
    const pool = yield* makePool(database)

    const copyBatch = (stream: string, rows: ReadonlyArray<ReturnType<typeof makeRow>>) =>
      withClient(pool, async (client) => {
        await client.query("begin")
        const { rows: [transaction] } = await client.query("select pg_current_xact_id()::text as tx")
        const { rows: positions } = await client.query({
          name: "positions",
          text: `select nextval('${sequenceName}') as position from generate_series(1, $1::int)`,
          values: [rows.length]
        })
        const lines = rows.map(({ messageId, order }, i) => {
          const data = JSON.stringify(order).replaceAll("\\", "\\\\")
          return `${positions[i].position}\t${transaction.tx}\t${stream}\t${
            i + 1
          }\t${messageId}\t${order.occurredAt}\t${data}\t${metadata}\n`
        })
        await copyIn(
          client,
          `copy ${tableName} (global_position, tx, stream, version, message_id, occurred_at, message, metadata) from stdin`,
          Buffer.from(lines.join(""))
        )
        await client.query("commit")
      })

    return {
      stream: () => {
        const batches = makeBatches(makeRow)
        return intoEmptyTable(
          database.sql,
          Effect.forEach(batches, ([stream, rows]) => Effect.promise(() => copyBatch(stream, rows)), { discard: true })
        )
      },
      ...stored(database)
    } satisfies Subject
  })

interface CopyConnection {
  readonly query: (text: string) => void
  readonly sendCopyFromChunk: (chunk: Buffer) => void
  readonly endCopyFrom: () => void
}

/** What a client runs as it runs a query. */
const copyIn = (client: PoolClient, text: string, data: Buffer): Promise<void> =>
  new Promise((resolve, reject) => {
    let failure: Error | undefined
    const copy = {
      submit: (connection: Connection) => (connection as unknown as CopyConnection).query(text),
      handleCopyInResponse: (connection: CopyConnection) => {
        connection.sendCopyFromChunk(data)
        connection.endCopyFrom()
      },
      handleCommandComplete: () => {},
      handleError: (error: Error) => {
        failure = error
        reject(error)
      },
      handleReadyForQuery: () => {
        if (failure === undefined) resolve()
      }
    }
    client.query(copy as Submittable)
  })
