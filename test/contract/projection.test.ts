import { ProjectionContract } from "effect-message-store/testing"
import { backends } from "../support/backends.ts"
import { readModel } from "../support/readModel.ts"

for (const { concurrentTransactions, layer, name } of backends) {
  ProjectionContract.suite(name, layer("contract"), {
    concurrentTransactions,
    readModel,
    freshParts: true,
    timeout: "3 minutes"
  })
}
