/** This library through its public API, with messages that have two tags. */
import { Effect, Layer, Stream } from "effect"
import { Decision } from "effect-message-store"
import { SqlClient } from "effect/sql"
import * as Objects from "../../src/postgres/objects.ts"
import { storedCustomer } from "../matches.ts"
import { loadedMetadata, storeName } from "../message.ts"
import { makeFields, makeOrder, makeOwn, ordersAndShipments, ordersPlaced, TaggedOrders } from "../tagged.ts"
import { makeAppendIf } from "./appendIf.ts"
import { sequenceName, stored, tableName } from "./depecheTable.ts"
import { makeRetag } from "./retag.ts"
import { type Database, rangeOf, type Subject } from "./Subject.ts"

export const make = (database: Database) =>
  Effect.gen(function*() {
    const { sql } = database
    const client = Layer.succeed(SqlClient.SqlClient, sql)
    const store = yield* Effect.provide(TaggedOrders, yield* Layer.build(Layer.provide(TaggedOrders.layer, client)))
    const objects = yield* Effect.fromResult(Objects.forStore(storeName))
    const { tagsTable } = objects
    const plain = stored(database)
    const { appendIf, readEnds } = yield* makeAppendIf(database, tagsTable)

    return {
      write: (stream, size) => {
        const makeAny = () => makeOrder(makeOwn())
        const messages = size === 1 ? makeAny() : [makeAny(), ...rangeOf(size - 1, makeAny)] as const
        return Effect.suspend(() => Effect.asVoid(store.write(stream, messages)))
      },
      decide: ({ asked, own, stream, types }) => {
        const fold = types.length === 1 ? ordersPlaced : ordersAndShipments
        let decidedOn = 0
        const sources = Object.fromEntries(asked.map((tags, i) => [String(i), Decision.tagged(tags, fold)]))
        const decide = (states: { readonly [name: string]: number }) => {
          decidedOn = Object.values(states).reduce((sum, state) => sum + state, 0)
          return { stream, messages: makeOrder(own, decidedOn + 1) }
        }
        return Effect.suspend(() => Effect.map(store.decide(sources, decide), () => decidedOn))
      },
      appendIf,
      readTagged: (customer) =>
        Stream.runFold(
          store.readTagged({ customer }, { types: ["OrderPlaced", "OrderShipped"] }),
          () => 0,
          (total, { message }) => total + (message._tag === "OrderPlaced" && message.quantity > 0 ? 1 : 0)
        ),
      retag: makeRetag(store, sql, objects),
      ...plain,
      load: Effect.fnUntraced(function*(streams, length) {
        const { address, price, quantity } = makeFields(makeOwn(), 1)
        const rest = JSON.stringify({ quantity, price, address }).slice(1)
        yield* sql`
          insert into ${
          sql(tableName)
        } (message_id, global_position, stream, version, message, metadata, occurred_at, tx)
          select id, nextval(${sequenceName}), 'stored' || s || '-1', v,
            (format('{"_tag":"OrderPlaced","messageId":"%s","occurredAt":"2026-01-01T00:00:00.000Z",', id) ||
              format('"orderId":"stored-%s","customer":"%s",', i, customer) || ${rest}::text)::json,
            ${sql.literal(loadedMetadata("id"))}::jsonb, now(), pg_current_xact_id()
          from (
            select s, v, i, ${sql.literal(storedCustomer("i", streams * length))} as customer,
              ('01900000-0000-7000-8000-' || lpad(to_hex(i + 1), 12, '0'))::uuid as id
            from generate_series(1, ${length}::int) v, generate_series(1, ${streams}::int) s,
              lateral (select (v - 1) * ${streams}::int + s - 1) numbered(i)
          ) rows`
        // In the order in which messages come, as they do in life: rows of one tag are not side by side.
        yield* sql`
          insert into ${sql(tagsTable)} (tag, global_position, type)
          select tag, global_position, 'OrderPlaced'
          from ${sql(tableName)},
            lateral (values ('order:' || (message ->> 'orderId')), ('customer:' || (message ->> 'customer'))) tags(tag)
          order by global_position`
        yield* readEnds
      }),
      clear: sql`truncate ${sql(tableName)}, ${sql(tagsTable)}`,
      table: {
        ...plain.table,
        decided: { customer: "message ->> 'customer'", number: "(message ->> 'quantity')::int" }
      }
    } satisfies Subject
  })
