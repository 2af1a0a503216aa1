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
  /**
   * Whether each part of the contract gets a backend of its own, so that it is not slowed down by what the parts before it
   * have left: sessions that know the statements of hundreds of subscriptions, for one. Default: no.
   */
  readonly freshParts?: boolean | undefined
}

/** Registers a contract with Vitest. The layer is built once, or for each part; the tests use streams of their own. */
export const makeSuite = (contract: string, parts: Readonly<Record<string, Part>>) =>
<E>(
  name: string,
  storage: Layer.Layer<Storage, E>,
  { claims, concurrentTransactions = true, freshParts = false, readModel, timeout = "1 minute" }: SuiteOptions = {}
): void => {
  const accounts = Layer.provideMerge(Accounts.layerStorage, storage).pipe(
    Layer.merge(Layer.succeed(ClaimsOption, claims))
  )
  const backend = layer(accounts, { excludeTestServices: true, timeout })
  const options = { concurrentTransactions, readModel }
  const titled = Object.entries(parts)
  describe(name, () => {
    if (freshParts) {
      describe(contract, () => {
        for (const [title, part] of titled) backend(title, (it) => part(it, options))
      })
    } else {
      backend(contract, (it) => {
        for (const [title, part] of titled) it.describe(title, () => part(it, options))
      })
    }
  })
}
