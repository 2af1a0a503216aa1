/**
 * How a state follows from messages.
 *
 * A fold is a value: it needs no store and no clock, and the same messages always give the same state. `update` decides
 * on what a fold makes of a stream; a `Decider` is a fold that decides. Where decisions wait for each other, the state of
 * one is evolved for the next: keep a fold in a constant, and never change a state in place.
 */
import type { Schema } from "effect"
import { InvalidArgumentError } from "./errors.ts"

/**
 * The state that messages give: `initial` for none, and `evolve` for one more. `evolve` returns a new state and changes
 * nothing.
 */
export interface Fold<in out S, in A> {
  readonly initial: S
  readonly evolve: (state: S, message: A) => S
}

/** A message that names its type, as those of tagged classes and structs do. */
export interface Tagged {
  readonly _tag: string
}

/**
 * A fold with a case for each message type that matters to it. Messages of other types leave the state as it is: it can
 * be used with any store that has at least those it names.
 */
export interface ByTag<in out S, out A extends Tagged> extends Fold<S, Tagged> {
  /** The tags that have a case. */
  readonly types: ReadonlyArray<A["_tag"]>
  /** Only for the type checker: there is no such value. */
  readonly "~effect-message-store/Fold/Message"?: A
}

/** The messages that a fold names: those it has cases for, or takes. */
export type Message<F> = F extends ByTag<infer _, infer A> ? A : F extends Fold<infer _, infer A> ? A : never

/** The state of a fold. */
export type State<F> = F extends Fold<infer S, never> ? S : never

/**
 * Makes a fold of a union of tagged messages, with a case for each type that matters.
 *
 * **Details**
 *
 * The type of the state is that of `initial`: write `initial: [] as ReadonlyArray<string>` where it would say too little.
 * A case for a tag that no message of the union has does not compile. A message type may not be called `initial`.
 *
 * **Example**
 *
 * ```ts
 * const seatsTaken = Fold.make<FlightEvent>()({
 *   initial: 0,
 *   SeatBooked: (taken) => taken + 1,
 *   SeatReleased: (taken) => taken - 1
 * })
 * ```
 */
export const make =
  <A extends Tagged = never>() =>
  <S, Cases extends { readonly [Tag in A["_tag"]]?: (state: S, message: Extract<A, { readonly _tag: Tag }>) => S }>(
    options:
      & { readonly initial: S }
      & Cases
      & { readonly [Tag in Exclude<keyof Cases, A["_tag"] | "initial">]: never }
  ): ByTag<S, Extract<A, { readonly _tag: keyof Cases }>> => {
    const { initial, ...cases } = options
    const byTag = new Map(Object.entries(cases)) as ReadonlyMap<string, (state: S, message: Tagged) => S>
    return {
      initial,
      types: Array.from(byTag.keys()),
      evolve: (state, message) => {
        const evolve = byTag.get(message._tag)
        return evolve === undefined ? state : evolve(state, message)
      }
    }
  }

/** How the states of a fold are kept, so that what they were folded of need not be read again. */
export interface Snapshot<in out S> {
  /** What the fold is called in the store: 1 to 255 characters. Folds that differ have different names. */
  readonly name: string
  /** Of the state; stored as canonical JSON (`Schema.toCodecJson`), of at most 1 MiB. */
  readonly schema: Schema.Codec<S, unknown>
  /** To be raised when the same messages give another state: a whole number, 1 or more. */
  readonly version: number
  /** How many messages are folded until the next snapshot is written: a whole number, 1 or more. */
  readonly every: number
}

/** A fold whose states are kept. */
export interface WithSnapshot<in out S> {
  readonly snapshot: Snapshot<S>
}

/** The same as a {@link Snapshot}, with defaults. */
export interface SnapshotOptions<in out S> extends Pick<Snapshot<S>, "name" | "schema"> {
  /** To be raised when the same messages give another state. Default 1. */
  readonly version?: number | undefined
  /** How many messages are folded until the next snapshot is written. Default 100. */
  readonly every?: number | undefined
}

/**
 * Keeps the states of a fold in the store: a decision begins with the last snapshot, and reads only what was added since. A
 * decider of the fold has its snapshots too.
 *
 * **Details**
 *
 * A snapshot is written in the background, after the commit of what it was made of; no decision waits for it, or fails
 * with it. It stands for as long as the last message that it was made of stands where it stood. One that does not
 * decode, or that was made by another `version`, another schema of the state, another `initial` or other cases, is not used: the
 * messages are folded anew. What `evolve` does is not looked at: raise `version` when you change that.
 *
 * The process remembers the last states as well (`cachedStates` of the store).
 *
 * Throws an `InvalidArgumentError` if the name, the version or `every` are out of their bounds.
 *
 * **Example**
 *
 * ```ts
 * const seatsTaken = Fold.withSnapshot(
 *   Fold.make<FlightEvent>()({ initial: 0, SeatBooked: (taken) => taken + 1 }),
 *   { name: "seatsTaken", schema: Schema.Natural }
 * )
 * ```
 */
export const withSnapshot = <S, F extends Fold<S, never>>(
  fold: F & Fold<S, never>,
  { every = 100, name, schema, version = 1 }: SnapshotOptions<NoInfer<S>>
): F & WithSnapshot<S> => {
  if (typeof name !== "string" || name.length === 0 || name.includes("\0") || !name.isWellFormed()) {
    throw new InvalidArgumentError({
      argument: "name",
      reason: "must have 1 to 255 characters, no NUL, no lone surrogates"
    })
  }
  if (Array.from(name).length > 255) {
    throw new InvalidArgumentError({ argument: "name", reason: "must have at most 255 characters" })
  }
  for (const [argument, value] of Object.entries({ version, every })) {
    if (Number.isSafeInteger(value) && value >= 1) continue
    throw new InvalidArgumentError({ argument, reason: `must be a whole number, 1 or more, not ${value}` })
  }
  return { ...fold, snapshot: { name, schema, version, every } }
}

/**
 * How the states of a fold are kept; undefined: they are not.
 *
 * @internal
 */
export const snapshotOf = <S>(fold: Fold<S, never>): Snapshot<S> | undefined =>
  (fold as Fold<S, never> & Partial<WithSnapshot<S>>).snapshot

/**
 * The types that a fold has cases for; undefined: it takes what there is.
 *
 * @internal
 */
export const typesOf = (fold: object): ReadonlyArray<string> | undefined => {
  const { types } = fold as Partial<ByTag<never, never>>
  return types === undefined || types.length === 0 ? undefined : types
}
