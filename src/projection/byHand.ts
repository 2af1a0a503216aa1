/** What is done with the versions of a projection by hand, by its application or by an operator: not inside a transaction. */
import { Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type InvalidArgumentError, type SetupError, VersionError } from "../errors.ts"
import { checkWhole, optional, outsideTransaction } from "../internal/checks.ts"
import { highestVersion } from "../internal/names.ts"
import { isTransient, retryTransient } from "../internal/transient.ts"
import type { AggregatedStorage, Storage, VersionStorage } from "../Storage.ts"

/** What a promotion by hand allows. */
export interface PromoteOptions {
  /**
   * How many messages of the stream the version may lack, though readers may have seen them: a whole number, 0 or more.
   * Default: none, it has to be level with the promoted version.
   */
  readonly lag?: number | undefined
}

/** A projection whose versions are dealt with. */
interface Projected {
  readonly name: string
  readonly projected: VersionStorage
  readonly stream: AggregatedStorage
}

type Inside = Pick<Storage["Service"], "inTransaction">

const checkVersion = (version: number) => Effect.fromResult(checkWhole("version", version, 1, highestVersion))

const checkLag = ({ lag }: PromoteOptions) => Effect.fromResult(optional(lag, (given) => checkWhole("lag", given, 0)))

/** A version that is behind by little is tried again a few times. */
const promoteVersion = Effect.fnUntraced(function*(
  { name: projection, projected, stream }: Projected,
  version: number,
  lag: number | undefined
): Effect.fn.Return<void, VersionError | SetupError | SqlError> {
  if ((yield* projected.promoted) === undefined && lag === undefined) {
    const waiting = yield* stream.waiting
    if (waiting > 0) return yield* new VersionError({ projection, version, reason: "behind", behind: waiting })
  }
  const outcome = yield* Effect.retry(projected.promote(version, { byHand: true, lag, holdUp: true }), {
    schedule: retryTransient,
    while: isTransient,
    times: 5
  })
  if (outcome._tag === "Missing") return yield* new VersionError({ projection, version, reason: "missing" })
  if (outcome._tag === "Behind") {
    return yield* new VersionError({ projection, version, reason: "behind", behind: outcome.by })
  }
})

/**
 * Shows readers a version.
 *
 * @internal
 */
export const promote = Effect.fnUntraced(function*<E>(
  storage: Inside,
  found: Effect.Effect<Projected, E>,
  version: number,
  options: PromoteOptions = {}
): Effect.fn.Return<void, VersionError | SetupError | InvalidArgumentError | SqlError | E> {
  yield* outsideTransaction(storage, "promote")
  yield* checkVersion(version)
  const lag = yield* checkLag(options)
  yield* promoteVersion(yield* found, version, lag)
})

/**
 * Shows readers the lower version that they saw last; returns its number.
 *
 * @internal
 */
export const rollback = Effect.fnUntraced(function*<E>(
  storage: Inside,
  found: Effect.Effect<Projected, E>,
  options: PromoteOptions = {}
): Effect.fn.Return<number, VersionError | SetupError | InvalidArgumentError | SqlError | E> {
  yield* outsideTransaction(storage, "rollback")
  const lag = yield* checkLag(options)
  const projection = yield* found
  const versions = yield* projection.projected.versions
  const present = versions.find(({ isPromoted }) => isPromoted)?.version ?? 0
  // Lower ones only: to go back twice is not to go forward again.
  const before = versions
    .filter(({ promotedAt, version }) => version < present && promotedAt !== undefined)
    .toSorted((a, b) => Number(b.promotedAt?.epochMilliseconds) - Number(a.promotedAt?.epochMilliseconds))[0]
  if (before === undefined) return yield* new VersionError({ projection: projection.name, reason: "noneBefore" })
  yield* promoteVersion(projection, before.version, lag)
  return before.version
})

/**
 * Drops a version that readers do not see.
 *
 * @internal
 */
export const drop = Effect.fnUntraced(function*<E>(
  storage: Inside,
  found: Effect.Effect<Projected, E>,
  version: number,
  call: string = "drop"
): Effect.fn.Return<void, VersionError | InvalidArgumentError | SqlError | E> {
  yield* outsideTransaction(storage, call)
  yield* checkVersion(version)
  const { name: projection, projected } = yield* found
  if (yield* projected.drop(version)) return
  const reason = (yield* projected.promoted) === version ? "promoted" : "missing"
  return yield* new VersionError({ projection, version, reason })
})
