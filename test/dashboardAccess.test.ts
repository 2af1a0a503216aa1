/** Whom the dashboard refuses, and the options that say so. */
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Duration, Effect, Layer, Redacted } from "effect"
import { Operator } from "effect-message-store"
import * as Dashboard from "effect-message-store/Dashboard"
import { HttpRouter, HttpServer, HttpServerRequest } from "effect/http"
import { NetAddress } from "effect/net"
import * as Routes from "../src/dashboard/routes.ts"
import { formTokenOf, isForHost, isOfForm, isOfSameOrigin, isSecure, makeSessions } from "../src/dashboard/security.ts"
import { browse, operated, prepared, token } from "./support/browsing.ts"

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
