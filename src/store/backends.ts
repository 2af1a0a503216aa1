/** The backend behind a store, for its operator, and for what is done to a store in tests alone. */
import type { Storage } from "../Storage.ts"

const backends = new WeakMap<object, Storage["Service"]>()

export const remember = <Store extends object>(store: Store, storage: Storage["Service"]): Store => {
  backends.set(store, storage)
  return store
}

export const backendOf = (store: object): Storage["Service"] | undefined => backends.get(store)
