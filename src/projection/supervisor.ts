/** What a process does for a version beside handling its messages: promotes it when it is time, and drops what is unused. */
import { Effect, Schedule } from "effect"
import type { Duration } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { VersionError } from "../errors.ts"
import { isTransient, retryTransient } from "../internal/transient.ts"
import type { AggregatedStorage, VersionStorage } from "../Storage.ts"

/** How often a version that is to be promoted is looked at, in milliseconds. */
const promotionInterval = 250

/** How often the promoted version may be held up for that. */
const holdUpInterval = 5000

/** How soon a promotion that failed is tried again. */
const failureInterval: Duration.Input = "30 seconds"

/** How often it is noted that a process is at work on a version, and what is unused is looked for. */
const useInterval: Duration.Input = "20 seconds"

/** @internal */
export interface Supervised {
  readonly name: string
  readonly version: number
  readonly projected: VersionStorage
  readonly stream: AggregatedStorage
}

/**
 * Whether all messages that the store had when this was first asked are linked: the first version of a new stream is level
 * with nothing before.
 */
const linkedSinceAsked = ({ stream }: Supervised) => {
  let goal: number | undefined
  let isLinked = false
  return Effect.gen(function*() {
    if (isLinked) return true
    const { scanned, stored } = yield* stream.progress
    goal ??= stored
    return isLinked = scanned >= goal || (yield* stream.waiting) === 0
  })
}

interface SuperviseOptions {
  /** Undefined: it is not promoted by itself. */
  readonly promotion: { readonly lag: number | undefined } | undefined
  readonly keep: Duration.Duration | undefined
}

/**
 * Runs until the version is gone.
 *
 * @internal
 */
export const supervise = (
  supervised: Supervised,
  { keep, promotion }: SuperviseOptions
): Effect.Effect<never, VersionError | SqlError> => {
  const { name, projected, version } = supervised
  const isLinked = linkedSinceAsked(supervised)

  /** Whether it needs no promotion any more. */
  const promote = Effect.fnUntraced(function*(lag: number | undefined, holdUp: boolean) {
    if ((yield* projected.promoted) === undefined && lag === undefined && !(yield* isLinked)) return false
    const outcome = yield* projected.promote(version, { byHand: false, lag, holdUp })
    switch (outcome._tag) {
      case "Promoted":
        yield* Effect.logInfo(`projection ${name}: readers see version ${version}`)
        return true
      case "Held":
        return true
      case "Behind":
        return false
      case "Missing":
        return yield* new VersionError({ projection: name, version, reason: "missing" })
    }
  })

  const promoting = promotion === undefined ? Effect.never : Effect.gen(function*() {
    let looked = 0
    const look = Effect.suspend(() => promote(promotion.lag, ++looked * promotionInterval % holdUpInterval === 0)).pipe(
      Effect.retry({ schedule: retryTransient, while: isTransient }),
      // Rights that are missing, objects that depend on a view: messages are handled all the same.
      Effect.catchTag(
        ["SetupError", "SqlError"],
        (error) =>
          Effect.logError(`projection ${name}: version ${version} cannot be promoted`, error).pipe(
            Effect.andThen(Effect.sleep(failureInterval)),
            Effect.as(false)
          )
      )
    )
    while (!(yield* look)) yield* Effect.sleep(promotionInterval)
    return yield* Effect.never
  })

  const use = Effect.gen(function*() {
    if (!(yield* projected.use(version))) {
      return yield* new VersionError({ projection: name, version, reason: "missing" })
    }
    if (keep === undefined) return
    const dropped = yield* projected.dropUnused(keep)
    if (dropped.length > 0) yield* Effect.logInfo(`projection ${name}: dropped unused versions`, dropped)
  })
  const using = Effect.retry(use, { schedule: retryTransient, while: isTransient }).pipe(
    Effect.repeat(Schedule.spaced(useInterval)),
    Effect.andThen(Effect.never)
  )
  return Effect.raceFirst(promoting, using)
}
