/** Handles what there is, and ends. */
import { Duration, Effect } from "effect"
import type { Result } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import { checkDuration } from "../internal/checks.ts"
import type { PendingPartition } from "../Storage.ts"
import { unacknowledged } from "./lag.ts"
import type { Metrics } from "./metrics.ts"

/** How long a subscription is drained. */
export interface DrainOptions {
  /** Then the messages in hand are finished, within `shutdownTimeout`, and it ends. Default: until it has caught up. */
  readonly for?: Duration.Input | undefined
}

/** What was done by a `drain`. */
export interface Drained {
  /** Messages that were handled, requeued ones included. */
  readonly handled: number
  /** Calls of handlers that failed. */
  readonly failed: number
  readonly parked: number
  readonly skipped: number
  /** How many messages are linked and not acknowledged when it ends: 0, unless partitions are halted, paused, or left. */
  readonly left: number
  /** Whether it ended by itself, since nothing that is `left` can be handled now; false: the time was over. */
  readonly isCaughtUp: boolean
}

/** @internal */
export const checkFor = (
  duration: Duration.Input | undefined
): Result.Result<Duration.Duration, InvalidArgumentError> => checkDuration("for", duration ?? Duration.infinity)

type Counts = Pick<Drained, "handled" | "failed" | "parked" | "skipped">

/**
 * Metrics that are counted too.
 *
 * @internal
 */
export const counting = (metrics: Metrics): { readonly metrics: Metrics; readonly counts: Counts } => {
  const counts = { handled: 0, failed: 0, parked: 0, skipped: 0 }
  const counted = (what: keyof Counts) => (by: number) =>
    Effect.suspend(() => {
      counts[what] += by
      return metrics[what](by)
    })
  return {
    counts,
    metrics: {
      ...metrics,
      handled: counted("handled"),
      failed: counted("failed"),
      parked: counted("parked"),
      skipped: counted("skipped")
    }
  }
}

/** @internal */
export const drained = (
  counts: Counts,
  pending: ReadonlyArray<PendingPartition>,
  isCaughtUp: boolean
): Drained => ({ ...counts, left: unacknowledged(pending), isCaughtUp })

/**
 * Whether nothing can be done.
 *
 * @internal
 */
export const isIdle = (pending: ReadonlyArray<PendingPartition>): boolean =>
  pending.every(({ checkpoint, hasRequeued, isPaused, position }) =>
    isPaused || (position <= checkpoint && !hasRequeued)
  )
