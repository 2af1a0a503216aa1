/**
 * Decisions on several things at once: streams, and messages of given tags, whatever streams they are in.
 *
 * A decision is made on folds of what was read, and what it writes goes through only if what was read is unchanged:
 * `store.decide({ course: Decision.tagged({ course: "c1" }, course), student: Decision.stream("s1", student) }, decide)`. A
 * stream that is read and not written to is a condition as well; and no message that would have been read may have been added.
 */
import { type Array as Arr, Effect } from "effect"
import type { Fold } from "./Fold.ts"
import type { Metadata, Tags } from "./Message.ts"

/** A stream, folded. */
export interface StreamSource<in out S, in A> {
  readonly _tag: "Stream"
  readonly stream: string
  readonly fold: Fold<S, A>
}

/** Messages of given tags, folded in the order of global positions. */
export interface TaggedSource<in out S, in A> {
  readonly _tag: "Tagged"
  readonly tags: Tags | Arr.NonEmptyReadonlyArray<Tags>
  /** Default: those that the fold has cases for. */
  readonly types: ReadonlyArray<string> | undefined
  readonly fold: Fold<S, A>
}

/** What a decision is made on. */
export type Source<S, A> = StreamSource<S, A> | TaggedSource<S, A>

/** A source: a stream, folded. The decision is written only if nobody else has written to the stream. */
export const stream = <S, A>(name: string, fold: Fold<S, A>): StreamSource<S, A> => ({
  _tag: "Stream",
  stream: name,
  fold
})

/**
 * A source: the messages that have all of these tags, folded; given several sets of tags, those that have all tags of at least
 * one set. The decision is written only if nobody has added such a message.
 *
 * **Details**
 *
 * A fold by message types (`Fold.make`) reads the types that it has cases for, and only those count as changes; `types` names
 * them for other folds, or fewer of them. Decisions on different tags do not wait for each other. The first tag of each set is
 * locked: name first the one that the fewest messages have.
 *
 * **Example**
 *
 * ```ts
 * Decision.tagged({ course: "c1" }, seatsTaken)
 * Decision.tagged([{ course: "c1" }, { student: "s1" }], subscriptions)
 * ```
 */
export const tagged = <S, A>(
  tags: Tags | Arr.NonEmptyReadonlyArray<Tags>,
  fold: Fold<S, A>,
  options?: { readonly types?: Arr.NonEmptyReadonlyArray<string> | undefined }
): TaggedSource<S, A> => ({ _tag: "Tagged", tags, types: options?.types, fold })

/** What a decision writes to a stream; a stream that it has read must still be as it was read. */
export interface Write<out A> {
  readonly stream: string
  /** An empty array writes nothing. */
  readonly messages: A | ReadonlyArray<A>
  /** Stored with each of the messages. A `traceparent` given here replaces that of the deciding span. */
  readonly metadata?: Metadata | undefined
  /** Not to be given: a stream is expected to be as it was read. */
  readonly expectedVersion?: undefined
}

/** What a decision comes to: messages for one stream, or for several; an empty array: none. */
export type Writes<A> = Write<A> | ReadonlyArray<Write<A>>

/** How a decision is told: as it is, or by an effect that may fail, and then nothing is written. */
export type Answer<A> = Writes<A> | Effect.Effect<Writes<A>, unknown, unknown>

/** What a decision on one stream comes to: a message, several, or none; as it is, or by an effect that may fail. */
export type StreamAnswer<A> = A | ReadonlyArray<A> | Effect.Effect<A | ReadonlyArray<A>, unknown, unknown>

/**
 * An answer as an effect.
 *
 * @internal
 */
export const told = <Given, Told>(given: Given): Effect.Effect<Told, Effect.Error<Given>, Effect.Services<Given>> =>
  (Effect.isEffect(given) ? given : Effect.succeed(given)) as Effect.Effect<
    Told,
    Effect.Error<Given>,
    Effect.Services<Given>
  >

/**
 * The writes that have messages.
 *
 * @internal
 */
export const writesOf = <A>(writes: Writes<A>): ReadonlyArray<Write<A> & { readonly messages: OneOrMore<A> }> =>
  (Array.isArray as (value: Writes<A>) => value is ReadonlyArray<Write<A>>)(writes)
    ? writes.flatMap(writesOf)
    : Array.isArray(writes.messages) && writes.messages.length === 0
    ? []
    : [writes as Write<A> & { readonly messages: OneOrMore<A> }]

type OneOrMore<A> = A | Arr.NonEmptyReadonlyArray<A>
