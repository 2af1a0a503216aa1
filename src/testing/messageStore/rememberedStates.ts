/** The states of folds that a process remembers. */
import { assert } from "@effect/vitest"
import { Array as Arr, Effect } from "effect"
import * as Decision from "../../Decision.ts"
import type * as MessageStore from "../../MessageStore.ts"
import { Storage } from "../../Storage.ts"
import { Accounts, deposit, deposits, newStream, type Part } from "../fixture.ts"
import { truncate } from "../truncate.ts"
import { type AccountEvent, counted, Forgetful, keysOf, OfTwo, one, onStore, stateOf } from "./foldFixture.ts"

export const rememberedStates: Part = (it) => {
  it.effect("spare the read: a decision that writes is told by its write, another one reads", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      yield* accounts.write(stream, deposits(3))
      const { calls, fold } = counted({ every: 1000 })
      yield* onStore(Accounts, (store, reads) =>
        Effect.gen(function*() {
          yield* store.update(stream, fold, one)
          calls.evolved = 0
          reads.pages = 0
          for (let i = 0; i < 3; i++) yield* store.update(stream, fold, one)
          assert.deepStrictEqual([calls.evolved, reads.pages], [3, 0])
          assert.strictEqual(yield* stateOf(store, stream, fold), 10)
          assert.strictEqual(reads.pages, 1)
          // In a transaction nothing is remembered: it may see less.
          yield* store.withTransaction(store.update(stream, fold, one))
          assert.strictEqual(reads.pages, 2)
          yield* store.update(stream, fold, one)
          assert.strictEqual(reads.pages, 2)
          // Another process writes: whoever decided before it decides again.
          const seen: Array<number> = []
          for (const decision of [deposit(), undefined]) {
            yield* accounts.write(stream, deposit(100))
            yield* store.update(stream, fold, (sum) => {
              seen.push(sum)
              return Effect.succeed(decision === undefined ? [] : decision)
            })
          }
          assert.deepStrictEqual(seen, [12, 112, 113, 213])
        }))
    }))

  it.effect("are as many as they may be", () =>
    Effect.gen(function*() {
      const streams = [newStream(), newStream(), newStream()] as const
      const { fold } = counted({ every: 1000 })
      yield* onStore(OfTwo, (store, reads) =>
        Effect.gen(function*() {
          const update = (i: 0 | 1 | 2) =>
            Effect.gen(function*() {
              reads.pages = 0
              yield* store.update(streams[i], fold, one)
              return reads.pages
            })
          // The third takes the place of the second, which was used least recently.
          const pages = yield* Effect.forEach([0, 1, 0, 2, 0, 2, 1, 0] as const, update)
          assert.deepStrictEqual(pages, [1, 1, 0, 1, 0, 0, 1, 1])
        }))
      yield* onStore(Forgetful, (store, reads) =>
        Effect.gen(function*() {
          yield* store.update(streams[0], fold, one)
          yield* store.update(streams[0], fold, one)
          assert.strictEqual(reads.pages, 2)
        }))
    }))

  it.effect("lose no decision of 60 fibers on three stores", () =>
    Effect.gen(function*() {
      const stream = newStream()
      const { fold } = counted({ every: 3 })
      const decided = (store: MessageStore.MessageStore<AccountEvent>) =>
        Effect.all(
          Arr.makeBy(20, (i) =>
            store.update(stream, fold, (sum, version) => {
              assert.strictEqual(sum, 2 ** version - 1)
              return Effect.succeed(i % 5 === 0 ? [] : deposit(sum + 1))
            })),
          { concurrency: "unbounded" }
        )
      yield* Effect.all([onStore(Accounts, decided), onStore(Forgetful, decided), onStore(OfTwo, decided)], {
        concurrency: "unbounded"
      })
      assert.strictEqual((yield* (yield* Accounts).head(stream)).version, 48)
    }))

  it.effect("of a stream that was truncated are not used", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const accounts = yield* Accounts
      const stream = newStream()
      const { calls, fold } = counted({ every: 2 })
      yield* accounts.write(stream, deposits(4))
      yield* onStore(Accounts, (store) =>
        Effect.gen(function*() {
          assert.strictEqual(yield* stateOf(store, stream, fold), 10)
          yield* truncate(accounts)
          yield* accounts.write(stream, [deposit(20), deposit(21), deposit(22), deposit(23), deposit(24)])
          // Remembered, at version 4: another message stands there.
          assert.strictEqual(yield* stateOf(store, stream, fold), 110)
        }))
      const [key] = yield* keysOf(stream, fold)
      yield* truncate(accounts)
      assert.deepStrictEqual((yield* storage.ends([], [], key === undefined ? [] : [key])).snapshots, [undefined])
      assert.strictEqual(calls.evolved, 9)
    }))

  it.effect("of a stream that was truncated, and is back at its version, write nothing", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const [stream, other] = [newStream(), newStream()]
      const { fold } = counted({ every: 1000 })
      yield* onStore(Accounts, (store) =>
        Effect.gen(function*() {
          const seen: Array<number> = []
          const update = store.update(stream, fold, (sum) => {
            seen.push(sum)
            return Effect.succeed(deposit(1))
          })
          const decide = store.decide({ sum: Decision.stream(stream, fold) }, ({ sum }) => {
            seen.push(sum)
            return { stream, messages: deposit(1) }
          })
          // The stream is a condition alone.
          const required = store.decide({ sum: Decision.stream(stream, fold) }, ({ sum }) => {
            seen.push(sum)
            return { stream: other, messages: deposit(1) }
          })
          for (const decision of [update, decide, required]) {
            yield* update
            seen.length = 0
            const { version } = yield* accounts.head(stream)
            yield* truncate(accounts)
            for (let i = 0; i < version; i++) yield* accounts.write(stream, deposit(100))
            yield* decision
            assert.deepStrictEqual(seen.slice(1), [100 * version])
          }
        }))
    }))
}
