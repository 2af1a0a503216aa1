/**
 * The port in memory: the same answers as PostgreSQL's, for tests and prototypes. Nothing outlives the layer.
 */
import { Clock, Context, DateTime, Effect, identity, Layer, Option, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { checkEnding } from "../internal/names.ts"
import type { StreamHead } from "../Message.ts"
import {
  type AppendItem,
  AppendOutcome,
  type EncodedStoredMessage,
  type MessageStorage,
  type Page,
  type PatternQuery,
  type Snapshot,
  Storage,
  type StreamQuery,
  type Tagged,
  type TaggedPage,
  type TaggedQuery,
  type TagQuery
} from "../Storage.ts"
import { type Signal, Wakeup } from "../storage/listeners.ts"
import * as MemoryWakeup from "./listeners.ts"
import { cut } from "./pages.ts"
import { compilePattern } from "./pattern.ts"
import * as MemorySchedule from "./scheduled.ts"
import { Snapshots } from "./snapshots.ts"
import * as MemoryStream from "./streams.ts"
import { SubjectKeys } from "./subjectKeys.ts"
import { Tagging } from "./tagging.ts"
import * as Transaction from "./transaction.ts"

/** JSON stays text until it is read, so that no two readers share an object. */
interface Row extends Omit<EncodedStoredMessage, "data" | "metadata"> {
  readonly data: string
  readonly metadata: string
  readonly occurredAt: DateTime.Utc
  readonly size: number
  tagged: Tagged | undefined
  /** Which of the store's commits made it visible. */
  commit: number
}

/** What a read sees: the commits up to one, and the transaction's own writes. */
interface View {
  readonly commit: number
  readonly own: ReadonlyArray<Row>
}

/** The last commit that a snapshot sees. */
class SnapshotCommit extends Context.Service<SnapshotCommit, number>()("effect-message-store/memory/Snapshot") {}

class Messages implements Transaction.Participant<Row>, MemoryStream.Source<Row> {
  readonly locks = new Transaction.Locks()
  readonly tagging = new Tagging()
  lastCommit = 0
  private positions = 0
  /** In the order of global positions. */
  private log: Array<Row> = []
  /** In the order of commits. */
  private commits: Array<Row> = []
  /** In the order of versions: version v is at v - 1. */
  private readonly streams = new Map<string, Array<Row>>()
  private readonly byId = new Map<string, Row>()
  private readonly byTag = new Map<string, Array<Row>>()

  append(own: Array<Row>, items: ReadonlyArray<AppendItem>, atomic: boolean, addedAt: DateTime.Utc) {
    const heads = new Map<string, number>()
    const written: Array<Row> = []
    const taken = new Set(own.map((row) => row.messageId))
    const outcomes = items.map((item): AppendOutcome => {
      const { conditions = [], expectedPosition, expectedVersion, stream } = item
      const rows = this.stream({ commit: Infinity, own }, stream)
      const head = heads.get(stream) ?? rows.length
      const expected = expectedVersion === undefined ||
        (expectedVersion === "exists" ? head > 0 : expectedVersion === head)
      const isOther = expectedPosition !== undefined && expectedVersion !== undefined && expectedVersion !== "exists" &&
        rows[expectedVersion - 1]?.globalPosition !== expectedPosition
      if (!expected || isOther) return AppendOutcome.WrongVersion({ actualVersion: head })
      for (const [condition, query] of conditions.entries()) {
        const added = this.tagged({ commit: Infinity, own: atomic ? own : [...own, ...written] }, query)
          .find(({ globalPosition }) => globalPosition > query.after)
        if (added !== undefined) {
          const { globalPosition, messageId } = added
          return AppendOutcome.Conflict({ condition, messageId, globalPosition })
        }
      }
      const duplicate = item.messages.find(({ messageId }) => taken.has(messageId) || this.byId.has(messageId))
      if (duplicate !== undefined) return AppendOutcome.Duplicate({ messageId: duplicate.messageId })
      const version = head + item.messages.length
      item.messages.forEach(({ data, messageId, occurredAt, tagged }, i) => {
        const place = { stream, version: head + i + 1, globalPosition: ++this.positions }
        const { metadata } = item
        const size = data.length + metadata.length
        written.push({ ...place, messageId, data, metadata, addedAt, occurredAt, tagged, size, commit: Infinity })
        taken.add(messageId)
      })
      heads.set(stream, version)
      return item.messages.length === 0
        ? AppendOutcome.Unchanged({ version })
        : AppendOutcome.Written({ version, globalPosition: this.positions })
    })
    const refused = atomic ? outcomes.findIndex(({ _tag }) => _tag !== "Written" && _tag !== "Unchanged") : -1
    if (refused >= 0) return outcomes.map((outcome, i) => i === refused ? outcome : AppendOutcome.Skipped())
    own.push(...written)
    if (written.length > 0) this.tagging.joined(own)
    return outcomes
  }

  commit(rows: ReadonlyArray<Row>): void {
    if (rows.length === 0) return
    const late = (rows[0]?.globalPosition ?? 0) < (this.log.at(-1)?.globalPosition ?? 0)
    this.lastCommit++
    for (const row of rows) {
      row.commit = this.lastCommit
      this.log.push(row)
      this.commits.push(row)
      this.byId.set(row.messageId, row)
      addTo(this.streams, row.stream, row)
      for (const tag of row.tagged?.tags ?? []) addTo(this.byTag, tag, row)
    }
    if (late) this.log = this.log.toSorted(byPosition)
  }

  /** The highest position of a message; 0: none. */
  get lastPosition(): number {
    return this.log.at(-1)?.globalPosition ?? 0
  }

  committed(after: number, upTo: number): ReadonlyArray<Row> {
    const first = this.commits.findLastIndex(({ commit }) => commit <= after) + 1
    return this.commits.slice(first).filter(({ commit }) => commit <= upTo).toSorted(byPosition)
  }

  /** Tags of messages that were stored without them. */
  tagStored(page: TaggedPage): boolean {
    if (!this.tagging.move(page)) return false
    const at = new Map(this.log.map((row) => [row.globalPosition, row]))
    for (const { globalPosition, tag, type } of page.tags) {
      const row = at.get(globalPosition)
      if (row === undefined || row.tagged?.tags.includes(tag)) continue
      row.tagged = row.tagged === undefined ? { type, tags: [tag] } : { type, tags: [...row.tagged.tags, tag] }
      this.byTag.set(tag, [...this.byTag.get(tag) ?? [], row].toSorted(byPosition))
    }
    return true
  }

  get stored(): ReadonlyArray<Row> {
    return this.log
  }

  get(messageId: string): Row | undefined {
    return this.byId.get(messageId)
  }

  read(row: Row): EncodedStoredMessage {
    return toStored(row)
  }

  truncate(): void {
    this.log = []
    this.commits = []
    this.streams.clear()
    this.byId.clear()
    this.byTag.clear()
  }

  stream(view: View, stream: string): ReadonlyArray<Row> {
    const rows = this.streams.get(stream) ?? []
    // A stream's versions are committed in their order: those that a view does not see are the last.
    const visible = (rows.at(-1)?.commit ?? 0) > view.commit ? rows.filter((row) => row.commit <= view.commit) : rows
    const own = view.own.filter((row) => row.stream === stream)
    return own.length === 0 ? visible : [...visible, ...own]
  }

  head(view: View, stream: string): StreamHead {
    const rows = this.stream(view, stream)
    return { stream, version: rows.length, globalPosition: rows.at(-1)?.globalPosition }
  }

  pattern(view: View, page: PatternQuery): ReadonlyArray<Row> {
    const matches = compilePattern(page.pattern)
    const step = page.direction === "forward" ? 1 : -1
    const first = step === 1 ? this.firstAt(page.fromPosition) : this.firstAt(page.toPosition + 1) - 1
    const inRange = ({ globalPosition }: Row) =>
      globalPosition >= page.fromPosition && globalPosition <= page.toPosition
    const rows = view.own.filter((row) => inRange(row) && matches(row.stream))
    const uncommitted = rows.length
    for (let i = first; rows.length - uncommitted < page.limit; i += step) {
      const row = this.log[i]
      if (row === undefined || !inRange(row)) break
      if (row.commit <= view.commit && matches(row.stream)) rows.push(row)
    }
    return rows.toSorted((a, b) => step * byPosition(a, b)).slice(0, page.limit)
  }

  /** Of a tag's messages too, what a view does not see is at the end: they are in the order of global positions. */
  tag(view: View, tag: string): ReadonlyArray<Row> {
    const rows = (this.byTag.get(tag) ?? []).filter((row) => row.commit <= view.commit)
    return [...rows, ...view.own.filter((row) => row.tagged?.tags.includes(tag))]
  }

  tagged(view: View, { tags: [first, ...others], types }: TagQuery): ReadonlyArray<Row> {
    return this.tag(view, first).filter(({ tagged }) =>
      tagged !== undefined && (types === undefined || types.includes(tagged.type)) &&
      others.every((tag) => tagged.tags.includes(tag))
    )
  }

  anyTagged(view: View, page: TaggedQuery): ReadonlyArray<Row> {
    const rows = new Set(
      page.queries.flatMap((query) =>
        this.tagged(view, query).filter(({ globalPosition }) =>
          globalPosition >= page.fromPosition && globalPosition > (query.after ?? -1) &&
          globalPosition <= Math.min(page.toPosition, query.upTo)
        )
      )
    )
    const step = page.direction === "forward" ? 1 : -1
    return Array.from(rows).toSorted((a, b) => step * byPosition(a, b)).slice(0, page.limit)
  }

  ids(view: View, messageIds: ReadonlyArray<string>): ReadonlyArray<Row> {
    return messageIds.flatMap((messageId) => {
      const row = this.byId.get(messageId)
      return row !== undefined && row.commit <= view.commit
        ? [row]
        : view.own.filter((own) => own.messageId === messageId)
    })
  }

  /** Index of the first row at or behind a position: binary search. */
  private firstAt(position: number): number {
    let low = 0
    let high = this.log.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.log[middle] as Row).globalPosition < position) low = middle + 1
      else high = middle
    }
    return low
  }
}

