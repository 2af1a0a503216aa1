/**
 * How a state follows from messages.
 *
 * A fold is a value: it needs no store and no clock, and the same messages always give the same state. `update` decides
 * on what a fold makes of a stream; a `Decider` is a fold that decides. Where decisions wait for each other, the state of
 * one is evolved for the next: keep a fold in a constant, and never change a state in place.
 */

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

/**
 * The types that a fold has cases for; undefined: it takes what there is.
 *
 * @internal
 */
export const typesOf = (fold: object): ReadonlyArray<string> | undefined => {
  const { types } = fold as Partial<ByTag<never, never>>
  return types === undefined || types.length === 0 ? undefined : types
}
