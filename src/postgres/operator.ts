/** What operators ask about a store on PostgreSQL. */
import { Effect, Option } from "effect"
import * as SqlClient from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { LinkedPlace, OperatorStorage } from "../Storage.ts"
import { withTransaction } from "./client/transaction.ts"
import * as Objects from "./objects.ts"
import * as Catalogue from "./operator/catalogue.ts"
import * as Search from "./operator/search.ts"
import * as Streams from "./operator/streams.ts"
import * as Subscriptions from "./operator/subscriptions.ts"
import * as Vitals from "./operator/vitals.ts"

/** The names of stores that this role sees. */
export const stores: Effect.Effect<ReadonlyArray<string>, SqlError, SqlClient.SqlClient> = Effect.gen(function*() {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const rows = yield* sql<{ readonly name: string }>`
    select pg_catalog.substr(c.relname::text, pg_catalog.length('depeche_msgs_') + 1) as name from pg_catalog.pg_class c
    where pg_catalog.starts_with(c.relname::text, 'depeche_msgs_'::text) and c.relkind::text in ('r', 'p')
      and pg_catalog.pg_table_is_visible(c.oid) and exists (
        select from pg_catalog.pg_attribute a where a.attrelid operator(pg_catalog.=) c.oid
          and a.attname::text operator(pg_catalog.=) 'message'::text and not a.attisdropped
      )
    order by c.relname limit 1000`
  return rows.map(({ name }) => name)
})

export const make = (
  sql: SqlClient.SqlClient,
  store: Objects.Store,
  open: OperatorStorage["open"]
): OperatorStorage => {
  /** While a table has no statistics, a plan would rather read and sort all of it than thousands of rows by their index. */
  const byIndex = sql`, pg_catalog.set_config('enable_seqscan', 'off', true),
    pg_catalog.set_config('enable_bitmapscan', 'off', true), pg_catalog.set_config('enable_sort', 'off', true),
    pg_catalog.set_config('jit', 'off', true)`

  return {
    bounded: ({ milliseconds, readOnly, stepwise = false }) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.flatMap(
        Effect.serviceOption(sql.transactionService),
        (transaction): Effect.Effect<A, E | SqlError, R> =>
          Option.isSome(transaction) ? effect : withTransaction(sql)(Effect.andThen(
            sql`select pg_catalog.set_config('statement_timeout', ${String(milliseconds)}::text, true),
            pg_catalog.set_config('transaction_read_only', ${readOnly ? "on" : "off"}::text, true)${
              stepwise ? byIndex : sql``
            }`,
            effect
          ))
      ),

    catalogue: Catalogue.make(sql, store),
    open,
    streams: Streams.make(sql, store),
    ...Search.make(sql, store),
    ...Subscriptions.make(sql, store),
    ...Vitals.make(sql, store),

    places: (messageId, aggregatedStreams) =>
      Effect.map(
        Effect.forEach(aggregatedStreams, (aggregatedStream) =>
          Effect.gen(function*() {
            const { table } = yield* Effect.orDie(Effect.fromResult(Objects.forStream(aggregatedStream)))
            return yield* sql<LinkedPlace>`
            select ${aggregatedStream}::text as "aggregatedStream", l.partition, l.position
            from ${sql(table)} l where l.message_id = ${messageId}::uuid`
          })),
        (places) => places.flat()
      )
  }
}
