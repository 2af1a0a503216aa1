import { SubscriptionContract } from "effect-message-store/testing"
import { backends } from "../support/backends.ts"

for (const { concurrentTransactions, layer, name } of backends) {
  SubscriptionContract.suite(name, layer("contract"), {
    concurrentTransactions,
    freshParts: true,
    timeout: "3 minutes"
  })
}
