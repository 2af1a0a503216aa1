/**
 * A worker: handles a claimed partition for as long as it has messages, and a while longer, so that the next message need
 * not wait for a claim.
 *
 * ```
 * claimed → reading → handling → reading → … → idle → reading → …
 *    └─────────┴──────────┴──────────────────────┴──→ left
 * ```
 *
 * In `handling` messages are acknowledged too: one by one, or as a batch. A worker leaves
 *
 * - *yielded*: it was idle for too long, its slot is needed (`crowded`), another consumer asked for the partition
 *   (`wanted`), or one may want it that cannot ask (`shared`);
 * - *fenced*: the claim is another's, or a reset has refused it;
 * - *halted*: at a message that could not be handled;
 * - *paused*: as an operator has said;
 * - *unknownType*: at a message whose type this build does not know;
 * - *requeued*: at a message that can be parked behind others only when some of these, which are requeued, were handled: they
 *   are the first that whoever claims the partition handles;
 * - *disturbed*: by a transient failure of the database, or of what keeps the keys of personal data;
 * - *stopped*: the consumer shuts down.
 */
import { Array as Arr, Effect, Latch, Random } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { HandlerError } from "../errors.ts"
import * as Moment from "../internal/moment.ts"
import { isTransient } from "../internal/transient.ts"
import type { Claim, PendingPartition, SubscriptionStorage } from "../Storage.ts"
import { ClaimedPartition } from "./claimedPartition.ts"
import type { Deliver } from "./delivery.ts"
import type { Metrics } from "./metrics.ts"
import type { Redeliver } from "./redelivery.ts"
import type { Shutdown } from "./shutdown.ts"

/** The state of a worker. */
export type State = "claimed" | "reading" | "handling" | "idle"

/** Why a worker has left; the first four have yielded. */
export type Left =
  | "idle"
  | "crowded"
  | "wanted"
  | "shared"
  | "fenced"
  | "halted"
  | "paused"
  | "unknownType"
  | "requeued"
  | "disturbed"
  | "stopped"

/** How long an idle worker keeps its claim, in milliseconds. */
const idleMilliseconds = 30_000

/** How long a claim is kept, at least, though another consumer asks for it, or another partition for its slot. */
const fairMilliseconds = 3000

/**
 * A worker that is never idle leaves its partition alone now and then, for consumers that cannot ask: after a random time
 * between these, so that partitions are left one after the other. With `sharedMilliseconds` (supervisor.ts), one part in
 * 29 of its time.
 */
const busyMilliseconds = [8000, 24_000] as const

/** What workers of a subscription share. */
export interface WorkerOptions<R> {
  readonly name: string
  readonly subscribed: SubscriptionStorage
  readonly batchSize: number
  /** How long a claim is good for once it was confirmed, in milliseconds. */
  readonly validity: number
  readonly othersCannotAsk: boolean
  readonly deliver: Deliver<R>
  readonly redeliver: Redeliver<R>
  readonly metrics: Metrics
  readonly shutdown: Shutdown
  /** Whether partitions wait for a slot. */
  readonly isCrowded: () => boolean
  /** Called when a worker has handled all there was. */
  readonly onIdle: () => void
}

export class PartitionWorker {
  state: State = "claimed"
  /** Undefined until its checkpoint was read. */
  claimed: ClaimedPartition | undefined
  /** Whether parked messages of the partition may be requeued. */
  private hasRequeued: boolean
  /** The end of the partition, as it was when it was last looked at. */
  private end: number
  /** Whether it has to leave as soon as it is idle. */
  private hasToLeave = false
  /** Open when the partition has more messages, or the worker has to leave. */
  private readonly news = Latch.makeUnsafe(false)

  /** How many messages it is expected to have at first. */
  private readonly expected: number

  constructor({ checkpoint, hasRequeued, position }: PendingPartition) {
    this.hasRequeued = hasRequeued
    this.end = position
    this.expected = position - checkpoint
  }

