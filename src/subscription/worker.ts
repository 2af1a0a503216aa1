/**
 * The workers of one subscription in one process: one fiber looks which partitions have messages and claims them; one
 * fiber for each claimed partition handles them.
 *
 * A worker whose partition has nothing more keeps its claim for a while, so that the next message need not wait for one;
 * it leaves when another partition needs its place, or when another process has asked for the partition. One that is
 * busy does so too, after a batch, when it has had its place for a while.
 */
import { Array as Arr, Clock, Effect, Exit, FiberSet, Latch, Metric, Random } from "effect"
import type { Duration } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { HandlerError, StreamRebuiltError } from "../errors.ts"
import { isTransient, retryTransient } from "../internal/transient.ts"
import type { AggregatedStorage, Claim, ClaimMode, EncodedLinkedMessage, SubscriptionStorage } from "../Storage.ts"
import type { HeldClaim, Interruption } from "./delivery.ts"

/** How a subscription is run. */
export interface WorkerOptions<R> {
  readonly name: string
  readonly mode: ClaimMode
  readonly batchSize: number
  readonly concurrency: number
  readonly pollInterval: Duration.Input
  readonly deliver: (
    held: HeldClaim,
    checkpoint: number,
    messages: Arr.NonEmptyReadonlyArray<EncodedLinkedMessage>
  ) => Effect.Effect<
    { readonly checkpoint: number; readonly isWanted: boolean },
    Interruption | HandlerError | SqlError,
    R
  >
}

/** How long an idle worker keeps its claim. */
const idleMilliseconds = 30_000

/**
 * How long a claim is kept, at least, though another process asks for it, or another partition for its place; and how
 * long it is left to other processes then.
 */
const fairMilliseconds = 3000
const restMilliseconds = 1500

/** How long a claim is good for once it was confirmed, at most; of a lease, a third of it. */
const validityMilliseconds = 1000

/** How long a partition that another has is left alone before it is tried again. */
const refusedMilliseconds = [100, 500] as const

/** How soon partitions that others have are looked at again. */
const contendedInterval: Duration.Input = "500 millis"

const lagGauge = Metric.gauge("effect_message_store_lag", { description: "Messages linked and not acknowledged" })
const batchTimer = Metric.timer("effect_message_store_batch_time", {
  description: "From reading a batch to its checkpoint"
})

class Worker {
  /** Open when the partition has more messages, or the worker has to leave. */
  readonly news = Latch.makeUnsafe(false)
  isIdle = false
  hasToLeave = false
  checkpoint = -1

  leave(): void {
    this.hasToLeave = true
    this.news.openUnsafe()
  }
}

