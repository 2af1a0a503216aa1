import { MessageStoreContract } from "effect-message-store/testing"
import { backends } from "../support/backends.ts"

for (const { concurrentTransactions, layer, name } of backends) {
  MessageStoreContract.suite(name, layer("contract"), { concurrentTransactions, timeout: "3 minutes" })
}
