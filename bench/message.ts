/** What is written and read: orders, whose stored JSON has about 300 bytes. */
import { DateTime, Result, Schema } from "effect"
import { Fold, Message, MessageStore, type Serializer } from "effect-message-store"
import { randomBytes } from "node:crypto"

export class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  orderId: Schema.String,
  customer: Schema.String,
  quantity: Schema.Int,
  price: Schema.Finite,
  address: Schema.Struct({ street: Schema.String, city: Schema.String, country: Schema.String })
}) {}

export class OrderShipped extends Schema.TaggedClass<OrderShipped>()("OrderShipped", {
  ...Message.fields,
  orderId: Schema.String,
  carrier: Schema.String
}) {}

export type Order = OrderPlaced | OrderShipped

/** A union, as in any real store. */
const schema = Schema.Union([OrderPlaced, OrderShipped])

export const storeName = "bench"

export class Orders extends MessageStore.Service<Orders>()("bench/Orders", { name: storeName, schema }) {}

export class OrdersJsonb
  extends MessageStore.Service<OrdersJsonb>()("bench/OrdersJsonb", { name: storeName, schema, payload: "jsonb" })
{}

export class OrdersForgetful
  extends MessageStore.Service<OrdersForgetful>()("bench/OrdersForgetful", { name: storeName, schema, cachedStates: 0 })
{}

export class OrdersInterpreted extends MessageStore.Service<OrdersInterpreted>()("bench/OrdersInterpreted", {
  name: storeName,
  schema,
  compile: false
}) {}

/** How many messages there are. */
export const counted: Fold.Fold<number, OrderPlaced | OrderShipped> = { initial: 0, evolve: (sofar) => sofar + 1 }

export const countedWithSnapshot = Fold.withSnapshot(counted, { name: "counted", schema: Schema.Int })

let made = 0
const processId = randomBytes(6).toString("hex")

/** A UUIDv7, as the constructor would fill it in, but at no cost worth counting: making messages is not measured. */
export const makeId = (): string => {
  const time = Date.now().toString(16).padStart(12, "0")
  const count = (made++ % 0x1000000).toString(16).padStart(6, "0")
  return `${time.slice(0, 8)}-${time.slice(8)}-7${count.slice(0, 3)}-8${count.slice(3)}-${processId}`
}

/** Every message is another, and all are of one size. */
export const makeMessage = (): OrderPlaced =>
  new OrderPlaced({
    messageId: makeId(),
    occurredAt: DateTime.makeUnsafe(Date.now()),
    orderId: `order-${String(made).padStart(9, "0")}`,
    customer: "Augusta Ada King, Countess of Lovelace",
    quantity: 1 + made % 9,
    price: 49.95,
    address: { street: "12 St James's Square", city: "London SW1Y 4JH", country: "GB" }
  })

/** As it is stored. */
export interface EncodedOrder {
  readonly _tag: string
  readonly messageId: string
  readonly occurredAt: string
  readonly quantity: number
}

const toJson = Schema.encodeSync(Schema.toCodecJson(OrderPlaced))

export const encode = (message: OrderPlaced): EncodedOrder => toJson(message) as unknown as EncodedOrder

/** Of messages that are JSON, and stay it: what is left is the store's own part. */
const asTheyAre: Serializer.MessageSerializer<EncodedOrder> = {
  serialize: (order) => Result.succeed(order as unknown as Schema.Json),
  deserialize: (data) => Result.succeed(data as unknown as EncodedOrder)
}

export class OrdersAsTheyAre extends MessageStore.Service<OrdersAsTheyAre>()("bench/OrdersAsTheyAre", {
  name: storeName,
  serializer: asTheyAre,
  id: ({ messageId }) => messageId,
  time: ({ occurredAt }) => DateTime.makeUnsafe(occurredAt)
}) {}

/** What the library itself stores beside a message: the trace context of the writing span. */
export const metadata = JSON.stringify({ traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" })

/** The same in SQL, of messages that are loaded: each has one of its own, as messages have that were written one by one. */
export const loadedMetadata = (id: string): string =>
  `format('{"traceparent":"00-%s-%s-01"}', md5(${id}::text), left(md5(${id}::text), 16))`
