/** Folds with snapshots, on stores of their own. */
import { Effect, Layer, Schema, type Scope } from "effect"
import * as Fold from "../../Fold.ts"
import * as MessageStore from "../../MessageStore.ts"
import { type SnapshotKey, Storage } from "../../Storage.ts"
import { deposit, Deposited, Noted } from "../fixture.ts"

const options = { name: "contract", schema: Schema.Union([Deposited, Noted]) } as const
export type AccountEvent = Deposited | Noted

/** Stores that remember nothing, or two states: what they know comes from the storage. */
export class Forgetful extends MessageStore.Service<Forgetful>()("effect-message-store/testing/Forgetful", {
  ...options,
  cachedStates: 0
}) {}
export class OfTwo extends MessageStore.Service<OfTwo>()("effect-message-store/testing/OfTwo", {
  ...options,
  cachedStates: 2
}) {}

/** Runs on a store of its own, as in another process, and ends when its snapshots are written; tells what it read. */
export const onStore = <Self, Store, A, E, R>(
  service: { readonly layerStorage: Layer.Layer<Self, unknown, Storage> } & Effect.Effect<Store, never, Self>,
  use: (store: Store, reads: { pages: number; messages: number }) => Effect.Effect<A, E, R>,
  change: (storage: Storage["Service"]) => Partial<Storage["Service"]> = () => ({})
): Effect.Effect<A, E, Exclude<R, Scope.Scope> | Storage> =>
  Effect.scoped(Effect.gen(function*() {
    const storage = yield* Storage
    const reads = { pages: 0, messages: 0 }
    const counting = Storage.of({
      ...storage,
      readStream: (query) =>
        Effect.tap(storage.readStream(query), ({ messages }) =>
          Effect.sync(() => {
            reads.pages++
            reads.messages += messages.length
          })),
      ...change(storage)
    })
    const layer = Layer.fresh(Layer.provide(service.layerStorage, Layer.succeed(Storage, counting)))
    const store = yield* Effect.provide(service, yield* Effect.orDie(Layer.build(layer)))
    return yield* use(store, reads)
  }))

/** A sum that counts how often it is evolved. */
export const counted = (snapshot?: Partial<Fold.SnapshotOptions<number>>) => {
  const calls = { evolved: 0 }
  const fold = Fold.withSnapshot(
    Fold.make<AccountEvent>()({
      initial: 0,
      Deposited: (sum, { amount }) => {
        calls.evolved++
        return sum + Number(amount)
      }
    }),
    { name: "sum", schema: Schema.Number, every: 10, ...snapshot }
  )
  return { calls, fold }
}

/** Decides nothing, and gives the state that it was decided on. */
export const stateOf = <S>(
  store: MessageStore.MessageStore<AccountEvent>,
  stream: string,
  fold: Fold.Fold<S, AccountEvent>
) =>
  Effect.gen(function*() {
    let state = fold.initial
    yield* store.update(stream, fold, (given) =>
      Effect.sync(() => {
        state = given
        return []
      }))
    return state
  })

export const one = () => Effect.succeed(deposit(1))

/** The key under which something was saved. */
export const keysOf = Effect.fnUntraced(function*(stream: string, fold: Fold.Fold<number, AccountEvent>) {
  const keys: Array<SnapshotKey> = []
  yield* onStore(Forgetful, (store) => stateOf(store, stream, fold), (storage) => ({
    readStream: (query) => {
      if (query.snapshot !== undefined) keys.push(query.snapshot)
      return storage.readStream(query)
    }
  }))
  return keys
})