const addTo = (index: Map<string, Array<Row>>, key: string, row: Row): void => {
  const rows = index.get(key)
  if (rows === undefined) index.set(key, [row])
  else rows.push(row)
}

const byPosition = (a: Row, b: Row): number => a.globalPosition - b.globalPosition

const toStored = ({ commit: _, occurredAt: __, size: ___, tagged: ____, ...row }: Row): EncodedStoredMessage => ({
  ...row,
  data: JSON.parse(row.data),
  metadata: JSON.parse(row.metadata)
})

const toPage = (found: ReadonlyArray<Row>, limit: number): Page => {
  const { more, rows } = cut(found, limit)
  return { messages: rows.map(toStored), more }
}

const streamPage = (rows: ReadonlyArray<Row>, query: StreamQuery): ReadonlyArray<Row> => {
  const range = rows.slice(query.fromVersion - 1, query.toVersion)
  return query.direction === "forward" ? range.slice(0, query.limit) : range.slice(-query.limit).toReversed()
}

/** A new, empty store each time the layer is built. */
export const layer: Layer.Layer<Storage> = Layer.effect(
  Storage,
  Effect.map(Wakeup, (wakeup) => {
    const messages = new Messages()
    const streams = new MemoryStream.Streams<Row>()
    const snapshots = new Snapshots()

    /** What a stream's page begins behind: a snapshot whose last message is where it was. */
    const standing = (rows: ReadonlyArray<Row>, { snapshot, toVersion }: StreamQuery) => {
      const saved = snapshot && snapshots.get(snapshot)
      if (saved === undefined || saved.version > toVersion) return undefined
      return rows[saved.version - 1]?.globalPosition === saved.ends[0] ? saved : undefined
    }

    const currentView: Effect.Effect<View, SqlError> = Effect.gen(function*() {
      const snapshot = yield* Effect.serviceOption(SnapshotCommit)
      if (Option.isSome(snapshot)) return { commit: snapshot.value, own: [] }
      const transaction = yield* Transaction.current
      return { commit: Infinity, own: Option.isSome(transaction) ? transaction.value.journal(messages) : [] }
    })

    const append: MessageStorage["append"] = (given, { atomic }) =>
      Transaction.required((transaction) =>
        Effect.gen(function*() {
          const addedAt = DateTime.makeUnsafe(yield* Clock.currentTimeMillis)
          while (true) {
            const items = yield* Effect.fromResult(messages.tagging.complete(given))
            const { names, shared } = locksOf(items)
            const { number } = messages.tagging.declared
            yield* messages.locks.acquire(transaction, names, shared)
            if (messages.tagging.declared.number !== number) continue // declared while it waited
            return yield* transaction.whileOpen(() =>
              Effect.succeed(messages.append(transaction.journal(messages), items, atomic, addedAt))
            )
          }
        })
      ).pipe(Effect.tap((outcomes) => wakeup.signal(channel, outcomes.flatMap(signals))))

    const scheduled = MemorySchedule.make({
      append: (items) => append(items, { atomic: false }),
      isBusy: (transaction, item) =>
        Result.match(messages.tagging.complete([item]), {
          onFailure: () => false, // it is refused
          onSuccess: (items) => locksOf(items).names.some((name) => !messages.locks.isFree(transaction, name))
        })
    }, wakeup)

    return Storage.of({
      ...scheduled,
      append,
      readStream: (query) =>
        Effect.map(currentView, (view) => {
          const rows = messages.stream(view, query.stream)
          const snapshot = standing(rows, query)
          const fromVersion = snapshot === undefined ? query.fromVersion : snapshot.version + 1
          return { ...toPage(streamPage(rows, { ...query, fromVersion }), query.limit), snapshot }
        }),
      readPattern: (query) => Effect.map(currentView, (view) => toPage(messages.pattern(view, query), query.limit)),
      readTagged: (query) => Effect.map(currentView, (view) => toPage(messages.anyTagged(view, query), query.limit)),
      ends: (names, tags, keys = []) =>
        Effect.map(currentView, (view) => ({
          heads: names.map((stream) => messages.head(view, stream)),
          tags: tags.map((tag) => messages.tag(view, tag).at(-1)?.globalPosition ?? 0),
          snapshots: keys.map((key) => snapshots.get(key))
        })),
      saveSnapshot: (snapshot) => Effect.sync(() => snapshots.save(snapshot)),
      subjectKeys: new SubjectKeys().storage,
      readByIds: (messageIds) => Effect.map(currentView, (view) => messages.ids(view, messageIds).map(toStored)),
      messageIds: ({ fromVersion, limit, stream }) =>
        Effect.map(
          currentView,
          (view) =>
            messages.stream(view, stream).slice(fromVersion - 1, fromVersion - 1 + limit).map((row) => row.messageId)
        ),
      head: (stream) => Effect.map(currentView, (view) => messages.head(view, stream)),
      truncate: Effect.andThen(
        messages.locks.idle,
        Effect.sync(() => {
          messages.truncate()
          snapshots.clear()
          scheduled.clear()
        })
      ),
      declareTags: (places) =>
        Effect.sync(() => {
          messages.tagging.declare(places)
          return messages.tagging.declared
        }),
      declaredTags: Effect.sync(() => messages.tagging.declared),
      settleTags: (places) => Effect.sync(() => messages.tagging.settle(places, messages.stored)),
      tagStored: (page) => Effect.sync(() => messages.tagStored(page)),
      withTransaction: Transaction.withTransaction,
      handlerTransactions: undefined,
      inTransaction: Transaction.isCurrent,
      afterCommit: Transaction.afterCommit,
      snapshot: Effect.map(Transaction.current, (transaction): Snapshot =>
        Option.isSome(transaction)
          ? identity
          : Effect.provideService(SnapshotCommit, messages.lastCommit) as Snapshot),
      listen: wakeup.listen(channel),
      aggregatedStream: (definition) =>
        Effect.map(
          Effect.fromResult(checkEnding("aggregated stream", definition.name)),
          () => MemoryStream.make(streams, messages, definition, wakeup)
        )
    })
  })
).pipe(Layer.provide(Layer.fresh(MemoryWakeup.layer)))

/** What an append locks, in one order, and which of it is only asked about. */
const locksOf = (items: ReadonlyArray<AppendItem>) => {
  const alone = new Set(items.flatMap(({ messages, stream }) =>
    messages.length === 0
      ? []
      : [`stream ${stream}`, ...messages.flatMap(({ tagged }) => tagged?.tags.map((tag) => `tag ${tag}`) ?? [])]
  ))
  const asked = items.flatMap(({ conditions = [], stream }) => [
    `stream ${stream}`,
    ...conditions.map(({ tags: [tag] }) => `tag ${tag}`)
  ])
  const shared = new Set(asked.filter((key) => !alone.has(key)))
  const ids = items.flatMap((item) => item.messages.map((message) => `id ${message.messageId}`))
  return { names: [...[...alone, ...shared].toSorted(), ...ids.toSorted()], shared }
}

const channel = "messages"

/** Listeners in memory do not read payloads. */
const signals = (outcome: AppendOutcome): ReadonlyArray<Signal> =>
  outcome._tag === "Written" ? [{ key: channel, payload: {} }] : []
