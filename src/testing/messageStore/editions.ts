/** What is remembered of messages that are deleted or redacted: states in the process, snapshots in the store. */
import { assert } from "@effect/vitest"
import { Effect, Schema, Stream } from "effect"
import * as Decision from "../../Decision.ts"
import * as Fold from "../../Fold.ts"
import type * as MessageStore from "../../MessageStore.ts"
import { type SavedSnapshot, type SnapshotKey, Storage } from "../../Storage.ts"
import { Accounts, deposit, Deposited, deposits, newStream, type Part } from "../fixture.ts"
import { type AccountEvent, Forgetful, onStore } from "./foldFixture.ts"

type Store = MessageStore.MessageStore<AccountEvent>

/** The amounts of a stream, in their order. */
const listing = (every: number) =>
  Fold.withSnapshot(
    Fold.make<AccountEvent>()({
      initial: [] as ReadonlyArray<number>,
      Deposited: (sofar, { amount }) => [...sofar, Number(amount)]
    }),
    { name: "amounts", schema: Schema.Array(Schema.Number), every }
  )

const redactedTo = (amount: number) => (message: AccountEvent) =>
  message._tag === "Deposited" ? new Deposited({ ...message, amount: BigInt(amount) }) : message

/** What takes something away of a stream that begins with three messages, and what is left. */
const changes: ReadonlyArray<
  readonly [(store: Store, stream: string, firstId: string) => Effect.Effect<unknown, unknown>, ReadonlyArray<number>]
> = [
  [(store, stream) => store.delete(stream, { toVersion: 2 }), [3]],
  [(store, _, firstId) => store.redact(firstId, redactedTo(50)), [50, 2, 3]],
  [(store, stream) => store.delete(stream), []],
  [
    (store, stream) =>
      store.withTransaction(
        Effect.andThen(store.delete(stream), store.write(stream, [deposit(7), deposit(8), deposit(9)]))
      ),
    [7, 8, 9]
  ]
]

