/**
 * What every backend has to do for subscriptions, as a suite of tests. Its arguments are those of
 * `MessageStoreContract`; the backend has to pass that one, and `AggregatedStreamContract`, as well.
 */
import { claiming } from "./subscription/claiming.ts"
import { deleting } from "./subscription/deleting.ts"
import { draining } from "./subscription/draining.ts"
import { failures } from "./subscription/failing.ts"
import { handling } from "./subscription/handling.ts"
import { observing } from "./subscription/observing.ts"
import { parkingStreams } from "./subscription/parkingStreams.ts"
import { pausing } from "./subscription/pausing.ts"
import { requeueing } from "./subscription/requeueing.ts"
import { resetting } from "./subscription/resetting.ts"
import { stopping } from "./subscription/stopping.ts"
import { telling } from "./subscription/telling.ts"
import { unknownTypes } from "./subscription/unknownTypes.ts"
import { makeSuite } from "./suite.ts"

/** Registers the suite. */
export const suite = makeSuite("subscriptions", {
  handling,
  failures,
  claiming,
  resetting,
  pausing,
  draining,
  parkingStreams,
  deleting,
  requeueing,
  stopping,
  observing,
  telling,
  unknownTypes
})
