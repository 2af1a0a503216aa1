/** What the server offers, as values: a client in TypeScript is made of them, with each error as what it is. */
import { Schema } from "effect"
import { NotProcessedError } from "effect-message-store"
import { HttpApi, HttpApiEndpoint, HttpApiError, HttpApiGroup, HttpApiSchema } from "effect/http-api"
import { LimitReached, Line, OutOfStock, ProductExists, ProductId, Quantity, UnknownProduct } from "./domain.ts"

/** The answer of a command: where its message is. A read that is given it shows what was written. */
const Written = Schema.Struct({ position: Schema.Natural })
const query = {
  after: Schema.optional(Schema.FiniteFromString.check(Schema.isInt(), Schema.isGreaterThanOrEqualTo(0)))
}
const NotYet = NotProcessedError.pipe(HttpApiSchema.status(503))

const Product = Schema.Struct({
  product: ProductId,
  name: Schema.String,
  cents: Schema.Natural,
  stock: Schema.Natural
})
const Order = Schema.Struct({ id: Schema.String, name: Schema.String, quantity: Quantity })

export const Api = HttpApi.make("shop").add(
  HttpApiGroup.make("commands").add(
    HttpApiEndpoint.put("addProduct", "/products/:product", {
      params: { product: ProductId },
      payload: Schema.Struct({ name: Line, cents: Schema.Natural, quantity: Quantity }),
      success: Written,
      error: [ProductExists, HttpApiError.ServiceUnavailable]
    }),
    HttpApiEndpoint.post("receiveStock", "/products/:product/stock", {
      params: { product: ProductId },
      payload: Schema.Struct({ quantity: Quantity }),
      success: Written,
      error: [UnknownProduct, HttpApiError.ServiceUnavailable]
    }),
    HttpApiEndpoint.post("placeOrder", "/orders", {
      payload: Schema.Struct({ product: ProductId, customer: Line, quantity: Quantity }),
      success: Written,
      error: [UnknownProduct, OutOfStock, LimitReached, HttpApiError.ServiceUnavailable]
    })
  ),
  HttpApiGroup.make("reads").add(
    HttpApiEndpoint.get("products", "/products", {
      query,
      success: Schema.Array(Product),
      error: [NotYet, HttpApiError.ServiceUnavailable]
    }),
    HttpApiEndpoint.get("orders", "/orders", {
      query: { ...query, customer: Line },
      success: Schema.Array(Order),
      error: [NotYet, HttpApiError.ServiceUnavailable]
    }),
    /** Server-sent events: each says that the read model has something new, up to the message of this position. */
    HttpApiEndpoint.get("changes", "/changes", { success: HttpApiSchema.StreamSse({ data: Written }) })
  )
)
