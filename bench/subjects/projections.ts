/** Projections of this library: what a subscription does for `upsert`, into a table of a version. */
import { Deferred, Effect, Stream } from "effect"
import { type AggregatedStream, type Handlers, Projection } from "effect-message-store"
import type { SqlClient } from "effect/sql"
import process from "node:process"
import { type Measurement, timed } from "../measure.ts"
import { type Order, OrderPlaced } from "../message.ts"
import type { CatchUpWork } from "../work.ts"
import { tableName } from "./depecheTable.ts"

export const createQuantities = (sql: SqlClient.SqlClient, table: string) =>
  sql`create table if not exists ${sql(table)} (city text primary key, quantity bigint not null)`.unprepared

/** Adds up the quantities of a batch by city. */
export const addQuantities = (
  sql: SqlClient.SqlClient,
  table: string,
  deliveries: ReadonlyArray<Handlers.Delivery<Order>>
) => {
  const quantities = new Map<string, number>()
  for (const { message } of deliveries) {
    if (message instanceof OrderPlaced) {
      quantities.set(message.address.city, (quantities.get(message.address.city) ?? 0) + message.quantity)
    }
  }
  return sql`insert into ${sql(table)} as old select * from unnest(
      ${Array.from(quantities.keys())}::text[], ${Array.from(quantities.values())}::int[]
    ) on conflict (city) do update set quantity = old.quantity + excluded.quantity`
}

type Aggregated = AggregatedStream.AggregatedStream<Order>

export const makeProjections = (sql: SqlClient.SqlClient) => {
  let version = 0 // that caught up last

  const model = Projection.tables(
    ["city_quantities"],
    ({ city_quantities }) => createQuantities(sql, city_quantities)
  )

  const versionOf = (stream: Aggregated, name: string, number: number) =>
    stream.projection({ name, version: number, model, batchSize: 500 })

  /** Handles so many messages, and goes on until `last` has ended. Says how long the messages took. */
  const run = Effect.fnUntraced(function*(
    projection: Effect.Success<ReturnType<typeof versionOf>>,
    messages: number,
    last: Effect.Effect<void, unknown>
  ) {
    const finished = yield* Deferred.make<number>()
    const start = performance.now()
    let handled = 0
    let peak = 0 // bytes
    const running = projection.run((deliveries, { city_quantities }) =>
      Effect.tap(addQuantities(sql, city_quantities, deliveries), () => {
        handled += deliveries.length
        peak = Math.max(peak, process.memoryUsage.rss())
        return handled < messages ? Effect.void : Deferred.succeed(finished, (performance.now() - start) / 1000)
      })
    )
    const seconds = yield* Effect.raceFirst(running, Effect.tap(Deferred.await(finished), last))
    return { handled, peak, seconds }
  })

  /** Each message counts once. */
  const verify = Effect.fnUntraced(function*(table: string) {
    const [row] = yield* sql<{ readonly is_right: boolean | null }>`
      select (select sum(quantity) from ${sql(table)}) = (
        select sum((message ->> 'quantity')::int) from ${sql(tableName)} where stream like 'stored%'
      ) as is_right`
    if (row?.is_right !== true) return yield* Effect.die(new Error(`wrong quantities in ${table}`))
  })

  /** As a subscription does it, whose time includes that it stops. */
  const handle = Effect.fnUntraced(function*(stream: Aggregated, messages: number) {
    const projection = yield* versionOf(stream, "handled", 1)
    const measurement = yield* timed(Effect.map(run(projection, messages, Effect.void), ({ handled }) => handled))
    yield* verify(projection.model.city_quantities)
    yield* projection.dropAll
    return measurement
  })

  const catchUp = Effect.fnUntraced(function*(stream: Aggregated, { measures, messages }: CatchUpWork) {
    const projection = yield* versionOf(stream, "caught_up", ++version)
    const isPromoted = Stream.runDrain(projection.progress)
    const { handled, peak, seconds } = yield* run(projection, messages, isPromoted)
    yield* verify("city_quantities") // what readers see
    if (version > 1) yield* projection.drop(version - 1)
    const measurement: Measurement = measures === "memory"
      ? { units: peak / 2 ** 20, seconds: 1 }
      : { units: handled, seconds }
    return measurement
  })

  return { handle, catchUp }
}
