import { ProjectionContract } from "effect-message-store/testing"
import { backends } from "../support/backends.ts"
import { readModel } from "../support/readModel.ts"

// What was stored how, and by whom, is nothing to versions: they are made of subscriptions, and of tables of their own.
for (const { concurrentTransactions, layer, name } of backends.slice(0, 3)) {
  ProjectionContract.suite(name, layer("contract"), { concurrentTransactions, readModel })
}
