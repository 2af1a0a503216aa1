/** The dashboard as a browser asks it: its pages, what it does, and whom it refuses. */
import { assert, describe, it } from "@effect/vitest"
import {
  Context,
  DateTime,
  Duration,
  Effect,
  Fiber,
  Latch,
  Layer,
  Redacted,
  References,
  Schedule,
  Schema,
  Stream
} from "effect"
import { AggregatedStream, Message, MessageStore, Operator, Partitioner, Subscription } from "effect-message-store"
import * as Dashboard from "effect-message-store/Dashboard"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import { NetAddress } from "effect/net"
import { SqlClient, SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import { attributes, html } from "../src/dashboard/html.ts"
import * as Live from "../src/dashboard/live.ts"
import * as Routes from "../src/dashboard/routes.ts"
import { formTokenOf, isForHost, isOfForm, isOfSameOrigin, isSecure, makeSessions } from "../src/dashboard/security.ts"
import { Clients, createRole, sharedDatabaseLayer } from "./support/sharedDatabase.ts"

class Ordered extends Schema.TaggedClass<Ordered>()("Ordered", {
  ...Message.fields,
  customer: Message.tag("customer", Schema.String),
  note: Schema.String
}) {}

class Orders extends MessageStore.Service<Orders>()("test/dashboard/Orders", { name: "orders", schema: Ordered }) {}

class All extends AggregatedStream.Service<All>()("test/dashboard/All", {
  store: Orders,
  name: "all_orders",
  patterns: "%",
  partitioner: Partitioner.constant()
}) {}

class Invoices extends Subscription.Service<Invoices>()("test/dashboard/Invoices", {
  stream: All,
  name: "invoices",
  retry: Schedule.recurs(0),
  acknowledge: "message"
}) {}

const Services = Operator.layerOf(Orders).pipe(
  Layer.provideMerge(Invoices.layer),
  Layer.provideMerge(All.layer),
  Layer.provideMerge(Orders.layerMemory)
)

const operated = (title: string, test: Effect.Effect<void, unknown, Operator.Operator | Orders | All | Invoices>) =>
  it.live(title, () =>
    test.pipe(
      Effect.provideService(References.MinimumLogLevel, "None"),
      Effect.provide(Layer.fresh(Services))
    ))

const token = "a token of tests 0123456789"

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
}

