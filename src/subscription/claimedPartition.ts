/** A claimed partition: its checkpoint, and whether the claim stands. */
import { Data, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Moment from "../internal/moment.ts"
import type { Claim, EncodedLinkedMessage, ParkedEntry, SubscriptionStorage } from "../Storage.ts"

/**
 * Why a batch ends before its end, other than by a failure: its claim was fenced or lost, or its partition is halted, paused,
 * or left to processes that know the type of its next message, or requeued messages come first, or it has found no slot, or the keys of personal data are out
 * of reach. What was handled before may be acknowledged, unless it is fenced.
 */
export class BatchStopped extends Data.TaggedError("BatchStopped")<{
  readonly reason: "fenced" | "halted" | "paused" | "unknownType" | "requeued" | "disturbed" | "crowded"
}> {}

export class ClaimedPartition {
  readonly claim: Claim
  /** The position acknowledged last, as it is committed. */
  checkpoint: number
  /** Whether another consumer has asked for it. */
  isWanted = false
  /** The keys of parked messages, behind which others are parked; some may not be parked any more. Undefined: not asked for. */
  parkedKeys: Set<string> | undefined
  /** Whether nothing more should be handled. */
  isPaused = false
  private readonly subscribed: SubscriptionStorage
  /** When the claim was last known to stand. */
  private confirmedAt: Moment.Moment
  /** When the partition was last known not to be paused. */
  private lookedAt: Moment.Moment
  /** The earlier one of these. */
  private knownAt: Moment.Moment
  /** The positions of the page that was read last, of which these many are acknowledged. */
  private positions: ReadonlyArray<number> = []
  private acknowledged = 0
  /** How long these are good for, in milliseconds: no handler is called later than that without a new confirmation. */
  private readonly validity: number

  private constructor(
    subscribed: SubscriptionStorage,
    claim: Claim,
    options: { readonly checkpoint: number; readonly claimedAt: Moment.Moment; readonly validity: number }
  ) {
    this.subscribed = subscribed
    this.claim = claim
    this.checkpoint = options.checkpoint
    this.confirmedAt = this.lookedAt = this.knownAt = options.claimedAt
    this.validity = options.validity
  }

  get partition(): number {
    return this.claim.partition
  }

  private note(what: "confirmedAt" | "lookedAt", at: Moment.Moment): void {
    this[what] = at
    this.knownAt = Moment.earlier(this.confirmedAt, this.lookedAt)
  }

  /** Fails if the claim does not stand. */
  readonly confirm: Effect.Effect<void, BatchStopped | SqlError> = Effect.suspend(() =>
    this.orStopped(this.claim.confirm, (confirmed, askedAt) => {
      if (confirmed === "Paused") this.isPaused = true
      else this.note("lookedAt", askedAt)
      return confirmed !== "Fenced"
    })
  )

  /** A partition that was claimed then, and the first messages behind its checkpoint, as `read` has them. */
  static begin(
    subscribed: SubscriptionStorage,
    claim: Claim,
    options: { readonly claimedAt: Moment.Moment; readonly validity: number; readonly limit: number }
  ) {
    const { partition } = claim
    return Effect.map(subscribed.begin({ partition, limit: options.limit }), ({ checkpoint, ...page }) => {
      const claimed = new ClaimedPartition(subscribed, claim, { ...options, checkpoint })
      claimed.hasRead(page.messages)
      return { claimed, page }
    })
  }

  private hasRead(messages: ReadonlyArray<EncodedLinkedMessage>): void {
    this.positions = messages.map(({ position }) => position)
    this.acknowledged = 0
  }

  /** The messages behind the checkpoint; none if the partition is paused. */
  read(limit: number): ReturnType<SubscriptionStorage["read"]> {
    return Effect.flatMap(Moment.now, (askedAt) => {
      this.note("lookedAt", askedAt)
      return Effect.map(
        this.subscribed.read({ partition: this.partition, fromPosition: this.checkpoint + 1, limit }),
        (page) => {
          this.hasRead(page.messages)
          return page
        }
      )
    })
  }

  /** Where the store has no message behind the checkpoint any more, though some are linked, nothing is left to be handled. */
  readonly passOverGone: Effect.Effect<void, BatchStopped | SqlError> = Effect.suspend(() =>
    Effect.flatMap(
      this.subscribed.endOfGone({ partition: this.partition, position: this.checkpoint }),
      (end) => end === undefined ? Effect.void : this.acknowledge(end)
    )
  )

  private readonly unlessPaused: Effect.Effect<void, BatchStopped> = Effect.suspend(() =>
    this.isPaused ? Effect.fail(new BatchStopped({ reason: "paused" })) : Effect.void
  )

  /**
   * Before a handler is called: a process that was stopped may have lost the claim without having noticed; and a batch that
   * takes long notices a pause.
   */
  readonly ensureClaimed: Effect.Effect<void, BatchStopped | SqlError> = Effect.clockWith((clock) => {
    const isFresh = Moment.elapsed(this.knownAt, Moment.of(clock)) < this.validity
    return isFresh ? this.unlessPaused : Effect.andThen(this.confirm, this.unlessPaused)
  })

  /** Stores a checkpoint, in the transaction that is open: it counts once `checkpointCommitted` says so. */
  advance(to: number): Effect.Effect<void, BatchStopped | SqlError> {
    return this.orStopped(this.subscribed.advance(this.claim, this.checkpoint, to), (advanced) => {
      if (advanced === "Wanted") this.isWanted = true
      return advanced !== "Fenced"
    })
  }

  /** Answers how many messages were acknowledged by it: positions have none where it was deleted. */
  checkpointCommitted(to: number): number {
    const before = this.acknowledged
    while ((this.positions[this.acknowledged] ?? Infinity) <= to) this.acknowledged++
    this.checkpoint = to
    return this.acknowledged - before
  }

  /** Both, outside of transactions; nothing if it is acknowledged already. */
  acknowledge(to: number): Effect.Effect<number, BatchStopped | SqlError> {
    return Effect.suspend(() =>
      to <= this.checkpoint
        ? Effect.succeed(0)
        : Effect.map(this.advance(to), () => this.checkpointCommitted(to))
    )
  }

  /** Notes that it is halted at a message, or left to those that know its type. */
  halt(entry: ParkedEntry, unknownType?: string): Effect.Effect<void, BatchStopped | SqlError> {
    return this.orStopped(this.subscribed.halt(this.claim, entry, unknownType), (noted) => noted)
  }

  /** An answer that the claim stands confirms it from the time of the question on. */
  private orStopped<A>(
    ask: Effect.Effect<A, SqlError>,
    stands: (answer: A, askedAt: Moment.Moment) => boolean
  ): Effect.Effect<void, BatchStopped | SqlError> {
    return Effect.flatMap(Moment.now, (askedAt) =>
      Effect.flatMap(ask, (answer) => {
        if (!stands(answer, askedAt)) return Effect.fail(new BatchStopped({ reason: "fenced" }))
        this.note("confirmedAt", askedAt)
        return Effect.void
      }))
  }
}
