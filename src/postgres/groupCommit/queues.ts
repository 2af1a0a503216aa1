/**
 * The items that wait to be sent, in a queue for each stream.
 *
 * A queue is `ready`, `away` (its first items are in a statement, and no others leave until that has its outcomes) or
 * `held` (another transaction has a lock that its first item needs). It is forgotten when it is empty and nothing of it
 * is away. A ready queue is passed over while a statement is under way that has a tag of its first item: that statement
 * would keep the other from it.
 *
 * The items of a batch are written by one function: all of them are conditional, or none is.
 */
import type { Effect, Fiber, Tracer } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { AppendItem, AppendOutcome } from "../../Storage.ts"
import type { Lock, TagLocks } from "../locks.ts"
import { TagsAway } from "./tagsAway.ts"

/** Bounds of a batch. A larger item is sent alone. */
export const maximumItems = 128
const maximumCharacters = 4 * 1024 * 1024
/** The server has a table of locks for all that is under way, by default of 6400. */
export const maximumLocks = 512

/** What leaves in a batch. */
export interface Leaving {
  readonly item: AppendItem
  readonly tagLocks: TagLocks
}

/** An item whose fiber waits for its outcome. */
export interface Entry extends Leaving {
  readonly size: number
  /** Whether it needs the function that decides. */
  readonly isConditional: boolean
  readonly span: Tracer.AnySpan | undefined
  readonly answer: (outcome: Effect.Effect<AppendOutcome, SqlError>) => void
  /** Its fiber was interrupted: it must not be sent any more. */
  isWithdrawn: boolean
  /** The statement that it is under way in. */
  statement: Statement | undefined
}

/** How many locks it needs: those of tags, and that of its stream. */
export const locksOf = ({ tagLocks }: Leaving): number => 1 + tagLocks.size

/** A statement under way, and how many fibers still wait for it. */
export interface Statement {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  wanted: number
}

export class StreamQueue {
  readonly stream: string
  entries: Array<Entry> = []
  state: "ready" | "away" | "held" = "ready"
  /** How long to wait, in milliseconds, before its lock is asked for again. */
  pause = 0
  /** The lock that its first item was last seen to wait for. */
  waitsFor: Lock | undefined

  constructor(stream: string) {
    this.stream = stream
  }
}

export class Queues {
  private readonly byStream = new Map<string, StreamQueue>()
  /** The longest waiting first. */
  private readonly ready = new Set<StreamQueue>()
  /** How many items the ready queues have. */
  private items = 0
  private readonly tags = new TagsAway()
  /** Ready, but for the tags of their first items. */
  private readonly passedOver = new Set<StreamQueue>()

  get hasReady(): boolean {
    return this.ready.size > 0
  }

  /** How many items are ready. */
  get waiting(): number {
    return this.items
  }

  add(entry: Entry): void {
    const queue = this.queue(entry.item.stream)
    queue.entries.push(entry)
    if (this.ready.has(queue)) this.items++
    else if (queue.state === "ready" && queue.entries.length === 1) this.makeReady(queue)
  }

  /**
   * Marks an item as away without a queue, until it is settled; false if what it needs is away, or if items wait. It may overtake
   * these, unless it has tags, for which they may have waited.
   */
  reserve({ item: { stream }, tagLocks }: Leaving, overtakes: boolean): boolean {
    if (this.hasReady && !(overtakes && tagLocks.size === 0)) return false
    if (this.byStream.has(stream) || !this.tags.areFree(tagLocks)) return false
    this.queue(stream).state = "away"
    this.tags.leave(tagLocks)
    return true
  }

  /**
   * The next batch, within its bounds: one of so many equal shares of everything that is ready, and everything if a share is
   * less than so many items. What has just returned counts as well: those fibers are about to write again.
   */
  take(shares: number, least: number, returned: number): ReadonlyArray<Entry> {
    const share = Math.ceil((this.items + returned) / shares)
    const batch = new Batch(share < least ? maximumItems : Math.min(share, maximumItems))
    for (const queue of this.ready) {
      const [first] = queue.entries
      if (first === undefined || (batch.entries[0]?.isConditional ?? first.isConditional) !== first.isConditional) {
        continue
      }
      const waiting = queue.entries.length
      if (!this.tags.areFree(first.tagLocks)) {
        this.passedOver.add(queue)
      } else if (batch.moveFrom(queue, ({ tagLocks }) => this.tags.areFree(tagLocks)) > 0) {
        queue.state = "away"
      } else break
      this.ready.delete(queue)
      this.items -= waiting
    }
    for (const { tagLocks } of batch.entries) this.tags.leave(tagLocks)
    return batch.entries
  }

