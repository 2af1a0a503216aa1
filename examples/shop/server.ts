/**
 * The process that answers pages: it decides on commands, and reads the read model. Start as many as you like. When it is told
 * to stop, it takes no more connections, and answers the requests in hand.
 *
 *   PORT=3000 DATABASE_URL=… node --conditions=@effect-message-store/source examples/shop/server.ts
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Config, Effect, Layer, Schema } from "effect"
import { HttpRouter, HttpServerResponse } from "effect/http"
import { HttpApiBuilder, HttpApiError } from "effect/http-api"
import { SqlError } from "effect/sql"
import { createServer } from "node:http"
import { fileURLToPath } from "node:url"
import { layerDatabase } from "../database.ts"
import { Api } from "./api.ts"
import { addProduct, placeOrder, receiveStock, Rule, Shop } from "./domain.ts"
import { Live } from "./live.ts"
import { run } from "./process.ts"
import { ByProduct, readOrders, readProducts, ShopView } from "./readModel.ts"

/** What passes is for the page to try again; what stays is a fault of ours, and becomes a 500. */
const unavailable = (error: SqlError.SqlError) =>
  error.isRetryable ? Effect.fail(new HttpApiError.ServiceUnavailable()) : Effect.die(error)

const isRule = <E>(error: E): error is Extract<E, Rule> => Schema.is(Rule)(error)

/**
 * Answers where the message of a command is. The rules of the shop are errors of the API; what else the store refuses would
 * be a fault of this program, since messages are new, and checked by the schemas of the API.
 */
const answer = <E, R>(command: Effect.Effect<{ readonly globalPosition: number | undefined } | undefined, E, R>) =>
  command.pipe(
    Effect.map((written) => ({ position: written?.globalPosition ?? 0 })),
    Effect.catch((error): Effect.Effect<never, Extract<E, Rule> | HttpApiError.ServiceUnavailable> =>
      isRule(error) ? Effect.fail(error) : SqlError.isSqlError(error) ? unavailable(error) : Effect.die(error)
    )
  )

const Commands = HttpApiBuilder.group(Api, "commands", (handlers) =>
  handlers
    .handle("addProduct", ({ params, payload }) => answer(addProduct({ ...params, ...payload })))
    .handle("receiveStock", ({ params, payload }) => answer(receiveStock(params.product, payload.quantity)))
    .handle("placeOrder", ({ payload }) => answer(placeOrder(payload))))

/** Waits until the read model has what the page wrote. */
const upTo = Effect.fn("upTo")(function*(position: number | undefined) {
  if (position !== undefined) yield* ShopView.use((view) => view.waitUntilProcessed(position, "5 seconds"))
})

const Reads = HttpApiBuilder.group(
  Api,
  "reads",
  Effect.fn(function*(handlers) {
    const live = yield* Live
    return handlers
      .handle("products", ({ query }) => Effect.andThen(upTo(query.after), readProducts).pipe(Effect.catchTags(notYet)))
      .handle(
        "orders",
        ({ query }) => Effect.andThen(upTo(query.after), readOrders(query.customer)).pipe(Effect.catchTags(notYet))
      )
      .handle("changes", () => Effect.succeed(live.changes))
  })
)

const notYet = {
  SqlError: unavailable,
  InvalidArgumentError: Effect.die,
  // No worker has built the read model yet, or somebody builds its stream anew.
  VersionError: () => Effect.fail(new HttpApiError.ServiceUnavailable()),
  StreamRebuiltError: () => Effect.fail(new HttpApiError.ServiceUnavailable())
}

const Page = HttpRouter.add("GET", "/", HttpServerResponse.file(fileURLToPath(new URL("page.html", import.meta.url))))

const Http = HttpRouter.serve(
  Layer.mergeAll(Page, HttpApiBuilder.layer(Api).pipe(Layer.provide([Commands, Reads])))
)

/** Open streams of changes are requests in hand: they end first. */
const Ending = Layer.effectDiscard(Live.use((live) => Effect.addFinalizer(() => live.end)))

run(
  Layer.provideMerge(Ending, Http).pipe(
    Layer.provide(NodeHttpServer.layerConfig(
      createServer,
      Config.all({
        host: Config.String("HOST").pipe(Config.withDefault("127.0.0.1")),
        port: Config.Int("PORT").pipe(Config.withDefault(3000)),
        gracefulShutdownTimeout: Config.succeed("5 seconds" as const)
      })
    )),
    Layer.provide(Live.layer),
    Layer.provide(ShopView.layer),
    Layer.provide(ByProduct.layer),
    Layer.provide(Shop.layer),
    Layer.provide(layerDatabase())
  )
)
