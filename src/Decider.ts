/**
 * Deciders: folds that answer commands (Jérémie Chassaing, "Functional Event Sourcing Decider",
 * https://thinkbeforecoding.com/post/2021/12/17/functional-event-sourcing-decider).
 *
 * A decider is a value that knows no store: `evolve` says what the state is behind a message, `decide` which messages a
 * command leads to in a state. `update` runs it on a stream; `effect-message-store/testing` has given, when, then for it.
 */
import { Effect } from "effect"
import type { Fold } from "./Fold.ts"

/** What a decision comes to: messages to be written, one or several; an empty array: none. */
export type Decided<A> = A | ReadonlyArray<A>

/** A fold, and the messages that a command leads to in each of its states. */
export interface Decider<in out S, in Command, out A, out E = never, out R = never> extends Fold<S, never> {
  readonly decide: (command: Command, state: S) => Effect.Effect<Decided<A>, E, R>
}

/**
 * Makes a fold decide. `decide` returns a message, an array of them, or an effect that succeeds with either. An effect
 * that fails refuses the command; an error of `Schema.TaggedError` is such an effect, and may be returned as it is.
 *
 * **Example**
 *
 * ```ts
 * const flight = Decider.make(seatsTaken, ({ passenger }: Book, taken) =>
 *   taken < 3 ? new SeatBooked({ passenger }) : new FlightFull())
 *
 * // What happens when somebody books a seat:
 * flights.update("flight-1", flight, (taken) => flight.decide({ passenger: "Ada" }, taken))
 * ```
 */
export const make = <S, F extends Fold<S, never>, Command, Answer>(
  fold: F & Fold<S, never>,
  decide: (command: Command, state: S) => Answer
): F & Decider<S, Command, MessagesOf<Answer>, Effect.Error<Answer>, Effect.Services<Answer>> => ({
  ...fold,
  decide: (command, state) =>
    Effect.suspend(() => {
      const answer = decide(command, state)
      return (Effect.isEffect(answer) ? answer : Effect.succeed(answer)) as Effect.Effect<never, never, never>
    })
})

/** The messages of an answer: of what an effect succeeds with, or of the answer itself. */
type MessagesOf<Answer> = Answer extends Effect.Effect<infer Success, infer _E, infer _R> ? Each<Success> : Each<Answer>
type Each<A> = A extends ReadonlyArray<infer Message> ? Message : A
