/** A process that starts where everything is there already. */
import { Effect, Layer } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { type Measurement, timed } from "../measure.ts"
import { Orders } from "../message.ts"
import type { StartWork } from "../work.ts"
import { countStatements } from "./statements.ts"

const opened = (streams: number) =>
  Effect.flatMap(Orders, (orders) =>
    Effect.forEach(
      Array.from({ length: streams }, (_, i) => `start_${i}`),
      (name) =>
        Effect.flatMap(
          orders.aggregatedStream({ name, patterns: "start%", partitioner: Partitioner.streamName(16) }),
          (stream) => stream.subscription({ name: `of_${name}` })
        ),
      { concurrency: "unbounded", discard: true }
    ))

/** A store with all that belongs to it, as layers that are built together open it. */
export const makeStart = (sql: SqlClient.SqlClient) => {
  let isMade = false
  return Effect.fnUntraced(function*({ measures, streams }: StartWork) {
    const start = opened(streams).pipe(
      Effect.provide(Layer.fresh(Orders.layer)),
      Effect.provideService(SqlClient.SqlClient, sql)
    )
    if (!isMade) yield* start
    isMade = true
    if (measures === "statements") {
      return { units: yield* countStatements(sql, start), seconds: 1 } satisfies Measurement as Measurement
    }
    const { seconds } = yield* timed(Effect.as(start, streams))
    return { units: seconds * 1000, seconds: 1 }
  })
}
