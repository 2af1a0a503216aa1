/** node-postgres: one transaction per write, by depeche_db's own function; the same reads as the floor's. */
import { Effect } from "effect"
import type { Scope } from "effect"
import { DatabaseError, Pool, type PoolClient } from "pg"
import { encode, makeMessage, storeName } from "../message.ts"
import { migrate, stored, tableName } from "../subjects/depecheTable.ts"
import { type Database, pageSize, type Subject } from "../subjects/Subject.ts"

const maxConnections = 20

/** A pool that ends with the scope. */
export const makePool = (
  { url }: Database,
  options?: { readonly options?: string; readonly max?: number }
): Effect.Effect<Pool, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => new Pool({ connectionString: url, max: maxConnections, ...options })),
    (pool) => Effect.promise(() => pool.end())
  )

/** Unlike `pool.query`, which drops the connection of a query that failed. */
export const withClient = async <A>(pool: Pool, use: (client: PoolClient) => Promise<A>): Promise<A> => {
  const client = await pool.connect()
  try {
    return await use(client)
  } finally {
    client.release()
  }
}

export const isWrongVersion = (error: unknown): boolean =>
  error instanceof DatabaseError && error.message.startsWith("Wrong expected version")

interface Row {
  readonly version: number
  readonly message: { readonly quantity: number }
}

export const make = (database: Database) =>
  Effect.gen(function*() {
    yield* migrate(database)
    const pool = yield* makePool(database)

    const append = (stream: string, id: string, text: string, expected: number | null) =>
      withClient(pool, (client) =>
        client.query({
          name: "append",
          text: `select version, global_position from depeche_write_message_${storeName}($1, $2, $3, $4)`,
          values: [id, stream, text, expected]
        }))

    const writeExpecting = async (stream: string, id: string, text: string) => {
      while (true) {
        const head = await pool.query<Row>({
          name: "head",
          text: `select version from ${tableName} where stream = $1 order by version desc limit 1`,
          values: [stream]
        })
        try {
          return await append(stream, id, text, head.rows[0]?.version ?? 0)
        } catch (error) {
          if (!isWrongVersion(error)) throw error
        }
      }
    }

    return {
      write: (stream) => {
        const message = makeMessage()
        const text = JSON.stringify(encode(message))
        return Effect.asVoid(Effect.tryPromise(() => append(stream, message.messageId, text, null)))
      },
      writeExpecting: (stream) => {
        const message = makeMessage()
        const text = JSON.stringify(encode(message))
        return Effect.asVoid(Effect.tryPromise(() => writeExpecting(stream, message.messageId, text)))
      },
      read: (stream) =>
        Effect.tryPromise(async () => {
          let read = 0
          for (let from = 1;;) {
            const { rows } = await pool.query<Row>({
              name: "read",
              text: `select message_id, stream, version, global_position, added_at, message, metadata from ${tableName}
                where stream = $1 and version >= $2 order by version limit $3`,
              values: [stream, from, pageSize]
            })
            read += rows.reduce((total, { message }) => total + (message.quantity > 0 ? 1 : 0), 0)
            if (rows.length < pageSize) return read
            from = 1 + (rows.at(-1)?.version ?? 0)
          }
        }),
      ...stored(database)
    } satisfies Subject
  })
