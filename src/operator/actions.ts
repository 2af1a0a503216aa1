/** What operators do: all of it is honoured by the processes that run, whatever they do at the moment. */
import { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidArgumentError, type SetupError, VersionError } from "../errors.ts"
import { checkKey, checkWhole, invalid } from "../internal/checks.ts"
import { highestVersion } from "../internal/names.ts"
import { promoteByHand, rollBack } from "../projection/supervisor.ts"
import type { Storage } from "../Storage.ts"
import * as Control from "../subscription/control.ts"
import type { PauseOptions } from "../subscription/control.ts"
import { positionsOf, type Start } from "../subscription/start.ts"
import type { Opened, OperatorError } from "./opened.ts"

/** What is allowed to a promotion. */
export interface PromoteOptions {
  /**
   * How many messages of the stream may be missing in it, though readers may have seen them: 0 or more. Default: it has to
   * be level with what is promoted.
   */
  readonly lag?: number | undefined
}

/** Why a promotion fails. */
export type PromotionError = OperatorError | VersionError | SetupError

export const make = (storage: Storage["Service"], opened: Opened) => {
  const outsideTransaction = (call: string) =>
    Effect.flatMap(
      storage.inTransaction,
      (inTransaction) =>
        inTransaction ? Effect.fromResult(invalid(call, "must not be called inside a transaction")) : Effect.void
    )

  const checkLag = ({ lag }: PromoteOptions) =>
    lag === undefined ? Effect.succeed(undefined) : Effect.fromResult(checkWhole("lag", lag, 0))

  const checkVersion = (version: number) => Effect.fromResult(checkWhole("version", version, 1, highestVersion))

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

    promote: Effect.fnUntraced(function*(
      name: string,
      version: number,
      options: PromoteOptions = {}
    ): Effect.fn.Return<void, PromotionError> {
      yield* outsideTransaction("promote")
      const lag = yield* checkLag(options)
      yield* checkVersion(version)
      const { projected, stream } = yield* opened.projection(name)
      yield* promoteByHand({ name, projected, stream }, version, lag)
    }),

    rollback: Effect.fnUntraced(function*(
      name: string,
      options: PromoteOptions = {}
    ): Effect.fn.Return<number, PromotionError> {
      yield* outsideTransaction("rollback")
      const lag = yield* checkLag(options)
      const { projected, stream } = yield* opened.projection(name)
      return yield* rollBack({ name, projected, stream }, lag)
    }),

    dropVersion: Effect.fnUntraced(function*(name: string, version: number): Effect.fn.Return<void, PromotionError> {
      yield* outsideTransaction("dropVersion")
      yield* checkVersion(version)
      const { projected } = yield* opened.projection(name)
      if (yield* projected.drop(version)) return
      const reason = (yield* projected.promoted) === version ? "promoted" : "missing"
      return yield* new VersionError({ projection: name, version, reason })
    }),

    cancelScheduled: (key: string): Effect.Effect<boolean, InvalidArgumentError | SqlError> =>
      Effect.flatMap(Effect.fromResult(checkKey(key)), storage.cancel)
  }
}
