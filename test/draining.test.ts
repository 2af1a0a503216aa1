/** What a drain of a subscription asks the database. */
import { assert, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Storage } from "effect-message-store"
import * as MemoryStorage from "../src/memory/storage.ts"
import { Done, stream, Work } from "./support/work.ts"

it.effect("a drain of an idle subscription ends after one question, and claims nothing", () =>
  Effect.gen(function*() {
    let asked = 0
    let claims = 0
    const counted = Layer.effect(
      Storage.Storage,
      Effect.map(Storage.Storage, (storage) => ({
        ...storage,
        aggregatedStream: (definition: Storage.StreamDefinition) =>
          Effect.map(storage.aggregatedStream(definition), (aggregated) => ({
            ...aggregated,
            subscription: (name: string) =>
              Effect.map(aggregated.subscription(name), (subscribed): Storage.SubscriptionStorage => ({
                ...subscribed,
                pending: Effect.suspend(() => {
                  asked++
                  return subscribed.pending
                }),
                claims: (mode, label) => {
                  claims++
                  return subscribed.claims(mode, label)
                }
              }))
          }))
      }))
    ).pipe(Layer.provide(MemoryStorage.layer))
    yield* Effect.gen(function*() {
      const work = yield* Work
      const worked = yield* stream(1)
      const subscription = yield* worked.subscription({ name: "idle" })
      assert.include(yield* subscription.drain(() => Effect.void), { handled: 0, isCaughtUp: true })
      assert.deepStrictEqual([asked, claims], [1, 0])
      yield* work.write("one", [new Done({ number: 1 })])
      yield* worked.projector.runOnce
      // By the clock of the test, which nobody moves: no wait for a poll.
      assert.include(yield* subscription.drain(() => Effect.void), { handled: 1, isCaughtUp: true })
      assert.strictEqual(claims, 1)
      yield* subscription.pause()
      yield* work.write("one", [new Done({ number: 2 })])
      yield* worked.projector.runOnce
      const before = asked
      assert.include(yield* subscription.drain(() => Effect.void), { handled: 0, left: 1, isCaughtUp: true })
      assert.deepStrictEqual([asked - before, claims], [1, 1])
    }).pipe(Effect.provide(Layer.provide(Work.layerStorage, counted)))
  }))
