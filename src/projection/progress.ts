/** How far a version has come, and when it will be there. */
import { Duration, Effect, Schedule, Stream } from "effect"
import type { DateTime } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { VersionError } from "../errors.ts"
import * as Moment from "../internal/moment.ts"
import { type AggregatedStorage, messagesIn, type StoredVersion, type VersionStorage } from "../Storage.ts"

/**
 * What a version is: `"building"`, it catches up, and has not been promoted; `"halted"`, the same, but a partition is halted at a
 * message, so that it does not catch up; `"promoted"`, it is what readers see; `"standby"`, it was replaced, by a higher version
 * or by a rollback, and can be promoted by hand.
 */
export type VersionState = "building" | "halted" | "promoted" | "standby"

/** A version of a projection. */
export interface VersionStatus {
  readonly version: number
  readonly state: VersionState
  /** How many messages it has acknowledged. */
  readonly handled: number
  /** How many messages the aggregated stream has. */
  readonly total: number
  /**
   * How many of its partitions are halted, whatever its state is: a handler has failed. The `status` of its subscription tells
   * where and why.
   */
  readonly halted: number
  readonly createdAt: DateTime.Utc
  /** When it was promoted last; undefined: never. */
  readonly promotedAt: DateTime.Utc | undefined
  /** When readers saw it, or a process was at work on it, for the last time; a minute late at most. */
  readonly usedAt: DateTime.Utc
}

/** The progress of a version that catches up. */
export interface Progress {
  readonly version: number
  readonly state: VersionState
  readonly handled: number
  readonly total: number
  /** From 0 to 100, of the messages that are linked now. */
  readonly percentage: number
  /** Over the last seconds; 0 until there are two samples. */
  readonly messagesPerSecond: number
  /** Undefined as long as nobody can tell: nothing was handled lately. */
  readonly timeLeft: Duration.Duration | undefined
}

/** @internal */
export const stateOf = (
  { halted, isHeld, isPromoted, promotedAt, version }: StoredVersion,
  promoted: number | undefined
): VersionState =>
  isPromoted
    ? "promoted"
    : isHeld || promotedAt !== undefined || (promoted !== undefined && version < promoted)
    ? "standby"
    : halted > 0
    ? "halted"
    : "building"

/** @internal */
export const statusOf = (
  stream: AggregatedStorage,
  projected: VersionStorage
): Effect.Effect<ReadonlyArray<VersionStatus>, SqlError> =>
  Effect.zipWith(projected.versions, stream.partitions, (versions, heads) => {
    const total = messagesIn(heads)
    const promoted = versions.find(({ isPromoted }) => isPromoted)?.version
    return versions.map((each): VersionStatus => ({
      version: each.version,
      state: stateOf(each, promoted),
      handled: each.handled,
      total,
      halted: each.halted,
      createdAt: each.createdAt,
      promotedAt: each.promotedAt,
      usedAt: each.usedAt
    }))
  })

interface Sample {
  readonly at: Moment.Moment
  readonly handled: number
  readonly rate: number
}

/** The weight of the last second in a rate. */
const weight = 0.4

/** @internal */
export const progressOf = (
  status: Effect.Effect<VersionStatus, VersionError | SqlError>
): Stream.Stream<Progress, VersionError | SqlError> =>
  Stream.fromEffectSchedule(Effect.zip(status, Moment.now), Schedule.spaced("1 second")).pipe(
    Stream.mapAccum((): Sample | undefined => undefined, (before, [now, at]) => {
      const { handled, state, total, version } = now
      const seconds = before === undefined ? 0 : Moment.elapsed(before.at, at) / 1000
      const last = before === undefined || seconds === 0 ? 0 : (handled - before.handled) / seconds
      const rate = before === undefined ? 0 : before.rate === 0 ? last : weight * last + (1 - weight) * before.rate
      const progress: Progress = {
        version,
        state,
        handled,
        total,
        percentage: total === 0 ? 100 : Math.min(100, handled / total * 100),
        messagesPerSecond: rate,
        timeLeft: handled >= total ? Duration.zero : rate > 0 ? Duration.seconds((total - handled) / rate) : undefined
      }
      return [{ at, handled, rate }, [progress]]
    }),
    Stream.takeUntil(({ state }) => state === "promoted" || state === "standby")
  )
