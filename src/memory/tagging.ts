/** Declared tags in memory. */
import { Predicate, Result } from "effect"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import { isSame } from "../internal/tagPaths.ts"
import { tagsAt } from "../internal/tags.ts"
import type { AppendItem, Declarations, DeclaredTag, EncodedMessage, Tagged, TaggedPage, TagPath } from "../Storage.ts"

/** What is tagged. */
interface TaggedRow {
  readonly globalPosition: number
  readonly data: string
  readonly tagged: Tagged | undefined
}

/** The uncommitted messages of a transaction; empty once it has ended. */
type Journal = ReadonlyArray<unknown>

interface Entry extends DeclaredTag {
  /** Transactions that were open when it was declared. */
  readonly waitsFor: ReadonlyArray<Journal>
}

export class Tagging {
  private number = 1
  private entries: ReadonlyArray<Entry> = []
  private readonly journals = new Set<Journal>()

  /** Where a transaction writes to. */
  joined(journal: Journal): void {
    this.journals.add(journal)
  }

  get declared(): Declarations {
    return { number: this.number, tags: this.entries.map(({ waitsFor: _, ...entry }) => entry) }
  }

  declare(places: ReadonlyArray<TagPath>): void {
    const lacks = places.filter((place) => !this.entries.some((entry) => isSame(entry, place)))
    const waitsFor = this.open()
    const added = lacks.map((place) => ({ ...place, isComplete: false, position: 0, upTo: undefined, waitsFor }))
    this.entries = [
      ...this.entries.map((entry) => ({
        ...entry,
        isRequired: entry.isRequired && !places.some((place) => isSame(place, entry) && !place.isRequired)
      })),
      ...added
    ]
    if (added.length > 0) this.number++
  }

  settle(places: ReadonlyArray<TagPath>, stored: ReadonlyArray<TaggedRow>): number {
    const isMine = (entry: Entry) => entry.upTo === undefined && places.some((place) => isSame(place, entry))
    const open = new Set(this.open())
    const waits = new Set(
      this.entries.filter(isMine).flatMap(({ waitsFor }) => waitsFor.filter((one) => open.has(one)))
    )
    if (waits.size > 0) return waits.size
    this.entries = this.entries.map((entry) => {
      if (!isMine(entry)) return entry
      const isStored = stored.some(({ data, tagged }) =>
        tagged === undefined && typeIn(JSON.parse(data), entry) === entry.type
      )
      return { ...entry, isComplete: !isStored, upTo: isStored ? stored.at(-1)?.globalPosition ?? 0 : 0 }
    })
    return 0
  }

  move({ from, places, to }: TaggedPage): boolean {
    const mine = this.entries.filter((entry) =>
      entry.position === from && !entry.isComplete && places.some((place) => isSame(place, entry))
    )
    if (mine.length < places.length) return false
    this.entries = this.entries.map((entry) =>
      mine.includes(entry) ? { ...entry, position: to, isComplete: to >= (entry.upTo ?? Infinity) } : entry
    )
    return true
  }

  /** Items with the tags that their writers do not know; or why they cannot have them. */
  complete(items: ReadonlyArray<AppendItem>): Result.Result<ReadonlyArray<AppendItem>, SqlError> {
    if (items.every(({ knownTags = 1 }) => knownTags === this.number)) return Result.succeed(items)
    return Result.all(items.map((item) =>
      Result.map(
        Result.all(item.messages.map((message) => this.completed(message))),
        (messages): AppendItem => ({ ...item, messages })
      )
    ))
  }

  private completed(message: EncodedMessage): Result.Result<EncodedMessage, SqlError> {
    const data = JSON.parse(message.data)
    const places = this.entries.filter((entry) => typeIn(data, entry) === entry.type)
    const type = places[0]?.type
    if (type === undefined) return Result.succeed(message)
    const found = tagsAt(places, type, data)
    if (Result.isFailure(found)) return refuse(type, found.failure)
    const tags = found.success?.tags ?? []
    const missing = places.find(({ isRequired, tag }) => isRequired && !tags.some((one) => one.startsWith(`${tag}:`)))
    if (missing !== undefined) {
      return refuse(type, `it does not have its tag "${missing.tag}" where it is declared to be`)
    }
    const [first, ...others] = new Set([...message.tagged?.tags ?? [], ...tags])
    return Result.succeed(first === undefined ? message : { ...message, tagged: { type, tags: [first, ...others] } })
  }

  private open(): ReadonlyArray<Journal> {
    for (const journal of this.journals) if (journal.length === 0) this.journals.delete(journal)
    return Array.from(this.journals)
  }
}

const typeIn = (data: unknown, { typeField }: TagPath): string | undefined =>
  Predicate.hasProperty(data, typeField) ? String(data[typeField]) : undefined

/** What the database says. */
const refuse = (type: string, fault: string) => {
  const message = `a message of type ${type} cannot be stored: ${fault}`
  return Result.fail(
    new SqlError({ reason: new UnknownError({ cause: new Error(message), message, operation: "append" }) })
  )
}
