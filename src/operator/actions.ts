/** What operators do: all of it is honoured by the processes that run, whatever they do at the moment. */
import { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidArgumentError, type SetupError, type VersionError } from "../errors.ts"
import { checkKey } from "../internal/checks.ts"
import type { PromoteOptions } from "../Projection.ts"
import * as ByHand from "../projection/byHand.ts"
import type { Storage } from "../Storage.ts"
import * as Control from "../subscription/control.ts"
import type { PauseOptions } from "../subscription/control.ts"
import { positionsOf, type Start } from "../subscription/start.ts"
import type { Opened, OperatorError } from "./opened.ts"

/** Why a promotion fails. */
export type PromotionError = OperatorError | VersionError | SetupError

export const make = (storage: Storage["Service"], opened: Opened) => {
  const projectionOf = (name: string) =>
    Effect.map(opened.projection(name), ({ projected, stream }) => ({ name, projected, stream }))

  return {
    pause: (name: string, options?: PauseOptions): Effect.Effect<void, OperatorError> =>
      Effect.flatMap(opened.subscription(name), ({ subscribed }) => Control.pause(subscribed, options)),

    resume: (
      name: string,
      options?: { readonly partition?: number | undefined }
    ): Effect.Effect<boolean, OperatorError> =>
      Effect.flatMap(opened.subscription(name), ({ subscribed }) => Control.resume(subscribed, options)),

    reset: (name: string, start: Start = "beginning"): Effect.Effect<void, OperatorError> =>
      Effect.flatMap(opened.subscription(name), ({ stream, subscribed }) =>
        storage.withTransaction(
          Effect.andThen(subscribed.reset, subscribed.initialise(positionsOf(stream, start)))
        )),

    rebuild: Effect.fnUntraced(function*(name: string): Effect.fn.Return<ReadonlyArray<string>, OperatorError> {
      const { aggregatedStreams, subscriptions } = yield* storage.operator.catalogue
      const stream = yield* opened.aggregatedStream(name)
      const found = aggregatedStreams.find(({ definition }) => definition.name === name)
      if (found?.definition.patterns.length === 0) {
        return yield* new InvalidArgumentError({
          argument: "aggregatedStream",
          reason: `"${name}" cannot be rebuilt: no projector has linked anything yet`
        })
      }
      yield* stream.reset
      return subscriptions.filter(({ aggregatedStream }) => aggregatedStream === name).map((each) => each.name)
    }),

    promote: (name: string, version: number, options?: PromoteOptions): Effect.Effect<void, PromotionError> =>
      ByHand.promote(storage, projectionOf(name), version, options),

    rollback: (name: string, options?: PromoteOptions): Effect.Effect<number, PromotionError> =>
      ByHand.rollback(storage, projectionOf(name), options),

    dropVersion: (name: string, version: number): Effect.Effect<void, PromotionError> =>
      ByHand.drop(storage, projectionOf(name), version, "dropVersion"),

    cancelScheduled: (key: string): Effect.Effect<boolean, InvalidArgumentError | SqlError> =>
      Effect.flatMap(Effect.fromResult(checkKey(key)), storage.cancel)
  }
}
