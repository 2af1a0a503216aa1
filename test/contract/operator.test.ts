import { OperatorContract } from "effect-message-store/testing"
import { backends, madeByDepeche } from "../support/backends.ts"

// The types of columns that a store was made with matter to searches: of those that differ, this one has the most.
for (const { concurrentTransactions, layer, name } of [...backends, madeByDepeche]) {
  OperatorContract.suite(name, layer("contract"), { concurrentTransactions, timeout: "3 minutes" })
}
