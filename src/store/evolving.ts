/**
 * What a source comes to behind decisions that are not written yet.
 *
 * Reading them back would give equal messages, by the first law of serializers: so the state evolves by the messages
 * themselves, but not before somebody asks for it. Where the source ends in the database is known when they are written.
 */
import { type Array as Arr, type Effect, Result } from "effect"
import type { Fold } from "../Fold.ts"
import type { MessagePosition } from "../Message.ts"
import type { Stamp } from "../personal/freshness.ts"
import type { AppendItem, Tagged, TagQuery } from "../Storage.ts"
import type { Invalid, StreamWrite } from "./encode.ts"
import { type KnownSource, remember, type Sourced } from "./sources.ts"

/** What a decision writes to a stream, encoded; and its messages as they were given. */
export interface Part<out A> {
  readonly item: AppendItem
  readonly messages: ReadonlyArray<A>
}

/** Encodes what a decision writes. */
export interface EncodeParts<A> {
  (writes: Arr.NonEmptyReadonlyArray<StreamWrite<A>>): Effect.Effect<ReadonlyArray<Part<A>>, Invalid>
}

/** A state; or, as long as nobody has asked for it, the one before it and the messages behind that. */
interface Behind<A> {
  readonly version: number
  readonly unsaved: number
  state: unknown
  before: Behind<A> | undefined
  messages: ReadonlyArray<A>
}

/** A source that evolves by more parts, and is asked for by nobody meanwhile, is no longer worth it. */
const maximumUnasked = 64

export class Evolving<in out A> {
  readonly named: Sourced<A>
  /** When it was begun, if it may be kept for a time only. */
  readonly stamp: Stamp | undefined
  /** Changes with the state, and when the source is forgotten. */
  revision = 0
  /** What others have added has to be read. */
  isStale = false
  /** Where it ended when it was last read or written. */
  private ended: KnownSource
  /** Whether that is the place of a message. */
  private isExact = true
  /** How many messages, of those that it evolved by, are in a snapshot. */
  private saved = 0
  /** By how many parts it has evolved since somebody asked for it. */
  private unasked = 0
  private last: Behind<A>

  constructor(named: Sourced<A>, known: KnownSource, stamp?: Stamp) {
    this.named = named
    this.stamp = stamp
    this.ended = known
    this.last = behindNothing(known)
  }

  /** What it comes to behind all decisions so far, and where it ended before those that are not written. */
  get known(): KnownSource {
    this.unasked = 0
    return this.knownAt(this.last)
  }

  /** Whether others go on without it: it would keep their messages, and be a condition of what they write. */
  get isUnwanted(): boolean {
    return this.unasked >= maximumUnasked
  }

  private knownAt(behind: Behind<A>): KnownSource {
    const state = forced(behind, this.named.source.fold)
    const unsaved = behind.unsaved - this.saved
    return "head" in this.ended
      ? { ...this.ended, state, unsaved, head: { ...this.ended.head, version: behind.version } }
      : { ...this.ended, state, unsaved }
  }

  /** Remembers, later, what it comes to now: where its fold has snapshots. */
  mark(): () => void {
    const { last } = this
    return () => {
      if (this.named.kept === undefined || !this.isExact) return
      // A state that cannot be had is left as it is to the next who wants it.
      const known = Result.try(() => this.knownAt(last))
      if (Result.isSuccess(known)) this.saved += known.success.unsaved - remember(this.named, known.success).unsaved
    }
  }

  /** Where it ends in the database, as far as is known; the state is an older one. */
  get end(): KnownSource {
    return this.ended
  }

  readOn(known: KnownSource): void {
    this.ended = known
    this.last = behindNothing(known)
    this.isStale = false
    this.isExact = true
    this.saved = 0
    this.revision++
  }

  /** Others have changed it. */
  outdate(): void {
    this.isStale = true
    this.revision++
  }

  /** Evolves by what a decision writes. Returns what takes that back: nothing, if it is not read by this source. */
  evolve({ item, messages }: Part<A>): ReadonlyArray<() => void> {
    const { last: before, named } = this
    const read = named.source._tag === "Stream"
      ? item.stream === named.source.stream ? messages : []
      : messages.filter((_, i) => isAskedFor(named, item.messages[i]?.tagged))
    if (read.length === 0) return []
    this.unasked++
    this.last = {
      version: before.version + read.length,
      unsaved: before.unsaved + read.length,
      state: undefined,
      before,
      messages: read
    }
    this.revision++
    return [() => {
      this.last = before
      this.revision++
    }]
  }

  /** What evolved it has been written. */
  written({ item }: Part<A>, position: MessagePosition): void {
    if ("head" in this.ended) {
      const { head, ...known } = this.ended
      if (item.stream === head.stream) this.ended = { ...known, head: position }
    } else if ("queries" in this.named) {
      const { ends, ...known } = this.ended
      // The locks of the tags were held from before the first position of the append: between that of the message and that
      // of the item's last one there is none of the tag that others have written.
      this.ended = {
        ...known,
        ends: this.named.queries.map(({ tags: [tag] }, q) => {
          const last = item.messages.findLastIndex(({ tagged }) => tagged?.tags.includes(tag))
          if (last >= 0) this.isExact &&= last === item.messages.length - 1
          return last < 0 ? ends[q] ?? 0 : position.globalPosition
        })
      }
    }
  }
}

const behindNothing = <A>(known: KnownSource): Behind<A> => ({
  version: "head" in known ? known.head.version : 0,
  unsaved: known.unsaved,
  state: known.state,
  before: undefined,
  messages: []
})

const forced = <A>(last: Behind<A>, fold: Fold<unknown, A>): unknown => {
  const waiting: Array<Behind<A>> = []
  let known = last
  for (; known.before !== undefined; known = known.before) waiting.push(known)
  let { state } = known
  for (const next of waiting.toReversed()) {
    for (const message of next.messages) state = fold.evolve(state, message)
    next.state = state
    next.before = undefined
    next.messages = []
  }
  return state
}

const isAskedFor = <A>(named: Sourced<A>, tagged: Tagged | undefined): boolean =>
  tagged !== undefined && "queries" in named && named.queries.some((query) => matches(query, tagged))

const matches = ({ tags, types }: TagQuery, tagged: Tagged): boolean =>
  (types === undefined || types.includes(tagged.type)) && tags.every((tag) => tagged.tags.includes(tag))
