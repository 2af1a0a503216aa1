/**
 * What every backend has to do for projections, as a suite of tests. Its arguments are those of `MessageStoreContract`; the
 * backend has to pass that one, `AggregatedStreamContract` and `SubscriptionContract`, as well. A backend whose versions have
 * tables gives a `readModel`.
 */
import { keeping } from "./projection/keeping.ts"
import { operating } from "./projection/operating.ts"
import { promoting } from "./projection/promoting.ts"
import { makeSuite } from "./suite.ts"

export type { ReadModel } from "./fixture.ts"

/** Registers the suite. */
export const suite = makeSuite("projections", { promoting, keeping, operating })
