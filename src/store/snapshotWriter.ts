/**
 * Writes snapshots in the background, one at a time: nobody waits for it, and nobody fails with it. Of each key the last one
 * counts. When the layer closes, those that wait are written, unless that takes more than a second.
 */
import { Context, Effect, FiberSet, Metric, Tracer } from "effect"
import type { Duration, Result, Scope } from "effect"
import { attribute, counter, metric, system } from "../internal/telemetry.ts"
import type { SavedSnapshot, SnapshotKey, Storage } from "../Storage.ts"

/** A snapshot to be written. Encoding is left to the background. */
export interface Pending extends Omit<SavedSnapshot, "state"> {
  readonly encode: () => Result.Result<string, unknown>
}

export interface Writer {
  /** Has a snapshot written, in place of one of the same name that waits. */
  readonly save: (name: string, pending: Pending) => void
  /** Tells of a snapshot that was found and cannot be used: once of each fold. */
  readonly unusable: (key: SnapshotKey, reason: unknown) => void
}

/** How many snapshots may wait; what comes beyond is left to a later decision. */
const maximumWaiting = 1000

const lastWait: Duration.Input = "1 second"

/**
 * @internal
 */
export const make = Effect.fnUntraced(function*(
  storage: Storage["Service"],
  store: string
): Effect.fn.Return<Writer, never, Scope.Scope> {
  const waiting = new Map<string, Pending>()
  const told = new Set<string>()
  let isWriting = false

  const fibers = yield* FiberSet.make<void>()
  // Snapshots are no part of the span in which the store is built.
  const run = yield* Effect.updateContext(
    FiberSet.runtime(fibers)<never>(),
    (context: Context.Context<never>) => Context.omit(Tracer.ParentSpan)(context)
  )
  yield* Effect.addFinalizer(() => Effect.timeoutOption(FiberSet.awaitEmpty(fibers), lastWait))

  const counting = (outcome: string) =>
    counter(metric.snapshots, {
      description: "Snapshots of folds: saved, failed to be saved, or found and unusable",
      unit: "{snapshot}"
    }, { [attribute.system]: system, [attribute.destination]: store, outcome })
  const counters = { saved: counting("saved"), failed: counting("failed"), unusable: counting("unusable") }
  const count = (outcome: keyof typeof counters) => Metric.update(counters[outcome], 1)

  const write = Effect.fnUntraced(
    function*({ encode, ...snapshot }: Pending) {
      const state = yield* Effect.fromResult(encode())
      yield* storage.saveSnapshot({ ...snapshot, state })
      yield* count("saved")
    },
    (writing, { fold, source }) =>
      Effect.catchCause(writing, (cause) =>
        Effect.andThen(
          Effect.logDebug(`A snapshot of the fold "${fold}" (${source}) was not saved`, cause),
          count("failed")
        ))
  )

  const writeAll = Effect.gen(function*() {
    for (const [name, pending] of waiting) { // those that are added meanwhile as well
      waiting.delete(name)
      yield* write(pending)
    }
    isWriting = false
  })

  return {
    save: (name, pending) => {
      if (waiting.size >= maximumWaiting && !waiting.has(name)) return
      waiting.set(name, pending)
      if (isWriting) return
      isWriting = true
      run(writeAll)
    },
    unusable: ({ fold, source }, reason) => {
      const isNew = !told.has(fold)
      told.add(fold)
      run(Effect.andThen(
        count("unusable"),
        isNew
          ? Effect.logWarning(
            `A snapshot of the fold "${fold}" (${source}) cannot be used, and is made anew; others are not logged`,
            reason
          )
          : Effect.void
      ))
    }
  }
})
