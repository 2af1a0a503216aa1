/** Operators: what led to a message, what came of it, and what happens now. */
import { assert } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import { Accounts, deposit, deposits, newStream, type Part } from "../fixture.ts"
import { during, recorder, subscribe, until } from "../subscription/fixture.ts"
import { operated } from "./fixture.ts"

export const tracing: Part = (it) => {
  it.effect("tells causes and consequences of a message, also of those that were found together", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const operator = yield* operated()
      const stream = newStream()
      const [root, child, grandchild, sibling, stranger] = [deposit(), deposit(), deposit(), deposit(), deposit()]
      const of = (cause: { readonly messageId: string }) => ({ metadata: { causationId: cause.messageId } })
      yield* accounts.write(stream, root)
      yield* accounts.write(stream, stranger)
      yield* accounts.write(stream, child, of(root))
      yield* accounts.write(stream, sibling, of(root))
      yield* accounts.write(stream, grandchild, of(child))
      const family = [root, child, sibling, grandchild].map(({ messageId }) => messageId)
      for (const one of [root, child, grandchild]) {
        const trace = yield* operator.trace(one.messageId)
        assert.deepInclude(trace, { next: undefined, reached: undefined })
        assert.strictEqual(trace?.root.messageId, root.messageId)
        assert.strictEqual(trace?.message.messageId, one.messageId)
        assert.deepStrictEqual(trace?.messages.map(({ messageId }) => messageId), family)
      }
      // With no time to look, it goes on where it was.
      const seen: Array<string> = []
      let cursor: string | undefined
      do {
        const trace = yield* operator.trace(root.messageId, { timeLimit: 0, cursor })
        seen.push(...trace?.messages.map(({ messageId }) => messageId) ?? [])
        cursor = trace?.next
      } while (cursor !== undefined)
      assert.sameMembers(seen, family)
      assert.isUndefined(yield* operator.trace(globalThis.crypto.randomUUID()))
    }))

  it.effect("ends where messages name each other as their causes, or none that there is", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const operator = yield* operated()
      const stream = newStream()
      const [one, two] = [deposit(), deposit()]
      yield* accounts.write(stream, one, { metadata: { causationId: two.messageId } })
      yield* accounts.write(stream, two, { metadata: { causationId: one.messageId } })
      const trace = yield* operator.trace(one.messageId)
      assert.deepStrictEqual(trace?.messages.map(({ version }) => version), [1, 2])
      const orphan = deposit()
      yield* accounts.write(stream, orphan, { metadata: { causationId: "not an id", correlationId: 7 as never } })
      assert.strictEqual((yield* operator.trace(orphan.messageId))?.root.messageId, orphan.messageId)
    }))

  it.effect("tells where a message is, and who has handled it", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe({ onFailure: "park" })
      const operator = yield* operated()
      yield* write(3, 2)
      const [parks, waits] = [yield* make(), yield* make({ name: "subscription_that_waits" })]
      const record = recorder()
      yield* during(
        parks.run((message, delivery) =>
          delivery.position === 1 ? Effect.fail("no") : record.handler(message, delivery)
        ),
        until(Effect.map(parks.lag, (lag) => lag === 0))
      )
      const stored = yield* Stream.runCollect(accounts.read(origin(3)))
      const stateOf = Effect.fnUntraced(function*(index: number) {
        const details = yield* operator.message(stored[index]?.messageId ?? "")
        assert.strictEqual(details?.message.stream, origin(3))
        return details?.places
      })
      const place = { aggregatedStream: stream.name, partition: 3 }
      const waiting = { name: waits.name, state: "waiting" }
      const states = (state: string) =>
        [{ name: parks.name, state }, waiting].toSorted((a, b) => a.name < b.name ? -1 : 1)
      assert.deepStrictEqual(yield* stateOf(0), [{ ...place, position: 0, subscriptions: states("handled") }] as never)
      assert.deepStrictEqual(yield* stateOf(1), [{ ...place, position: 1, subscriptions: states("parked") }] as never)
      yield* operator.requeue(parks.name)
      assert.deepStrictEqual(yield* stateOf(1), [{ ...place, position: 1, subscriptions: states("requeued") }] as never)
      const { items, next } = yield* operator.linked(stream.name, 3, { limit: 1 })
      assert.deepStrictEqual(items.map(({ position }) => position), [0])
      const rest = yield* operator.linked(stream.name, 3, { cursor: next })
      assert.deepStrictEqual(rest.items.map(({ messageId }) => messageId), [stored[1]?.messageId])
      yield* waits.drop
      const single = deposit()
      yield* accounts.write(newStream(), single)
      assert.deepStrictEqual((yield* operator.message(single.messageId))?.places, [])
      assert.isUndefined(yield* operator.message(globalThis.crypto.randomUUID()))
    }))

  it.effect("follows what is written, of all streams or some", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const operator = yield* operated()
      const prefix = newStream()
      const { globalPosition } = yield* accounts.write(`${prefix}-a`, deposits(2))
      const following = yield* operator.follow({ pattern: `${prefix}-%`, after: globalPosition }).pipe(
        Stream.take(3),
        Stream.runCollect,
        Effect.forkChild
      )
      yield* accounts.write(newStream(), deposit())
      yield* accounts.write(`${prefix}-a`, deposit())
      yield* accounts.write(`${prefix}-b`, deposits(2))
      const found = yield* Effect.timeout(Fiber.join(following), "10 seconds")
      assert.deepStrictEqual(found.map(({ stream, version }) => `${stream.at(-1)}${version}`), ["a3", "b1", "b2"])
    }))
}
