/**
 * The dashboard of a store beside an application's own routes, behind the application's own authentication: here a password,
 * which browsers ask for.
 *
 *   ADMIN_PASSWORD=… node --conditions=@effect-message-store/source examples/27-dashboard.ts
 */
import { NodeHttpServer, NodeRuntime } from "@effect/platform-node"
import { Config, Effect, Layer, Redacted, Schema } from "effect"
import { Message, MessageStore, Operator } from "effect-message-store"
import * as Dashboard from "effect-message-store/Dashboard"
import { HttpRouter, HttpServerRequest, HttpServerResponse } from "effect/http"
import { createHash, timingSafeEqual } from "node:crypto"
import { createServer } from "node:http"

class Ordered extends Schema.TaggedClass<Ordered>()("Ordered", { ...Message.fields, paper: Schema.String }) {}

class Orders extends MessageStore.Service<Orders>()("examples/ShownOrders", { name: "orders", schema: Ordered }) {}

/** What the application is there for. */
const Application = HttpRouter.add(
  "POST",
  "/orders/:order",
  Effect.gen(function*() {
    const orders = yield* Orders
    const { order } = yield* HttpRouter.params
    const { version } = yield* orders.write(`order-${order}`, new Ordered({ paper: "A4" }))
    return yield* HttpServerResponse.json({ version })
  }).pipe(Effect.orDie)
)

const digest = (text: string) => createHash("sha256").update(text).digest()

/** Asks for the password of operators, by HTTP's basic authentication. */
const ForOperators = HttpRouter.middleware(
  Effect.gen(function*() {
    const password = yield* Config.Redacted("ADMIN_PASSWORD")
    const expected = digest(`Basic ${btoa(`operator:${Redacted.value(password)}`)}`)
    return (page) =>
      Effect.flatMap(
        HttpServerRequest.HttpServerRequest,
        ({ headers }) =>
          timingSafeEqual(digest(headers["authorization"] ?? ""), expected)
            ? page
            : Effect.succeed(HttpServerResponse.empty({ status: 401, headers: { "www-authenticate": "Basic" } }))
      )
  })
).layer

const OrdersDashboard = Dashboard.layer({ path: "/admin/orders", readOnly: false }).pipe(
  Layer.provide(ForOperators),
  Layer.provide(Operator.layerOf(Orders))
)

HttpRouter.serve(Layer.mergeAll(Application, OrdersDashboard), { disableLogger: true }).pipe(
  Layer.provide(NodeHttpServer.layerConfig(
    createServer,
    Config.all({
      host: Config.succeed("127.0.0.1"),
      port: Config.Int("PORT").pipe(Config.withDefault(3000)),
      // Whoever looks on holds a request for as long as 15 seconds.
      gracefulShutdownTimeout: Config.succeed("1 second" as const)
    })
  )),
  Layer.provide(Orders.layerMemory),
  Layer.launch,
  NodeRuntime.runMain
)
