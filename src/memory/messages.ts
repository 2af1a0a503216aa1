/**
 * Messages in memory. A row is there from a commit on, and until another one: a view that was opened in between sees it. Rows that
 * are gone are kept as long as some view may see them.
 */
import { type DateTime, Predicate } from "effect"
import { compilePattern } from "../internal/pattern.ts"
import type { StreamHead } from "../Message.ts"
import {
  type AppendItem,
  AppendOutcome,
  type Deletion,
  DeletionOutcome,
  type EncodedStoredMessage,
  type PatternQuery,
  type Redaction,
  type Tagged,
  type TaggedPage,
  type TaggedQuery,
  type TagQuery
} from "../Storage.ts"
import type * as MemoryStream from "./streams.ts"
import { Tagging } from "./tagging.ts"
import * as Transaction from "./transaction.ts"

/** JSON stays text until it is read, so that no two readers share an object. */
export interface Row extends Omit<EncodedStoredMessage, "data" | "metadata"> {
  readonly data: string
  readonly metadata: string
  readonly occurredAt: DateTime.Utc
  readonly size: number
  tagged: Tagged | undefined
  /** Which of the store's commits made it visible; none yet: `Infinity`. */
  commit: number
  /** Which removed it. */
  until: number
}

/** What a transaction does: it adds a row, or removes one; the editions of streams and tags rise. */
export type Change =
  | { readonly _tag: "Add" | "Remove"; readonly row: Row }
  | { readonly _tag: "Raise"; readonly keys: ReadonlySet<string> }

/** What a read sees: the commits up to one, less what the transaction has removed, and what it has added. */
export interface View {
  readonly commit: number
  readonly own: ReadonlyArray<Row>
  readonly removed: ReadonlySet<Row>
  readonly raised: ReadonlyArray<ReadonlySet<string>>
}

/** What a transaction sees. */
export const viewOf = (changes: ReadonlyArray<Change>): View => {
  const removed = new Set(changes.flatMap((change) => change._tag === "Remove" ? [change.row] : []))
  return {
    commit: Infinity,
    own: changes.flatMap((change) => change._tag === "Add" && !removed.has(change.row) ? [change.row] : []),
    removed,
    raised: changes.flatMap((change) => change._tag === "Raise" ? [change.keys] : [])
  }
}

/** What a snapshot sees. */
export const asOf = (commit: number): View => ({ commit, own: [], removed: new Set(), raised: [] })

const sees = ({ commit, removed }: View, row: Row): boolean =>
  row.commit <= commit && (isThere(row) || row.until > commit) && !removed.has(row)

export class Messages implements Transaction.Participant<Change>, MemoryStream.Source<Row> {
  readonly locks = new Transaction.Locks()
  readonly tagging = new Tagging()
  lastCommit = 0
  /** Is told which messages were deleted. */
  onDeleted: (messages: ReadonlyArray<Row>) => void = () => {}
  private positions = 0
  private snapshots = 0
  /** Whether rows that are gone are kept. */
  private hasRemoved = false
  /** In the order of global positions. */
  private log: Array<Row> = []
  /** In the order of commits. */
  private commits: Array<Row> = []
  /** In the order of versions. */
  private readonly streams = new Map<string, Array<Row>>()
  private readonly byId = new Map<string, Row>()
  private readonly byTag = new Map<string, Array<Row>>()
  private readonly editions = new Map<string, number>()

  append(changes: Array<Change>, items: ReadonlyArray<AppendItem>, atomic: boolean, addedAt: DateTime.Utc) {
    const view = viewOf(changes)
    const heads = new Map<string, number>()
    const written: Array<Row> = []
    const taken = new Set(view.own.map((row) => row.messageId))
    const isStored = (messageId: string) => {
      const row = this.byId.get(messageId)
      return row !== undefined && sees(view, row)
    }
    const outcomes = items.map((item): AppendOutcome => {
      const { conditions = [], expectedEdition, expectedPosition, expectedVersion, stream } = item
      const rows = this.stream(view, stream)
      const head = heads.get(stream) ?? rows.at(-1)?.version ?? 0
      const expected = expectedVersion === undefined ||
        (expectedVersion === "exists" ? head > 0 : expectedVersion === head)
      const isOther = expectedPosition !== undefined && expectedVersion !== undefined && expectedVersion !== "exists" &&
        (rowAt(rows, expectedVersion)?.globalPosition !== expectedPosition ||
          (expectedEdition !== undefined && this.edition(view, `stream ${stream}`) !== expectedEdition))
      if (!expected || isOther) return AppendOutcome.WrongVersion({ actualVersion: head })
      for (const [condition, query] of conditions.entries()) {
        const added = this.tagged(atomic ? view : { ...view, own: [...view.own, ...written] }, query)
          .find(({ globalPosition }) => globalPosition > query.after)
        if (added !== undefined) {
          const { globalPosition, messageId } = added
          return AppendOutcome.Conflict({ condition, messageId, globalPosition })
        }
        if (query.edition !== undefined && this.edition(view, `tag ${query.tags[0]}`) !== query.edition) {
          return AppendOutcome.Outdated({ condition })
        }
      }
      const duplicate = item.messages.find(({ messageId }) => taken.has(messageId) || isStored(messageId))
      if (duplicate !== undefined) return AppendOutcome.Duplicate({ messageId: duplicate.messageId })
      const version = head + item.messages.length
      item.messages.forEach(({ data, messageId, occurredAt, tagged }, i) => {
        const place = { stream, version: head + i + 1, globalPosition: ++this.positions }
        const { metadata } = item
        const size = data.length + metadata.length
        const times = { addedAt, occurredAt, commit: Infinity, until: Infinity }
        written.push({ ...place, ...times, messageId, data, metadata, tagged, size })
        taken.add(messageId)
      })
      heads.set(stream, version)
      return item.messages.length === 0
        ? AppendOutcome.Unchanged({ version })
        : AppendOutcome.Written({ version, globalPosition: this.positions })
    })
    const refused = atomic ? outcomes.findIndex(({ _tag }) => _tag !== "Written" && _tag !== "Unchanged") : -1
    if (refused >= 0) return outcomes.map((outcome, i) => i === refused ? outcome : AppendOutcome.Skipped())
    for (const row of written) changes.push({ _tag: "Add", row })
    if (written.length > 0) this.tagging.joined(changes)
    return outcomes
  }

