/** Messages of tags, page by page, in one view. */
import { assert } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Stream } from "effect"
import * as Decision from "../../Decision.ts"
import type * as MessageStore from "../../MessageStore.ts"
import { Storage } from "../../Storage.ts"
import { newStream, outsider, type Part } from "../fixture.ts"
import { Closed, count, courses, Labelled, newValue, Opened, Subscribed } from "./tags.ts"

export const taggedPages: Part = (it, { concurrentTransactions }) => {
  it.effect("reads a page in one call, which tells where the tags end; the next ones up to there", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const calls = { pages: 0, ends: 0 }
      const counted = Storage.of({
        ...storage,
        readTagged: (query) => Effect.suspend(() => (calls.pages++, storage.readTagged(query))),
        ends: (...given) => Effect.suspend(() => (calls.ends++, storage.ends(...given)))
      })
      const store = yield* Effect.provideService(courses, Storage, counted)
      const [a, b, student] = [newValue(), newValue(), newValue()]
      const subscribed = (id: string) => new Subscribed({ course: id, student })
      const stream = newStream()
      yield* store.write(stream, [new Opened({ course: a, capacity: 9 }), subscribed(a), subscribed(b)])
      assert.strictEqual(yield* Stream.runCount(store.readTagged([{ course: a }, { course: b, student }])), 3)
      const taken = { taken: Decision.tagged([{ course: a }, { course: b }], count) }
      assert.deepStrictEqual(
        yield* store.decide(taken, (states) => (assert.strictEqual(states.taken, 2), [])),
        []
      )
      assert.deepStrictEqual(calls, { pages: 2, ends: 0 })

      // Ends are those of the first tags, whatever else is asked for, and however many messages the page has.
      // Too large for a page of others.
      const character = (i: number, j: number) => String.fromCodePoint(0x20000 + (7919 * i + 104_729 * j * j) % 40_000)
      const label = (i: number) => Arr.makeBy(200, (j) => character(i, j)).join("")
      const large = new Labelled({ labels: Arr.makeBy(30, label), course: `${a}!` })
      const asked = [a, b, newValue(), `${a}!`].map((id) => `course:${id}`)
      yield* store.write(stream, [new Opened({ course: b, capacity: 1 }), large])
      const { editions, tags: ends } = yield* storage.ends([], asked)
      const [one = "", ...others] = asked
      for (const types of [undefined, Arr.of("Opened"), Arr.of("Closed")]) {
        for (const limit of [1, 1000]) {
          const query = (tag: string) => ({ tags: Arr.of(tag), types })
          const range = { fromPosition: 0, toPosition: Number.MAX_SAFE_INTEGER, limit, direction: "backward" } as const
          const page = yield* storage.readTagged({ ...range, queries: [query(one), ...others.map(query)] })
          assert.deepStrictEqual(page.ends, { tags: ends, editions })
          assert.lengthOf(page.messages, Math.min(limit, types === undefined ? 5 : types[0] === "Opened" ? 2 : 0))
          assert.deepStrictEqual(
            (yield* storage.readTagged({ ...range, queries: [query(one)] })).ends,
            { tags: ends.slice(0, 1), editions: editions.slice(0, 1) }
          )
          const bounded = yield* storage.readTagged({ ...range, queries: [{ ...query(one), upTo: 0 }] })
          assert.deepStrictEqual([bounded.messages, bounded.ends], [[], undefined])
        }
      }

      yield* store.write(stream, Arr.makeBy(300, () => subscribed(a)))
      const whileReading = Effect.gen(function*() {
        let seen = 0
        yield* Stream.runForEach(
          store.readTagged([{ course: a }, { course: b }]),
          () => seen++ === 0 ? store.write(stream, [subscribed(a), subscribed(b)]) : Effect.void
        )
        return seen
      })
      // In a transaction no page is read before its turn.
      assert.strictEqual(yield* store.withTransaction(whileReading), 304)
      assert.strictEqual(yield* store.withTransaction(whileReading), 306)
    }).pipe(Effect.scoped))

  if (!concurrentTransactions) return

  it.effect("decides on a late commit at a lower position where one source asks for both tags", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const outside = yield* outsider
      const [a, b] = [newValue(), newValue()]
      const seen: Array<number> = []
      const decided = yield* Deferred.make<void, MessageStore.DecideError>()
      const deciding = store.decide({ any: Decision.tagged([{ course: a }, { course: b }], count) }, ({ any }) => {
        seen.push(any)
        return { stream: newStream(), messages: new Closed({}) }
      })
      yield* store.withTransaction(Effect.gen(function*() {
        yield* store.write(newStream(), new Subscribed({ course: a, student: newValue() }))
        yield* outside(store.write(newStream(), new Subscribed({ course: b, student: newValue() })))
        yield* outside(Effect.forkDetach(Deferred.into(Effect.asVoid(deciding), decided)))
        while (seen.length === 0) yield* outside(Stream.runDrain(store.readTagged({ course: b })))
      }))
      yield* Deferred.await(decided)
      assert.deepStrictEqual(seen, [1, 2])
    }).pipe(Effect.scoped))
}
