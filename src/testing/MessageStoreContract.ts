/**
 * What every backend of the message store has to do, as a suite of tests.
 *
 * **Example** (a backend of your own)
 *
 * ```ts
 * MessageStoreContract.suite("my backend", MyStorage.layer)
 * ```
 */
import { badInput } from "./contract/badInput.ts"
import { batches } from "./contract/batches.ts"
import { reading } from "./contract/reading.ts"
import { snapshots } from "./contract/snapshots.ts"
import { makeSuite } from "./contract/suite.ts"
import { synchronizing } from "./contract/synchronizing.ts"
import { transactions } from "./contract/transactions.ts"
import { updating } from "./contract/updating.ts"
import { writing } from "./contract/writing.ts"

/**
 * Registers the suite: the name of the backend, which comes before that of each test; the backend, empty; and options,
 * such as `concurrentTransactions: false` for a backend on which only one transaction can be open at a time.
 */
export const suite = makeSuite("message store", {
  writing,
  synchronizing,
  updating,
  reading,
  transactions,
  snapshots,
  "bad input": badInput,
  batches
})
