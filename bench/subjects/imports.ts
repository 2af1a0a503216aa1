/** Many messages into an empty table, a thousand at a time: by writes, by the archive, and by the floors that there are. */
import { Array as Arr, Effect, Stream } from "effect"
import { Archive, type MessageStore } from "effect-message-store"
import type { SqlClient } from "effect/sql"
import { timed } from "../measure.ts"
import { encode, makeMessage, type Order } from "../message.ts"
import { tableName } from "./depecheTable.ts"

/** As many as the case has loaded. */
export const streams = 100
export const length = 1000

const streamOf = (n: number): string => `imported${n}-1`

/** A batch of messages for each stream. */
export const makeBatches = <A>(
  make: () => A
): ReadonlyArray<readonly [stream: string, messages: Arr.NonEmptyArray<A>]> =>
  Arr.makeBy(streams, (n) => [streamOf(n), Arr.makeBy(length, make)] as const)

/** What goes into a row, before it is JSON. */
export const makeRow = () => {
  const message = makeMessage()
  return { messageId: message.messageId, occurredAt: message.occurredAt, order: encode(message) }
}

/** What does it, timed, on a table that is empty. */
export const intoEmptyTable = <E>(sql: SqlClient.SqlClient, write: Effect.Effect<unknown, E>) =>
  Effect.andThen(
    Effect.andThen(sql`truncate ${sql(tableName)}`, sql`checkpoint`.unprepared),
    timed(Effect.as(write, streams * length))
  )

export const makeArchives = (
  store: MessageStore.MessageStore<Order>,
  sql: SqlClient.SqlClient,
  copies: "messages" | "archives"
) => {
  const archive = Archive.of(store)
  let exported: ReadonlyArray<string> | undefined

  const read = Effect.scoped(Effect.flatMap(store.reader, (reader) => Stream.runCount(reader.readWildcard("%"))))

  return {
    export: timed(
      copies === "messages"
        ? read
        : Effect.as(Stream.runDrain(archive.export()), streams * length)
    ),
    import: Effect.gen(function*() {
      if (copies === "messages") {
        const batches = makeBatches(makeMessage)
        return yield* intoEmptyTable(
          sql,
          Effect.forEach(batches, ([stream, messages]) => store.write(stream, messages), { discard: true })
        )
      }
      exported ??= yield* Stream.runCollect(archive.export())
      return yield* intoEmptyTable(sql, Stream.runDrain(archive.import(Stream.fromIterable(exported))))
    })
  }
}
