/** Snapshots of folds on streams. */
import { assert } from "@effect/vitest"
import { Array as Arr, Effect, Logger, Metric, Schema } from "effect"
import * as Decision from "../../Decision.ts"
import * as Fold from "../../Fold.ts"
import { Storage } from "../../Storage.ts"
import { Accounts, deposit, deposits, failsWith, newStream, Noted, type Part } from "../fixture.ts"
import { type AccountEvent, counted, Forgetful, keysOf, one, onStore, stateOf } from "./foldFixture.ts"

export const foldSnapshots: Part = (it, { concurrentTransactions }) => {
  it.effect("begin a decision: only what follows is read, with them, in one page", () =>
    Effect.gen(function*() {
      const stream = newStream()
      yield* (yield* Accounts).write(stream, deposits(25))
      const { calls, fold } = counted()
      yield* onStore(Forgetful, (store) => store.update(stream, fold, one))
      assert.strictEqual(calls.evolved, 26)
      yield* (yield* Accounts).write(stream, deposits(3))
      for (const decide of ["update", "decide", "decide on several"] as const) {
        calls.evolved = 0
        yield* onStore(Forgetful, (store, reads) =>
          Effect.gen(function*() {
            if (decide === "update") assert.strictEqual(yield* stateOf(store, stream, fold), 332)
            else {
              const sources = { sum: Decision.stream(stream, fold) }
              const other = { other: Decision.stream(newStream(), fold) }
              yield* store.decide(decide === "decide" ? sources : { ...sources, ...other }, (states) => {
                assert.strictEqual("sum" in states ? states.sum : undefined, 332)
                return []
              })
            }
            // Several are read on from what is known: its last message, and those behind it.
            const several = decide === "decide on several"
            assert.deepInclude(reads, { messages: several ? 4 : 3 }, decide)
            if (!several) assert.strictEqual(reads.pages, 1, decide)
          }))
        assert.strictEqual(calls.evolved, 3, decide)
      }
    }))

  it.effect("are written when enough was folded, whatever was decided", () =>
    Effect.gen(function*() {
      const stream = newStream()
      const { calls, fold } = counted({ every: 10 })
      yield* (yield* Accounts).write(stream, deposits(9))
      yield* onStore(Forgetful, (store) => stateOf(store, stream, fold))
      yield* onStore(Forgetful, (store) => stateOf(store, stream, fold))
      assert.strictEqual(calls.evolved, 18)
      yield* (yield* Accounts).write(stream, deposit())
      yield* onStore(Forgetful, (store) =>
        failsWith(store.update(stream, fold, () => Effect.fail({ _tag: "No" })), { _tag: "No" }))
      calls.evolved = 0
      assert.strictEqual(
        yield* onStore(Forgetful, (store) =>
          stateOf(store, stream, fold)),
        46
      )
      assert.strictEqual(calls.evolved, 0)
    }))

  it.effect("of other versions, schemas, cases and beginnings stand beside each other, two at a time", () =>
    Effect.gen(function*() {
      const stream = newStream()
      yield* (yield* Accounts).write(stream, deposits(20))
      const evolvedBy = ({ calls, fold }: ReturnType<typeof counted>) =>
        Effect.gen(function*() {
          calls.evolved = 0
          yield* onStore(Forgetful, (store) => stateOf(store, stream, fold))
          return calls.evolved
        })
      const old = counted()
      const raised = counted({ version: 2 })
      assert.deepStrictEqual(yield* Effect.forEach([old, old, raised, raised], evolvedBy), [20, 0, 20, 0])
      // As while both are deployed.
      assert.deepStrictEqual(yield* Effect.forEach([old, raised, old], evolvedBy), [0, 0, 0])
      const typed = counted({ schema: Schema.Finite })
      const { calls, fold } = counted()
      const cases = { calls, fold: { ...fold, types: [...fold.types, "Noted"] as never } }
      const begun = { calls, fold: { ...fold, initial: 1 } }
      // Each pushes out the one that was saved first of the two before it.
      for (const other of [typed, cases, begun]) {
        // A fold that is made anew is the same, if it is made the same.
        assert.deepStrictEqual(yield* Effect.forEach([other, other], evolvedBy), [20, 0])
      }
      assert.deepStrictEqual(yield* Effect.forEach([old, raised], evolvedBy), [20, 20])
    }))

  it.effect("that do not stand, or do not decode, are folded anew and replaced", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const accounts = yield* Accounts
      const stream = newStream()
      const { calls, fold } = counted()
      yield* accounts.write(stream, deposits(12))
      const head = yield* accounts.head(stream)
      const [key] = yield* keysOf(stream, fold)
      assert.isDefined(key)
      if (key === undefined) return
      const ends = [head.globalPosition ?? 0]
      const wrong: Record<
        string,
        { readonly state: string; readonly version: number; readonly ends: ReadonlyArray<number> }
      > = {
        "no JSON": { state: "{", version: 12, ends },
        "another type": { state: "\"x\"", version: 12, ends },
        "empty": { state: "", version: 12, ends },
        "another position": { state: "1000", version: 12, ends: [ends[0] as number + 1] },
        "another version": { state: "1000", version: 11, ends },
        "beyond the end": { state: "1000", version: 13, ends }
      }
      for (const [name, snapshot] of Object.entries(wrong)) {
        yield* storage.saveSnapshot({ ...key, ...snapshot, madeOf: [] })
        calls.evolved = 0
        assert.strictEqual(yield* onStore(Forgetful, (store) => stateOf(store, stream, fold)), 78, name)
        assert.strictEqual(calls.evolved, 12, name)
        yield* onStore(Forgetful, (store) =>
          store.decide({ a: Decision.stream(stream, fold), b: Decision.stream(newStream(), fold) }, ({ a }) => {
            assert.strictEqual(a, 78, name)
            return []
          }))
      }
      // Whatever is written gets a higher position.
      yield* accounts.write(stream, deposits(2))
      yield* onStore(Forgetful, (store) =>
        stateOf(store, stream, fold))
      calls.evolved = 0
      assert.strictEqual(
        yield* onStore(Forgetful, (store) =>
          stateOf(store, stream, fold)),
        81
      )
      assert.strictEqual(calls.evolved, 0)
    }))

  it.effect("never give way to older ones, however many write them at once", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const key = { fold: "f", source: `stream ${newStream()}`, fingerprint: "1" }
      const save = (at: number) => storage.saveSnapshot({ ...key, version: at, ends: [at], state: `${at}`, madeOf: [] })
      const saved = Effect.map(storage.ends([], [], [key]), ({ snapshots: [snapshot] }) => snapshot)
      yield* save(5)
      yield* save(3)
      assert.deepStrictEqual(yield* saved, { version: 5, ends: [5], state: "5" })
      yield* Effect.all(Arr.makeBy(30, (i) => save(10 + i * 7 % 30)), { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* saved, { version: 39, ends: [39], state: "39" })
      // Of others, each has its own.
      const others = [{ ...key, fold: "g" }, { ...key, source: "x" }, { ...key, fingerprint: "2" }, key]
      const found = yield* storage.ends([], [], others)
      assert.deepStrictEqual(found.snapshots.map((snapshot) => snapshot?.version), [
        undefined,
        undefined,
        undefined,
        39
      ])
    }))

  it.effect("hold states of any JSON", () =>
    Effect.gen(function*() {
      const texts = ["\0\ud800 'x' \\ \u{1f642}", "x".repeat(300_000), "{\"a\":[null]}"]
      for (const text of texts) {
        const stream = newStream()
        yield* (yield* Accounts).write(stream, [deposit(), new Noted({ text: "é" })])
        const fold = Fold.withSnapshot(
          Fold.make<AccountEvent>()({
            initial: { texts: [""] } as { readonly texts: ReadonlyArray<string> },
            Noted: () => ({ texts: [text] })
          }),
          { name: "the last \"text\" 'é", every: 1, schema: Schema.Struct({ texts: Schema.Array(Schema.String) }) }
        )
        yield* onStore(Forgetful, (store) => stateOf(store, stream, fold))
        yield* onStore(Forgetful, (store, reads) =>
          Effect.gen(function*() {
            assert.deepStrictEqual(yield* stateOf(store, stream, fold), { texts: [text] })
            assert.strictEqual(reads.messages, 0)
          }))
      }
    }))

  it.effect("stand before messages of any size", () =>
    Effect.gen(function*() {
      const stream = newStream()
      const accounts = yield* Accounts
      const { fold } = counted({ every: 2 })
      yield* accounts.write(stream, deposits(2))
      yield* onStore(Forgetful, (store) => stateOf(store, stream, fold))
      const large = new Noted({ text: Arr.makeBy(4000, () => globalThis.crypto.randomUUID()).join() })
      yield* accounts.write(
        stream,
        [large, large, deposit(3), large, deposit(4)].map((message) =>
          message === large ? new Noted({ text: large.text }) : message
        ) as never
      )
      assert.strictEqual(yield* onStore(Forgetful, (store) => stateOf(store, stream, fold)), 10)
    }))

  it.effect("are counted; of those that cannot be used one is logged", () =>
    Effect.gen(function*() {
      const stream = newStream()
      const storage = yield* Storage
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
        if (logLevel === "Warn") lines.push(String(Array.isArray(message) ? message[0] : message))
      })
      const counts = Effect.map(Metric.snapshot, (all) =>
        all.flatMap((each) =>
          each.id === "effect_message_store.snapshots" && each.type === "Counter"
            ? [`${each.attributes?.["messaging.destination.name"]} ${each.attributes?.["outcome"]} ${each.state.count}`]
            : []
        ).toSorted())
      const { fold } = counted({ every: 2, name: `of ${stream}` })
      yield* (yield* Accounts).write(stream, deposits(2))
      const [key] = yield* keysOf(stream, fold)
      const head = yield* (yield* Accounts).head(stream)
      if (key === undefined) {
        return assert.fail("no snapshot was asked for")
      }
      yield* Effect.gen(function*() {
        yield* storage.saveSnapshot({ ...key, state: "{", version: 2, ends: [head.globalPosition ?? 0], madeOf: [] })
        const again = (store: Accounts["Service"]) =>
          stateOf(store, stream, fold)
        // What is wrong stays where it is.
        yield* onStore(Forgetful, (store) =>
          Effect.andThen(again(store), again(store)), () => ({
            saveSnapshot: () => Effect.void
          }))
        const large = counted({ schema: Schema.Number.check(Schema.isLessThan(0)), every: 1 })
        yield* onStore(Forgetful, (store) => stateOf(store, stream, large.fold))
        assert.deepStrictEqual(yield* counts, ["contract failed 1", "contract saved 2", "contract unusable 2"])
      }).pipe(Effect.provide(Logger.layer([logger])), Effect.provideService(Metric.MetricRegistry, new Map()))
      assert.deepStrictEqual(lines, [
        `A snapshot of the fold "of ${stream}" (stream ${stream}) cannot be used, and is made anew; others are not logged`
      ])
    }))

  it.effect("are never felt: neither if they cannot be encoded, nor if they cannot be written", () =>
    Effect.gen(function*() {
      const stream = newStream()
      yield* (yield* Accounts).write(stream, deposits(3))
      const large = Fold.withSnapshot(
        Fold.make<AccountEvent>()({ initial: "", Deposited: (text) => `${text}${"x".repeat(400_000)}` }),
        { name: "large", schema: Schema.String, every: 1 }
      )
      yield* onStore(Forgetful, (store) => store.update(stream, large, one))
      const small = counted({ schema: Schema.Number.check(Schema.isLessThan(3)) as never, every: 1 })
      yield* onStore(Forgetful, (store) => store.update(stream, small.fold, one))
      small.calls.evolved = 0
      assert.strictEqual(yield* onStore(Forgetful, (store) => stateOf(store, stream, small.fold)), 8)
      assert.strictEqual(small.calls.evolved, 5)
      const { fold } = counted({ every: 1 })
      for (const saving of [Effect.die("broken"), Effect.never]) {
        yield* onStore(Accounts, (store) =>
          Effect.gen(function*() {
            yield* store.update(stream, fold, one)
            yield* store.update(stream, fold, one)
          }), () => ({ saveSnapshot: () => saving }))
      }
      assert.strictEqual((yield* (yield* Accounts).head(stream)).version, 9)
    }))

  it.effect("are of what was committed: what is rolled back leaves none", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const { calls, fold } = counted({ every: 2 })
      yield* accounts.write(stream, deposits(1))
      const more = (store: typeof accounts) => store.update(stream, fold, () => Effect.succeed(deposits(3)))
      yield* onStore(Accounts, (store) =>
        Effect.gen(function*() {
          yield* failsWith(store.withTransaction(Effect.andThen(more(store), Effect.fail({ _tag: "No" }))), {
            _tag: "No"
          })
          // A part of the transaction is rolled back.
          yield* store.withTransaction(Effect.gen(function*() {
            yield* Effect.result(store.withTransaction(Effect.andThen(more(store), Effect.fail("No"))))
            assert.strictEqual(yield* stateOf(store, stream, fold), 1)
          }))
          assert.strictEqual(yield* stateOf(store, stream, fold), 1)
        }))
      calls.evolved = 0
      assert.strictEqual(yield* onStore(Forgetful, (store) => stateOf(store, stream, fold)), 1)
      assert.strictEqual(calls.evolved, 1)
      yield* onStore(Forgetful, (store) => store.withTransaction(more(store)))
      calls.evolved = 0
      assert.strictEqual(yield* onStore(Forgetful, (store) => stateOf(store, stream, fold)), 7)
      assert.strictEqual(calls.evolved, 0)
    }))

  if (!concurrentTransactions) return

  it.effect("of a transaction are written once it is committed", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const { fold } = counted({ every: 1 })
      const [key] = yield* keysOf(stream, fold)
      const storage = yield* Storage
      yield* onStore(Forgetful, (store) =>
        store.withTransaction(Effect.gen(function*() {
          yield* store.update(stream, fold, one)
          yield* store.update(stream, fold, one)
          // Whoever writes another one meanwhile does not hasten it.
          const other = newStream()
          yield* accounts.write(other, deposit())
        })), (opened) => ({
          saveSnapshot: (snapshot) =>
            Effect.gen(function*() {
              assert.strictEqual((yield* Effect.orDie(accounts.head(stream))).version, 2)
              yield* opened.saveSnapshot(snapshot)
            })
        }))
      const { snapshots } = yield* storage.ends([], [], key === undefined ? [] : [key])
      assert.deepStrictEqual(snapshots.map((snapshot) => snapshot?.version), [2])
    }))
}
