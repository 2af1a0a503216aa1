/** How long ago something was, whatever happens to the clocks meanwhile. */
import { type Clock, Effect } from "effect"

/** A point in time by both clocks of a process, the second in nanoseconds. */
export interface Moment {
  readonly wall: number
  readonly monotonic: bigint
}

/** The present moment of a clock. */
export const of = (clock: Clock.Clock): Moment => ({
  wall: clock.currentTimeMillisUnsafe(),
  monotonic: clock.monotonicTimeNanosUnsafe()
})

export const now: Effect.Effect<Moment> = Effect.clockWith((clock) => Effect.sync(() => of(clock)))

/** The earlier one of two, by each clock. */
export const earlier = (one: Moment, other: Moment): Moment => ({
  wall: Math.min(one.wall, other.wall),
  monotonic: one.monotonic < other.monotonic ? one.monotonic : other.monotonic
})

/**
 * Milliseconds between two moments, by the clock that says more: a wall clock may be set back, and a monotonic clock may
 * stand still while a machine sleeps.
 */
export const elapsed = (from: Moment, to: Moment): number =>
  Math.max(to.wall - from.wall, Number(to.monotonic - from.monotonic) / 1e6)

/** Milliseconds since a moment. */
export const since = (from: Moment): Effect.Effect<number> => Effect.map(now, (to) => elapsed(from, to))

/** Milliseconds of the monotonic clock, for times that are compared with each other alone. */
export const milliseconds: Effect.Effect<number> = Effect.map(now, ({ monotonic }) => Number(monotonic) / 1e6)
