/** Messages that are due at once: how long a scheduler takes to write them. */
import { DateTime, Effect } from "effect"
import type { MessageStore } from "effect-message-store"
import type { SqlClient } from "effect/sql"
import { timed } from "../measure.ts"
import { makeMessage, type Order } from "../message.ts"
import type { ScheduledWork } from "../work.ts"
import { tableName } from "./depecheTable.ts"
import { rangeOf } from "./Subject.ts"

export const makeScheduled = (store: MessageStore.MessageStore<Order>, sql: SqlClient.SqlClient) => {
  let times = 0

  return Effect.fnUntraced(function*({ messages }: ScheduledWork) {
    const prefix = `scheduled${++times}x`
    const at = yield* DateTime.now
    const schedule = (stream: string) => Effect.suspend(() => store.schedule(stream, makeMessage(), { at }))
    const streams = rangeOf(messages, (i) => `${prefix}${i}-1`)
    yield* sql.withTransaction(Effect.forEach(streams, schedule, { discard: true }))
    const measurement = yield* timed(store.scheduler.runOnce)
    const [row] = yield* sql<{ readonly written: number; readonly all: number }>`
      select count(distinct stream)::int as written, count(*)::int as "all"
      from ${sql(tableName)} where stream like ${`${prefix}%`}`
    if (row?.written !== messages || row.all !== messages || measurement.units !== messages) {
      return yield* Effect.die(new Error(`not each of ${messages} scheduled messages was written once`))
    }
    return measurement
  })
}
