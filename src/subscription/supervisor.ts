/**
 * The supervisor of a subscription in one process: finds out which partitions have messages, claims them, and starts a
 * worker for each, as many as there are slots. Where partitions wait for slots, they take turns.
 *
 * It ends when it is interrupted; one that drains, when nothing is left to handle. When it ends, whatever the reason, its workers finish what they have in hand, acknowledge it, and release their claims;
 * those that take longer than `shutdownTimeout` are interrupted.
 */
import { Duration, Effect, Exit, Fiber, FiberSet, Latch, Random, Scope, Semaphore } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { HandlerError, SetupError, StreamRebuiltError } from "../errors.ts"
import * as Moment from "../internal/moment.ts"
import { tryingAgain } from "../internal/transient.ts"
import type { AggregatedStorage, Claim, ClaimMode, PendingPartition, SubscriptionStorage } from "../Storage.ts"
import { BatchStopped } from "./claimedPartition.ts"
import type { Deliver } from "./delivery.ts"
import { unacknowledged } from "./lag.ts"
import type { Metrics } from "./metrics.ts"
import { type Left, PartitionWorker, type WorkerOptions } from "./partitionWorker.ts"
import type { Redeliver } from "./redelivery.ts"
import type { Shutdown } from "./shutdown.ts"

/** How a subscription is run. */
interface SupervisorOptions<R> {
  readonly name: string
  /** The label that `claimedBy` shows. */
  readonly owner: string | undefined
  readonly mode: ClaimMode
  readonly batchSize: number
  readonly concurrency: number
  readonly pollInterval: Duration.Duration
  readonly shutdownTimeout: Duration.Duration
  readonly deliver: Deliver<R>
  readonly redeliver: Redeliver<R>
  readonly metrics: Metrics
  /** Whether messages of a type are left to other processes. */
  readonly leaves: (type: string) => boolean
  readonly shutdown: Shutdown
  /** Whether it ends when all is handled that can be. */
  readonly drains: boolean
}

/** How long a partition is left alone, in milliseconds, when its worker has left for this reason. */
const backoff: { readonly [Reason in Left]?: number } = {
  wanted: 1500,
  disturbed: 1500,
  // depeche_db's consumers try each partition every 500 milliseconds.
  shared: 550
}

/** The same, when another consumer has the partition. */
const refusedMilliseconds = [100, 500] as const

/** How soon partitions that others have are tried again. */
const contendedMilliseconds = 500

/** How long a claim is good for once it was confirmed, at most; of a lease, a third of it. */
const validityMilliseconds = 1000

/** How often the age of the oldest message is asked for, in milliseconds: that takes statements of its own, two at most. */
const agedMilliseconds = 5000

/** A process claims one of so many equal shares of what is free at once: the others are left to other processes, and to it. */
const claimShares = 16

/** How many partitions are claimed ahead of their slots, at most, and how long, in milliseconds, others have had theirs then. */
const maximumAhead = 48
const quickMilliseconds = 250

/** How long it rests, to how long it looks, where more partitions than slots have messages. */
const restingShare = 4

/** How soon a supervisor that drains looks at what others have in hand, in milliseconds, at the latest. */
const drainMilliseconds = 100

