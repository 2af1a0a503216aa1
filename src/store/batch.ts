/** Decisions that leave together: as one atomic append, on condition of everything they were made on. */
import { Array as Arr, Context, Effect, type Fiber, Tracer } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { attribute, attributesOf } from "../internal/telemetry.ts"
import type { MessagePosition } from "../Message.ts"
import type { ReadError } from "../Reader.ts"
import type { AppendOutcome, Storage } from "../Storage.ts"
import { type Conditional, conditional, look, type Looked } from "./conditional.ts"
import type { Evolving, Part } from "./evolving.ts"
import type { Line } from "./line.ts"
import type { KnownSource, ReadSources } from "./sources.ts"
import type { Turn } from "./turns.ts"

/** What was decided on, as it was when that was written; and the last position of each part that was. */
export interface Decided {
  readonly known: ReadonlyArray<KnownSource>
  readonly positions: ReadonlyArray<MessagePosition>
}

/** A decision that has been made, in a batch. */
export interface Member<A> {
  readonly turn: Turn<A, Line<A>>
  readonly sources: ReadonlyArray<Evolving<A>>
  /** Empty: it writes nothing. */
  readonly parts: ReadonlyArray<Part<A>>
  /** That of its fiber. */
  readonly context: Context.Context<never>
  /** Undefined: the decision is void, and its turn waits again. */
  readonly answer: (outcome: Effect.Effect<Decided | undefined, SqlError | ReadError>) => void
  /** The database has refused it, and nothing else. */
  readonly refuse: (append: Conditional, outcomes: ReadonlyArray<AppendOutcome>) => void
  /** The sources that may read what it writes. */
  readonly evolved: Array<Evolving<A>>
  /** Takes back that they evolved by it. */
  readonly undo: Array<() => void>
  /** Where its sources are behind it. */
  readonly marks: Array<readonly [Evolving<A>, () => void]>
  /** Its fiber was interrupted. */
  isWithdrawn: boolean
}

/** Bounds of a batch; a larger decision leaves alone. Locks are those of streams and tags. */
export const maximumMembers = 128
const maximumCharacters = 4 * 1024 * 1024
const maximumLocks = 500

export class Batch<A> {
  readonly members: Array<Member<A>> = []
  /** The streams and the tags that it locks, and whether it writes them. */
  private readonly locks = new Map<string, boolean>()
  private size = 0
  /** Once it has left. */
  fiber: Fiber.Fiber<unknown, unknown> | undefined

  /** Takes a decision in, unless it is full. */
  add(member: Member<A>, written: ReadonlyArray<string>, most: number): boolean {
    const size = sizeOf(member.parts)
    const { places } = member.turn
    const { length } = this.members
    const isFull = length >= most || this.size + size > maximumCharacters ||
      this.locks.size + written.length + places.length > maximumLocks
    if (isFull && length > 0) return false
    this.members.push(member)
    for (const { key } of places) if (!this.isWriting(key)) this.locks.set(key, false)
    for (const key of written) this.locks.set(key, true)
    this.size += size
    return true
  }

  isWriting(key: string): boolean {
    return this.locks.get(key) === true
  }
}

const sizeOf = <A>(parts: ReadonlyArray<Part<A>>): number =>
  parts.reduce((all, { item }) => item.messages.reduce((sum, { data }) => sum + data.length, all), 0)

/** What became of a batch: outcomes; or, where it writes nothing, whether what it was made on is so. */
export type Sent = { readonly append: Conditional; readonly outcomes: ReadonlyArray<AppendOutcome> } | Looked

/** What has to be as it is known: all that was read; and what evolves by it, else it would be known wrongly behind it. */
export const sourcesOf = <A>(members: ReadonlyArray<Member<A>>): ReadonlyArray<Evolving<A>> =>
  Array.from(new Set(members.flatMap(({ evolved, sources }) => [...sources, ...evolved])))

/**
 * @internal
 */
export const send = <A>(
  storage: Storage["Service"],
  store: string,
  read: ReadSources<A>,
  members: ReadonlyArray<Member<A>>
): Effect.Effect<Sent, SqlError | ReadError> => {
  const sources = sourcesOf(members)
  const items = members.flatMap(({ parts }) => parts.map(({ item }) => item))
  const append = Arr.isReadonlyArrayNonEmpty(items)
    ? conditional(sources.map(({ end, named }) => [named, end] as const), items)
    : undefined
  const sent: Effect.Effect<Sent, SqlError | ReadError> = append === undefined
    ? look(storage, read, sources)
    : Effect.map(storage.append(append.items, { atomic: true }), (outcomes) => ({ append, outcomes }))
  return Effect.provideContext(
    members.length === 1 ? sent : Effect.withSpan(sent, `append ${store}`, {
      kind: "client",
      root: true,
      attributes: {
        ...attributesOf(store, "append", "send"),
        [attribute.decisions]: members.length,
        [attribute.messageCount]: items.reduce((sum, { messages }) => sum + messages.length, 0)
      },
      links: members.flatMap(({ context }) => {
        const span = Context.getOrUndefined(context, Tracer.ParentSpan)
        return span === undefined ? [] : [{ span, attributes: {} }]
      }),
      captureStackTrace: false
    }),
    members[0]?.context ?? Context.empty()
  )
}
