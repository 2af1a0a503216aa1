/**
 * Appends on a condition that is known beforehand. The public API reads what it decides on; this calls the port below it, as
 * `decide` does: validating, encoding, and what gathers into one statement are the same.
 */
import { Array as Arr, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as PostgresStorage from "../../src/postgres/storage.ts"
import { fromSchema, makeCodec } from "../../src/Serializer.ts"
import { Storage, type TagCondition } from "../../src/Storage.ts"
import { declare } from "../../src/store/declarations.ts"
import { makeItems } from "../../src/store/encode.ts"
import { storeName } from "../message.ts"
import { makeOrder, schema } from "../tagged.ts"
import type { Database, Question } from "./Subject.ts"

const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

/** Of a store whose objects exist. */
export const makeAppendIf = Effect.fnUntraced(function*({ sql }: Database, tagsTable: string) {
  const codec = makeCodec(fromSchema(schema))
  const storage = yield* Effect.provide(
    Storage,
    yield* Layer.build(Layer.provide(
      PostgresStorage.layer(storeName, { migrate: false }),
      Layer.succeed(SqlClient.SqlClient, sql)
    ))
  )
  const { knownTags } = yield* declare(storage, storeName, codec.tags, true)
  const toItems = makeItems<typeof schema.Type>(codec, {
    id: ({ messageId }) => messageId,
    time: ({ occurredAt }) => occurredAt
  }, knownTags)
  const ends = new Map<string, number>()
  return {
    /** Notes the last position of each customer's tag. */
    readEnds: Effect.map(
      sql<{ readonly tag: string; readonly end: number }>`select tag, max(global_position)::float8 as "end"
        from ${sql(tagsTable)} where tag like 'customer:%' group by tag`,
      (rows) => {
        for (const { end, tag } of rows) ends.set(tag, end)
      }
    ),
    appendIf: ({ asked, own, stream, types }: Question): Effect.Effect<void, unknown> => {
      const messages = makeOrder(own)
      const conditions = asked.flatMap(Object.entries).map(([name, value]): TagCondition => {
        const tag = `${name}:${value}`
        return { tags: [tag], types, after: ends.get(tag) ?? 0 }
      })
      return Effect.suspend(() =>
        Effect.fromResult(toItems([{ stream, messages }], traceparent)).pipe(
          Effect.flatMap((items) =>
            storage.append(Arr.map(items, (item) => ({ ...item, conditions })), { atomic: true })
          ),
          Effect.flatMap(([outcome]) => outcome?._tag === "Written" ? Effect.void : Effect.die(outcome))
        )
      )
    }
  }
})