  /** The next batch of a queue that was held; nothing if it is not any more. */
  takeHeld(queue: StreamQueue): ReadonlyArray<Entry> {
    if (queue.state !== "held") return []
    const batch = new Batch(maximumItems)
    batch.moveFrom(queue, () => true)
    queue.state = "away"
    for (const { tagLocks } of batch.entries) this.tags.leave(tagLocks)
    return batch.entries
  }

  /** The items have their outcomes, except those that are busy, which are first in their queues again. Those are held. */
  settle(settled: ReadonlyArray<Leaving>, busy: ReadonlyArray<Entry>): ReadonlyArray<StreamQueue> {
    const left = busy.length === 0 ? undefined : Map.groupBy(busy, (entry) => entry.item.stream)
    const held: Array<StreamQueue> = []
    for (const { item: { stream }, tagLocks } of settled) {
      this.tags.comeBack(tagLocks)
      const queue = this.byStream.get(stream)
      if (queue?.state !== "away") continue
      queue.waitsFor = undefined
      const entries = left?.get(stream)
      if (entries === undefined) {
        queue.pause = 0
        this.makeReady(queue)
      } else {
        queue.entries.unshift(...entries)
        queue.state = "held"
        held.push(queue)
      }
    }
    for (const queue of Array.from(this.passedOver)) this.makeReady(queue)
    return held
  }

  /** What its first item needs is free. */
  release(queue: StreamQueue): void {
    if (queue.state === "held") this.makeReady(queue)
  }

  /** Takes the items out of a queue that was held. */
  clear(queue: StreamQueue, entries: ReadonlySet<Entry>): void {
    queue.entries = queue.entries.filter((entry) => !entries.has(entry))
    if (queue.entries.length === 0) this.release(queue)
  }

  /** Takes an item out of its queue, if it is in one. */
  remove(entry: Entry): StreamQueue | undefined {
    const queue = this.byStream.get(entry.item.stream)
    const index = queue?.entries.indexOf(entry) ?? -1
    if (queue === undefined || index < 0) return undefined
    queue.entries.splice(index, 1)
    if (this.ready.has(queue)) this.items--
    if (queue.entries.length === 0 && queue.state !== "away") this.forget(queue)
    return queue
  }

  private queue(stream: string): StreamQueue {
    let queue = this.byStream.get(stream)
    if (queue === undefined) this.byStream.set(stream, queue = new StreamQueue(stream))
    return queue
  }

  private makeReady(queue: StreamQueue): void {
    queue.state = "ready"
    this.passedOver.delete(queue)
    const [first] = queue.entries
    if (first === undefined) this.forget(queue)
    else if (this.tags.areFree(first.tagLocks)) {
      this.ready.add(queue)
      this.items += queue.entries.length
    } else this.passedOver.add(queue)
  }

  private forget(queue: StreamQueue): void {
    this.ready.delete(queue)
    this.passedOver.delete(queue)
    this.byStream.delete(queue.stream)
    queue.state = "ready"
  }
}

/** Items that leave together. */
class Batch {
  readonly entries: Array<Entry> = []
  private readonly most: number
  private size = 0
  private locks = 0

  constructor(most: number) {
    this.most = most
  }

  /** Moves the first items of a queue into the batch, as many as fit; returns how many. */
  moveFrom(queue: StreamQueue, isFree: (entry: Entry) => boolean): number {
    let count = 0
    for (const entry of queue.entries) {
      if (!this.fits(entry) || !isFree(entry)) break
      this.entries.push(entry)
      this.size += entry.size
      this.locks += locksOf(entry)
      count++
    }
    if (count === queue.entries.length) queue.entries.length = 0
    else queue.entries.splice(0, count)
    return count
  }

  private fits(entry: Entry): boolean {
    const [first] = this.entries
    return first === undefined ||
      (first.isConditional === entry.isConditional && this.entries.length < this.most &&
        this.size + entry.size <= maximumCharacters && this.locks + locksOf(entry) <= maximumLocks)
  }
}
