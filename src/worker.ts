/**
 * The workers of one subscription in one process: one fiber looks which partitions have messages and claims them; one
 * fiber for each claimed partition handles them.
 *
 * A worker whose partition has nothing more keeps its claim for a while, so that the next message need not wait for one;
 * it leaves when another partition needs its place, or when another process has asked for the partition.
 */
import { Array as Arr, Clock, Effect, FiberSet, Latch, Metric, Random } from "effect"
import type { Duration } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Interruption } from "./delivery.ts"
import type { HandlerError } from "./errors.ts"
import { isPassing, whatPasses } from "./passing.ts"
import type { AggregatedStorage, Claim, ClaimMode, EncodedLinkedMessage, SubscriptionStorage } from "./Storage.ts"

export interface WorkerOptions<R> {
  readonly name: string
  readonly mode: ClaimMode
  readonly batchSize: number
  readonly concurrency: number
  readonly pollInterval: Duration.Input
  readonly deliver: (
    claim: Claim,
    checkpoint: number,
    messages: Arr.NonEmptyReadonlyArray<EncodedLinkedMessage>
  ) => Effect.Effect<
    { readonly checkpoint: number; readonly isWanted: boolean },
    Interruption | HandlerError | SqlError,
    R
  >
}

/** How long an idle worker keeps its claim. */
const idleTime: Duration.Input = "30 seconds"

/** How long a claim is kept, at least, though another process asks for it; and how long it is left to others then. */
const fairMilliseconds = 3000
const restMilliseconds = 1500

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
): Effect.Effect<never, HandlerError | SqlError, R> =>
  Effect.scoped(Effect.gen(function*() {
    const listener = yield* stream.listen
    const claims = yield* subscribed.claims(mode)
    const fibers = yield* FiberSet.make<void, HandlerError | SqlError>()
    const workers = new Map<number, Worker>()
    /** Left alone: for good, or until a time. */
    const resting = new Map<number, number>()
    const placeIsFree = Latch.makeUnsafe(false)
    const attributes = { subscription: name }

    /** Until there is nothing for a while, or the partition is another's. */
    const work = Effect.fnUntraced(function*(claim: Claim, worker: Worker) {
      const { partition } = claim
      const since = yield* Clock.currentTimeMillis
      let checkpoint = yield* subscribed.checkpoint(partition)
      while (!worker.hasToLeave) {
        worker.news.closeUnsafe()
        const { messages, more } = yield* stream.readPartition({
          partition,
          fromPosition: checkpoint + 1,
          limit: batchSize
        })
        if (Arr.isReadonlyArrayNonEmpty(messages)) {
          const [took, done] = yield* Effect.timed(deliver(claim, checkpoint, messages))
          yield* Metric.update(Metric.withAttributes(batchTimer, attributes), took)
          checkpoint = done.checkpoint
          const now = yield* Clock.currentTimeMillis
          if (done.isWanted && now - since >= fairMilliseconds) {
            resting.set(partition, now + restMilliseconds)
            return
          }
          if (more) continue
        }
        worker.isIdle = true
        const hasNews = yield* Effect.timeoutOption(worker.news.await, idleTime)
        worker.isIdle = false
        if (hasNews._tag === "None") return
      }
    })

    const employ = (claim: Claim) => {
      const worker = new Worker()
      workers.set(claim.partition, worker)
      const working = work(claim, worker).pipe(
        Effect.raceFirst(claims.lost(claim)),
        Effect.catchTag("Interruption", ({ reason }) =>
          Effect.sync(() => {
            if (reason === "halted") resting.set(claim.partition, Infinity)
          })),
        Effect.catchIf(isPassing, (error) =>
          Effect.logWarning(`subscription ${name}: partition ${claim.partition} is given up for a while`, error).pipe(
            Effect.andThen(Clock.currentTimeMillis),
            Effect.map((now) =>
              void resting.set(claim.partition, now + restMilliseconds)
            )
          )),
        Effect.ensuring(Effect.andThen(
          claims.release(claim),
          Effect.sync(() => {
            workers.delete(claim.partition)
            placeIsFree.openUnsafe()
          })
        ))
      )
      return FiberSet.run(fibers, Effect.asVoid(working))
    }

    /** Claims what is pending, as far as there are places; answers whether others have some of it. */
    const look = Effect.gen(function*() {
      placeIsFree.closeUnsafe()
      const pending = yield* subscribed.pending
      yield* Metric.update(
        Metric.withAttributes(lagGauge, attributes),
        pending.reduce((sum, { checkpoint, position }) => sum + position - checkpoint, 0)
      )
      const now = yield* Clock.currentTimeMillis
      const free: Array<number> = []
      let isContended = false
      for (const { partition } of pending) {
        const until = resting.get(partition) ?? 0
        if (workers.has(partition)) workers.get(partition)?.news.openUnsafe()
        else if (until <= now) free.push(partition)
        else if (until < Infinity) isContended = true
      }
      const elsewhere: Array<number> = []
      for (const partition of yield* Random.shuffle(free)) {
        if (workers.size >= concurrency) {
          for (const worker of workers.values()) if (worker.isIdle) worker.leave()
          break
        }
        const claim = yield* claims.claim(partition)
        if (claim === undefined) elsewhere.push(partition)
        else yield* employ(claim)
      }
      const [wanted] = elsewhere
      if (wanted !== undefined && workers.size < concurrency) yield* claims.want(wanted)
      return isContended || elsewhere.length > 0
    })

    const manage = Effect.gen(function*() {
      while (true) {
        const isContended = yield* Effect.retry(look, { schedule: whatPasses, while: isPassing })
        yield* Effect.raceFirst(
          listener.wait(isContended ? contendedInterval : pollInterval),
          placeIsFree.await
        )
      }
    })

    return yield* Effect.raceFirst(manage, Effect.andThen(FiberSet.join(fibers), Effect.never))
  }))
