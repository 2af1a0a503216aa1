/** The events of the dashboard, and the looks at the store that all of its viewers share. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Latch, Layer, Stream } from "effect"
import { Operator } from "effect-message-store"
import { SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import * as Live from "../src/dashboard/live.ts"
import { browse, operated, Ordered, Orders, prepared } from "./support/browsing.ts"

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
      assert.deepStrictEqual(stateOf(later).lag[0].slice(0, 2), ["invoices", 1]) // not linked yet, which counts
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