/** A browser that keeps cookies, in front of a dashboard on the operator of the test, at `/ops`. */
const browse = Effect.fnUntraced(
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
const hostile = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>' \u202eright\nto left __proto__ "

const escaped = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&gt;&lt;img src=x onerror=alert(2)&gt;&#39; "

/** Three orders, of which one has a hostile name and one was caused by another; all of them parked. */
const prepared = Effect.gen(function*() {
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

const pages = (id: string) => [
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

describe("pages", () => {
  operated(
    "are there, with nothing of what messages hold in their markup, and no script but the dashboard's own",
    Effect.gen(function*() {
      const { third } = yield* prepared
      yield* Effect.flatMap(Invoices, (invoices) => invoices.pause({ reason: hostile, by: hostile }))
      const { get } = yield* browse({ readOnly: false })
      for (const page of [...pages(third.messageId), `/ops/streams?q=${encodeURIComponent(hostile)}`, "/ops/nothing"]) {
        const { headers, status, text } = yield* get(page)
        assert.strictEqual(status, page === "/ops/nothing" ? 404 : 200, page)
        assert.include(
          headers.get("content-security-policy"),
          "default-src 'none'; script-src 'self'; style-src 'self'"
        )
        assert.include(headers.get("content-security-policy"), "frame-ancestors 'none'")
        assert.strictEqual(headers.get("x-content-type-options"), "nosniff")
        assert.strictEqual(headers.get("cache-control"), "no-store")
        assert.notInclude(text, "<img", page)
        assert.notMatch(text, /<script(?! defer src="\/ops\/assets\/)|<style|\sstyle=|\son\w+="/, page)
        // Fields have what was entered as it is.
        assert.notMatch(text.replaceAll(/<[^>]*>/g, ""), /\p{Bidi_Control}/u, page)
        for (const [, url = ""] of text.matchAll(/\s(?:href|src|action|formaction)="([^"]*)"/g)) {
          assert.match(url, /^(?:#main$|\/ops(?:[/?#]|$))/, page)
        }
      }
      assert.include(
        (yield* get(`/ops/messages/${third.messageId}`)).text,
        `${escaped}\\u202eright\\u000ato left __proto__ `
      )
      assert.include((yield* get("/ops/parked?subscription=invoices")).text, `no paper for ${escaped}`)
      assert.include((yield* get("/ops/scheduled")).text, `key ${escaped}`)
      assert.include((yield* get("/ops/subscription?name=invoices")).text, `by ${escaped}`)
      assert.strictEqual((yield* get("/")).text, "the application")
    }).pipe(Effect.scoped)
  )

  operated(
    "tell of a message what it says, what led to it, what came of it, and who has handled it",
    Effect.gen(function*() {
      const { first, second } = yield* prepared
      const { get } = yield* browse()
      const { text } = yield* get(`/ops/messages/${second.messageId}`)
      assert.include(text, "customer:7")
      assert.include(text, "&quot;second&quot;")
      assert.match(text, new RegExp(`Caused by</dt><dd><a[^>]*href="/ops/messages/${first.messageId}"`))
      const [tree = ""] = /<div class="tree">.*?<\/div>/.exec(text) ?? []
      assert.isBelow(tree.indexOf("order-1"), tree.indexOf("order-2"))
      assert.match(tree, /aria-current="true">Ordered <span class="faint">order-2/)
      assert.match(text, /invoices<\/a> <a [^>]*#p-0-1"><span class="badge bad">parked/)
      const [, whole = ""] = /href="([^"]+\/data)" download/.exec(text) ?? []
      const data = yield* get(whole)
      assert.match(data.headers.get("content-disposition") ?? "", /^attachment; filename="[\w-]+\.json"$/)
      assert.deepInclude(JSON.parse(data.text), { _tag: "Ordered", note: "second" })
      assert.strictEqual((yield* get("/ops/find?q=order-1")).headers.get("location"), "/ops/streams?q=order-1")
      assert.strictEqual(
        (yield* get(`/ops/find?q=%20${first.messageId.toUpperCase()}`)).headers.get("location"),
        `/ops/messages/${first.messageId}`
      )
    }).pipe(Effect.scoped)
  )

  operated(
    "show the beginning of what is large, with a link to the whole",
    Effect.gen(function*() {
      const orders = yield* Orders
      const large = new Ordered({ customer: "1", note: "x".repeat(2_000_000) })
      yield* orders.write("order-1", large)
      const { get } = yield* browse()
      const { text } = yield* get(`/ops/messages/${large.messageId}`)
      assert.isBelow(text.length, 200_000)
      assert.include(text, "Download the whole, 1.9 MiB")
      assert.include((yield* get(`/ops/messages/${large.messageId}/data`)).text, large.note)
    }).pipe(Effect.scoped)
  )

  operated(
    "are as short where messages are nested deeply, and name what is as large as they may be",
    Effect.gen(function*() {
      const { third } = yield* prepared
      const operator = yield* Operator.Operator
      const long = "x".repeat(100_000)
      const ofOthers = (message: Operator.Message): Operator.Message => ({
        ...message,
        type: long,
        data: JSON.parse(`${"[".repeat(50_000)}${"]".repeat(50_000)}`),
        metadata: { correlationId: long, causationId: long }
      })
      const { get } = yield* browse({ readOnly: false }, {
        ...operator,
        message: (id) =>
          Effect.map(operator.message(id), (found) => found && { ...found, message: ofOthers(found.message) }),
        search: (options) =>
          Effect.map(operator.search(options), (found) => ({ ...found, items: found.items.map(ofOthers) })),
        parked: (name, options) =>
          Effect.map(operator.parked(name, options), (found) => ({
            ...found,
            items: found.items.map((each) => ({ ...each, message: each.message && ofOthers(each.message) }))
          })),
        scheduled: (options) =>
          Effect.map(operator.scheduled(options), (found) => ({
            ...found,
            items: found.items.map((each) => ({ ...each, data: ofOthers(each as never).data, type: long }))
          }))
      })
      for (const page of pages(third.messageId)) {
        const { status, text } = yield* get(page)
        assert.strictEqual(status, 200, page)
        assert.isBelow(text.length, 250_000, page)
      }
      const whole = (yield* get(`/ops/messages/${third.messageId}/data`)).text
      assert.lengthOf(whole.replaceAll(/\s/g, ""), 100_000)
      assert.isBelow(whole.length, 5_000_000)
    }).pipe(Effect.scoped)
  )

  operated(
    "of a stream lead from its newest message to its oldest, and back",
    Effect.gen(function*() {
      const orders = yield* Orders
      yield* orders.write(
        "long & wide",
        Array.from({ length: 120 }, () => new Ordered({ customer: "1", note: "" })) as [Ordered, ...Array<Ordered>]
      )
      const { get } = yield* browse()
      const versions = (text: string) =>
        Array.from(text.matchAll(/data-label="Version"><div>(\d+)/g), ([, version]) => Number(version))
      const link = (text: string, label: string) =>
        new RegExp(`href="([^"]+)">${label}</a>`).exec(text)?.[1]?.replaceAll("&amp;", "&")
      const bounds = (text: string) => [versions(text)[0], versions(text).at(-1)]
      let { text } = yield* get("/ops/stream?name=long+%26+wide")
      assert.deepStrictEqual(bounds(text), [120, 71])
      assert.isUndefined(link(text, "Newer"))
      const follow = Effect.fnUntraced(function*(label: string) {
        text = (yield* get(link(text, label) ?? "")).text
        return bounds(text)
      })
      assert.deepStrictEqual(yield* follow("Older"), [70, 21])
      assert.deepStrictEqual(yield* follow("Older"), [20, 1])
      assert.isUndefined(link(text, "Older"))
      assert.deepStrictEqual(yield* follow("Newer"), [70, 21])
      assert.deepStrictEqual(yield* follow("Oldest"), [50, 1])
      assert.isUndefined(link(text, "Oldest"))
      assert.deepStrictEqual(yield* follow("Newest"), [120, 71])
    }).pipe(Effect.scoped)
  )

  operated(
    "of streams find what begins so first, and what has it elsewhere then",
    Effect.gen(function*() {
      const orders = yield* Orders
      for (const stream of ["a-order-1", "order-1", "order-10", "order-1_", "order-2", "order-\\"]) {
        yield* orders.write(stream, [
          new Ordered({ customer: "1", note: "" }),
          new Ordered({ customer: "1", note: "" })
        ])
      }
      const { get } = yield* browse()
      const names = Effect.fnUntraced(function*(query: Record<string, string>) {
        const { text } = yield* get(`/ops/streams?${new URLSearchParams(query)}`)
        return Array.from(text.matchAll(/<td class="name title"[^>]*><div><a[^>]*>([^<]*)/g), ([, name]) => name)
      })
      assert.deepStrictEqual(yield* names({ q: "order-1" }), ["order-1", "order-10", "order-1_"])
      assert.deepStrictEqual(yield* names({ q: " order-1_ " }), ["order-1_"])
      assert.deepStrictEqual(yield* names({ q: "order-\\" }), ["order-\\"])
      assert.deepStrictEqual(yield* names({ q: "der-1" }), ["a-order-1", "order-1", "order-10", "order-1_"])
      assert.deepStrictEqual(yield* names({ q: "order-1", in: "anywhere" }), [
        "a-order-1",
        "order-1",
        "order-10",
        "order-1_"
      ])
      assert.deepStrictEqual(yield* names({ q: "%-2" }), ["order-2"])
      assert.deepStrictEqual(yield* names({ q: "nothing" }), [])
      assert.include((yield* get("/ops/streams?q=order-1")).text, `<td class="number" data-label="Messages"><div>2`)
    }).pipe(Effect.scoped)
  )

  operated(
    "say what to do where something was asked that cannot be, or is not there",
    Effect.gen(function*() {
      const { get } = yield* browse()
      const cases = [
        ["/ops/messages?from=-1", 400, "whole number"],
        ["/ops/messages?since=yesterday", 400, "2026-01-31T18:05"],
        ["/ops/stream", 400, "name is missing"],
        ["/ops/streams?cursor=%00", 400, "cursor"],
        ["/ops/stream?name=nothing", 404, "has no messages"],
        ["/ops/subscription?name=__proto__", 404, "no subscription “__proto__”"],
        ["/ops/aggregated-stream?name=constructor", 404, "no aggregated stream “constructor”"],
        ["/ops/parked?subscription=nobody", 400, "must name a subscription"],
        ["/ops/messages/not-an-id", 400, "must be a UUID"],
        ["/ops/messages/01a216b3-9d8d-718e-8dff-f2f2d84f4f29", 404, "no message"]
      ] as const
      for (const [path, status, words] of cases) {
        const answer = yield* get(path)
        assert.strictEqual(answer.status, status, path)
        assert.include(answer.text, words, path)
      }
    }).pipe(Effect.scoped)
  )

  operated(
    "tell of failures of the database, and come back by themselves",
    Effect.gen(function*() {
      const operator = yield* Operator.Operator
      const failing = (reason: SqlError.SqlErrorReason): Operator.OperatorService => ({
        ...operator,
        overview: Effect.fail(new SqlError.SqlError({ reason })),
        streams: () => Effect.fail(new SqlError.SqlError({ reason }))
      })
      const cause = new Error("said <by> the database")
      const cases = [
        [new SqlError.ConnectionError({ cause }), 503, "cannot be reached"],
        [new SqlError.AuthorizationError({ cause }), 403, "may not do that"],
        [new SqlError.StatementTimeoutError({ cause }), 504, "took too long"]
      ] as const
      for (const [reason, status, words] of cases) {
        const { get } = yield* browse({}, failing(reason))
        for (const page of ["/ops", "/ops/streams"]) {
          const answer = yield* get(page)
          assert.strictEqual(answer.status, status)
          assert.include(answer.text, words)
          assert.include(answer.text, "said &lt;by&gt; the database")
          assert.strictEqual(answer.text.includes("data-live"), status === 503)
        }
      }
    }).pipe(Effect.scoped)
  )
})

describe("actions", () => {
  const pausedOf = Effect.flatMap(
    Operator.Operator,
    (operator) => Effect.map(operator.subscriptions(), ({ items: [first] }) => first?.totals?.paused)
  )

  const parkedOf = Effect.flatMap(
    Operator.Operator,
    (operator) => Effect.map(operator.parked("invoices"), ({ items }) => items)
  )

  operated(
    "are done, and told once on the page that they were asked from",
    Effect.gen(function*() {
      yield* prepared
      const { act, get } = yield* browse({ readOnly: false })
      const operator = yield* Operator.Operator
      const back = "/ops/subscription?name=invoices"
      const paused = yield* act("pause", { subscription: "invoices", reason: "printer", by: "ada" }, back)
      assert.deepStrictEqual([paused.status, paused.headers.get("location")], [303, back])
      assert.deepInclude(yield* pausedOf, { reason: "printer", by: "ada" })
      const page = yield* get(back)
      assert.include(page.text, "invoices is paused, in all processes.")
      assert.include(page.text, "Resume")
      assert.notInclude((yield* get(back)).text, "invoices is paused, in all processes.")
      yield* act("resume", { subscription: "invoices" })
      assert.isUndefined(yield* pausedOf)
      yield* act("pause", { subscription: "invoices", partition: "0" })
      assert.isDefined((yield* operator.partitions("invoices")).items[0]?.paused)
      yield* act("resume", { subscription: "invoices", partition: "0" })

      const [one, two, three] = yield* parkedOf
      const requeued = yield* act("requeue", { subscription: "invoices", place: `${one?.partition}:${one?.position}` })
      assert.strictEqual(requeued.status, 303)
      assert.deepStrictEqual((yield* parkedOf).map(({ requeuedAt }) => requeuedAt !== undefined), [true, false, false])
      const ofPage = (yield* get("/ops/parked?subscription=invoices")).text
      const error = Array.from(ofPage.matchAll(/name="error" value="([^"]+)"/g), ([, value = ""]) => value)
        .map((value) => value.replaceAll("&quot;", "\"").replaceAll("&amp;", "&"))
        .find((value) => value.includes("order-#")) ?? ""
      yield* act("discard", { subscription: "invoices", error })
      assert.deepStrictEqual((yield* parkedOf).map(({ messageId }) => messageId), [three?.messageId])
      assert.notStrictEqual(two?.messageId, three?.messageId)
      yield* act("discard", { subscription: "invoices", all: "yes" })
      assert.lengthOf(yield* parkedOf, 0)

      yield* act("reset", { subscription: "invoices", start: "next" })
      assert.strictEqual((yield* operator.partitions("invoices")).items[0]?.checkpoint, 2)
      yield* act("reset", { subscription: "invoices", start: "position", position: "1" })
      assert.strictEqual((yield* operator.partitions("invoices")).items[0]?.checkpoint, 0)
      yield* act("cancel", { key: hostile })
      assert.lengthOf((yield* operator.scheduled()).items, 0)
      yield* act("rebuild", { aggregatedStream: "all_orders" })
      assert.include((yield* get("/ops")).text, "Now reset invoices")
    }).pipe(Effect.scoped)
  )

  operated(
    "give up those of an error page by page: thousands of them take minutes",
    Effect.gen(function*() {
      yield* prepared
      const operator = yield* Operator.Operator
      const asked: Array<Operator.WhichParked> = []
      const { act } = yield* browse({ readOnly: false }, {
        ...operator,
        discard: (name, which) => (asked.push(which), operator.discard(name, which))
      })
      const [kind] = yield* operator.parkedErrors("invoices")
      const error = JSON.stringify({ tag: kind?.tag, message: kind?.message })
      assert.strictEqual((yield* act("discard", { subscription: "invoices", error })).status, 303)
      assert.deepStrictEqual(asked.map(({ places }) => places?.length), [kind?.count])
      assert.lengthOf(yield* parkedOf, 3 - (kind?.count ?? 0))
    }).pipe(Effect.scoped)
  )

  operated(
    "on versions of projections are done as they were asked",
    Effect.gen(function*() {
      const operator = yield* Operator.Operator
      const done: Array<ReadonlyArray<unknown>> = []
      const noting: Operator.OperatorService = {
        ...operator,
        promote: (...given) => Effect.sync(() => void done.push(given)),
        rollback: (...given) => Effect.sync(() => (done.push(given), 1)),
        dropVersion: (...given) => Effect.sync(() => void done.push(given))
      }
      const { act, get } = yield* browse({ readOnly: false }, noting)
      yield* act("promote", { projection: "sales", version: "2", lag: "10" })
      yield* act("rollback", { projection: "sales" })
      assert.include((yield* get("/ops")).text, "Readers of sales see version 1 again.")
      yield* act("drop", { projection: "sales", version: "2" })
      assert.deepStrictEqual(done, [["sales", 2, { lag: 10 }], ["sales", { lag: undefined }], ["sales", 2]])
    }).pipe(Effect.scoped)
  )

  operated(
    "are refused with what is missing",
    Effect.gen(function*() {
      yield* prepared
      const { act } = yield* browse({ readOnly: false })
      const cases = [
        ["requeue", { subscription: "invoices" }, 400, "mark the messages"],
        ["discard", { subscription: "invoices", place: "x" }, 400, "a partition and a position"],
        ["discard", { subscription: "invoices", error: "{" }, 400, "list of errors"],
        ["reset", { subscription: "invoices" }, 400, "choose where"],
        ["reset", { subscription: "invoices", start: "time", time: "soon" }, 400, "2026-01-31T18:05"],
        ["pause", { subscription: "nobody" }, 400, "must name a subscription"],
        ["pause", {}, 400, "subscription is missing"],
        ["promote", { projection: "p", version: "1" }, 400, "must name a projection"],
        ["constructor", {}, 404, "no such action"]
      ] as const
      for (const [action, fields, status, words] of cases) {
        const answer = yield* act(action, { ...fields })
        assert.strictEqual(answer.status, status, action)
        assert.include(answer.text, words, action)
      }
      assert.lengthOf(yield* parkedOf, 3)
    }).pipe(Effect.scoped)
  )

  operated(
    "are not there, and are not done, unless that was said",
    Effect.gen(function*() {
      const { third } = yield* prepared
      const { act, get } = yield* browse()
      for (const page of pages(third.messageId)) assert.notInclude((yield* get(page)).text, "/actions/", page)
      assert.include((yield* get("/ops")).text, "read-only")
      // A form that could be sent, had somebody made one.
      const { cookies, post } = yield* browse()
      const form = "x".repeat(43)
      cookies.set("effect-message-store-form", form)
      const answer = yield* post("/ops/actions/pause", { form, subscription: "invoices" })
      assert.strictEqual(answer.status, 403)
      assert.include(answer.text, "readOnly: false")
      assert.strictEqual((yield* act("pause", { subscription: "invoices" })).status, 403)
      assert.isUndefined(yield* pausedOf)
    }).pipe(Effect.scoped)
  )

  operated(
    "are done for forms of this browser and this origin alone",
    Effect.gen(function*() {
      yield* prepared
      const { cookies, get, post } = yield* browse({ readOnly: false })
      yield* get("/ops")
      const form = cookies.get("effect-message-store-form") ?? ""
      const fields = { subscription: "invoices", form }
      const refused = [
        post("/ops/actions/pause", { subscription: "invoices" }),
        post("/ops/actions/pause", { ...fields, form: "x".repeat(43) }),
        post("/ops/actions/pause", fields, { "sec-fetch-site": "cross-site" }),
        post("/ops/actions/pause", fields, { "sec-fetch-site": "same-site" }),
        post("/ops/actions/pause", { ...fields, more: "x".repeat(2_000_000) })
      ]
      for (const attempt of refused) assert.include([403, 413], (yield* attempt).status)
      assert.isUndefined(yield* pausedOf)
      assert.strictEqual((yield* get("/ops/actions/pause")).status, 404)
      assert.strictEqual(
        (yield* post("/ops/actions/pause", { ...fields, back: "https://example.com/ops" })).headers.get("location"),
        "/ops"
      )
      assert.isDefined(yield* pausedOf)
    }).pipe(Effect.scoped)
  )

  it.live("of a role that may only read say what it may not do", () =>
    Effect.gen(function*() {
      const role = `dashboard_${crypto.randomUUID().slice(0, 8)}`
      const clients = yield* Clients
      yield* createRole(role)
      const Prepared = Invoices.layer.pipe(Layer.provideMerge(All.layer), Layer.provideMerge(Orders.layer))
      yield* Effect.provide(
        Effect.andThen(
          Effect.flatMap(Orders, (orders) => orders.write("order-1", new Ordered({ customer: "1", note: "" }))),
          Effect.flatMap(All, ({ projector }) => projector.runOnce)
        ),
        Layer.fresh(Prepared)
      )
      const sql = yield* SqlClient.SqlClient
      yield* sql.unsafe(`grant usage on schema public to "${role}"`).unprepared
      yield* sql.unsafe(`grant select on all tables in schema public to "${role}"`).unprepared
      yield* sql.unsafe(`grant select on all sequences in schema public to "${role}"`).unprepared
      const Reader = Operator.layer("orders").pipe(Layer.provide(clients.layer({ role })))
      const reader = Context.get(yield* Layer.build(Layer.fresh(Reader)), Operator.Operator)
      const { act, get } = yield* Effect.provideService(browse({ readOnly: false }), Operator.Operator, reader)
      for (const page of ["/ops", "/ops/subscription?name=invoices", "/ops/scheduled"]) {
        assert.strictEqual((yield* get(page)).status, 200)
      }
      const { status, text } = yield* act("pause", { subscription: "invoices" })
      assert.strictEqual(status, 403)
      assert.include(text, "permission denied for table")
      assert.include(text, "Grant it to the role")
    }).pipe(
      Effect.scoped,
      Effect.provideService(References.MinimumLogLevel, "None"),
      Effect.provide(Layer.fresh(sharedDatabaseLayer))
    ))
})

describe("the token", () => {
  operated(
    "is asked for before anything is told, and leaves the URL",
    Effect.gen(function*() {
      yield* prepared
      const { cookies, get, post } = yield* browse({ readOnly: false, token: Redacted.make(token) })
      for (const page of ["/ops", "/ops/streams", "/ops/events", "/ops/nothing", "/ops/messages/x/data"]) {
        const { headers, status, text } = yield* get(page)
        assert.strictEqual(status, 401, page)
        assert.notMatch(text, /orders|invoices/, page)
        assert.include(headers.get("content-security-policy"), "default-src 'none'")
      }
      assert.strictEqual((yield* get("/ops?token=wrong")).status, 401)
      const form = cookies.get("effect-message-store-form") ?? ""
      assert.strictEqual((yield* post("/ops/actions/pause", { form, subscription: "invoices" })).status, 401)
      assert.strictEqual((yield* post("/ops/actions/pause", { subscription: "invoices" })).status, 403)
      const wrong = yield* post("/ops/login", { form, token: "wrong", back: "/ops/streams" })
      assert.strictEqual(wrong.status, 401)
      assert.include(wrong.text, "That is not the token.")

      const entered = yield* get(`/ops/streams?q=a&token=${encodeURIComponent(token)}`)
      assert.deepStrictEqual([entered.status, entered.headers.get("location")], [303, "/ops/streams?q=a"])
      const [cookie = ""] = entered.headers.getSetCookie()
      assert.match(cookie, /Path=\/ops; HttpOnly; SameSite=Strict/)
      assert.notInclude(cookie, encodeURIComponent(token))
      assert.strictEqual((yield* get("/ops/streams")).status, 200)
      assert.strictEqual((yield* post("/ops/logout", { form })).status, 303)
      assert.strictEqual((yield* get("/ops/streams")).status, 401)

      const begun = yield* post("/ops/login", { form, token, back: "//example.com/ops" })
      assert.deepStrictEqual([begun.status, begun.headers.get("location")], [303, "/ops"])
      assert.strictEqual((yield* get("/ops")).status, 200)
    }).pipe(Effect.scoped)
  )

  operated(
    "leads to no other host, whatever the path of its URL",
    Effect.gen(function*() {
      const handle = yield* Routes.make(yield* Operator.Operator, {
        mount: "",
        canAct: false,
        token: Redacted.make(token),
        hosts: undefined,
        pollInterval: Duration.seconds(1)
      })
      for (const path of ["//example.com/", "/.//example.com/", "/%2e//example.com/", "/\\example.com/"]) {
        const url = `${path}?token=${encodeURIComponent(token)}`
        const { headers } = yield* handle(HttpServerRequest.fromWeb(new Request("http://localhost/")).modify({ url }))
        assert.strictEqual(headers["location"], "/example.com/", path)
      }
    }).pipe(Effect.scoped)
  )

  operated(
    "is not asked for again of who follows a link from another site",
    Effect.gen(function*() {
      const { get } = yield* browse({ token: Redacted.make(token) })
      const { status, text } = yield* get("/ops/streams?q=a", { "sec-fetch-site": "cross-site" })
      assert.strictEqual(status, 200)
      assert.include(text, "href=\"/ops/streams?q=a\"")
      assert.include(text, "http-equiv=\"refresh\"")
      assert.notInclude(text, "orders")
    }).pipe(Effect.scoped)
  )

  it("begins a session that ends, and that who does not know the token cannot begin", () => {
    const [ours, theirs] = [makeSessions(Redacted.make(token)), makeSessions(Redacted.make("another token of theirs"))]
    const now = DateTime.makeUnsafe("2026-01-01T00:00:00Z")
    const session = ours.begin(now)
    assert.isTrue(ours.isOpen(session, now))
    assert.isFalse(ours.isOpen(session, DateTime.add(now, { hours: 13 })))
    assert.isFalse(ours.isOpen(theirs.begin(now), now))
    assert.isFalse(ours.isOpen(session.replace(/^\d/, "9"), now))
    for (const value of [undefined, "", ".", `${session}x`]) assert.isFalse(ours.isOpen(value, now))
    assert.notStrictEqual(ours.cookie, theirs.cookie)
  })
})

describe("who asks", () => {
  operated(
    "has to ask for a host that was named, and is told nothing otherwise",
    Effect.gen(function*() {
      yield* prepared
      const { get } = yield* browse({ hosts: ["localhost", "[::1]", "admin.example.com"] })
      for (const host of ["localhost", "LOCALHOST:3000", "[::1]:80", "admin.example.com"]) {
        assert.strictEqual((yield* get("/ops", { host })).status, 200, host)
      }
      for (const host of ["example.com", "localhost.example.com", "admin.example.com.evil", "[::2]"]) {
        const { status, text } = yield* get("/ops", { host })
        assert.strictEqual(status, 421, host)
        assert.notMatch(text, /orders|invoices/)
      }
    }).pipe(Effect.scoped)
  )

  operated(
    "has to ask by a name of loopback where the server listens there, its own address included",
    Effect.gen(function*() {
      const statusOf = Effect.fnUntraced(function*(address: string, host: string) {
        const server = HttpServer.make({
          serve: () => Effect.void,
          address: NetAddress.inetAddressFromStringUnsafe(address)
        })
        const { get } = yield* browse({}, undefined, Layer.succeed(HttpServer.HttpServer, server))
        return (yield* get("/ops", { host })).status
      })
      for (const host of ["localhost", "127.0.0.1:4280", "127.0.0.2:4280"]) {
        assert.strictEqual(yield* statusOf("127.0.0.2:4280", host), 200, host)
      }
      assert.strictEqual(yield* statusOf("127.0.0.1:4280", "example.com"), 421)
      assert.strictEqual(yield* statusOf("0.0.0.0:4280", "example.com"), 200)
    }).pipe(Effect.scoped)
  )

  it("is known by what browsers send", () => {
    assert.isTrue(isOfSameOrigin({ "sec-fetch-site": "same-origin" }))
    for (const site of ["cross-site", "same-site", "none"]) assert.isFalse(isOfSameOrigin({ "sec-fetch-site": site }))
    assert.isTrue(isOfSameOrigin({ host: "example.com:3000", origin: "http://example.com:3000" }))
    for (const origin of ["null", "http://example.com", "http://evil.com:3000"]) {
      assert.isFalse(isOfSameOrigin({ host: "example.com:3000", origin }))
    }
    assert.isFalse(isForHost({}, ["localhost"]))
    const request = { headers: {}, originalUrl: "/ops", protocol: undefined, source: { socket: {} } }
    assert.isFalse(isSecure(request))
    for (
      const secure of [
        { protocol: "https" },
        { headers: { "x-forwarded-proto": "https, http" } },
        { originalUrl: "https://localhost/ops" },
        { source: { socket: { encrypted: true } } }
      ]
    ) assert.isTrue(isSecure({ ...request, ...secure }))
    const { isNew, token: form } = formTokenOf(undefined)
    assert.deepStrictEqual([isNew, formTokenOf(form)], [true, { token: form, isNew: false }])
    assert.isTrue(isOfForm(form, form))
    for (const other of [undefined, "", "short"]) {
      assert.isFalse(isOfForm(form, other))
      assert.isFalse(isOfForm(other, other))
    }
  })
})

describe("events", () => {
  /** Reads until it matches, and hangs up. */
  const readUntil = (response: Response, pattern: RegExp) =>
    Effect.promise(async () => {
      const reader = (response.body ?? assert.fail("nothing to read")).pipeThrough(new TextDecoderStream()).getReader()
      let text = ""
      while (!pattern.test(text)) {
        const { done, value } = await reader.read()
        if (done) break
        text += value
      }
      await reader.cancel()
      return text
    })

  operated(
    "tell all who look on of one look at the store, and that something has changed",
    Effect.gen(function*() {
      yield* prepared
      const operator = yield* Operator.Operator
      let looks = 0
      const counting = { ...operator, overview: Effect.suspend(() => (looks++, operator.overview)) }
      const { get, send } = yield* browse({ pollInterval: "100 millis" }, counting)
      const sampled = /event: sample\n[^]*?\ndata: (.*)\n\n/
      const stateOf = (text: string) => JSON.parse(sampled.exec(text)?.[1] ?? "{}")
      const responses = yield* Effect.all(Array.from({ length: 5 }, () => send("/ops/events")))
      const texts = yield* Effect.forEach(responses, (response) => readUntil(response, sampled), { concurrency: 5 })
      for (const text of texts) {
        assert.match(text, /^event: history\n/)
        assert.deepStrictEqual(stateOf(text), stateOf(texts[0] ?? ""))
      }
      assert.isAtMost(looks, 2)
      const [first] = texts
      yield* Effect.flatMap(Orders, (orders) => orders.write("order-1", new Ordered({ customer: "1", note: "" })))
      const later = yield* readUntil(yield* send("/ops/events"), sampled)
      assert.notStrictEqual(stateOf(later).state, stateOf(first ?? "").state)
      assert.deepStrictEqual(stateOf(later).lag[0].slice(0, 2), ["invoices", 0])
      assert.strictEqual((yield* get("/ops")).status, 200)
    }).pipe(Effect.scoped)
  )

  operated(
    "are for a hundred browsers at most",
    Effect.gen(function*() {
      const { send } = yield* browse()
      const sent = yield* Effect.forEach(Array.from({ length: 100 }), () => send("/ops/events"))
      yield* Effect.forEach(
        sent,
        (response) => Effect.promise(() => response.body?.getReader().read() ?? assert.fail())
      )
      const refused = yield* send("/ops/events")
      assert.deepStrictEqual([refused.status, refused.headers.get("retry-after")], [503, "30"])
    }).pipe(Effect.scoped)
  )
})

describe("what is seen", () => {
  operated(
    "is not what was seen before an action, though the look has ended after it",
    Effect.gen(function*() {
      yield* prepared
      const operator = yield* Operator.Operator
      const [isLooking, goOn] = [yield* Latch.make(), yield* Latch.make()]
      const { act, get } = yield* browse({ readOnly: false }, {
        ...operator,
        // It is asked last.
        aggregatedStreams: (options) =>
          Effect.andThen(isLooking.open, Effect.tap(operator.aggregatedStreams(options), () => goOn.await))
      })
      const page = "/ops/subscription?name=invoices"
      const before = yield* Effect.forkChild(get(page))
      yield* isLooking.await
      assert.strictEqual((yield* act("pause", { subscription: "invoices" }, "/ops/streams")).status, 303)
      yield* goOn.open
      assert.notInclude((yield* Fiber.join(before)).text, "Resume invoices")
      assert.include((yield* get(page)).text, "Resume invoices")
    }).pipe(Effect.scoped)
  )

  it.effect("is looked at once for all who wait, and soon again, where a look has failed after long; but not for nobody", () =>
    Effect.gen(function*() {
      const failure = new SqlError.SqlError({ reason: new SqlError.ConnectionError({ cause: new Error("gone") }) })
      let looks = 0
      const operator = yield* Effect.provide(
        Operator.Operator,
        Layer.mock(Operator.Operator, {
          store: "orders",
          overview: Effect.suspend(() => (looks++, Effect.andThen(Effect.sleep("1 minute"), Effect.fail(failure))))
        })
      )
      const live = yield* Live.make(operator, Duration.seconds(1))
      const viewer = yield* Effect.forkScoped(Stream.runDrain(live.changes))
      const waiting = yield* Effect.forkChild(Effect.all(Array.from({ length: 9 }, () => Effect.flip(live.snapshot)), {
        concurrency: 9
      }))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* Fiber.join(waiting), Array.from({ length: 9 }, () => failure))
      assert.strictEqual(looks, 1)
      yield* TestClock.adjust("30 seconds")
      assert.strictEqual(looks, 2)
      yield* Fiber.interrupt(viewer)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(looks, 2)
    }).pipe(Effect.scoped))
})

describe("markup", () => {
  it("has every value escaped for its place", () => {
    const value = "<b>\"'&\u202e\n"
    assert.strictEqual(String(html`<p>${value}</p>`), "<p>&lt;b&gt;&quot;&#39;&amp;\\u202e\\u000a</p>")
    assert.strictEqual(String(html`<a href="${value}">`), "<a href=\"&lt;b&gt;&quot;&#39;&amp;\u202e\n\">")
    assert.strictEqual(
      String(html`<a${attributes({ a: value, b: true, c: false })}>`),
      "<a a=\"&lt;b&gt;&quot;&#39;&amp;\u202e\n\" b>"
    )
    assert.strictEqual(String(html`<p>${[html`<i>${1}</i>`, false, undefined, 2]}</p>`), "<p><i>1</i>2</p>")
    // What JSON holds is no markup, whatever it looks like.
    assert.throws(() => String(html`<a ${value}>`))
    assert.throws(() => String(html`<a href=${value}>`))
    assert.throws(() => String(html`<a href="${html`<b>`}">`))
  })
})

describe("the options", () => {
  it.effect("are checked", () =>
    Effect.gen(function*() {
      const cases: ReadonlyArray<readonly [Dashboard.DashboardOptions, string]> = [
        [{ path: "ops" }, "path"],
        [{ path: "/ops/" }, "path"],
        [{ path: "/:id" }, "path"],
        [{ path: "/.." }, "path"],
        [{ path: "/a/./b" }, "path"],
        [{ token: Redacted.make("short") }, "token"],
        [{ pollInterval: 10 }, "pollInterval"],
        [{ pollInterval: "Infinity" as never }, "pollInterval"]
      ]
      for (const [options, argument] of cases) {
        const error = yield* Dashboard.layer(options).pipe(
          Layer.provide([HttpRouter.layer, Layer.mock(Operator.Operator, { store: "orders" })]),
          Layer.build,
          Effect.flip
        )
        assert.strictEqual(error.argument, argument)
      }
    }).pipe(Effect.scoped))
})
