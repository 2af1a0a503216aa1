/** Stored messages are given tags, while others write. */
import { Effect, Stream } from "effect"
import type { MessageStore } from "effect-message-store"
import type { SqlClient } from "effect/sql"
import type { Measurement } from "../measure.ts"
import { makeFields, makeOrder, makeOwn, type TaggedOrder, type TaggedShipment } from "../tagged.ts"
import { tableName } from "./depecheTable.ts"

/** How long a writer waits before its next write: the two together write 200 messages in a second, at most. */
const pause = "10 millis"

export const makeRetag = (
  store: MessageStore.MessageStore<TaggedOrder | TaggedShipment>,
  sql: SqlClient.SqlClient,
  objects: { readonly tagsTable: string; readonly taggedTypesTable: string; readonly writeFunction: string }
) => {
  const messages = sql(tableName)
  const tags = sql(objects.tagsTable)
  let writers = 0

  /** All tags are taken away, as if they were declared only now; and are again to be given to what is stored. */
  const forget = Effect.andThen(
    sql`truncate ${tags}`,
    sql`update ${sql(objects.taggedTypesTable)} set is_complete = false, position = 0,
      up_to = (select max(global_position) from ${messages})`
  )

  /** As Python writes, who knows of no tags. */
  const writeByFunction = (stream: string) =>
    Effect.suspend(() => {
      const { messageId, ...fields } = makeFields(makeOwn(), 1)
      const message = { _tag: "OrderPlaced", messageId, occurredAt: new Date(), ...fields }
      return sql`select version from ${sql(objects.writeFunction)}(${messageId}::uuid, ${stream}, ${
        JSON.stringify(message)
      }::text::json)`
    })

  return Effect.gen(function*(): Effect.fn.Return<Measurement, unknown> {
    yield* forget
    const n = ++writers
    const done = { tagging: false }
    const writing = (write: Effect.Effect<unknown, unknown>) =>
      Effect.repeat(Effect.andThen(write, Effect.sleep(pause)), { until: () => done.tagging })
    const start = performance.now()
    const tagging = Effect.tap(
      Stream.runFold(store.tagging(), () => 0, (_, { scanned }) => scanned),
      () =>
        Effect.sync(() => {
          done.tagging = true
        })
    )
    const timed = Effect.map(tagging, (units) => ({ units, seconds: (performance.now() - start) / 1000 }))
    const [measurement] = yield* Effect.all([
      timed,
      writing(Effect.suspend(() => store.write(`retag${n}-1`, makeOrder(makeOwn())))),
      writing(writeByFunction(`retag${n}-2`))
    ], { concurrency: "unbounded" })
    const [row] = yield* sql<{ readonly missing: number }>`
      select (select count(*) from ${messages})::int * 2 - (select count(*) from ${tags})::int as missing`
    if (row?.missing !== 0) return yield* Effect.die(new Error(`${row?.missing} tags are missing`))
    return measurement
  })
}
