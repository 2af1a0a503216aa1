import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, Exit, Schema } from "effect"
import { Message } from "effect-message-store"
import { SecureRandom } from "effect/crypto"
import { TestClock } from "effect/testing"

class Ticked extends Schema.TaggedClass<Ticked>()("Ticked", { ...Message.fields, count: Schema.Int }) {}

describe("Message.fields", () => {
  it("are filled in by the constructor, ids rising", () => {
    const ticks = Array.from({ length: 1000 }, (_, count) => new Ticked({ count }))
    const ids = ticks.map((tick) => tick.messageId)
    assert.match(ids[0] ?? "", /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    assert.deepStrictEqual(ids, Array.from(new Set(ids)).toSorted())
    assert.isAtMost(Math.abs(Date.now() - (ticks[0]?.occurredAt.epochMilliseconds ?? 0)), 60_000)
  })

  it("are taken where they are given", () => {
    const given = { messageId: "0199f0e0-0000-7000-8000-00000000000a", occurredAt: DateTime.makeUnsafe(5) }
    assert.deepInclude<object>({ ...new Ticked({ ...given, count: 1 }) }, given)
    assert.throws(() => new Ticked({ messageId: "not a UUID", count: 1 }))
  })

  it.effect("come from the fiber's clock and randomness when made by an effect", () =>
    Effect.gen(function*() {
      const seeded = () => SecureRandom.make((size) => new Uint8Array(size).fill(7))
      const make = Effect.map(Message.make(Ticked, { count: 1 }), (tick) => ({ ...tick }))
      yield* TestClock.setTime(1_700_000_000_000)
      const first = yield* Effect.provideService(make, SecureRandom.SecureRandom, seeded())
      const second = yield* Effect.provideService(make, SecureRandom.SecureRandom, seeded())
      assert.deepStrictEqual(first, second)
      assert.strictEqual(first.occurredAt.epochMilliseconds, 1_700_000_000_000)
      assert.strictEqual(parseInt(first.messageId.replaceAll("-", "").slice(0, 12), 16), 1_700_000_000_000)
      assert.instanceOf(yield* Message.make(Ticked, { count: 1 }), Ticked)
    }))

  it.effect("make input that the schema refuses a defect, as `new` does", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Message.make(Ticked, { count: 0.5 }))
      assert.isTrue(Exit.hasDies(exit) && !Exit.hasFails(exit))
    }))
})