  /** Adds messages that have their versions. */
  join(changes: Array<Change>, rows: ReadonlyArray<Omit<Row, "globalPosition" | "commit" | "until">>): void {
    for (const row of rows) {
      const globalPosition = ++this.positions
      changes.push({ _tag: "Add", row: { ...row, globalPosition, commit: Infinity, until: Infinity } })
    }
    if (rows.length > 0) this.tagging.joined(changes)
  }

  delete(changes: Array<Change>, { expectedVersion, stream, toVersion }: Deletion): DeletionOutcome {
    const view = viewOf(changes)
    const { version } = this.head(view, stream)
    if (expectedVersion !== undefined && (expectedVersion === "exists" ? version === 0 : expectedVersion !== version)) {
      return DeletionOutcome.WrongVersion({ actualVersion: version })
    }
    const gone = this.deletedBy(view, { stream, toVersion })
    this.remove(changes, gone)
    return DeletionOutcome.Deleted({ count: gone.length, head: this.head(viewOf(changes), stream) })
  }

  deletedBy(view: View, { stream, toVersion }: Pick<Deletion, "stream" | "toVersion">): ReadonlyArray<Row> {
    return this.stream(view, stream).filter(({ version }) => version <= toVersion)
  }

  redact(changes: Array<Change>, redactions: ReadonlyArray<Redaction>): void {
    for (const { data, lostTags, messageId, metadata } of redactions) {
      const [row] = this.ids(viewOf(changes), [messageId])
      if (row === undefined) continue
      this.remove(changes, [row])
      const [first, ...others] = row.tagged?.tags.filter((tag) => !lostTags.includes(tag)) ?? []
      const tagged = row.tagged === undefined || first === undefined
        ? undefined
        : { type: row.tagged.type, tags: [first, ...others] as const }
      const size = data.length + metadata.length
      changes.push({ _tag: "Add", row: { ...row, data, metadata, tagged, size, commit: Infinity } })
    }
  }

  private remove(changes: Array<Change>, rows: ReadonlyArray<Row>): void {
    if (rows.length === 0) return
    for (const row of rows) changes.push({ _tag: "Remove", row })
    const keys = rows.flatMap(({ stream, tagged }) => [
      `stream ${stream}`,
      ...tagged?.tags.map((tag) => `tag ${tag}`) ?? []
    ])
    changes.push({ _tag: "Raise", keys: new Set(keys) })
  }

  /** How often messages of a stream, or of a tag, were deleted or redacted. */
  edition({ raised }: View, key: string): number {
    return (this.editions.get(key) ?? 0) + raised.filter((keys) => keys.has(key)).length
  }

  commit(changes: ReadonlyArray<Change>): void {
    if (changes.length === 0) return
    this.lastCommit++
    const { own: rows, raised, removed } = viewOf(changes)
    for (const keys of raised) for (const key of keys) this.editions.set(key, (this.editions.get(key) ?? 0) + 1)
    const last = this.log.at(-1)?.globalPosition ?? 0
    for (const row of rows) {
      row.commit = this.lastCommit
      this.add(row)
    }
    if (rows.some(({ globalPosition }) => globalPosition < last)) this.log = this.log.toSorted(byPosition)
    if (removed.size === 0) return
    for (const row of removed) row.until = this.lastCommit
    this.hasRemoved = true
    this.order()
    const left = new Set(rows.map(({ globalPosition }) => globalPosition))
    this.onDeleted(Array.from(removed).filter(({ globalPosition }) => !left.has(globalPosition)))
    this.forget()
  }

