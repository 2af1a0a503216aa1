/** The pages of the dashboard, as a browser gets them. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { Operator } from "effect-message-store"
import { SqlError } from "effect/sql"
import { attributes, html } from "../src/dashboard/html.ts"
import { browse, escaped, hostile, Invoices, operated, Ordered, Orders, pages, prepared } from "./support/browsing.ts"

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
    "of parked messages tell when there are more errors than they show",
    Effect.gen(function*() {
      yield* prepared
      const operator = yield* Operator.Operator
      const [kind] = yield* operator.parkedErrors("invoices", { limit: 1 })
      if (kind === undefined) return assert.fail("nothing is parked")
      let count = 100
      const { get } = yield* browse({ readOnly: false }, {
        ...operator,
        parkedErrors: (_name, { limit = 50 } = {}) =>
          Effect.succeed(
            Array.from({ length: Math.min(count, limit) }, (_, i) => ({ ...kind, message: `kind ${"x".repeat(i)}` }))
          )
      })
      for (const page of ["/ops/parked", "/ops/parked?subscription=invoices"]) {
        count = 100
        assert.notInclude((yield* get(page)).text, "There are more errors than these")
        count = 101
        const { text } = yield* get(page)
        assert.include(text, "There are more errors than these 100")
        assert.lengthOf(text.match(/data-label="Error"/g) ?? [], 100)
      }
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
