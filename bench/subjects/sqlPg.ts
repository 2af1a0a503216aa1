/**
 * The floor: the same SQL through bare `@effect/sql-pg`. Writes make JSON of plain objects and call the append function, each in
 * a statement of its own, or, as `unnest`, insert versions that are known beforehand; reads return rows as the driver has them.
 */
import { Array as Arr, DateTime, Effect } from "effect"
import { SqlClient } from "effect/sql"
import { append } from "../../src/postgres/append.ts"
import { lean } from "../../src/postgres/lean.ts"
import * as Objects from "../../src/postgres/objects.ts"
import type { AppendItem } from "../../src/Storage.ts"
import { metadata, storeName } from "../message.ts"
import { migrate, sequenceName, stored, tableName } from "./depecheTable.ts"
import { intoEmptyTable, makeBatches, makeRow } from "./imports.ts"
import { makeLink } from "./sqlPgLink.ts"
import { type Database, pageSize, rangeOf, type Subject } from "./Subject.ts"

interface Row {
  readonly version: number
  readonly global_position: bigint
  readonly message: { readonly quantity: number }
}

export const make = (database: Database) =>
  Effect.gen(function*() {
    yield* migrate(database)
    const { sql } = database
    const table = sql(tableName)
    const columns = sql.literal("message_id, stream, version, global_position, added_at, message, metadata")

    const objects = yield* Effect.fromResult(Objects.forStore(storeName))
    const [single, any] = [lean(sql, objects), append(sql, objects)]
    const call = (item: AppendItem) =>
      Effect.map(
        single([item], true, () => any([item], { atomic: true, wait: true })),
        ([outcome]) => outcome
      )

    const write = Effect.fnUntraced(function*(stream: string, orders: Orders) {
      const outcome = yield* call(toItem(stream, orders))
      if (outcome?._tag !== "Written") return yield* Effect.die(outcome)
    })

    const writeExpecting = Effect.fnUntraced(function*(stream: string, orders: Orders) {
      const item = toItem(stream, orders)
      while (true) {
        const [head] = yield* sql<{ readonly version: number }>`
          select version, global_position from ${table} where stream = ${stream} order by version desc limit 1`
        const expectedVersion = head?.version ?? 0
        const outcome = yield* call({ ...item, expectedVersion })
        if (outcome?._tag === "Written") return
      }
    })

    return {
      write: (stream, size) => {
        const orders = makeOrders(size)
        return Effect.suspend(() => write(stream, orders))
      },
      writeExpecting: (stream) => {
        const orders = makeOrders(1)
        return Effect.suspend(() => writeExpecting(stream, orders))
      },
      read: Effect.fnUntraced(function*(stream) {
        let read = 0
        for (let from = 1;;) {
          const rows = yield* sql<Row>`select ${columns} from ${table}
            where stream = ${stream} and version >= ${from} and version <= ${2 ** 31 - 1}
            order by version limit ${pageSize}`
          read += count(rows)
          if (rows.length < pageSize) return read
          from = 1 + (rows.at(-1)?.version ?? 0)
        }
      }),
      readAll: Effect.fnUntraced(function*(prefix) {
        let read = 0
        for (let from = 0n;;) {
          const rows = yield* sql<Row>`select ${columns} from ${table}
            where stream like ${`${prefix}%`} and global_position >= ${from} and global_position <= ${2n ** 53n}
            order by global_position limit ${pageSize}`
          read += count(rows)
          if (rows.length < pageSize) return read
          from = 1n + (rows.at(-1)?.global_position ?? 0n)
        }
      }),
      stream: (work) =>
        work.kind === "import"
          ? importing(database, write)
          : Effect.provideService(makeLink(sql)(work), SqlClient.SqlClient, sql),
      ...stored(database)
    } satisfies Subject
  })

/** The least that a batch can cost: no lock, no look at the stream's head. */
export const makeUnnest = (database: Database) =>
  Effect.gen(function*() {
    yield* migrate(database)
    const { sql } = database
    const store = stored(database)
    const heads = new Map<string, number>()
    const makeInsert = (stream: string, orders: Orders) => {
      const size = orders.length
      const head = heads.get(stream) ?? 0
      const versions = rangeOf(size, (i) => head + i + 1)
      heads.set(stream, head + size)
      return Effect.suspend(() => {
        const ids = orders.map(({ messageId }) => messageId)
        const texts = orders.map(({ order }) => JSON.stringify(order))
        const times = orders.map(({ occurredAt }) => DateTime.toDateUtc(occurredAt))
        return Effect.asVoid(sql`
            insert into ${
          sql(tableName)
        } (message_id, global_position, stream, version, message, metadata, occurred_at, tx)
            select m.id, nextval(${sequenceName}), ${stream}, m.version, m.data::json, ${metadata}::text::jsonb, m.occurred,
              pg_current_xact_id()
            from unnest(${ids}::uuid[], ${versions}::int[], ${times}::timestamptz[], ${texts}::text[])
              m(id, version, occurred, data)`)
      })
    }
    return {
      write: (stream, size) => makeInsert(stream, makeOrders(size)),
      stream: () => {
        heads.clear()
        return importing(database, makeInsert)
      },
      ...store,
      clear: Effect.andThen(store.clear, Effect.sync(() => heads.clear()))
    } satisfies Subject
  })

/** Batches into the empty table. */
const importing = (
  database: Database,
  write: (stream: string, orders: Orders) => Effect.Effect<void, unknown>
) => {
  const writes = makeBatches(makeRow).map(([stream, orders]) => write(stream, orders))
  return intoEmptyTable(database.sql, Effect.all(writes, { discard: true }))
}

type Orders = Arr.NonEmptyReadonlyArray<ReturnType<typeof makeRow>>

const makeOrders = (size: number): Orders => Arr.makeBy(size, makeRow)

/** With its JSON, which is made on the clock. */
const toItem = (stream: string, orders: Orders): AppendItem => ({
  stream,
  expectedVersion: undefined,
  metadata,
  messages: Arr.map(orders, ({ messageId, occurredAt, order }) => ({
    messageId,
    occurredAt,
    data: JSON.stringify(order)
  }))
})

const count = (rows: ReadonlyArray<Row>): number =>
  rows.reduce((total, { message }) => total + (message.quantity > 0 ? 1 : 0), 0)