  /** Rows that took the place of others were added behind all. */
  private order(): void {
    for (const rows of this.streams.values()) rows.sort(byPosition)
    for (const rows of this.byTag.values()) rows.sort(byPosition)
  }

  private add(row: Row): void {
    this.log.push(row)
    this.commits.push(row)
    this.byId.set(row.messageId, row)
    addTo(this.streams, row.stream, row)
    for (const tag of row.tagged?.tags ?? []) addTo(this.byTag, tag, row)
  }

  /** A view of what is committed now, which keeps what is removed until it is closed. */
  openSnapshot(): number {
    this.snapshots++
    return this.lastCommit
  }

  closeSnapshot(): void {
    this.snapshots--
    this.forget()
  }

  /** Rows that are gone, unless a view may see them. */
  private forget(): void {
    if (!this.hasRemoved || this.snapshots > 0) return
    const commits = this.commits.filter(isThere)
    const log = this.log.filter(isThere)
    this.truncate()
    for (const row of commits) this.add(row)
    this.log = log
    this.order()
  }

  /** The highest position of a message; 0: none. */
  get lastPosition(): number {
    return this.log.findLast(isThere)?.globalPosition ?? 0
  }

  committed(after: number, upTo: number): ReadonlyArray<Row> {
    const first = this.commits.findLastIndex(({ commit }) => commit <= after) + 1
    return this.commits.slice(first).filter((row) => row.commit <= upTo && isThere(row)).toSorted(byPosition)
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
    return this.log.filter(isThere)
  }

  get(messageId: string): Row | undefined {
    const row = this.byId.get(messageId)
    return row !== undefined && isThere(row) ? row : undefined
  }

  read(row: Row): EncodedStoredMessage {
    return toStored(row)
  }

  truncate(): void {
    this.log = []
    this.commits = []
    this.hasRemoved = false
    this.streams.clear()
    this.byId.clear()
    this.byTag.clear()
  }

  stream(view: View, stream: string): ReadonlyArray<Row> {
    const rows = this.streams.get(stream) ?? []
    // A stream's versions are committed in their order: those that a view does not see are the last.
    const areAllSeen = !this.hasRemoved && view.removed.size === 0 && (rows.at(-1)?.commit ?? 0) <= view.commit
    const visible = areAllSeen ? rows : rows.filter((row) => sees(view, row))
    return withOwn(view, visible, view.own.filter((row) => row.stream === stream))
  }

  head(view: View, stream: string): StreamHead {
    const last = this.stream(view, stream).at(-1)
    return { stream, version: last?.version ?? 0, globalPosition: last?.globalPosition }
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
      if (sees(view, row) && matches(row.stream)) rows.push(row)
    }
    return rows.toSorted((a, b) => step * byPosition(a, b)).slice(0, page.limit)
  }

  /** Of a tag's messages too, what a view does not see is at the end: they are in the order of global positions. */
  tag(view: View, tag: string): ReadonlyArray<Row> {
    const rows = (this.byTag.get(tag) ?? []).filter((row) => sees(view, row))
    return withOwn(view, rows, view.own.filter((row) => row.tagged?.tags.includes(tag)))
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
          globalPosition <= Math.min(page.toPosition, query.upTo ?? Infinity)
        )
      )
    )
    const step = page.direction === "forward" ? 1 : -1
    return Array.from(rows).toSorted((a, b) => step * byPosition(a, b)).slice(0, page.limit)
  }

  ids(view: View, messageIds: ReadonlyArray<string>): ReadonlyArray<Row> {
    return messageIds.flatMap((messageId) => {
      const rows = this.hasRemoved
        ? this.log.filter((row) => row.messageId === messageId)
        : [this.byId.get(messageId)].filter(Predicate.isNotUndefined)
      const found = rows.find((row) => sees(view, row))
      return found === undefined ? view.own.filter((own) => own.messageId === messageId) : [found]
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

/** The row of a version, of those of a stream. */
export const rowAt = (rows: ReadonlyArray<Row>, version: number): Row | undefined =>
  rows[version - (rows[0]?.version ?? 1)]

/** What a transaction has written is behind all that it sees, unless it takes the place of something. */
const withOwn = ({ removed }: View, visible: ReadonlyArray<Row>, own: ReadonlyArray<Row>): ReadonlyArray<Row> => {
  if (own.length === 0) return visible
  const rows = [...visible, ...own]
  return removed.size === 0 ? rows : rows.toSorted(byPosition)
}

const isThere = ({ until }: Row): boolean => until === Infinity

const addTo = (index: Map<string, Array<Row>>, key: string, row: Row): void => {
  const rows = index.get(key)
  if (rows === undefined) index.set(key, [row])
  else rows.push(row)
}

const byPosition = (a: Row, b: Row): number => a.globalPosition - b.globalPosition

export const toStored = (
  { commit: _, occurredAt: __, size: ___, tagged: ____, until: _____, ...row }: Row
): EncodedStoredMessage => ({
  ...row,
  data: JSON.parse(row.data),
  metadata: JSON.parse(row.metadata)
})
