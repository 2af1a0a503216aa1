/** Measuring, and what is made of several measurements. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"
import { type ProcessorTime, spent } from "./processor.ts"

export interface Measurement {
  /** What was done in this time. */
  readonly units: number
  readonly seconds: number
  /** What that took of the processor. */
  readonly processor?: ProcessorTime | undefined
}

/**
 * Lets fibers run operations, one after the other, until the time is over or there are no more; answers when the last
 * operation has ended.
 *
 * Of many fibers, those operations count that end in time: after it, fewer and fewer compete. Of one fiber, which may
 * be in the middle of a long operation, all count, until the last one ends.
 */
export const measure = Effect.fnUntraced(function*(options: {
  readonly fibers: number
  readonly milliseconds: number
  /** The next operation of a fiber, which answers how much it has done. */
  readonly next: (fiber: number) => Effect.Effect<number, unknown> | undefined
  readonly sql: SqlClient.SqlClient
}) {
  const [{ measurement, total }, { client, server }] = yield* spent(options.sql, measureTime(options))
  // What ends late costs as well, and does not count as done.
  const share = measurement.units / total
  const processor = { client: client * share, server: server === undefined ? undefined : server * share }
  return { measurement: { ...measurement, processor }, total }
})

const measureTime = Effect.fnUntraced(function*(options: {
  readonly fibers: number
  readonly milliseconds: number
  readonly next: (fiber: number) => Effect.Effect<number, unknown> | undefined
}) {
  const start = performance.now()
  const deadline = start + options.milliseconds
  let end = options.fibers === 1 ? Infinity : deadline
  let units = 0
  let late = 0
  const run = Effect.fnUntraced(function*(fiber: number) {
    while (performance.now() < Math.min(end, deadline)) {
      const operation = options.next(fiber)
      if (operation === undefined) {
        end = performance.now()
        return
      }
      const done = yield* operation
      if (performance.now() <= end) units += done
      else late += done
    }
  })
  const fibers = Array.from({ length: options.fibers }, (_, fiber) => run(fiber))
  yield* Effect.all(fibers, { concurrency: "unbounded", discard: true })
  const measurement: Measurement = { units, seconds: (Math.min(end, performance.now()) - start) / 1000 }
  return { measurement, total: units + late }
})

/** How long something takes, which says how much it has done. */
export const timed = <E, R>(effect: Effect.Effect<number, E, R>): Effect.Effect<Measurement, E, R> =>
  Effect.suspend(() => {
    const start = performance.now()
    return Effect.map(effect, (units) => ({ units, seconds: (performance.now() - start) / 1000 }))
  })

export const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  const upper = sorted[Math.floor(middle)] ?? NaN
  return Number.isInteger(middle) ? (upper + (sorted[middle - 1] ?? NaN)) / 2 : upper
}

/** The median of the ratios within each round: what slowed down a whole round does not count. */
export const ratio = (rates: ReadonlyArray<number>, baseline: ReadonlyArray<number>): number =>
  median(rates.map((rate, round) => rate / (baseline[round] ?? NaN)))

/** Another order in each round, so that nobody always comes first, or after the same one. */
export const rotate = <A>(items: ReadonlyArray<A>, round: number): ReadonlyArray<A> => {
  const start = items.length === 0 ? 0 : round % items.length
  return [...items.slice(start), ...items.slice(0, start)]
}
