/** This library through its public API, with messages that have two personal fields, of a number of subjects. */
import { Array as Arr, DateTime, Effect, Layer, Schema, Stream } from "effect"
import { KeyEncryption, Message, MessageStore, Personal } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { makeId, OrderShipped, storeName } from "../message.ts"
import { stored } from "./depecheTable.ts"
import { type Database, pageSize, rangeOf, storedStream, type Subject } from "./Subject.ts"

const ofOrder = { subject: "orderId" } as const

/** The same orders, whose customer and street are personal. */
class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  orderId: Schema.String,
  customer: Message.personal(Schema.String, ofOrder),
  quantity: Schema.Int,
  price: Schema.Finite,
  address: Schema.Struct({
    street: Message.personal(Schema.String, ofOrder),
    city: Schema.String,
    country: Schema.String
  })
}) {}

class Orders extends MessageStore.Service<Orders>()("bench/PersonalOrders", {
  name: storeName,
  schema: Schema.Union([OrderPlaced, OrderShipped]),
  personal: { cacheTime: "1 hour", cachedKeys: 200_000 }
}) {}

export const make = (database: Database, subjects: number) =>
  Effect.gen(function*() {
    const sql = Layer.succeed(SqlClient.SqlClient, database.sql)
    const encryption = KeyEncryption.layer(yield* KeyEncryption.generate("bench"))
    const store = yield* Effect.provide(Orders, yield* Layer.build(Layer.provide(Orders.layer, [sql, encryption])))
    let made = 0

    const makeMessage = () =>
      new OrderPlaced({
        messageId: makeId(),
        occurredAt: DateTime.makeUnsafe(Date.now()),
        orderId: `order-${String(made++ % subjects).padStart(9, "0")}`,
        customer: Personal.known("Augusta Ada King, Countess of Lovelace"),
        quantity: 1 + made % 9,
        price: 49.95,
        address: { street: Personal.known("12 St James's Square"), city: "London SW1Y 4JH", country: "GB" }
      })
    const makeMessages = (size: number) => [makeMessage(), ...rangeOf(size - 1, makeMessage)] as const

    return {
      write: (stream, size) => {
        const messages = makeMessages(size)
        return Effect.suspend(() => Effect.asVoid(store.write(stream, messages)))
      },
      read: (stream) =>
        Stream.runFold(
          store.read(stream),
          () => 0,
          (total, { message }) => total + (message._tag === "OrderPlaced" && message.customer._tag === "Known" ? 1 : 0)
        ),
      ...stored(database),
      load: Effect.fnUntraced(function*(streams, length) {
        for (const n of Arr.range(1, streams)) {
          for (let left = length; left > 0; left -= pageSize) {
            yield* store.write(storedStream(n), makeMessages(Math.min(left, pageSize)))
          }
        }
      })
    } satisfies Subject
  })