/** @internal */
export const run = <R>(
  stream: AggregatedStorage,
  subscribed: SubscriptionStorage,
  { batchSize, concurrency, deliver, mode, name, pollInterval }: WorkerOptions<R>
): Effect.Effect<never, HandlerError | StreamRebuiltError | SqlError, R> =>
  Effect.scoped(Effect.gen(function*() {
    const listener = yield* stream.listen
    const claims = yield* subscribed.claims(mode)
    const fibers = yield* FiberSet.make<void, HandlerError | StreamRebuiltError | SqlError>()
    const workers = new Map<number, Worker>()
    /** Left alone: for good, or until a time. */
    const resting = new Map<number, number>()
    /** Partitions that gave their place up to others are the last to get one, in this order. */
    let lastInLine = new Set<number>()
    let isCrowded = false
    const placeIsFree = Latch.makeUnsafe(false)
    const attributes = { subscription: name }
    const validity = mode._tag === "Lease"
      ? Math.min(validityMilliseconds, mode.milliseconds / 3)
      : validityMilliseconds

    /** Until there is nothing for a while, or the partition is another's. */
    const work = Effect.fnUntraced(function*(held: HeldClaim, worker: Worker) {
      const { partition } = held.claim
      const since = yield* Clock.currentTimeMillis
      let idleUntil = since + idleMilliseconds
      worker.checkpoint = yield* subscribed.checkpoint(partition)
      while (!worker.hasToLeave) {
        worker.news.closeUnsafe()
        const { messages, more } = yield* stream.readPartition({
          partition,
          fromPosition: worker.checkpoint + 1,
          limit: batchSize
        })
        if (Arr.isReadonlyArrayNonEmpty(messages)) {
          const [took, done] = yield* Effect.timed(deliver(held, worker.checkpoint, messages))
          yield* Metric.update(Metric.withAttributes(batchTimer, attributes), took)
          worker.checkpoint = done.checkpoint
          const now = yield* Clock.currentTimeMillis
          idleUntil = now + idleMilliseconds
          if ((done.isWanted || isCrowded) && now - since >= fairMilliseconds) {
            if (done.isWanted) resting.set(partition, now + restMilliseconds)
            else lastInLine.add(partition)
            return
          }
          if (more) continue
        }
        if (isCrowded) return
        worker.isIdle = true
        const left = idleUntil - (yield* Clock.currentTimeMillis)
        const hasNews = yield* Effect.timeoutOption(worker.news.await, Math.max(0, left))
        worker.isIdle = false
        if (hasNews._tag === "None") return
      }
    })

    const employ = (claim: Claim, confirmedAt: number) => {
      const worker = new Worker()
      workers.set(claim.partition, worker)
      const annotated = Effect.annotateLogs({ partition: claim.partition })
      const working = work({ claim, confirmedAt, validity, confirm: claims.confirm(claim) }, worker).pipe(
        Effect.raceFirst(claims.lost(claim)),
        Effect.catchTag("Interruption", ({ reason }) => {
          if (reason === "fenced") return annotated(Effect.logInfo(`subscription ${name}: a claim was lost`))
          resting.set(claim.partition, Infinity)
          return Effect.void
        }),
        Effect.catchIf(isTransient, (error) =>
          annotated(Effect.logWarning(`subscription ${name}: a partition is given up for a while`, error)).pipe(
            Effect.andThen(Clock.currentTimeMillis),
            Effect.map((now) =>
              void resting.set(claim.partition, now + restMilliseconds)
            )
          )),
        Effect.onExit((exit) =>
          Effect.map(claims.release(claim), () => {
            workers.delete(claim.partition)
            if (Exit.isSuccess(exit)) placeIsFree.openUnsafe() // else the subscription ends
          })
        )
      )
      return FiberSet.run(fibers, Effect.asVoid(working))
    }

    /** Claims what is pending, as far as there are places; returns whether others have some of it. */
    const look = Effect.gen(function*() {
      placeIsFree.closeUnsafe()
      const idle = new Map(
        Array.from(workers).flatMap(([partition, { checkpoint, isIdle }]) => isIdle ? [[partition, checkpoint]] : [])
      )
      const pending = yield* subscribed.pending
      yield* Metric.update(
        Metric.withAttributes(lagGauge, attributes),
        pending.reduce((sum, { checkpoint, position }) => sum + position - checkpoint, 0)
      )
      const now = yield* Clock.currentTimeMillis
      const free = new Set<number>()
      let isContended = false
      for (const { checkpoint, partition } of pending) {
        const worker = workers.get(partition)
        const until = resting.get(partition) ?? 0
        if (worker !== undefined) {
          // One that is idle all the while, and elsewhere than what is stored: the subscription was reset.
          const hasMoved = worker.isIdle && idle.get(partition) === worker.checkpoint &&
            worker.checkpoint !== checkpoint
          if (hasMoved) worker.leave()
          else worker.news.openUnsafe()
        } else if (until <= now) {
          resting.delete(partition)
          free.add(partition)
        } else if (until < Infinity) isContended = true
      }
      const first = yield* Random.shuffle(Array.from(free).filter((partition) => !lastInLine.has(partition)))
      lastInLine = new Set(Array.from(lastInLine).filter((partition) => free.has(partition)))
      const elsewhere: Array<number> = []
      isCrowded = false
      for (const partition of [...first, ...lastInLine]) {
        if (workers.size >= concurrency) {
          isCrowded = true
          for (const worker of workers.values()) if (worker.isIdle) worker.leave()
          break
        }
        const at = yield* Clock.currentTimeMillis
        const claim = yield* claims.claim(partition)
        if (claim !== undefined) {
          lastInLine.delete(partition)
          yield* employ(claim, at)
        } else {
          elsewhere.push(partition)
          resting.set(partition, at + (yield* Random.nextIntBetween(...refusedMilliseconds)))
        }
      }
      const [wanted] = elsewhere
      if (wanted !== undefined && workers.size < concurrency) yield* claims.want(wanted)
      return isContended || elsewhere.length > 0
    })

    const manage = Effect.gen(function*() {
      while (true) {
        const isContended = yield* Effect.retry(look, { schedule: retryTransient, while: isTransient })
        yield* Effect.raceFirst(
          listener.wait(isContended ? contendedInterval : pollInterval),
          placeIsFree.await
        )
      }
    })

    // With the workers: all are interrupted at once, and none waits for what another has.
    yield* FiberSet.run(fibers, manage)
    return yield* Effect.andThen(FiberSet.join(fibers), Effect.never)
  }))
