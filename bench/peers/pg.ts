/**
 * node-postgres: one transaction per write, by a function that does what depeche_db's own does, and stores metadata and time; the
 * same reads as the floor's.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import { DatabaseError, Pool, type PoolClient } from "pg"
import { encode, type EncodedOrder, makeMessage, metadata, storeName } from "../message.ts"
import { migrate, sequenceName, stored, tableName } from "../subjects/depecheTable.ts"
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

const appendFunction = `create function bench_append(
    _id uuid, _stream text, _message json, _expected bigint, _metadata jsonb, _occurred_at timestamptz,
    out version int, out global_position bigint
  ) language plpgsql set enable_seqscan to off as $function$
  declare
    _head int;
    _tx xid8;
  begin
    perform pg_advisory_xact_lock(left('x' || md5('${tableName}.' || _stream), 17)::bit(64)::bigint);
    select m.version into _head from ${tableName} m where m.stream = _stream order by m.version desc limit 1;
    _head := coalesce(_head, 0);
    if _expected <> _head then
      raise exception 'Wrong expected version: % (Stream: %, Stream Version: %)', _expected, _stream, _head;
    end if;
    version := _head + 1;
    _tx := pg_current_xact_id();
    insert into ${tableName} as m (message_id, global_position, stream, version, message, metadata, occurred_at, tx)
    values (_id, nextval('${sequenceName}'), _stream, version, _message, _metadata, _occurred_at, _tx)
    returning m.global_position into global_position;
    perform pg_notify('depeche_${storeName}_messages', json_build_object('message_id', _id, 'stream', _stream)::text);
  end
  $function$`

export const make = (database: Database) =>
  Effect.gen(function*() {
    yield* migrate(database)
    yield* database.sql.unsafe(appendFunction)
    const pool = yield* makePool(database)

    const append = (stream: string, order: EncodedOrder, expected: number | null) =>
      withClient(pool, (client) =>
        client.query({
          name: "append",
          text: "select version, global_position from bench_append($1, $2, $3, $4, $5, $6)",
          values: [order.messageId, stream, JSON.stringify(order), expected, metadata, order.occurredAt]
        }))

    const writeExpecting = async (stream: string, order: EncodedOrder) => {
      while (true) {
        const head = await pool.query<Row>({
          name: "head",
          text: `select version from ${tableName} where stream = $1 order by version desc limit 1`,
          values: [stream]
        })
        try {
          return await append(stream, order, head.rows[0]?.version ?? 0)
        } catch (error) {
          if (!isWrongVersion(error)) throw error
        }
      }
    }

    return {
      write: (stream) => {
        const order = encode(makeMessage())
        return Effect.asVoid(Effect.tryPromise(() => append(stream, order, null)))
      },
      writeExpecting: (stream) => {
        const order = encode(makeMessage())
        return Effect.asVoid(Effect.tryPromise(() => writeExpecting(stream, order)))
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
