/** This library through its public API: messages validated, encoded, decoded. */
import { Effect, Layer, Stream } from "effect"
import { Decision, type MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import {
  counted,
  countedWithSnapshot,
  makeMessage,
  type OrderPlaced,
  Orders,
  OrdersForgetful,
  type OrderShipped,
  OrdersInterpreted,
  OrdersJsonb
} from "../message.ts"
import { stored } from "./depecheTable.ts"
import { makeStreams } from "./streams.ts"
import { type Database, rangeOf, type Subject } from "./Subject.ts"
import { makeUpdate } from "./update.ts"

export interface Options {
  /** Whether the schema is compiled. */
  readonly compile: boolean
  readonly payload: "json" | "jsonb"
  /** What reads, writes, and tries again when another write got in between; by hand, it is a loop of the bench's own. */
  readonly retries: "update" | "decide" | "byHand"
  /** What is kept of the states that messages come to: snapshots in the store, and the last ones in the process. */
  readonly keeps: "nothing" | "snapshots" | "snapshots and states"
  /** What brings a table up to date: a subscription, or the version of a projection whose table it is. */
  readonly upserts: "subscription" | "projection"
  /** What takes many messages in and out: writes and reads, or archives. */
  readonly copies: "messages" | "archives"
}

export const make = (database: Database, options: Options) =>
  Effect.gen(function*() {
    const sql = Layer.succeed(SqlClient.SqlClient, database.sql)
    const store: MessageStore.MessageStore<OrderPlaced | OrderShipped> = options.payload === "jsonb"
      ? yield* Effect.provide(OrdersJsonb, yield* Layer.build(Layer.provide(OrdersJsonb.layer, sql)))
      : !options.compile
      ? yield* Effect.provide(OrdersInterpreted, yield* Layer.build(Layer.provide(OrdersInterpreted.layer, sql)))
      : options.keeps === "snapshots"
      ? yield* Effect.provide(OrdersForgetful, yield* Layer.build(Layer.provide(OrdersForgetful.layer, sql)))
      : yield* Effect.provide(Orders, yield* Layer.build(Layer.provide(Orders.layer, sql)))

    const orders = options.keeps === "nothing" ? counted : countedWithSnapshot
    const update = (stream: string, message: OrderPlaced) =>
      Effect.asVoid(store.update(stream, orders, () => Effect.succeed(message)))

    const decide = (stream: string, message: OrderPlaced) =>
      Effect.asVoid(store.decide({ orders: Decision.stream(stream, orders) }, () => ({ stream, messages: message })))

    const byHand = (stream: string, message: OrderPlaced): Effect.Effect<void, unknown> =>
      store.head(stream).pipe(
        Effect.flatMap(({ version }) => store.write(stream, message, { expectedVersion: version })),
        Effect.asVoid,
        Effect.catchTag("OptimisticConcurrencyError", () => byHand(stream, message))
      )

    const count = (messages: ReturnType<typeof store.read>) =>
      Stream.runFold(messages, () => 0, (total, { message }) => total + (message._tag === "OrderPlaced" ? 1 : 0))

    return {
      write: (stream, size) => {
        const messages = size === 1 ? makeMessage() : [makeMessage(), ...rangeOf(size - 1, makeMessage)] as const
        return Effect.suspend(() => Effect.asVoid(store.write(stream, messages)))
      },
      writeExpecting: (stream) => {
        const message = makeMessage()
        return Effect.suspend((): Effect.Effect<void, unknown> =>
          ({ update, decide, byHand })[options.retries](stream, message)
        )
      },
      read: (stream) => count(store.read(stream)),
      readTail: (stream, size) => count(store.read(stream, { direction: "backward", limit: size })),
      readAll: (prefix) =>
        Effect.scoped(Effect.flatMap(store.reader, (reader) => count(reader.readWildcard(`${prefix}%`)))),
      stream: makeStreams(store, database.sql, options.upserts, options.copies),
      update: makeUpdate((stream) => update(stream, makeMessage())),
      ...stored(database, options.payload)
    } satisfies Subject
  })
