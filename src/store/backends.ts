/** The backend behind a store, for its operator, for its twin that is read, and for what is done to a store in tests alone. */
import type { Storage } from "../Storage.ts"

interface Behind {
  readonly backend: Storage["Service"]
  /** What the store itself works with: the backend, or what decrypts before it. */
  readonly storage: Storage["Service"]
}

const known = new WeakMap<object, Behind>()

export const remember = <Store extends object>(
  store: Store,
  backend: Storage["Service"],
  storage: Storage["Service"]
): Store => {
  known.set(store, { backend, storage })
  return store
}

export const backendOf = (store: object): Storage["Service"] | undefined => known.get(store)?.backend

export const storageOf = (store: object): Storage["Service"] => {
  const behind = known.get(store)
  if (behind === undefined) throw new TypeError("only a store that a layer made can be read by another service")
  return behind.storage
}
