/** What decisions are made on: orders with two tags. Their stored JSON has as many bytes as that of orders without. */
import { DateTime, Schema } from "effect"
import { Fold, Message, MessageStore } from "effect-message-store"
import { makeId, OrderShipped, storeName } from "./message.ts"
import type { Matches } from "./work.ts"

export class TaggedOrder extends Schema.TaggedClass<TaggedOrder>()("OrderPlaced", {
  ...Message.fields,
  orderId: Message.tag("order", Schema.String),
  customer: Message.tag("customer", Schema.String),
  quantity: Schema.Int,
  price: Schema.Finite,
  address: Schema.Struct({ street: Schema.String, city: Schema.String, country: Schema.String })
}) {}

export const schema = Schema.Union([TaggedOrder, OrderShipped])

export class TaggedOrders
  extends MessageStore.Service<TaggedOrders>()("bench/TaggedOrders", { name: storeName, schema })
{}

/** How many orders there are. */
export const ordersPlaced = Fold.make<TaggedOrder>()({ initial: 0, OrderPlaced: (sofar) => sofar + 1 })

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

/** How many stored messages have such a tag, of so many. */
export const matchesOf = (matches: Matches, stored: number): number =>
  matches === "tenth" ? stored / 10 : Number(matches)

/** The customer of one of the stored tags that so many messages have. */
export const anyCustomer = (matches: Matches, stored: number): string => {
  const any = (count: number) => Math.floor(Math.random() * count)
  switch (matches) {
    case "tenth":
      return `many-${5 * any(2)}`
    case "1000":
      return `some-${1 + any(4)}-${any(stored / 10_000)}`
    case "10":
      return `few-${6 + any(4)}-${any(stored / 100)}`
  }
}

/**
 * In SQL the customer of message number `i`, from 0, of so many, a multiple of 10,000: two tenths of them have a tag each,
 * four tenths one that 1,000 have, four tenths one that 10 have. All are spread over the whole store.
 */
export const storedCustomer = (i: string, stored: number): string =>
  `case when ${i} % 5 = 0 then 'many-' || ${i} % 10
    when ${i} % 10 < 5 then 'some-' || ${i} % 10 || '-' || ${i} / 10 % ${stored / 10_000}
    else 'few-' || ${i} % 10 || '-' || ${i} / 10 % ${stored / 100} end`

/** A customer on whose tag all fibers decide: the name begins so. */
export const hot = "hot-"