  get checkpoint(): number | undefined {
    return this.claimed?.checkpoint
  }

  /** Wakes the worker: there are messages behind its checkpoint, or parked ones that are requeued. */
  wake(hasRequeued: boolean, end: number): void {
    this.hasRequeued ||= hasRequeued
    this.end = end
    this.news.openUnsafe()
  }

  leave(): void {
    this.hasToLeave = true
    this.news.openUnsafe()
  }

  /** Works until it leaves; its caller then releases the claim. */
  run<R>(
    options: WorkerOptions<R>,
    claim: Claim,
    claimedAt: Moment.Moment
  ): Effect.Effect<Left, HandlerError | SqlError, R> {
    return this.work(options, claim, claimedAt).pipe(
      Effect.raceFirst(Effect.as(claim.lost, "fenced" as const)),
      Effect.catchTag("BatchStopped", ({ reason }) => Effect.succeed(reason)),
      Effect.tap((left) =>
        left === "fenced" ? Effect.logInfo(`subscription ${options.name}: a claim was lost`) : Effect.void
      ),
      Effect.catchIf(isTransient, (error) =>
        Effect.as(
          Effect.logWarning(`subscription ${options.name}: a partition is given up for a while`, error),
          "disturbed" as const
        )),
      Effect.annotateLogs({ partition: claim.partition })
    )
  }

  private work<R>(
    { batchSize, deliver, isCrowded, metrics, onIdle, othersCannotAsk, redeliver, shutdown, subscribed, validity }:
      WorkerOptions<R>,
    claim: Claim,
    claimedAt: Moment.Moment
  ) {
    return Effect.gen({ self: this }, function*() {
      // One more than is expected shows whether there are more than that.
      const limitOf = (expected: number) => expected > 0 ? Math.min(expected + 1, batchSize) : batchSize
      const limit = limitOf(this.expected)
      const { claimed, page } = yield* ClaimedPartition.begin(subscribed, claim, { claimedAt, validity, limit })
      this.claimed = claimed
      let first = page.messages.length === 0 && page.more ? undefined : page
      let busySince = claimedAt
      const sharedAfter = othersCannotAsk ? yield* Random.nextIntBetween(...busyMilliseconds) : Infinity
      while (true) {
        if (shutdown.isRequested) return "stopped"
        this.state = "reading"
        this.news.closeUnsafe()
        if (this.hasRequeued) {
          this.hasRequeued = yield* redeliver(claimed, batchSize)
          if (claimed.isPaused) return "paused"
        }
        const { end } = this
        // A page that was read before a pause is a batch in hand; after it, there is none.
        const { messages, more } = first ?? (yield* claimed.read(limitOf(end - claimed.checkpoint)))
        first = undefined
        if (Arr.isReadonlyArrayNonEmpty(messages)) {
          this.state = "handling"
          const [took] = yield* Effect.timed(deliver(claimed, messages))
          yield* metrics.batchTook(took)
          if (claimed.isPaused) return "paused"
          if ((yield* Moment.since(claimedAt)) >= fairMilliseconds) {
            if (claimed.isWanted) return "wanted"
            if (isCrowded()) return "crowded"
          }
          if (more && (yield* Moment.since(busySince)) >= sharedAfter) return "shared"
          if (more) continue
        }
        if (claimed.checkpoint < end && !shutdown.isRequested) yield* claimed.passOverGone
        if (this.hasRequeued) continue
        if (isCrowded()) return "crowded"
        if (this.hasToLeave) return "idle"
        this.state = "idle"
        onIdle()
        const hasNews = yield* this.news.await.pipe(
          Effect.as(true),
          Effect.timeoutOrElse({ duration: idleMilliseconds, orElse: () => Effect.succeed(false) }),
          Effect.raceFirst(Effect.as(shutdown.awaitRequest, true))
        )
        if (!hasNews || this.hasToLeave) return "idle"
        busySince = yield* Moment.now
      }
    })
  }
}
