/**
 * Coalesced appends: the writes of many fibers leave in one statement.
 *
 * While one batch is on its way, the items of other fibers gather, and leave together with the next (what databases call
 * group commit, in the application). There is no timer: where nobody else is writing, a fiber sends its item itself, at
 * once.
 *
 * **Guarantees**
 *
 * - Each item has its own outcome, as if it had been appended alone; items of one stream keep the order they came in.
 * - A stream is in one batch at a time, and nobody waits behind a stream that a transaction holds: a batch takes the
 *   locks that are free. For each of the other streams, a transaction beside the lanes waits for the lock, and then
 *   appends what has gathered until then; a single item waits in its own statement.
 * - When the database refuses a batch, its items are appended one by one, so that only the culprit fails. When the
 *   connection is lost, each fails with that error: whether it was stored is unknown.
 * - An item whose fiber is interrupted is taken out, unless the statement that writes it is under way already. A statement
 *   whose items are all interrupted is cancelled, and gone when their fibers have ended.
 */
import { Array as Arr, Cause, Context, Deferred, Effect, Exit, Fiber, FiberSet, Predicate, Tracer } from "effect"
import type { Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { AppendItem, AppendOutcome } from "../Storage.ts"
import type { append, withLock } from "./append.ts"

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
  isInterrupted: boolean
  sending: Sending | undefined
}

/** A batch on its way: the fiber that sends it, and for how many of its items somebody waits still. */
interface Sending {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  wanted: number
}

type Batch = Arr.NonEmptyReadonlyArray<Entry>

/** The items that gather, by stream, and the lanes that are there for them. */
class Gathering {
  /** Streams that are on their way, and what has come for them since. */
  private readonly away = new Map<string, Array<Entry>>()
  /** Streams that can leave, the longest waiting first. */
  private readonly ready = new Map<string, Array<Entry>>()
  /** Those of the streams that are away which wait for their locks. */
  private readonly held = new Map<string, Fiber.Fiber<unknown>>()
  private waiting = 0
  /** Lanes that are open, and how many of them have a batch on its way; the others are about to take one. */
  private open = 0
  private busy = 0
  private isClosed = false
  private readonly openLane: (isFirst: boolean) => void

  constructor(openLane: (isFirst: boolean) => void) {
    this.openLane = openLane
  }

  add(entry: Entry): void {
    if (this.isClosed) return entry.answer(Effect.interrupt)
    const { stream } = entry.item
    const entries = this.away.get(stream) ?? this.ready.get(stream)
    if (entries !== undefined) entries.push(entry)
    else this.ready.set(stream, [entry])
    this.waiting++
    this.wake()
  }

  /** Whether nobody else is there, and an item can leave at once: its fiber is then a lane, with that batch on its way. */
  leaveAlone(stream: string): boolean {
    if (this.isClosed || this.open > 0 || this.waiting > 0 || this.away.has(stream)) return false
    this.away.set(stream, [])
    this.open++
    this.busy++
    return true
  }

  /** Takes an entry out again, if it is not on its way. Returns what waits or sends for nobody now. */
  remove(entry: Entry): Fiber.Fiber<unknown, unknown> | undefined {
    if (entry.sending !== undefined) return --entry.sending.wanted === 0 ? entry.sending.fiber : undefined
    const { stream } = entry.item
    const entries = this.away.get(stream) ?? this.ready.get(stream) ?? []
    const index = entries.indexOf(entry)
    if (index < 0) return undefined
    entries.splice(index, 1)
    this.waiting--
    if (entries.length > 0) return undefined
    this.ready.delete(stream)
    return this.held.get(stream)
  }

  /** The next batch of a lane: its share of what waits, within the bounds of a batch. Where that is nothing, it closes. */
  take(fiber: Sending["fiber"]): ReadonlyArray<Entry> {
    // A stream is in one batch at a time: there is nothing to share of a single one.
    const share = this.ready.size === 1 ? maximumItems : Math.ceil(this.waiting / (lanes - this.busy))
    const batch: Array<Entry> = []
    for (const [stream, entries] of this.ready) {
      const left = this.moveInto(batch, entries, Math.min(share, maximumItems))
      if (left.length === entries.length) break
      this.ready.delete(stream)
      this.away.set(stream, left)
    }
    if (batch.length === 0) this.open--
    else this.busy++
    this.wake() // what is left is for another lane
    return sentBy(batch, fiber)
  }

  /** How many entries have gathered for a stream that is away. */
  count(stream: string): number {
    return this.away.get(stream)?.length ?? 0
  }

