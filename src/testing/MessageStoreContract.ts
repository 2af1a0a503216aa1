/**
 * What every backend of the message store has to do, as a suite of tests.
 *
 * **Example** (a backend of your own)
 *
 * ```ts
 * MessageStoreContract.suite("my backend", MyStorage.layer)
 * ```
 */
import { describe, layer } from "@effect/vitest"
import { Layer } from "effect"
import type { Duration } from "effect"
import type { Storage } from "../Storage.ts"
import { aggregating } from "./contract/aggregating.ts"
import { badInput } from "./contract/badInput.ts"
import { batches } from "./contract/batches.ts"
import { Accounts, type ContractOptions, type Part } from "./contract/fixture.ts"
import { reading } from "./contract/reading.ts"
import { snapshots } from "./contract/snapshots.ts"
import { subscribing } from "./contract/subscribing.ts"
import { synchronizing } from "./contract/synchronizing.ts"
import { transactions } from "./contract/transactions.ts"
import { updating } from "./contract/updating.ts"
import { writing } from "./contract/writing.ts"

const parts: Readonly<Record<string, Part>> = {
  writing,
  synchronizing,
  updating,
  reading,
  transactions,
  snapshots,
  "bad input": badInput,
  batches,
  aggregating,
  subscribing
}

/**
 * Registers the suite with Vitest. The layer is built once; the tests use streams of their own.
 *
 * @param name of the backend, before the name of each test
 * @param storage the backend, empty
 * @param options `concurrentTransactions: false` for a backend on which only one transaction can be open at a time;
 *   `timeout` of building the layer, default 1 minute
 */
export const suite = <E>(
  name: string,
  storage: Layer.Layer<Storage, E>,
  options?: Partial<ContractOptions> & { readonly timeout?: Duration.Input | undefined }
): void => {
  const accounts = Layer.provideMerge(Accounts.layerStorage, storage)
  describe(
    name,
    () =>
      layer(accounts, { excludeTestServices: true, timeout: options?.timeout ?? "1 minute" })("message store", (it) => {
        for (const [title, part] of Object.entries(parts)) {
          it.describe(title, () => part(it, { concurrentTransactions: options?.concurrentTransactions ?? true }))
        }
      })
  )
}