/** @internal */
export const run = <R>(
  stream: AggregatedStorage,
  subscribed: SubscriptionStorage,
  options: SupervisorOptions<R>
): Effect.Effect<void, HandlerError | SetupError | StreamRebuiltError | SqlError, R> =>
  Effect.scoped(Effect.gen(function*() {
    const { batchSize, concurrency, deliver, leaves, metrics, mode, name, redeliver, shutdown } = options
    const listener = yield* stream.listen
    const claims = yield* subscribed.claims(mode, options.owner)
    const fibers = yield* FiberSet.make<void, HandlerError | SqlError>()
    const workers = new Map<number, PartitionWorker>()
    /** Partitions that are left alone, until they are stored as halted no more: reset, or carried on by another process. */
    const halted = new Set<number>()
    /** When partitions that are left alone may be claimed again. */
    const backoffUntil = new Map<number, number>()
    /** When partitions that others have may be claimed. */
    const refusedUntil = new Map<number, number>()
    /** Partitions that yielded their slot are the last to get one, in this order. */
    let yielded = new Set<number>()
    /** Partitions that are free, as they were when they were looked at, in the order in which they are claimed. */
    const waiting = new Map<number, PendingPartition>()
    /** Workers that need no slot any more: their claims are being released. */
    const leaving = new Set<number>()
    /** How long, in milliseconds, a partition that yielded its slot had it, by and large; undefined: none has. */
    let held: number | undefined
    const slots = Semaphore.makeUnsafe(concurrency)
    /**
     * How many partitions can be claimed. Where those that wait are many, and soon handled, some more are claimed than are
     * handled at the same time, so that their statements are shared by many.
     */
    const freeSlots = () => {
      const isQuick = held !== undefined && held < quickMilliseconds
      const ahead = isQuick ? Math.min(maximumAhead, 3 * concurrency, Math.floor(waiting.size / claimShares)) : 0
      return concurrency + ahead - (workers.size - leaving.size)
    }
    /** When partitions are looked at again, at the latest; and where some wait for slots, not before that. */
    let [lookAt, lookNotBefore] = [0, 0]
    let agedUntil = 0
    /** The age of what was not linked when that was last asked for. */
    let notLinked = 0
    let notLinkedUntil = 0
    const slotFreed = Latch.makeUnsafe(false)
    /** One that was claimed ahead is given up if no slot is free soon: others may have one. */
    const inSlot = <A, E>(handling: Effect.Effect<A, E, R>): Effect.Effect<A, E | BatchStopped, R> => {
      if (workers.size - leaving.size <= concurrency) return slots.withPermit(handling)
      let hasBegun = false
      const begun = Effect.suspend(() => {
        hasBegun = true
        return handling
      })
      const tooLate = Effect.suspend(() => {
        if (hasBegun) return Effect.never
        held = 8 * quickMilliseconds // none is claimed ahead until others were soon done again
        return Effect.fail(new BatchStopped({ reason: "crowded" }))
      })
      return Effect.raceFirst(slots.withPermit(begun), Effect.delay(tooLate, quickMilliseconds))
    }
    const workerOptions: WorkerOptions<R> = {
      name,
      subscribed,
      batchSize,
      validity: mode._tag === "Lease" ? Math.min(validityMilliseconds, mode.milliseconds / 3) : validityMilliseconds,
      othersCannotAsk: claims.othersCannotAsk,
      deliver: (partition, messages) => inSlot(deliver(partition, messages)),
      redeliver: (partition, limit) => inSlot(redeliver(partition, limit)),
      metrics,
      shutdown,
      isCrowded: () => waiting.size > freeSlots(),
      onIdle: () => options.drains && slotFreed.openUnsafe()
    }

    const startWorker = (
      claim: Claim,
      claimedAt: Moment.Moment,
      scope: Scope.Closeable,
      pending: PendingPartition
    ) => {
      const { partition } = claim
      const worker = new PartitionWorker(pending)
      workers.set(partition, worker)
      const working = worker.run(workerOptions, claim, claimedAt).pipe(
        Effect.flatMap((left) =>
          Effect.map(Moment.milliseconds, (now) => {
            const rest = backoff[left]
            if (rest !== undefined) backoffUntil.set(partition, now + rest)
            if (left === "halted") halted.add(partition)
            if (left === "crowded") {
              yielded.add(partition)
              const time = now - Number(claimedAt.monotonic) / 1e6
              held = held === undefined ? time : held + (time - held) / 8
            }
          })
        ),
        Effect.onExit((exit) => {
          const hasEnded = Exit.isSuccess(exit) // else the subscription ends
          leaving.add(partition)
          if (hasEnded && waiting.size > 0) slotFreed.openUnsafe()
          return Effect.map(Scope.close(scope, exit), () => {
            workers.delete(partition)
            leaving.delete(partition)
            if (hasEnded) slotFreed.openUnsafe()
          })
        })
      )
      return FiberSet.run(fibers, working)
    }

    /** Claims a partition and starts its worker; whether it was free. */
    const claim = (pending: PendingPartition, ask: boolean) =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function*() {
          const scope = yield* Scope.make()
          const at = yield* Moment.now
          const claiming = Scope.provide(claims.claim(pending.partition, { ask }), scope)
          const claimed = yield* Effect.onExit(
            restore(claiming),
            (exit) => Exit.isSuccess(exit) && exit.value !== undefined ? Effect.void : Scope.close(scope, exit)
          )
          if (claimed !== undefined) yield* startWorker(claimed, at, scope, pending)
          return claimed !== undefined
        })
      )

    /** Tells workers of their messages. Answers the partitions to claim, and when others come to that, in milliseconds. */
    const wakeWorkers = (
      pending: ReadonlyArray<PendingPartition>,
      before: { readonly idleAt: ReadonlyMap<number, number>; readonly halted: ReadonlySet<number> },
      now: number
    ) => {
      const free = new Map<number, PendingPartition>()
      let next = Infinity
      for (const each of pending) {
        const { checkpoint, hasRequeued, isHalted, isPaused, partition, position, unknownType } = each
        const worker = workers.get(partition)
        if (isPaused) {
          worker?.leave() // behind the batch in hand
          continue
        }
        if (worker === undefined && unknownType !== undefined && leaves(unknownType)) continue
        const until = Math.max(backoffUntil.get(partition) ?? 0, refusedUntil.get(partition) ?? 0)
        if (worker !== undefined) {
          // Idle throughout, yet not at the stored checkpoint: the subscription was reset.
          const wasReset = worker.state === "idle" && before.idleAt.get(partition) === worker.checkpoint &&
            worker.checkpoint !== checkpoint
          if (wasReset) worker.leave()
          else worker.wake(hasRequeued, position)
          // Behind what the worker has acknowledged: read before that, or reset while the worker was not idle, which shows
          // only when it is.
          if (worker.checkpoint !== undefined && checkpoint < worker.checkpoint) {
            next = Math.min(next, contendedMilliseconds)
          }
        } else if (halted.has(partition) && (isHalted || !before.halted.has(partition))) {
          continue
        } else if (until <= now) {
          halted.delete(partition)
          backoffUntil.delete(partition)
          refusedUntil.delete(partition)
          free.set(partition, each)
        } else next = Math.min(next, refusedUntil.has(partition) ? contendedMilliseconds : until - now)
      }
      return { free, next }
    }

    const measure = Effect.fnUntraced(function*(pending: ReadonlyArray<PendingPartition>) {
      const lag = unacknowledged(pending)
      yield* metrics.lag(lag)
      yield* metrics.halted(pending.filter(({ isHalted }) => isHalted).length)
      yield* metrics.paused(pending.filter(({ isPaused }) => isPaused).length)
      yield* metrics.unknownType(pending.filter(({ unknownType }) => unknownType !== undefined).length)
      const now = yield* Moment.milliseconds
      if (now >= notLinkedUntil) {
        notLinked = (yield* stream.waitingFor) ?? 0
        notLinkedUntil = now + agedMilliseconds
      }
      if (lag > 0 && now < agedUntil) return
      agedUntil = lag > 0 ? now + agedMilliseconds : 0
      yield* metrics.age(Math.max(notLinked, lag > 0 ? (yield* subscribed.age) ?? 0 : 0))
    })

    /** Whether a partition has nothing that is to be handled now, here or elsewhere. */
    const isDone = ({ checkpoint, hasRequeued, isPaused, partition, position, unknownType }: PendingPartition) =>
      isPaused || halted.has(partition) || (unknownType !== undefined && leaves(unknownType)) ||
      (position <= checkpoint && !hasRequeued)

    /** Looks at what is pending; false if one that drains has nothing left to do. */
    const look = Effect.gen(function*() {
      const began = yield* Moment.milliseconds
      const idleAt = new Map(
        Array.from(workers).flatMap(([partition, { checkpoint, state }]) =>
          state === "idle" && checkpoint !== undefined ? [[partition, checkpoint]] : []
        )
      )
      const before = { idleAt, halted: new Set(halted) }
      const pending = yield* subscribed.pending
      yield* measure(pending)
      if (options.drains && pending.every(isDone)) return false
      const now = yield* Moment.milliseconds
      const { free, next } = wakeWorkers(pending, before, now)
      yielded = new Set(Array.from(yielded).filter((partition) => free.has(partition)))
      const first = yield* Random.shuffle(Array.from(free.keys()).filter((partition) => !yielded.has(partition)))
      waiting.clear()
      for (const partition of [...first, ...yielded]) {
        const each = free.get(partition)
        if (each !== undefined) waiting.set(partition, each)
      }
      lookAt = now + next
      lookNotBefore = now + (now - began) * restingShare
      return true
    })

    /** Claims what waits, as far as there are slots. */
    const claimWaiting = Effect.gen(function*() {
      let wanted: PendingPartition | undefined
      while (waiting.size > 0 && freeSlots() > 0) {
        const share = Math.min(freeSlots(), Math.ceil(waiting.size / claimShares))
        const taken: Array<PendingPartition> = []
        for (const [partition, each] of waiting) {
          if (taken.length === share) break
          taken.push(each)
          waiting.delete(partition)
        }
        const claimed = yield* Effect.forEach(taken, (each) => claim(each, false), { concurrency: "unbounded" })
        for (const [i, each] of taken.entries()) {
          if (claimed[i] === true) yielded.delete(each.partition)
          else {
            wanted ??= each
            const rest = yield* Random.nextIntBetween(...refusedMilliseconds)
            refusedUntil.set(each.partition, (yield* Moment.milliseconds) + rest)
          }
        }
      }
      let needed = waiting.size
      for (const worker of workers.values()) if (worker.state === "idle" && needed-- > 0) worker.leave()
      // With slots to spare, the holders of the refused partitions are asked for one.
      if (wanted === undefined) return
      if (freeSlots() > 0 && (yield* claim(wanted, true))) refusedUntil.delete(wanted.partition)
      lookAt = Math.min(lookAt, (yield* Moment.milliseconds) + contendedMilliseconds)
    })

    /**
     * Claims what is pending, as far as there are slots. Partitions that wait for them are not looked at anew for each that is
     * free. Answers how long that lasts, in milliseconds; one that drains, undefined when all is done.
     */
    const claimPending = Effect.gen(function*() {
      slotFreed.closeUnsafe()
      const mustLook = waiting.size === 0 || lookAt <= (yield* Moment.milliseconds)
      if (mustLook && !(yield* look)) return undefined
      yield* claimWaiting
      return lookAt - (yield* Moment.milliseconds)
    }).pipe(Effect.tapError(() => Effect.sync(() => waiting.clear())), tryingAgain(`subscription ${name}`))

    const supervise = Effect.gen(function*() {
      while (true) {
        const next = yield* claimPending
        if (next === undefined) return
        const soon = Duration.millis(options.drains ? Math.min(next, drainMilliseconds) : next)
        const signalled = Effect.map(listener.wait(Duration.min(soon, options.pollInterval)), () => {
          lookAt = 0
        })
        const rest = waiting.size === 0 ? 0 : lookNotBefore - (yield* Moment.milliseconds)
        yield* Effect.raceFirst(rest > 0 ? Effect.delay(signalled, rest) : signalled, slotFreed.await)
      }
    })

    yield* metrics.begin
    yield* Effect.logInfo(`subscription ${name} is running`).pipe(
      Effect.annotateLogs({
        ...options.owner === undefined ? {} : { owner: options.owner },
        claims: mode._tag === "Session" ? "session" : `lease of ${mode.milliseconds} ms`,
        concurrency
      })
    )
    const supervising = yield* Effect.forkScoped(supervise)
    // Workers learn of it at once, whatever the supervisor is doing.
    yield* Effect.addFinalizer(() =>
      shutdown.request.pipe(
        Effect.andThen(Fiber.interrupt(supervising)),
        Effect.andThen(Effect.timeoutOption(FiberSet.awaitEmpty(fibers), options.shutdownTimeout))
      )
    )
    return yield* Effect.raceFirst(Fiber.join(supervising), Effect.andThen(FiberSet.join(fibers), Effect.never))
  }))
