/**
 * The queues whose first items need locks that other transactions hold, of a stream or of a tag.
 *
 * However many there are, they take no connection of the pool: one small statement asks which of the locks are free, after
 * a backoff that grows from 1 to 100 milliseconds for each queue. A client that only asks never gets a lock for which
 * others wait in line, so the queue that has waited longest waits in line too, on the one connection that a store has for
 * this, outside of the pool.
 *
 * It waits for one lock, that which was not free, and has no other meanwhile: so it keeps nobody from anything, and cannot
 * be part of a deadlock. When it has that lock, the items are appended as in any batch, if the others are free.
 *
 * An item for which the database finds tags that its writer does not know is not seen to wait for them: after each backoff
 * it is sent again.
 */
import { Array as Arr, Cause, Effect, Exit, Fiber } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { wasRefused } from "../../internal/transient.ts"
import type { AppendItem, AppendOutcome } from "../../Storage.ts"
import type { Lock } from "../locks.ts"
import { type Entry, type Leaving, locksOf, maximumLocks, type Queues, type StreamQueue } from "./queues.ts"
import { type Append, type make as makeStatements, type Run, setOut, type Traced } from "./statements.ts"

export interface Locks {
  /** Of each item a lock that is not free; undefined: all are. */
  readonly busy: (items: ReadonlyArray<AppendItem>) => Effect.Effect<ReadonlyArray<Lock | undefined>, SqlError>
  /** Waits for a lock, then appends in the same transaction. Absent if there is no connection outside of the pool. */
  readonly append:
    | ((
      lock: Lock,
      appending: (append: Append) => Effect.Effect<Outcomes, SqlError>
    ) => Effect.Effect<Outcomes, SqlError>)
    | undefined
}

type Outcomes = ReadonlyArray<AppendOutcome | undefined>

/** A queue that stands in line, for a lock that its first item needs. */
interface InLine {
  readonly queue: StreamQueue
  readonly lock: Lock
  readonly first: Entry | undefined
  readonly fiber: Fiber.Fiber<unknown, unknown>
}

/** The longest backoff, in milliseconds. */
const longestPause = 100
/** A queue waits in line once its backoff has reached this, in milliseconds. */
const patience = 8
/** The pause after a connection could not be had, or was lost, in milliseconds. */
const pauseAfterFailure = 1000

export const make = (
  run: Run,
  queues: Queues,
  locks: Locks,
  { conclude }: ReturnType<typeof makeStatements>,
  /** Called when items that were away have their outcomes, except those that are busy, and when a queue may be sent. */
  settled: (items: ReadonlyArray<Leaving>, busy: ReadonlyArray<Entry>) => void,
  traced: Traced
) => {
  /** The longest waiting first. */
  const held = new Set<StreamQueue>()
  const paused = new Set<StreamQueue>()
  const due: Array<StreamQueue> = []
  let isAsking = false
  let isInLine = false
  let inLine: InLine | undefined

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

  /** An item was taken out: the others need the lock of the stream, but perhaps not the one that this item waits for. */
  const abandon = (queue: StreamQueue): Effect.Effect<void> => {
    const [first] = queue.entries
    if (first === undefined) held.delete(queue)
    if (queue.waitsFor?.of === "tag") queue.waitsFor = undefined // it is asked for again
    if (inLine?.queue !== queue || inLine.first === first) return Effect.void
    return first === undefined || inLine.lock.of === "tag" ? Fiber.interrupt(inLine.fiber) : Effect.void
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
    for (let asked; (asked = nextDue()).length > 0;) {
      const exit = yield* Effect.exit(locks.busy(asked.map(([, { item }]) => item)))
      for (const [i, [queue, first]] of asked.entries()) {
        if (!isHeld(queue)) continue
        if (Exit.isFailure(exit)) fail(queue, queue.entries.slice(), exit.cause)
        else if (queue.entries[0] !== first) hold(queue) // it was withdrawn: the next one is asked for
        else if ((queue.waitsFor = exit.value[i]) === undefined) release(queue)
        else hold(queue)
      }
    }
    isAsking = false
  })

  /** With their first items: as many as may be asked for at once. */
  const nextDue = (): ReadonlyArray<readonly [StreamQueue, Entry]> => {
    const next: Array<readonly [StreamQueue, Entry]> = []
    let sum = 0
    for (let queue; sum < maximumLocks && (queue = due.shift()) !== undefined;) {
      const [first] = queue.entries
      if (!isHeld(queue) || first === undefined) continue
      next.push([queue, first])
      sum += locksOf(first)
    }
    return next
  }

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

  const standInLine = (append: Exclude<Locks["append"], undefined>) =>
    Effect.gen(function*() {
      for (let longest; (longest = longestWaiting()) !== undefined;) {
        const waiting = Array.from(held, (each) => [each, each.entries.slice()] as const)
        const exit = yield* waitFor(append, ...longest)
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

  /** Of those that know what they wait for. */
  const longestWaiting = (): readonly [StreamQueue, Lock] | undefined => {
    for (const queue of held) {
      if (!isHeld(queue)) held.delete(queue)
      else if (queue.waitsFor !== undefined) return [queue, queue.waitsFor]
    }
    return undefined
  }

  /** Appends the items of a queue when its lock is free. What is returned is of the lock alone. */
  const waitFor = Effect.fnUntraced(function*(
    append: Exclude<Locks["append"], undefined>,
    queue: StreamQueue,
    lock: Lock
  ) {
    let batch: ReadonlyArray<Entry> = []
    const fiber: Fiber.Fiber<Outcomes, SqlError> = run(append(lock, (locked) =>
      Effect.suspend(() => {
        batch = queues.takeHeld(queue)
        if (!Arr.isReadonlyArrayNonEmpty(batch)) return Effect.succeed([]) // its lock was found free meanwhile
        setOut(batch, fiber)
        return traced(batch, locked)
      })))
    inLine = { queue, lock, first: queue.entries[0], fiber }
    const exit = yield* Fiber.await(fiber)
    inLine = undefined
    if (batch.length === 0) return Exit.asVoid(exit)
    const { answer, left } = yield* conclude(batch, exit)
    answer()
    settled(batch, left)
    if (!isHeld(queue)) held.delete(queue)
    return Exit.void
  })

  return { hold, abandon }
}
