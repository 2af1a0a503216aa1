/**
 * What every backend has to do for operators, as a suite of tests. Its arguments are those of `MessageStoreContract`; the
 * backend has to pass that one, `AggregatedStreamContract` and `SubscriptionContract` as well.
 */
import { checking } from "./operator/checking.ts"
import { searching } from "./operator/searching.ts"
import { subscribing } from "./operator/subscribing.ts"
import { tracing } from "./operator/tracing.ts"
import { makeSuite } from "./suite.ts"

/** Registers the suite. */
export const suite = makeSuite("operators", { searching, tracing, subscribing, checking })
