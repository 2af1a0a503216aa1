/**
 * The items that wait to be sent, in a queue for each stream.
 *
 * A queue is `ready`, `away` (its first items are in a statement, and no others leave until that has its outcomes) or
 * `held` (another transaction has the lock of its stream). It is forgotten when it is empty and nothing of it is away.
 */
import type { Effect, Fiber, Tracer } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { AppendItem, AppendOutcome } from "../../Storage.ts"

/** Bounds of a batch. A larger item is sent alone. */
export const maximumItems = 128
const maximumCharacters = 4 * 1024 * 1024

/** An item whose fiber waits for its outcome. */
export interface Entry {
  readonly item: AppendItem
  readonly size: number
  readonly span: Tracer.AnySpan | undefined
  readonly answer: (outcome: Effect.Effect<AppendOutcome, SqlError>) => void
  /** Its fiber was interrupted: it must not be sent any more. */
  isWithdrawn: boolean
  /** The statement that it is under way in. */
  statement: Statement | undefined
}

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

  constructor(stream: string) {
    this.stream = stream
  }
}

export class Queues {
  private readonly byStream = new Map<string, StreamQueue>()
  /** The longest waiting first. */
  private readonly ready = new Set<StreamQueue>()
  /** How many items the ready queues have. */
  private waiting = 0

  get hasReady(): boolean {
    return this.ready.size > 0
  }

  add(entry: Entry): void {
    const queue = this.queue(entry.item.stream)
    queue.entries.push(entry)
    if (queue.state !== "ready") return
    this.ready.add(queue)
    this.waiting++
  }

  /** Marks a stream as away without any items, until it is settled; false if items wait, or the stream has a queue. */
  reserve(stream: string): boolean {
    if (this.hasReady || this.byStream.has(stream)) return false
    this.queue(stream).state = "away"
    return true
  }

  /** The next batch: one of so many equal shares of everything ready, within the bounds of a batch. */
  take(shares: number): ReadonlyArray<Entry> {
    // A stream is in one batch at a time: there is nothing to share of a single one.
    const most = this.ready.size === 1 ? maximumItems : Math.min(Math.ceil(this.waiting / shares), maximumItems)
    const batch: Array<Entry> = []
    let size = 0
    for (const queue of this.ready) {
      const before = batch.length
      size = moveInto(batch, queue, size, most)
      if (batch.length === before) break
      this.leave(queue, batch.length - before)
    }
    return batch
  }

  /** The next batch of a queue that was held; nothing if it is not any more. */
  takeHeld(queue: StreamQueue): ReadonlyArray<Entry> {
    const batch: Array<Entry> = []
    if (queue.state !== "held") return batch
    queue.state = "away"
    moveInto(batch, queue, 0, maximumItems)
    return batch
  }

  /** The items that were away have their outcomes, except these, whose stream is held: they are first in their queue again. */
  settle(streams: Iterable<string>, busy: ReadonlyArray<Entry>): ReadonlyArray<StreamQueue> {
    const left = busy.length === 0 ? undefined : Map.groupBy(busy, (entry) => entry.item.stream)
    const held: Array<StreamQueue> = []
    for (const stream of streams) {
      const queue = this.byStream.get(stream)
      if (queue?.state !== "away") continue
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
    return held
  }

  /** The stream is not held any more. */
  release(queue: StreamQueue): void {
    if (queue.state === "held") this.makeReady(queue)
  }

  /** Takes the items out of a queue that was held. */
  clear(queue: StreamQueue, entries: ReadonlySet<Entry>): void {
    queue.entries = queue.entries.filter((entry) => !entries.has(entry))
    if (queue.entries.length === 0) this.release(queue)
  }

  /** Takes an item out. Returns its queue if that is forgotten now. */
  remove(entry: Entry): StreamQueue | undefined {
    const queue = this.byStream.get(entry.item.stream)
    const index = queue?.entries.indexOf(entry) ?? -1
    if (queue === undefined || index < 0) return undefined
    queue.entries.splice(index, 1)
    if (queue.state === "ready") this.waiting--
    if (queue.entries.length > 0 || queue.state === "away") return undefined
    this.forget(queue)
    return queue
  }

  private queue(stream: string): StreamQueue {
    let queue = this.byStream.get(stream)
    if (queue === undefined) this.byStream.set(stream, queue = new StreamQueue(stream))
    return queue
  }

  private makeReady(queue: StreamQueue): void {
    queue.state = "ready"
    if (queue.entries.length === 0) return this.forget(queue)
    this.ready.add(queue)
    this.waiting += queue.entries.length
  }

  private leave(queue: StreamQueue, count: number): void {
    this.ready.delete(queue)
    this.waiting -= count + queue.entries.length
    queue.state = "away"
  }

  private forget(queue: StreamQueue): void {
    this.ready.delete(queue)
    this.byStream.delete(queue.stream)
    queue.state = "ready"
  }
}

/** Moves the first items of a queue into a batch of a size, as many as fit; returns the new size. */
const moveInto = (batch: Array<Entry>, queue: StreamQueue, sizeBefore: number, most: number): number => {
  let size = sizeBefore
  let count = 0
  for (const entry of queue.entries) {
    if (batch.length > 0 && (batch.length >= most || size + entry.size > maximumCharacters)) break
    batch.push(entry)
    size += entry.size
    count++
  }
  if (count === queue.entries.length) queue.entries.length = 0
  else queue.entries.splice(0, count)
  return size
}
