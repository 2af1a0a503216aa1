/**
 * Coalesced appends: the writes of many fibers leave in one statement.
 *
 * While one batch is on its way, the items of other fibers gather, and leave together with the next (what databases call
 * group commit, in the application). A lone writer waits for nobody; there is no timer.
 *
 * **Guarantees**
 *
 * - Each item has its own outcome, as if it had been appended alone; items of one stream keep the order they came in.
 * - A stream is in one batch at a time, and nobody waits behind a stream that a transaction holds: a batch takes the
 *   locks that are free. Of the other streams, one item each waits for the lock in a statement of its own.
 * - When the database refuses a batch, its items are appended one by one, so that only the culprit fails. When the
 *   connection is lost, each fails with that error: whether it was stored is unknown.
 * - An item whose fiber is interrupted is taken out, unless the statement that writes it is under way already.
 */
import { Array as Arr, Cause, Context, Effect, Fiber, FiberSet, Latch, Predicate, Tracer } from "effect"
import type { Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { AppendItem, AppendOutcome } from "../Storage.ts"
import type { append } from "./append.ts"

/** Batches on their way at once: one is written while the next is being sent. */
const lanes = 2

/** Bounds of a batch. An item larger than that goes alone. */
const maximumItems = 128
const maximumCharacters = 4 * 1024 * 1024

interface Entry {
  readonly item: AppendItem
  readonly size: number
  readonly span: Tracer.AnySpan | undefined
  readonly answer: (outcome: Effect.Effect<AppendOutcome, SqlError>) => void
  /** The statement that waits for the stream's lock, with this item alone. */
  waiting: Fiber.Fiber<unknown> | undefined
  isInterrupted: boolean
}

/** The items that gather, by stream. */
class Gathering {
  /** Streams that are on their way, and what has come for them since. */
  private readonly away = new Map<string, Array<Entry>>()
  /** Streams that can leave, the longest waiting first. */
  private readonly ready = new Map<string, Array<Entry>>()
  /** Open while there is something to take. */
  readonly some = Latch.makeUnsafe(false)
  private waiting = 0
  private idle = lanes
  private isClosed = false

  add(entry: Entry): void {
    if (this.isClosed) return entry.answer(Effect.interrupt)
    const { stream } = entry.item
    const entries = this.away.get(stream) ?? this.ready.get(stream)
    if (entries !== undefined) entries.push(entry)
    else this.ready.set(stream, [entry])
    this.waiting++
    if (this.ready.size > 0) this.some.openUnsafe()
  }

  /** Takes an entry out again; one that is on its way is not found. */
  remove(entry: Entry): void {
    const { stream } = entry.item
    const entries = this.away.get(stream) ?? this.ready.get(stream) ?? []
    const index = entries.indexOf(entry)
    if (index < 0) return
    entries.splice(index, 1)
    this.waiting--
    if (entries.length === 0) this.ready.delete(stream)
  }

  /** Takes entries back that did not leave after all; their stream stays away. */
  putBack(stream: string, entries: ReadonlyArray<Entry>): void {
    this.away.get(stream)?.unshift(...entries)
    this.waiting += entries.length
  }

  /** The next batch: this lane's share of what waits, within the bounds of a batch. */
  take(): ReadonlyArray<Entry> {
    const share = Math.min(Math.ceil(this.waiting / this.idle), maximumItems)
    const batch: Array<Entry> = []
    let size = 0
    for (const [stream, entries] of this.ready) {
      let count = 0
      for (const entry of entries) {
        if (batch.length > 0 && (batch.length === share || size + entry.size > maximumCharacters)) break
        batch.push(entry)
        size += entry.size
        count++
      }
      if (count === 0) break
      this.ready.delete(stream)
      this.away.set(stream, entries.slice(count))
    }
    this.waiting -= batch.length
    this.idle--
    if (this.ready.size === 0) this.some.closeUnsafe()
    return batch
  }

  /** The lane is free again. */
  returned(): void {
    this.idle++
  }

  /** What was on its way for these streams has its answers; what has come since can leave. */
  settled(streams: Iterable<string>): void {
    for (const stream of streams) {
      const entries = this.away.get(stream) ?? []
      this.away.delete(stream)
      if (entries.length > 0) this.ready.set(stream, entries)
    }
    if (this.ready.size > 0) this.some.openUnsafe()
  }

  /** Nothing leaves any more: who waits, and who comes, is interrupted. */
  close(): void {
    this.isClosed = true
    for (const entry of [...this.ready.values(), ...this.away.values()].flat()) entry.answer(Effect.interrupt)
  }
}

/**
 * The append of one item, coalesced with those of other fibers. It ends with the scope: who waits then is interrupted.
 */
export const make = Effect.fnUntraced(function*(
  call: ReturnType<typeof append>
): Effect.fn.Return<(item: AppendItem) => Effect.Effect<AppendOutcome, SqlError>, never, Scope.Scope> {
  const gathering = new Gathering()
  const alone = yield* FiberSet.make()

  /** Appends, and gives each entry its answer; returns those whose streams others hold. */
  const send = (entries: Batch, wait: boolean): Effect.Effect<ReadonlyArray<Entry>> =>
    call(Arr.map(entries, (entry) => entry.item), { atomic: false, wait }).pipe(
      Effect.withSpan("MessageStore.batch", {
        root: true,
        attributes: { items: entries.length },
        links: entries.flatMap(({ span }) => span === undefined ? [] : [{ span, attributes: {} }])
      }),
      Effect.matchCauseEffect({
        onSuccess: (outcomes) => Effect.sync(() => answer(entries, outcomes)),
        onFailure: (cause) =>
          entries.length > 1 && wasRefused(cause)
            ? Effect.map(Effect.forEach(entries, (entry) => send([entry], wait)), Arr.flatten)
            : Effect.sync(() => {
              for (const entry of entries) entry.answer(Effect.failCause(cause))
              return []
            })
      }),
      Effect.onInterrupt(() =>
        Effect.sync(() => {
          for (const entry of entries) entry.answer(Effect.interrupt)
        })
      )
    )

  /** Sends a batch. Of what had to be left alone, the first item of each stream waits for the lock, beside the lanes. */
  const sendBatch = Effect.fnUntraced(function*(batch: Batch) {
    const held = Map.groupBy(yield* send(batch, false), (entry) => entry.item.stream)
    gathering.settled(batch.map((entry) => entry.item.stream).filter((stream) => !held.has(stream)))
    for (const [stream, [first, ...others]] of held) {
      if (first === undefined) continue
      gathering.putBack(stream, others)
      const waiting = Effect.ensuring(send([first], true), Effect.sync(() => gathering.settled([stream])))
      first.waiting = yield* FiberSet.run(alone, waiting)
    }
  })

  const lane = Effect.gen(function*() {
    yield* gathering.some.await
    yield* Effect.yieldNow // whoever is about to write, joins
    const batch = gathering.take()
    if (Arr.isReadonlyArrayNonEmpty(batch)) yield* sendBatch(batch)
    gathering.returned()
  })

  yield* Effect.addFinalizer(() => Effect.sync(() => gathering.close()))
  for (let i = 0; i < lanes; i++) yield* Effect.forkScoped(Effect.forever(lane))

  return (item) =>
    Effect.withFiber((fiber) =>
      Effect.callback<AppendOutcome, SqlError>((resume) => {
        const entry: Entry = {
          item,
          size: item.messages.reduce((sum, { data }) => sum + data.length, 0),
          span: Context.getOrUndefined(fiber.context, Tracer.ParentSpan),
          answer: resume,
          waiting: undefined,
          isInterrupted: false
        }
        gathering.add(entry)
        return Effect.suspend(() => {
          entry.isInterrupted = true
          gathering.remove(entry)
          return entry.waiting === undefined ? Effect.void : Fiber.interrupt(entry.waiting)
        })
      })
    )
})

type Batch = Arr.NonEmptyReadonlyArray<Entry>

/** Returns the entries that have no outcome, and still want one. */
const answer = (entries: Batch, outcomes: ReadonlyArray<AppendOutcome | undefined>): ReadonlyArray<Entry> =>
  entries.filter((entry, i) => {
    const outcome = outcomes[i]
    if (outcome !== undefined) entry.answer(Effect.succeed(outcome))
    return outcome === undefined && !entry.isInterrupted
  })

/** Whether the database itself refused the statement, so that nothing of it was stored. */
const wasRefused = (cause: Cause.Cause<SqlError>): boolean =>
  cause.reasons.length === 1 &&
  cause.reasons.every((reason) =>
    Cause.isFailReason(reason) && reason.error.reason._tag !== "ConnectionError" &&
    Predicate.hasProperty(reason.error.reason.cause, "code")
  )
