/** What operators say to a subscription: pause, and go on. */
import { Effect, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { checkPartition, checkText, optional } from "../internal/checks.ts"
import type { SubscriptionStorage } from "../Storage.ts"

/** What is paused, and why. */
export interface PauseOptions {
  /** Default: the whole subscription. */
  readonly partition?: number | undefined
  /** Shown by `status`; 1 to 1,000 characters. */
  readonly reason?: string | undefined
  /** The name of whoever pauses it, shown by `status`; 1 to 1,000 characters. */
  readonly by?: string | undefined
}

const maximumText = 1000

/** @internal */
export const pause = (
  subscribed: SubscriptionStorage,
  options: PauseOptions = {}
): Effect.Effect<void, InvalidArgumentError | SqlError> =>
  Effect.flatMap(
    Effect.fromResult(Result.all({
      partition: optional(options.partition, checkPartition),
      reason: optional(options.reason, (text) => checkText("reason", text, maximumText)),
      by: optional(options.by, (text) => checkText("by", text, maximumText))
    })),
    ({ partition, ...why }) => subscribed.pause(partition, why)
  )

/** @internal */
export const resume = (
  subscribed: SubscriptionStorage,
  { partition }: { readonly partition?: number | undefined } = {}
): Effect.Effect<boolean, InvalidArgumentError | SqlError> =>
  Effect.flatMap(Effect.fromResult(optional(partition, checkPartition)), subscribed.resume)
