/**
 * What every backend of the message store has to do, as a suite of tests.
 *
 * **Example** (a backend of your own)
 *
 * ```ts
 * MessageStoreContract.suite("my backend", MyStorage.layer)
 * ```
 */
import { archives } from "./messageStore/archives.ts"
import { archivesKept } from "./messageStore/archivesKept.ts"
import { badInput } from "./messageStore/badInput.ts"
import { batches } from "./messageStore/batches.ts"
import { conditions } from "./messageStore/conditions.ts"
import { deadlocks } from "./messageStore/deadlocks.ts"
import { deciding } from "./messageStore/deciding.ts"
import { deleting } from "./messageStore/deleting.ts"
import { editions } from "./messageStore/editions.ts"
import { foldSnapshots } from "./messageStore/foldSnapshots.ts"
import { forgetting } from "./messageStore/forgetting.ts"
import { halves } from "./messageStore/halves.ts"
import { measuring } from "./messageStore/measuring.ts"
import { oneByOne } from "./messageStore/oneByOne.ts"
import { pages } from "./messageStore/pages.ts"
import { personal } from "./messageStore/personal.ts"
import { personalKeys } from "./messageStore/personalKeys.ts"
import { reading } from "./messageStore/reading.ts"
import { redacting } from "./messageStore/redacting.ts"
import { rememberedStates } from "./messageStore/rememberedStates.ts"
import { scheduling } from "./messageStore/scheduling.ts"
import { snapshots } from "./messageStore/snapshots.ts"
import { subjectKeys } from "./messageStore/subjectKeys.ts"
import { synchronizing } from "./messageStore/synchronizing.ts"
import { taggedPages } from "./messageStore/taggedPages.ts"
import { taggedSnapshots } from "./messageStore/taggedSnapshots.ts"
import { tagging } from "./messageStore/tagging.ts"
import { tags } from "./messageStore/tags.ts"
import { tagValues } from "./messageStore/tagValues.ts"
import { together } from "./messageStore/together.ts"
import { transactions } from "./messageStore/transactions.ts"
import { updating } from "./messageStore/updating.ts"
import { writing } from "./messageStore/writing.ts"
import { makeSuite } from "./suite.ts"

/**
 * Registers the suite: the name of the backend, which comes before that of each test; the backend, empty; and options,
 * such as `concurrentTransactions: false` for a backend on which only one transaction can be open at a time.
 */
export const suite = makeSuite("message store", {
  writing,
  synchronizing,
  updating,
  deciding,
  "deciding together": together,
  "deciding by halves": halves,
  "decisions together": oneByOne,
  reading,
  pages,
  "personal fields": personal,
  "keys of subjects": personalKeys,
  "where keys are kept": subjectKeys,
  forgetting,
  transactions,
  snapshots,
  "spans and metrics": measuring,
  "bad input": badInput,
  batches,
  conditions: (it, options) => {
    conditions(it, options)
    deadlocks(it, options)
  },
  tags,
  "pages of tags": taggedPages,
  deleting,
  redacting,
  editions,
  scheduling,
  "tag values": tagValues,
  "snapshots of folds": foldSnapshots,
  "remembered states": rememberedStates,
  "snapshots of tags": taggedSnapshots,
  tagging,
  archives: (it, options) => {
    archives(it, options)
    archivesKept(it, options)
  }
})
