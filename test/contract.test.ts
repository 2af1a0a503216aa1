import {
  AggregatedStreamContract,
  MessageStoreContract,
  ProjectionContract,
  SubscriptionContract
} from "effect-message-store/testing"
import { backends } from "./support/backends.ts"
import { readModel } from "./support/readModel.ts"

for (const { concurrentTransactions, layer, name } of backends) {
  MessageStoreContract.suite(name, layer("contract"), { concurrentTransactions })
  AggregatedStreamContract.suite(name, layer("contract"), { concurrentTransactions })
  SubscriptionContract.suite(name, layer("contract"), { concurrentTransactions })
  ProjectionContract.suite(name, layer("contract"), { concurrentTransactions, readModel })
}
