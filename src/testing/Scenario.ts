/**
 * Given, when, then: what a decider does, told by examples. No store, no clock, no database.
 *
 * **Example**
 *
 * ```ts
 * const { given } = Scenario.of(flight)
 *
 * it.effect("has three seats", () =>
 *   Effect.gen(function*() {
 *     yield* given().when(book("Ada")).thenWrites(new SeatBooked({ passenger: "Ada" }))
 *     yield* given(seat("Ada"), seat("Grace"), seat("Radia")).when(book("Barbara")).thenFails(new FlightFull())
 *   }))
 * ```
 */
import { Array as Arr, Cause, Effect, Equal, Exit, Formatter, Option, Predicate } from "effect"
import type { Decider } from "../Decider.ts"
import type * as Fold from "../Fold.ts"

/** What a command comes to: one of these says how the scenario has to end. */
export interface Then<A, E, R> {
  /** The command leads to these messages, in this order. Ids and times (`Message.fields`) do not count. */
  readonly thenWrites: (...messages: Arr.NonEmptyReadonlyArray<A>) => Effect.Effect<void, never, R>
  /** The command leads to no message. */
  readonly thenNothing: Effect.Effect<void, never, R>
  /** The command is refused with an error that equals this one. */
  readonly thenFails: (error: E) => Effect.Effect<void, never, R>
}

/** A state: what happened before. */
export interface Given<Command, A, E, R> {
  /** Decides on a command. */
  readonly when: (command: Command) => Then<A, E, R>
}

/** A scenario that ended otherwise than it had to. Test runners show `expected` and `actual` as a difference. */
export class ScenarioError extends Error {
  override readonly name = "ScenarioError"
  readonly expected: unknown
  readonly actual: unknown

  constructor(given: ReadonlyArray<unknown>, command: unknown, expected: unknown, actual: unknown) {
    super([
      `given    ${given.length === 0 ? "nothing" : Formatter.format(given)}`,
      `when     ${Formatter.format(command)}`,
      `expected ${Formatter.format(expected)}`,
      `got      ${Formatter.format(actual)}`
    ].join("\n"))
    this.expected = expected
    this.actual = actual
  }
}

/** Scenarios of a decider. */
export interface Scenarios<Earlier, Command, A, E, R> {
  /** The messages so far, in their order; none: the beginning. */
  readonly given: (...messages: ReadonlyArray<Earlier>) => Given<Command, A, E, R>
}

/** Tells scenarios of a decider. One that does not end as it has to is a defect: a {@link ScenarioError}. */
export const of = <S, Command, A, E, R, F>(
  decider: Decider<S, Command, A, E, R> & F
): Scenarios<Fold.Message<F>, Command, A, E, R> => {
  const evolve = decider.evolve as (state: S, message: unknown) => S // the messages of `given` are those that it takes
  return {
    given: (...messages) => ({
      when: (command) => {
        const ends = (expected: Outcome) =>
          Effect.suspend(() => {
            const state = messages.reduce((sofar: S, message) => evolve(sofar, message), decider.initial)
            return Effect.flatMap(Effect.exit(decider.decide(command, state)), (exit) => {
              const actual = outcomeOf(exit)
              return Equal.equals(expected, actual)
                ? Effect.void
                : Effect.die(new ScenarioError(messages.map(contentOf), command, expected, actual))
            })
          })
        return {
          thenWrites: (...expected) => ends({ writes: expected.map(contentOf) }),
          thenNothing: ends({ writes: [] }),
          thenFails: (error) => ends(failsWith(error))
        }
      }
    })
  }
}

type Outcome = { readonly writes: ReadonlyArray<unknown> } | { readonly fails: unknown } | { readonly dies: unknown }

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): Outcome => {
  if (Exit.isSuccess(exit)) return { writes: Arr.ensure(exit.value).map(contentOf) }
  const failure = Cause.findErrorOption(exit.cause)
  return Option.isSome(failure) ? failsWith(failure.value) : { dies: Cause.squash(exit.cause) }
}

/** An error is compared by its fields and its message: two of them are never the same object. */
const failsWith = (error: unknown): Outcome =>
  error instanceof Error ? { fails: { ...error, name: error.name, message: error.message } } : { fails: error }

/** A message without what its constructor makes up. */
const contentOf = (message: unknown): unknown => {
  if (!Predicate.isObject(message)) return message
  const { messageId: _id, occurredAt: _time, ...content } = message as Readonly<Record<string, unknown>>
  return content
}
