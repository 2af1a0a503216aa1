/**
 * The contract on stores of PostgreSQL that were not made by this version, or not as it makes them by default: those parts
 * whose SQL meets other types or objects there. The others run the same statements on the same objects as on the backends
 * of `backends`, where all parts run.
 */
import { aggregating } from "../../src/testing/aggregatedStream/aggregating.ts"
import { positioning } from "../../src/testing/aggregatedStream/positioning.ts"
import type { Part } from "../../src/testing/fixture.ts"
import { badInput } from "../../src/testing/messageStore/badInput.ts"
import { batches } from "../../src/testing/messageStore/batches.ts"
import { conditions } from "../../src/testing/messageStore/conditions.ts"
import { deciding } from "../../src/testing/messageStore/deciding.ts"
import { deleting } from "../../src/testing/messageStore/deleting.ts"
import { forgetting } from "../../src/testing/messageStore/forgetting.ts"
import { personal } from "../../src/testing/messageStore/personal.ts"
import { reading } from "../../src/testing/messageStore/reading.ts"
import { redacting } from "../../src/testing/messageStore/redacting.ts"
import { scheduling } from "../../src/testing/messageStore/scheduling.ts"
import { snapshots } from "../../src/testing/messageStore/snapshots.ts"
import { synchronizing } from "../../src/testing/messageStore/synchronizing.ts"
import { taggedSnapshots } from "../../src/testing/messageStore/taggedSnapshots.ts"
import { tagging } from "../../src/testing/messageStore/tagging.ts"
import { tags } from "../../src/testing/messageStore/tags.ts"
import { tagValues } from "../../src/testing/messageStore/tagValues.ts"
import { transactions } from "../../src/testing/messageStore/transactions.ts"
import { updating } from "../../src/testing/messageStore/updating.ts"
import { writing } from "../../src/testing/messageStore/writing.ts"
import { failures } from "../../src/testing/subscription/failing.ts"
import { handling } from "../../src/testing/subscription/handling.ts"
import { telling } from "../../src/testing/subscription/telling.ts"
import { makeSuite } from "../../src/testing/suite.ts"
import { type Backend, madeByDepeche, upgraded, withJsonb, withoutLean } from "../support/backends.ts"

type Parts = Readonly<Record<string, Part>>

const run = (
  { concurrentTransactions, layer, name }: Backend,
  contracts: { readonly messages: Parts; readonly streams?: Parts; readonly subscriptions?: Parts }
) => {
  const options = { concurrentTransactions, timeout: "3 minutes" } as const
  makeSuite("message store", contracts.messages)(name, layer("contract"), options)
  const { streams, subscriptions } = contracts
  if (streams !== undefined) makeSuite("aggregated streams", streams)(name, layer("contract"), options)
  if (subscriptions !== undefined) makeSuite("subscriptions", subscriptions)(name, layer("contract"), options)
}

// Messages are `jsonb`, and positions int4: what writes messages or reads them, and what compares or joins positions.
run(madeByDepeche, {
  messages: {
    writing,
    synchronizing,
    updating,
    deciding,
    reading,
    "personal fields": personal,
    forgetting,
    transactions,
    snapshots,
    "bad input": badInput,
    batches,
    conditions,
    tags,
    deleting,
    redacting,
    scheduling,
    "tag values": tagValues,
    "snapshots of tags": taggedSnapshots,
    tagging
  },
  streams: { projecting: aggregating, positioning },
  subscriptions: { handling, failures, telling }
})

// Messages are cast to another type where they are written, and text is made of another one where they are read.
run(withJsonb, {
  messages: {
    writing,
    synchronizing,
    deciding,
    reading,
    "bad input": badInput,
    batches,
    deleting,
    redacting,
    scheduling,
    tagging
  },
  streams: { projecting: aggregating },
  subscriptions: { handling }
})

// What appends one item: by the functions that append any, as builds do that do not know the others.
run(withoutLean, {
  messages: { writing, synchronizing, transactions, batches, tags, conditions, tagging }
})

// The objects come to be those of a new store (test/upgrade.test.ts): what runs here shows that they work.
run(upgraded, {
  messages: { writing, deciding, reading, conditions, tags, deleting, redacting, scheduling, tagging },
  streams: { projecting: aggregating },
  subscriptions: { handling, failures }
})
