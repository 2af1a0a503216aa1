/** Emmett (https://github.com/event-driven-io/emmett) on PostgreSQL, by its event store's API. */
import { isExpectedVersionConflictError } from "@event-driven-io/emmett"
import { getPostgreSQLEventStore } from "@event-driven-io/emmett-postgresql"
import { Effect } from "effect"
import { encode, loadedMetadata, makeMessage, metadata } from "../message.ts"
import { type Database, pageSize, rangeOf, type Subject } from "../subjects/Subject.ts"
import { makePool } from "./pg.ts"

const storedMetadata: { readonly traceparent: string } = JSON.parse(metadata)

const makeEvent = () => {
  const { _tag, messageId: _, ...data } = encode(makeMessage()) // Emmett gives ids of its own
  return { type: _tag, data, metadata: storedMetadata }
}

type OrderEvent = ReturnType<typeof makeEvent>

/** Where it puts everything by default. */
const partition = "emt:default"

export const make = (database: Database) =>
  Effect.gen(function*() {
    const pool = yield* makePool(database)
    const store = yield* Effect.acquireRelease(
      Effect.sync(() => getPostgreSQLEventStore(database.url, { connectionOptions: { pool } })),
      (opened) => Effect.promise(() => opened.close())
    )
    yield* Effect.tryPromise(() => store.schema.migrate())

    const { sql } = database

    const append = (stream: string, events: Array<OrderEvent>, expectedStreamVersion?: bigint) =>
      store.appendToStream(
        stream,
        events,
        expectedStreamVersion === undefined ? {} : { expectedStreamVersion }
      )

    /** Even a write that expects no version fails when another one gets in between. */
    const write = async (stream: string, events: Array<OrderEvent>) => {
      while (true) {
        try {
          await append(stream, events)
          return
        } catch (error) {
          if (!isExpectedVersionConflictError(error)) throw error
        }
      }
    }

    /** There is no other way to a version than reading events; those known before need not be read again. */
    const known = new Map<string, bigint>()
    const writeExpecting = async (stream: string, events: Array<OrderEvent>) => {
      while (true) {
        const from = known.get(stream)
        const { currentStreamVersion } = await store.readStream(stream, from === undefined ? {} : { from })
        known.set(stream, currentStreamVersion)
        try {
          await append(stream, events, currentStreamVersion)
          return
        } catch (error) {
          if (!isExpectedVersionConflictError(error)) throw error
        }
      }
    }

    return {
      write: (stream, size) => {
        const events = rangeOf(size, makeEvent)
        return Effect.tryPromise(() => write(stream, events))
      },
      writeExpecting: (stream) => {
        const events = [makeEvent()]
        return Effect.tryPromise(() => writeExpecting(stream, events))
      },
      read: (stream) =>
        Effect.tryPromise(async () => {
          let read = 0
          for (let from = 1n;; from += BigInt(pageSize)) {
            const to = from + BigInt(pageSize) - 1n
            const { events } = await store.readStream<OrderEvent>(stream, { from, to })
            read += events.reduce((total, { data }) => total + (data.quantity > 0 ? 1 : 0), 0)
            if (events.length < pageSize) return read
          }
        }),
      load: (streams, length) => {
        const { data, type } = makeEvent()
        return Effect.andThen(
          sql`
            insert into emt_streams (stream_id, stream_position, partition, stream_type, stream_metadata, is_archived)
            select 'stored' || s || '-1', ${length}::int, ${partition}, 'stored' || s, '{}', false
            from generate_series(1, ${streams}::int) s`,
          sql`
            insert into emt_messages (stream_id, stream_position, partition, message_data, message_metadata,
              message_schema_version, message_type, message_kind, message_id, transaction_id)
            select 'stored' || s || '-1', v, ${partition}, ${JSON.stringify(data)}::text::jsonb, ${
            sql.literal(loadedMetadata("id"))
          }::jsonb, '1', ${type}, 'E', id, pg_current_xact_id()
            from generate_series(1, ${length}::int) v, generate_series(1, ${streams}::int) s,
              lateral (select gen_random_uuid() as id where s > 0 and v > 0) ids`
        )
      },
      clear: Effect.tryPromise(() => store.schema.dangerous.truncate()),
      table: { name: "emt_messages", streams: { name: "stream_id", version: "stream_position", first: 1 } }
    } satisfies Subject
  })
