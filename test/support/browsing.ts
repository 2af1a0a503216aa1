/** A store with something in each place that a dashboard shows, and a browser that asks the dashboard. */
import { it } from "@effect/vitest"
import { DateTime, Effect, Layer, References, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Operator, Partitioner, Subscription } from "effect-message-store"
import * as Dashboard from "effect-message-store/Dashboard"
import { HttpRouter, type HttpServer, HttpServerResponse } from "effect/http"

export class Ordered extends Schema.TaggedClass<Ordered>()("Ordered", {
  ...Message.fields,
  customer: Message.tag("customer", Schema.String),
  note: Schema.String
}) {}

export class Orders
  extends MessageStore.Service<Orders>()("test/dashboard/Orders", { name: "orders", schema: Ordered })
{}

export class All extends AggregatedStream.Service<All>()("test/dashboard/All", {
  store: Orders,
  name: "all_orders",
  patterns: "%",
  partitioner: Partitioner.constant()
}) {}

export class Invoices extends Subscription.Service<Invoices>()("test/dashboard/Invoices", {
  stream: All,
  name: "invoices",
  retry: Schedule.recurs(0),
  acknowledge: "message"
}) {}

export const Services = Operator.layerOf(Orders).pipe(
  Layer.provideMerge(Invoices.layer),
  Layer.provideMerge(All.layer),
  Layer.provideMerge(Orders.layerMemory)
)

/** A test on an operator of the store, in memory. */
export const operated = (
  title: string,
  test: Effect.Effect<void, unknown, Operator.Operator | Orders | All | Invoices>
) =>
  it.live(title, () =>
    test.pipe(
      Effect.provideService(References.MinimumLogLevel, "None"),
      Effect.provide(Layer.fresh(Services))
    ))

export const token = "a token of tests 0123456789"

export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

/** A browser that keeps cookies, in front of a dashboard on the operator of the test, at `/ops`. */
export const browse = Effect.fnUntraced(
  function*(
    options: Dashboard.DashboardOptions = {},
    operator?: Operator.OperatorService,
    server: Layer.Layer<never> | Layer.Layer<HttpServer.HttpServer> = Layer.empty
  ) {
    const service = operator ?? (yield* Operator.Operator)
    const { handler } = yield* Effect.acquireRelease(
      Effect.sync(() =>
        HttpRouter.toWebHandler(
          Layer.mergeAll(
            HttpRouter.add("GET", "/", HttpServerResponse.text("the application")),
            Layer.orDie(Dashboard.layer({ path: "/ops", ...options }))
          ).pipe(Layer.provide(Layer.succeed(Operator.Operator, service)), Layer.provide(server)),
          { disableLogger: true }
        )
      ),
      ({ dispose }) => Effect.promise(dispose)
    )
    const cookies = new Map<string, string>()
    const send = (path: string, init: RequestInit = {}) =>
      Effect.promise(async (signal): Promise<Response> => {
        const headers = new Headers(init.headers)
        headers.set("cookie", Array.from(cookies, ([name, value]) => `${name}=${value}`).join("; "))
        if (!headers.has("host")) headers.set("host", "localhost:3000")
        const response = await handler(new Request(`http://localhost:3000${path}`, { ...init, headers, signal }))
        for (const cookie of response.headers.getSetCookie()) {
          const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(cookie) ?? []
          if (/max-age=0|expires=thu, 01 jan 1970/i.test(cookie)) cookies.delete(name)
          else cookies.set(name, value)
        }
        return response
      })
    const read = (sent: Effect.Effect<Response>): Effect.Effect<Answer> =>
      Effect.flatMap(sent, (response) =>
        Effect.map(Effect.promise(() => response.text()), (text) => ({
          status: response.status,
          headers: response.headers,
          text
        })))
    const get = (path: string, headers: Record<string, string> = {}) => read(send(path, { headers }))
    const post = (path: string, fields: Record<string, string>, headers: Record<string, string> = {}) =>
      read(send(path, {
        method: "POST",
        headers: { "content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin", ...headers },
        body: new URLSearchParams(fields).toString()
      }))
    /** Sends a form as the page that has it. */
    const act = Effect.fnUntraced(function*(action: string, fields: Record<string, string>, back = "/ops") {
      yield* get(back)
      const form = cookies.get("effect-message-store-form") ?? ""
      return yield* post(`/ops/actions/${action}`, { form, back, ...fields })
    })
    return { act, cookies, get, post, send }
  }
)

/** Whatever somebody may put into a name, a message or an error. */
export const hostile = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>' \u202eright\nto left __proto__ "

export const escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&gt;&lt;img src=x onerror=alert(2)&gt;&#39; "

/** Three orders, of which one has a hostile name and one was caused by another; all of them parked. */
export const prepared = Effect.gen(function*() {
  const orders = yield* Orders
  const first = new Ordered({ customer: "7", note: "first" })
  yield* orders.write("order-1", first, { metadata: { correlationId: hostile } })
  const second = new Ordered({ customer: "7", note: "second" })
  yield* orders.write("order-2", second, { metadata: { correlationId: hostile, causationId: first.messageId } })
  const third = new Ordered({ customer: hostile, note: hostile })
  yield* orders.write(hostile, third)
  yield* orders.schedule(hostile, new Ordered({ customer: "8", note: hostile }), {
    at: DateTime.add(yield* DateTime.now, { hours: 1 }),
    key: hostile
  })
  yield* (yield* All).projector.runOnce
  const invoices = yield* Invoices
  yield* invoices.drain((_, { stream }) => Effect.fail({ _tag: "NoPaper", message: `no paper for ${stream}` }))
  return { first, second, third }
})

export const pages = (id: string) => [
  "/ops",
  "/ops/streams",
  "/ops/streams?q=order",
  `/ops/stream?${new URLSearchParams({ name: hostile })}`,
  "/ops/messages",
  `/ops/messages?${new URLSearchParams({ type: "Ordered", tag: "customer:7", correlation: hostile })}`,
  `/ops/messages/${id}`,
  "/ops/aggregated-streams",
  "/ops/aggregated-stream?name=all_orders",
  "/ops/subscriptions",
  "/ops/subscription?name=invoices",
  "/ops/parked",
  "/ops/parked?subscription=invoices",
  "/ops/projections",
  "/ops/scheduled",
  "/ops/scheduled?show=refused"
]
