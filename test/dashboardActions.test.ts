/** What the dashboard does to a store, and for whom it does it. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer, References } from "effect"
import { Operator } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { All, browse, hostile, Invoices, operated, Ordered, Orders, pages, prepared } from "./support/browsing.ts"
import { Clients, createRole, sharedDatabaseLayer } from "./support/sharedDatabase.ts"

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
