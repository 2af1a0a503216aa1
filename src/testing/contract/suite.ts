/** How a contract becomes tests of a backend. */
import { describe, layer } from "@effect/vitest"
import { Layer } from "effect"
import type { Duration } from "effect"
import type { Storage } from "../../Storage.ts"
import { Accounts, type ContractOptions, type Part } from "./fixture.ts"

export type SuiteOptions = Partial<ContractOptions> & {
  /** Of building the layer; default 1 minute. */
  readonly timeout?: Duration.Input | undefined
}

/** Registers a contract with Vitest. The layer is built once; the tests use streams of their own. */
export const makeSuite = (contract: string, parts: Readonly<Record<string, Part>>) =>
<E>(
  name: string,
  storage: Layer.Layer<Storage, E>,
  { concurrentTransactions = true, timeout = "1 minute" }: SuiteOptions = {}
): void => {
  const accounts = Layer.provideMerge(Accounts.layerStorage, storage)
  describe(name, () =>
    layer(accounts, { excludeTestServices: true, timeout })(contract, (it) => {
      for (const [title, part] of Object.entries(parts)) {
        it.describe(title, () => part(it, { concurrentTransactions }))
      }
    }))
}
