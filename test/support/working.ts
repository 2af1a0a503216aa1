/** What tests of subscriptions on PostgreSQL share. */
import type { PgClient } from "@effect/sql-pg"
import { it } from "@effect/vitest"
import { Array as Arr, Effect, Layer, type Scope } from "effect"
import type { Subscription } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./database.ts"
import { clientNamed } from "./processes.ts"
import { createEffects, Done, record, stream, Work } from "./work.ts"

type Given = PgClient.PgClient | SqlClient.SqlClient | Work | Scope.Scope

/** A test on a store in a new database. */
export const test = <E>(name: string, body: () => Effect.Effect<void, E, Given>, timeout?: number) =>
  it.live(
    name,
    () =>
      Effect.andThen(createEffects, body()).pipe(
        Effect.scoped,
        Effect.provide(Layer.fresh(Layer.provideMerge(Work.layer, databaseLayer())))
      ),
    timeout
  )

export const write = Effect.fnUntraced(function*(count: number, name = "work", partitions = 1) {
  const work = yield* Work
  yield* work.write(name, Arr.makeBy(count, (number) => new Done({ number })))
  yield* (yield* stream(partitions)).projector.runOnce
})

/** A consumer with connections of its own, in this process. It records what it handles, under its name. */
export const consumer = (name: string, partitions: number, options: Subscription.Options) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const subscription = yield* (yield* stream(partitions)).subscription(options)
    return yield* subscription.run(record(sql, options.name, name))
  }).pipe(Effect.provide(Layer.fresh(Layer.provideMerge(Work.layer, clientNamed(name)))))

export const checkpoint = Effect.fnUntraced(function*(name: string, partition = 0) {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly position: number }>`select position from ${sql(`depeche_subscriptions_${name}`)}
    where partition = ${partition}`
  return row?.position ?? -1
})

/** The positions that were handled, in the order of handling, of a worker or of all. */
export const handled = Effect.fnUntraced(function*(worker = "%") {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly position: number }>`
    select position from effects where worker like ${worker} order by seq`
  return rows.map(({ position }) => position)
})
