/** What decisions are made on: orders with two tags. Their stored JSON has as many bytes as that of orders without. */
import { DateTime, Schema } from "effect"
import { Fold, Message, MessageStore } from "effect-message-store"
import { makeId, storeName } from "./message.ts"

export class TaggedOrder extends Schema.TaggedClass<TaggedOrder>()("OrderPlaced", {
  ...Message.fields,
  orderId: Message.tag("order", Schema.String),
  customer: Message.tag("customer", Schema.String),
  quantity: Schema.Int,
  price: Schema.Finite,
  address: Schema.Struct({ street: Schema.String, city: Schema.String, country: Schema.String })
}) {}

export class TaggedShipment extends Schema.TaggedClass<TaggedShipment>()("OrderShipped", {
  ...Message.fields,
  orderId: Message.tag("order", Schema.String),
  customer: Message.tag("customer", Schema.String),
  carrier: Schema.String
}) {}

export const schema = Schema.Union([TaggedOrder, TaggedShipment])

export type Type = "OrderPlaced" | "OrderShipped"

export class TaggedOrders
  extends MessageStore.Service<TaggedOrders>()("bench/TaggedOrders", { name: storeName, schema })
{}

const one = (sofar: number) => sofar + 1

/** How many orders there are. */
export const ordersPlaced = Fold.make<TaggedOrder>()({ initial: 0, OrderPlaced: one })

/** How many orders and shipments there are. */
export const ordersAndShipments = Fold.make<TaggedOrder | TaggedShipment>()({
  initial: 0,
  OrderPlaced: one,
  OrderShipped: one
})

/** The values of a message's tags. */
export interface Own {
  readonly order: string
  readonly customer: string
}

/** What is asked for: one of them. */
export type Tag = { readonly order: string } | { readonly customer: string }

let given = 0

/** Values that no other message has; or of the customer's tag the given one. */
export const makeOwn = (customer?: string): Own => {
  const number = String(++given).padStart(9, "0")
  return { order: `order-${number}`, customer: customer ?? `customer-${number}` }
}

/** What a message holds beside its time. */
export const makeFields = ({ customer, order }: Own, quantity: number) => ({
  messageId: makeId(),
  orderId: order,
  customer,
  quantity,
  price: 49.95,
  address: { street: "12 St James's Square, behind the library", city: "London SW1Y 4JH", country: "GB" }
})

export const makeOrder = (own: Own, quantity = 1): TaggedOrder =>
  new TaggedOrder({ ...makeFields(own, quantity), occurredAt: DateTime.makeUnsafe(Date.now()) })

/** A customer on whose tag all fibers decide: the name begins so. */
export const hot = "hot-"