export const editions: Part = (it) => {
  it.effect("leaves nothing of it in the state that another process remembers", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const fold = listing(1000)
      for (const [change, left] of changes) {
        for (const decides of ["update", "decide", "in a transaction", "nothing"] as const) {
          const stream = newStream()
          const messages = deposits(3)
          yield* accounts.write(stream, messages)
          yield* onStore(Accounts, (store) =>
            Effect.gen(function*() {
              let seen: ReadonlyArray<number> = []
              const see = (state: ReadonlyArray<number>) => {
                seen = state
                return Effect.succeed(decides === "nothing" ? [] : deposit(100))
              }
              const update = store.update(stream, fold, see)
              const decide = store.decide(
                { amounts: Decision.stream(stream, fold) },
                ({ amounts }) =>
                  Effect.map(see(amounts), (added) => Array.isArray(added) ? [] : { stream, messages: added })
              )
              const decision = decides === "decide"
                ? decide
                : decides === "in a transaction"
                ? store.withTransaction(update)
                : update
              // Remembered, before something is taken away by another process.
              yield* store.update(stream, fold, () => Effect.succeed([]))
              yield* change(accounts, stream, messages[0].messageId)
              yield* decision
              assert.deepStrictEqual(seen, left, decides)
              yield* decision
              assert.deepStrictEqual(seen, decides === "nothing" ? left : [...left, 100], decides)
            }))
        }
      }
    }))

  it.effect("leaves no snapshot of it, and none is saved of what was read before", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const storage = yield* Storage
      for (const [change, left] of changes) {
        const stream = newStream()
        const messages = deposits(3)
        yield* accounts.write(stream, messages)
        const fold = listing(1)
        const saved: Array<SavedSnapshot> = []
        const look = Effect.gen(function*() {
          let state: ReadonlyArray<number> = []
          yield* onStore(
            Forgetful,
            (store) =>
              store.update(stream, fold, (given) => {
                state = given
                return Effect.succeed([])
              }),
            () => ({
              saveSnapshot: (snapshot) => {
                saved.push(snapshot)
                return storage.saveSnapshot(snapshot)
              }
            })
          )
          return state
        })
        const find = (key: SnapshotKey | undefined) =>
          Effect.map(storage.ends([], [], key === undefined ? [] : [key]), ({ snapshots }) => snapshots[0]?.state)
        assert.deepStrictEqual(yield* look, [1, 2, 3])
        const [first = assert.fail("a snapshot was saved")] = saved
        assert.strictEqual(yield* find(first), "[1,2,3]")
        // Rolled back, it stays.
        yield* Effect.flip(
          accounts.withTransaction(Effect.andThen(change(accounts, stream, messages[0].messageId), Effect.fail("no")))
        )
        assert.strictEqual(yield* find(first), "[1,2,3]")
        yield* change(accounts, stream, messages[0].messageId)
        assert.isUndefined(yield* find(first))
        // A process that is late.
        yield* storage.saveSnapshot(first)
        assert.isUndefined(yield* find(first))
        assert.deepStrictEqual(yield* look, left)
        if (left.length > 0) assert.strictEqual(yield* find(first), JSON.stringify(left))
        yield* storage.saveSnapshot(first)
        assert.notStrictEqual(yield* find(first), "[1,2,3]")
        assert.deepStrictEqual(yield* look, left)
      }
    }))

  it.effect("is told by the edition of the stream, as a transaction sees it", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const storage = yield* Storage
      const [stream, other] = [newStream(), newStream()]
      const [first] = deposits(1)
      yield* accounts.write(stream, [first, deposit(2), deposit(3)])
      yield* accounts.write(other, deposit())
      // Where editions begin is the backend's; a stream that is empty has one, too.
      const query = { stream, fromVersion: 1, toVersion: 99, direction: "forward", limit: 9 } as const
      const empty = yield* storage.readStream({ ...query, stream: newStream(), withEdition: true })
      const begin = empty.edition ?? Number.NaN
      const told = Effect.map(storage.ends([stream, other], []), ({ editions: all }) => all.map((one) => one - begin))
      const edition = Effect.map(
        storage.readStream({ ...query, withEdition: true }),
        (page) => (page.edition ?? Number.NaN) - begin
      )
      assert.deepStrictEqual([yield* told, yield* edition], [[0, 0], 0])
      yield* accounts.delete(stream, { toVersion: 0 })
      yield* accounts.redact(first.messageId, (message) => message)
      yield* Effect.flip(accounts.delete(stream, { expectedVersion: 9 }))
      assert.deepStrictEqual([yield* told, yield* edition], [[0, 0], 0])
      yield* Effect.flip(accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.delete(stream, { toVersion: 1 })
        assert.deepStrictEqual([yield* told, yield* edition], [[1, 0], 1])
        return yield* Effect.fail("rolled back")
      })))
      assert.deepStrictEqual([yield* told, yield* edition], [[0, 0], 0])
      yield* accounts.redact(first.messageId, redactedTo(5))
      yield* accounts.delete(stream, { toVersion: 1 })
      assert.deepStrictEqual([yield* told, yield* edition], [[2, 0], 2])
      assert.lengthOf(yield* Stream.runCollect(accounts.read(stream)), 2)
      const expecting = (expectedPosition: number, expectedEdition: number | undefined) =>
        Effect.map(
          storage.append([{
            stream,
            expectedVersion: 3,
            expectedPosition,
            expectedEdition: expectedEdition === undefined ? undefined : begin + expectedEdition,
            messages: [],
            metadata: "{}"
          }], { atomic: true }),
          ([outcome]) => outcome?._tag
        )
      const { globalPosition = 0 } = yield* accounts.head(stream)
      assert.strictEqual(yield* expecting(globalPosition, 1), "WrongVersion")
      assert.strictEqual(yield* expecting(globalPosition - 1, 2), "WrongVersion")
      assert.strictEqual(yield* expecting(globalPosition, 2), "Unchanged")
      assert.strictEqual(yield* expecting(globalPosition, undefined), "Unchanged")
    }))
}
