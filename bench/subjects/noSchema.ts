/** This library by its public API, with a serializer that does nothing: what is left beside Schema's part is its own. */
import { Effect, Layer, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { encode, makeMessage, OrdersAsTheyAre } from "../message.ts"
import { stored } from "./depecheTable.ts"
import { type Database, rangeOf, type Subject } from "./Subject.ts"

export const make = (database: Database) =>
  Effect.gen(function*() {
    const sql = Layer.succeed(SqlClient.SqlClient, database.sql)
    const store = yield* Effect.provide(
      OrdersAsTheyAre,
      yield* Layer.build(Layer.provide(OrdersAsTheyAre.layer, sql))
    )
    const makeOrder = () => encode(makeMessage())
    const count = (messages: ReturnType<typeof store.read>) =>
      Stream.runFold(messages, () => 0, (total, { message }) => total + (message.quantity > 0 ? 1 : 0))

    return {
      write: (stream, size) => {
        const orders = size === 1 ? makeOrder() : [makeOrder(), ...rangeOf(size - 1, makeOrder)] as const
        return Effect.suspend(() => Effect.asVoid(store.write(stream, orders)))
      },
      read: (stream) => count(store.read(stream)),
      readAll: (prefix) =>
        Effect.scoped(Effect.flatMap(store.reader, (reader) => count(reader.readWildcard(`${prefix}%`)))),
      ...stored(database)
    } satisfies Subject
  })