  /** What has gathered for a held stream, within the bounds of a batch. */
  takeHeld(stream: string, fiber: Sending["fiber"]): ReadonlyArray<Entry> {
    const batch: Array<Entry> = []
    this.held.delete(stream)
    this.away.set(stream, this.moveInto(batch, this.away.get(stream) ?? [], maximumItems))
    return sentBy(batch, fiber)
  }

  /** Moves entries into a batch, and returns the entries that are left over. */
  private moveInto(batch: Array<Entry>, entries: Array<Entry>, most: number): Array<Entry> {
    let size = batch.reduce((sum, entry) => sum + entry.size, 0)
    let count = 0
    for (const entry of entries) {
      if (batch.length > 0 && (batch.length >= most || size + entry.size > maximumCharacters)) break
      batch.push(entry)
      size += entry.size
      count++
    }
    this.waiting -= count
    return entries.slice(count)
  }

  /** The lane has its outcomes, and will take again after it has told of them: no other opens for those who come then. */
  returned(): void {
    this.busy--
  }

  /** A lane that had a batch on its way is no more. */
  laneClosed(streams: Iterable<string>): void {
    this.busy--
    this.open--
    this.settled(streams)
  }

  /** What was on its way for these streams has its answers; what has come since can leave. */
  settled(streams: Iterable<string>): void {
    for (const stream of streams) {
      const entries = this.away.get(stream) ?? []
      this.away.delete(stream)
      this.held.delete(stream)
      if (entries.length > 0) this.ready.set(stream, entries)
    }
    this.wake()
  }

  /** Others hold a stream: what was to leave gathers again, with what has come since, until `wait` has the lock. */
  putBack(stream: string, entries: ReadonlyArray<Entry>, wait: () => Fiber.Fiber<unknown>): void {
    for (const entry of entries) entry.sending = undefined
    this.away.get(stream)?.unshift(...entries)
    this.waiting += entries.length
    this.held.set(stream, wait())
  }

  /** Nothing leaves any more: who waits, and who comes, is interrupted. */
  close(): void {
    this.isClosed = true
    for (const entry of [...this.ready.values(), ...this.away.values()].flat()) entry.answer(Effect.interrupt)
  }

  private wake(): void {
    if (this.ready.size > 0 && this.open === this.busy && this.open < lanes && !this.isClosed) {
      this.openLane(this.open++ === 0)
    }
  }
}

const sentBy = (batch: ReadonlyArray<Entry>, fiber: Sending["fiber"]): ReadonlyArray<Entry> => {
  const sending: Sending = { fiber, wanted: batch.length }
  for (const entry of batch) entry.sending = sending
  return batch
}

type Exits = ReadonlyArray<Exit.Exit<AppendOutcome, SqlError> | undefined>

/**
 * The append of one item, coalesced with those of other fibers. When the scope closes, the fibers that wait are
 * interrupted, and nothing is taken any more.
 */
