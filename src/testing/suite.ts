/** Registers the parts of a contract as tests of a backend. */
import { describe, layer } from "@effect/vitest"
import { Layer } from "effect"
import type { Duration } from "effect"
import type { Storage } from "../Storage.ts"
import type { Options } from "../Subscription.ts"
import { Accounts, ClaimsOption, type ContractOptions, type Part } from "./fixture.ts"

export type SuiteOptions = Partial<ContractOptions> & {
  /** How subscriptions claim partitions: `claims` of their options. */
  readonly claims?: Options["claims"]
  /** How long building the layer may take; default 1 minute. */
  readonly timeout?: Duration.Input | undefined
}

/** Registers a contract with Vitest. The layer is built once; the tests use streams of their own. */
export const makeSuite = (contract: string, parts: Readonly<Record<string, Part>>) =>
<E>(
  name: string,
  storage: Layer.Layer<Storage, E>,
  { claims, concurrentTransactions = true, readModel, timeout = "1 minute" }: SuiteOptions = {}
): void => {
  const accounts = Layer.provideMerge(Accounts.layerStorage, storage).pipe(
    Layer.merge(Layer.succeed(ClaimsOption, claims))
  )
  describe(name, () =>
    layer(accounts, { excludeTestServices: true, timeout })(contract, (it) => {
      for (const [title, part] of Object.entries(parts)) {
        it.describe(title, () => part(it, { concurrentTransactions, readModel }))
      }
    }))
}
