import { OperatorContract } from "effect-message-store/testing"
import { backends } from "../support/backends.ts"

// The types of columns that a store was made with matter to searches: of those that differ, this one has the most.
const others = ["PostgreSQL with a store made by depeche_db"]

for (const [index, { concurrentTransactions, layer, name }] of backends.entries()) {
  if (index < 3 || others.includes(name)) OperatorContract.suite(name, layer("contract"), { concurrentTransactions })
}
