/**
 * The queues whose streams are held by the locks of other transactions.
 *
 * However many streams are held, their queues take no connection of the pool: one small statement asks which of the locks
 * are free, after a backoff that grows from 1 to 100 milliseconds for each queue. A client that only asks never gets a
 * lock for which writers of other processes wait in line, so the queue that has waited longest waits in line too, on the
 * one connection that a store has for this, outside of the pool.
 */
import { Array as Arr, Cause, Effect, Exit, Fiber } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { wasRefused } from "../../internal/transient.ts"
import type { AppendOutcome } from "../../Storage.ts"
import type { Entry, Queues, StreamQueue } from "./queues.ts"
import { type Append, type make as makeStatements, type Run, setOut, traced } from "./statements.ts"

export interface StreamLocks {
  /** Those of the streams whose locks are free. */
  readonly free: (streams: ReadonlyArray<string>) => Effect.Effect<ReadonlyArray<string>, SqlError>
  /**
   * Waits for the lock of a stream, then appends in the same transaction. Absent if there is no connection outside of
   * the pool.
   */
  readonly append:
    | ((
      stream: string,
      appending: (append: Append) => Effect.Effect<Outcomes, SqlError>
    ) => Effect.Effect<Outcomes, SqlError>)
    | undefined
}

type Outcomes = ReadonlyArray<AppendOutcome | undefined>

/** The longest backoff, in milliseconds. */
const longestPause = 100
/** A queue waits in line once its backoff has reached this, in milliseconds. */
const patience = 8
/** The pause after a connection could not be had, or was lost, in milliseconds. */
const pauseAfterFailure = 1000

export const make = (
  run: Run,
  queues: Queues,
  locks: StreamLocks,
  { conclude }: ReturnType<typeof makeStatements>,
  /** Called when the items that were away for the streams have their outcomes, except `busy`, and when a queue may be sent. */
  settled: (streams: ReadonlyArray<string>, busy: ReadonlyArray<Entry>) => void
) => {
  /** The longest waiting first. */
  const held = new Set<StreamQueue>()
  const paused = new Set<StreamQueue>()
  let due: Array<StreamQueue> = []
  let isAsking = false
  let isInLine = false
  let inLine: { readonly queue: StreamQueue; readonly fiber: Fiber.Fiber<unknown, unknown> } | undefined

  const isHeld = (queue: StreamQueue): boolean => queue.state === "held"

  const hold = (queue: StreamQueue): void => {
    held.add(queue)
    if (!paused.has(queue)) {
      paused.add(queue)
      queue.pause = Math.min(Math.max(1, 2 * queue.pause), longestPause)
      run(Effect.andThen(Effect.sleep(queue.pause), askLater(queue)))
    }
    if (queue.pause < patience || isInLine || locks.append === undefined) return
    isInLine = true
    run(standInLine(locks.append))
  }

  /** No fiber waits for its items any more. */
  const abandon = (queue: StreamQueue): Effect.Effect<void> => {
    held.delete(queue)
    return inLine?.queue === queue ? Fiber.interrupt(inLine.fiber) : Effect.void
  }

  const askLater = (queue: StreamQueue) =>
    Effect.suspend(() => {
      paused.delete(queue)
      due.push(queue)
      if (isAsking) return Effect.void
      isAsking = true
      return ask
    })

  const ask = Effect.gen(function*() {
    while (due.length > 0) {
      const asked = due.filter(isHeld)
      due = []
      if (asked.length === 0) continue
      const exit = yield* Effect.exit(locks.free(asked.map(({ stream }) => stream)))
      const free = new Set(Exit.isSuccess(exit) ? exit.value : [])
      for (const queue of asked.filter(isHeld)) {
        if (Exit.isFailure(exit)) fail(queue, queue.entries.slice(), exit.cause)
        else if (free.has(queue.stream)) release(queue)
        else hold(queue)
      }
    }
    isAsking = false
  })

  const release = (queue: StreamQueue): void => {
    held.delete(queue)
    queues.release(queue)
    settled([], [])
  }

  const fail = (queue: StreamQueue, entries: ReadonlyArray<Entry>, cause: Cause.Cause<SqlError>): void => {
    queues.clear(queue, new Set(entries))
    for (const entry of entries) entry.answer(Exit.failCause(cause))
    if (!isHeld(queue)) held.delete(queue)
  }

  const standInLine = (append: Exclude<StreamLocks["append"], undefined>) =>
    Effect.gen(function*() {
      for (let queue; (queue = longest()) !== undefined;) {
        const waiting = Array.from(held, (each) => [each, each.entries.slice()] as const)
        const exit = yield* waitFor(append, queue)
        // A `lock_timeout` that has passed for one has passed for all that have waited as long.
        if (Exit.isFailure(exit) && wasRefused(exit.cause)) {
          for (const [each, entries] of waiting) {
            const stillThere = new Set(each.entries)
            if (isHeld(each)) fail(each, entries.filter((entry) => stillThere.has(entry)), exit.cause)
          }
        } else if (Exit.isFailure(exit) && !Cause.hasInterrupts(exit.cause)) yield* Effect.sleep(pauseAfterFailure)
      }
      isInLine = false
    })

  const longest = (): StreamQueue | undefined => {
    for (const queue of held) {
      if (isHeld(queue)) return queue
      held.delete(queue)
    }
    return undefined
  }

  /** Appends the items of a queue when its lock is free. What is returned is of the lock alone. */
  const waitFor = Effect.fnUntraced(function*(
    append: Exclude<StreamLocks["append"], undefined>,
    queue: StreamQueue
  ) {
    let batch: ReadonlyArray<Entry> = []
    const fiber: Fiber.Fiber<Outcomes, SqlError> = run(append(queue.stream, (locked) =>
      Effect.suspend(() => {
        batch = queues.takeHeld(queue)
        if (!Arr.isReadonlyArrayNonEmpty(batch)) return Effect.succeed([]) // its lock was found free meanwhile
        setOut(batch, fiber)
        return traced(batch, locked)
      })))
    inLine = { queue, fiber }
    const exit = yield* Fiber.await(fiber)
    inLine = undefined
    if (batch.length === 0) return Exit.asVoid(exit)
    held.delete(queue)
    settled([queue.stream], yield* conclude(batch, exit))
    return Exit.void
  })

  return { hold, abandon }
}
