import { AggregatedStreamContract } from "effect-message-store/testing"
import { backends } from "../support/backends.ts"

for (const { concurrentTransactions, layer, name } of backends) {
  AggregatedStreamContract.suite(name, layer("contract"), { concurrentTransactions, timeout: "3 minutes" })
}