export const make = Effect.fnUntraced(function*(
  call: ReturnType<typeof append>,
  locked: ReturnType<typeof withLock>
): Effect.fn.Return<(item: AppendItem) => Effect.Effect<AppendOutcome, SqlError>, never, Scope.Scope> {
  const fibers = yield* FiberSet.make()
  // Writes are no part of the span in which the store is built.
  const run = yield* Effect.updateContext(
    FiberSet.runtime(fibers)(),
    (context: Context.Context<never>) => Context.omit(Tracer.ParentSpan)(context)
  )
  const gathering = new Gathering((isFirst) => run(lane(isFirst)))

  const send = (entries: Batch, wait: boolean): Effect.Effect<ReadonlyArray<AppendOutcome | undefined>, SqlError> => {
    const sent = call(Arr.map(entries, (entry) => entry.item), { atomic: false, wait })
    if (entries.length > 1) {
      return Effect.withSpan(sent, "MessageStore.batch", {
        root: true,
        attributes: { items: entries.length },
        links: entries.flatMap((entry) => entry.span === undefined ? [] : [{ span: entry.span, attributes: {} }]),
        captureStackTrace: false
      })
    }
    const { span } = entries[0]
    return span === undefined ? sent : Effect.provideService(sent, Tracer.ParentSpan, span)
  }

  /** An exit for each entry; none where others hold the stream. */
  const exits = (
    entries: () => ReadonlyArray<Entry>,
    attempt: ReturnType<typeof send>,
    wait: boolean
  ): Effect.Effect<Exits> =>
    Effect.matchCauseEffect(attempt, {
      onSuccess: (outcomes) => Effect.succeed(outcomes.map((outcome) => outcome && Exit.succeed(outcome))),
      onFailure: (cause) =>
        entries().length > 1 && wasRefused(cause)
          ? Effect.map(
            Effect.forEach(entries(), (entry) => exits(() => [entry], send([entry], wait), wait)),
            Arr.flatten
          )
          : Effect.succeed(entries().map(() => Exit.failCause(cause)))
    })

  const lane = (isFirst: boolean) =>
    Effect.withFiber((fiber) =>
      Effect.gen(function*() {
        for (let gathers = !isFirst;;) {
          if (gathers) yield* Effect.yieldNow // whoever is about to write, joins
          const batch = gathering.take(fiber)
          if (!Arr.isReadonlyArrayNonEmpty(batch)) return
          const streams = batch.map((entry) => entry.item.stream)
          const outcomes = yield* Effect.onInterrupt(exits(() => batch, send(batch, false), false), () =>
            Effect.sync(() => {
              interrupt(batch)
              gathering.laneClosed(streams)
            }))
          gathering.returned()
          const held = Map.groupBy(answer(batch, outcomes), (entry) => entry.item.stream)
          gathering.settled(streams.filter((stream) =>
            !held.has(stream)
          ))
          for (const [stream, entries] of held) gathering.putBack(stream, entries, () => run(afterLock(stream)))
          gathers = batch.length > 1
        }
      })
    )

  /** Waits for the lock of a stream, and appends what has gathered for it then. */
  const afterLock = (stream: string) =>
    Effect.withFiber((fiber) => {
      let batch: ReadonlyArray<Entry> = []
      const take = Effect.sync(() => batch = gathering.takeHeld(stream, fiber))
      const sendTaken = Effect.flatMap(
        take,
        (taken) => Arr.isReadonlyArrayNonEmpty(taken) ? send(taken, true) : Effect.succeed([])
      )
      // A single item waits in the statement that writes it.
      const sent = Effect.suspend(() => gathering.count(stream) === 1 ? sendTaken : locked(stream, sendTaken))
      return Effect.yieldNow.pipe(
        Effect.andThen(sent),
        Effect.tapError(() => batch.length === 0 ? take : Effect.void), // the lock itself was refused
        (attempt) => exits(() => batch, attempt, true),
        Effect.map((outcomes) => answer(batch, outcomes)),
        Effect.onInterrupt(() => Effect.sync(() => interrupt(batch))),
        Effect.ensuring(Effect.sync(() => gathering.settled([stream])))
      )
    })

  yield* Effect.addFinalizer(() => Effect.sync(() => gathering.close()))

  return (item) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => {
        const { stream } = item
        const span = Context.getOrUndefined(fiber.context, Tracer.ParentSpan)

        /** Lets the item gather, and waits for its outcome. */
        const gather = (add: (entry: Entry) => void) => {
          const answered = Deferred.makeUnsafe<AppendOutcome, SqlError>()
          const entry: Entry = {
            item,
            size: item.messages.reduce((sum, { data }) => sum + data.length, 0),
            span,
            answer: (outcome) => Deferred.doneUnsafe(answered, outcome),
            isInterrupted: false,
            sending: undefined
          }
          add(entry)
          return Effect.onInterrupt(restore(Deferred.await(answered)), () => {
            entry.isInterrupted = true
            const unwanted = gathering.remove(entry)
            return unwanted === undefined ? Effect.void : Fiber.interrupt(unwanted)
          })
        }

        if (!gathering.leaveAlone(stream)) return gather((entry) => gathering.add(entry))
        return Effect.matchCauseEffect(restore(call([item], { atomic: false, wait: false })), {
          onFailure: (cause) => {
            gathering.laneClosed([stream])
            return Effect.failCause(cause)
          },
          onSuccess: ([outcome]) => {
            gathering.laneClosed(outcome === undefined ? [] : [stream])
            return outcome === undefined
              ? gather((entry) => gathering.putBack(stream, [entry], () => run(afterLock(stream))))
              : Effect.succeed(outcome)
          }
        })
      })
    )
})

/** Gives each entry its outcome; returns the entries that have none, and still want one. */
const answer = (entries: ReadonlyArray<Entry>, exits: Exits): ReadonlyArray<Entry> =>
  entries.filter((entry, i) => {
    const exit = exits[i]
    if (exit !== undefined) entry.answer(exit)
    return exit === undefined && !entry.isInterrupted
  })

const interrupt = (entries: ReadonlyArray<Entry>): void => {
  for (const entry of entries) entry.answer(Effect.interrupt)
}

/** Whether the database itself refused the statement, so that nothing of it was stored. */
const wasRefused = (cause: Cause.Cause<SqlError>): boolean =>
  cause.reasons.length === 1 &&
  cause.reasons.every((reason) =>
    Cause.isFailReason(reason) && reason.error.reason._tag !== "ConnectionError" &&
    Predicate.hasProperty(reason.error.reason.cause, "code")
  )
