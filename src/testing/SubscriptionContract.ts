/**
 * What every backend has to do for subscriptions, as a suite of tests. Its arguments are those of
 * `MessageStoreContract`; the backend has to pass that one, and `AggregatedStreamContract`, as well.
 */
import { claiming } from "./contract/claiming.ts"
import { failures } from "./contract/failing.ts"
import { handling } from "./contract/handling.ts"
import { observing } from "./contract/observing.ts"
import { makeSuite } from "./contract/suite.ts"

/** Registers the suite. */
export const suite = makeSuite("subscriptions", { handling, failures, claiming, observing })
