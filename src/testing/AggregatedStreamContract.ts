/**
 * What every backend has to do for aggregated streams, as a suite of tests. Its arguments are those of
 * `MessageStoreContract`, which the backend has to pass as well.
 */
import { aggregating } from "./aggregatedStream/aggregating.ts"
import { deleting } from "./aggregatedStream/deleting.ts"
import { following } from "./aggregatedStream/following.ts"
import { positioning } from "./aggregatedStream/positioning.ts"
import { makeSuite } from "./suite.ts"

/** Registers the suite. */
export const suite = makeSuite("aggregated streams", { projecting: aggregating, positioning, following, deleting })
