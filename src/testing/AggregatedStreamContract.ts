/**
 * What every backend has to do for aggregated streams, as a suite of tests. Its arguments are those of
 * `MessageStoreContract`, which the backend has to pass as well.
 */
import { aggregating } from "./contract/aggregating.ts"
import { positioning } from "./contract/positioning.ts"
import { makeSuite } from "./contract/suite.ts"

/** Registers the suite. */
export const suite = makeSuite("aggregated streams", { projecting: aggregating, positioning })
