/** The options of a projection, with their bounds and defaults. */
import { Result } from "effect"
import type { Duration } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import { checkDuration, checkWhole } from "../internal/checks.ts"
import type { OnFailure } from "../subscription/attempt.ts"
import type { Options as SubscriptionOptions } from "../subscription/options.ts"
import type { Model } from "./model.ts"

/**
 * When a version takes the place of the one that readers see: `"automatic"`, as soon as it is level with it; `"manual"`, by
 * `promote` alone; or as soon as at most `lag` messages of the stream are not in it, though readers may have seen them.
 */
export type PromotionMode = "automatic" | "manual" | { readonly lag: number }

/** Options of a projection. */
export interface Options<out M, out E = never, out R = never> extends
  Pick<
    SubscriptionOptions,
    "batchSize" | "concurrency" | "retry" | "claims" | "pollInterval" | "shutdownTimeout" | "owner"
  >
{
  /** 1 to 30 of `a-z`, `0-9` and `_`, not beginning with a digit. Its subscriptions are called `{name}_v{version}`. */
  readonly name: string
  /** From 1 to 999,999,999. A change of the handler, or of the tables, needs a higher one. */
  readonly version: number
  /** What it keeps its versions in. */
  readonly model: Model<M, E, R>
  /** Default `"automatic"`. */
  readonly promotion?: PromotionMode | undefined
  /**
   * How long versions are kept that readers do not see, and no process has worked on. Running processes drop what was
   * unused for longer; a minute at least. Default: until they are dropped by hand.
   */
  readonly keep?: Duration.Input | undefined
  /**
   * What is done with a message whose handler failed for the last time, as in a subscription. Default `"haltPartition"`: a
   * version that lacks a message is not promoted.
   */
  readonly onFailure?: OnFailure | undefined
}

/** @internal */
export const promotionOf = (
  promotion: PromotionMode
): Result.Result<{ readonly lag: number | undefined } | undefined, InvalidArgumentError> =>
  promotion === "manual"
    ? Result.succeed(undefined)
    : promotion === "automatic"
    ? Result.succeed({ lag: undefined })
    : Result.map(checkWhole("lag", promotion.lag, 0), (lag) => ({ lag }))

/** @internal */
export const keepOf = (
  keep: Options<unknown>["keep"]
): Result.Result<Duration.Duration | undefined, InvalidArgumentError> => {
  if (keep === undefined) return Result.succeed(undefined)
  const reason = "must be a minute or more: that long, a version may be unused between two signs of life"
  return checkDuration("keep", keep, { minimum: 60_000, reason })
}
