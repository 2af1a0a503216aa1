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
  /** What the fold is called in the store: 1 to 255 characters. Different folds must have different names. */
  readonly name: string
  /** The schema of the state, which is stored as canonical JSON (`Schema.toCodecJson`) of at most 1 Mi characters. */
  readonly schema: Schema.Codec<S, unknown>
  /** Raise it when the same messages give another state than before: a whole number, 1 or more. */
  readonly version: number
  /** How many messages are folded before the next snapshot is written: a whole number, 1 or more. */
  readonly every: number
}

/** A fold whose states are kept. */
export interface WithSnapshot<in out S> {
  readonly snapshot: Snapshot<S>
}

/** The same as a {@link Snapshot}, with defaults. */
export interface SnapshotOptions<in out S> extends Pick<Snapshot<S>, "name" | "schema"> {
  /** Raise it when the same messages give another state than before: a whole number, 1 or more. Default 1. */
  readonly version?: number | undefined
  /** How many messages are folded before the next snapshot is written: a whole number, 1 or more. Default 100. */
  readonly every?: number | undefined
}

/**
 * Keeps the states of a fold in the store: a decision begins with the last snapshot, and reads only what was added since. A
 * decider made of the fold has its snapshots too.
 *
 * **Details**
 *
 * Snapshots are written in the background, after the commit of the messages that they are made of; no decision waits for them,
 * or fails with them. A snapshot is not used if it does not decode, if the last message that it was made of is no longer where it
 * was, or if it was made with another `version`, schema, `initial` or set of cases: then all messages are folded again. A change
 * inside `evolve` cannot be noticed: raise `version` when you make one.
 *
 * The process also remembers the last states (`cachedStates` of the store).
 *
 * Throws an `InvalidArgumentError` if the name, the version or `every` is out of bounds.
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
