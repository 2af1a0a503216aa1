/** Scheduled messages in memory: what is scheduled and cancelled takes part in transactions. */
import { type Array as Arr, Clock, Effect, Option, Predicate, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type {
  AppendItem,
  AppendOutcome,
  ListedEntry,
  Moved,
  RefusedEntry,
  ScheduledEntry,
  ScheduleStorage
} from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import * as Transaction from "./transaction.ts"

/** How many messages one transaction moves, as on PostgreSQL. */
const batchSize = 500

interface Scheduled extends ScheduledEntry {
  /** Rises with each call. */
  readonly order: number
  /** Why it cannot be written, if so. */
  readonly refused: string | undefined
}

type Change =
  | { readonly _tag: "Schedule"; readonly scheduled: Scheduled }
  | { readonly _tag: "Remove"; readonly key: string }

const apply = (scheduled: Map<string, Scheduled>, changes: ReadonlyArray<Change>): Map<string, Scheduled> => {
  for (const change of changes) {
    if (change._tag === "Remove") scheduled.delete(change.key)
    else scheduled.set(change.scheduled.key, change.scheduled)
  }
  return scheduled
}

const inOrder = (a: Pick<Scheduled, "at" | "order">, b: Pick<Scheduled, "at" | "order">): number =>
  a.at.epochMilliseconds - b.at.epochMilliseconds || a.order - b.order

const toListed = ({ at, key, message, metadata, order, refused, stream }: Scheduled): ListedEntry => ({
  key,
  at,
  order,
  stream,
  messageId: message.messageId,
  data: JSON.parse(message.data),
  metadata: JSON.parse(metadata),
  refused
})

class Schedule implements Transaction.Participant<Change> {
  readonly locks = new Transaction.Locks()
  readonly scheduled = new Map<string, Scheduled>()
  private last = 0

  commit(changes: ReadonlyArray<Change>): void {
    apply(this.scheduled, changes)
  }

  next(): number {
    return ++this.last
  }

  view(transaction: Transaction.Transaction): ReadonlyMap<string, Scheduled> {
    return apply(new Map(this.scheduled), transaction.journal<Change>(this))
  }

  /** As the transaction that is open sees it, if one is. */
  readonly present: Effect.Effect<ReadonlyMap<string, Scheduled>, SqlError> = Effect.map(
    Transaction.current,
    Option.match({ onNone: () => this.scheduled, onSome: (transaction) => this.view(transaction) })
  )
}

/** What a schedule needs of the messages of its store. */
export interface Source {
  readonly append: (
    items: Arr.NonEmptyReadonlyArray<AppendItem>
  ) => Effect.Effect<ReadonlyArray<AppendOutcome>, SqlError>
  /** Whether an append would wait for others. */
  readonly isBusy: (transaction: Transaction.Transaction, item: AppendItem) => boolean
}

export const make = (
  source: Source,
  wakeup: Wakeup["Service"]
): ScheduleStorage & { readonly clear: () => void; readonly list: () => ReadonlyArray<Scheduled> } => {
  const schedule = new Schedule()
  const keyOf = (key: string) => `key ${key}`

  const change = (key: string, decide: (scheduled: ReadonlyMap<string, Scheduled>) => Change | undefined) =>
    Transaction.required((transaction) =>
      Effect.andThen(
        schedule.locks.acquire(transaction, [keyOf(key)]),
        transaction.whileOpen(() =>
          Effect.sync(() => {
            const decided = decide(schedule.view(transaction))
            if (decided !== undefined) transaction.journal<Change>(schedule).push(decided)
            return decided !== undefined
          })
        )
      )
    )

  /** Those that are due, in their order, and that nobody has in hand. */
  const due = (transaction: Transaction.Transaction, now: number) =>
    Array.from(schedule.scheduled.values())
      .filter(({ at, key, refused }) =>
        refused === undefined && at.epochMilliseconds <= now && schedule.locks.isFree(transaction, keyOf(key))
      )
      .toSorted(inOrder)

  const move = Effect.fnUntraced(function*(transaction: Transaction.Transaction) {
    if (!schedule.locks.isFree(transaction, "mover")) return undefined
    yield* schedule.locks.acquire(transaction, ["mover"])
    const busy = new Set<string>()
    const duplicates: Array<string> = []
    const cannotBe: Array<RefusedEntry> = []
    let decided = 0
    for (const entry of due(transaction, yield* Clock.currentTimeMillis)) {
      if (decided === batchSize) break
      const { key, knownTags, message, metadata, stream } = entry
      const item: AppendItem = { stream, expectedVersion: undefined, messages: [message], metadata, knownTags }
      if (busy.has(stream) || source.isBusy(transaction, item)) {
        busy.add(stream)
        continue
      }
      yield* schedule.locks.acquire(transaction, [keyOf(key)])
      if (schedule.scheduled.get(key) !== entry) continue // replaced, or cancelled, meanwhile
      const appended = yield* Effect.result(source.append([item]))
      decided++
      if (Result.isFailure(appended)) {
        const reason = reasonOf(appended.failure)
        cannotBe.push({ key, reason })
        transaction.journal<Change>(schedule).push({ _tag: "Schedule", scheduled: { ...entry, refused: reason } })
        continue
      }
      for (const outcome of appended.success) if (outcome._tag === "Duplicate") duplicates.push(outcome.messageId)
      transaction.journal<Change>(schedule).push({ _tag: "Remove", key })
    }
    const left = Array.from(schedule.view(transaction).values())
      .flatMap(({ at, refused }) => refused === undefined ? [at.epochMilliseconds] : [])
    const first = left.reduce((earliest, at) => Math.min(earliest, at), Infinity)
    const moved: Moved = {
      moved: decided - duplicates.length - cannotBe.length,
      duplicates,
      refused: cannotBe,
      more: decided > 0,
      next: left.length === 0 ? undefined : Math.max(0, first - (yield* Clock.currentTimeMillis))
    }
    return moved
  })

  return {
    schedule: (entry) =>
      Effect.andThen(
        change(
          entry.key,
          () => ({ _tag: "Schedule", scheduled: { ...entry, order: schedule.next(), refused: undefined } })
        ),
        wakeup.signal(channel, [{ key: channel, payload: {} }])
      ),
    cancel: (key) => change(key, (scheduled) => scheduled.has(key) ? { _tag: "Remove", key } : undefined),
    scheduled: ({ after, isRefused, limit }) =>
      Effect.map(schedule.present, (present) => {
        const found = Array.from(present.values())
          .filter((entry) =>
            (entry.refused !== undefined) === isRefused && (after === undefined || inOrder(entry, after) > 0)
          )
          .toSorted(inOrder)
        return { entries: found.slice(0, limit).map(toListed), more: found.length > limit }
      }),
    moveDue: Transaction.withTransaction(
      Effect.flatMap(
        Transaction.current,
        (transaction) => Option.isSome(transaction) ? move(transaction.value) : Effect.succeed(undefined)
      )
    ),
    listenScheduled: wakeup.listen(channel),
    clear: () => schedule.scheduled.clear(),
    list: () => Array.from(schedule.scheduled.values())
  }
}

const channel = "scheduled"

const reasonOf = ({ message, reason: { cause } }: SqlError): string =>
  Predicate.hasProperty(cause, "message") ? String(cause.message) : message
