/**
 * Given, when, then: what a decider does, or a decision on several streams or tags, told by examples. No clock, no database.
 *
 * **Example** (a decider: `of`)
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
import { Array as Arr, Cause, Effect, Equal, Exit, Formatter, Layer, Option, Predicate, Stream } from "effect"
import type { Decider } from "../Decider.ts"
import type * as Fold from "../Fold.ts"
import type { ServiceClass } from "../MessageStore.ts"
import type { Path } from "../Partitioner.ts"

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
    const [before, after] = [Formatter.format(expected), Formatter.format(actual)]
    super([
      `given    ${given.length === 0 ? "nothing" : Formatter.format(given)}`,
      `when     ${Formatter.format(command)}`,
      `expected ${before}`,
      `got      ${after}`,
      ...before === after ? ["They differ in what is not printed: personal values, or classes."] : []
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
        const decided = Effect.suspend(() =>
          decider.decide(command, messages.reduce((sofar: S, message) => evolve(sofar, message), decider.initial))
        )
        const ends = endsOf(messages.map(contentOf), command, Effect.map(Effect.exit(decided), outcomeOf))
        return {
          thenWrites: (...expected) => ends({ writes: expected.map(contentOf) }),
          thenNothing: ends({ writes: [] }),
          thenFails: (error) => ends(failsWith(error))
        }
      }
    })
  }
}

/** Messages of one stream, in their order. */
export interface InStream<A> {
  readonly stream: string
  readonly messages: A | Arr.NonEmptyReadonlyArray<A>
}

/** Scenarios of a decision that is made on a store. */
export interface StoreScenarios<Args extends ReadonlyArray<unknown>, A, E, R> {
  /** What was written so far, in its order, to whatever streams; nothing: the store is empty. */
  readonly given: (...written: ReadonlyArray<InStream<A>>) => {
    /** Decides, with these arguments. */
    readonly when: (...args: Args) => Then<InStream<A>, E, R>
  }
}

/**
 * Tells scenarios of what is done on a store: of `decide` on streams and tags, `update`, or whatever else writes. Each
 * scenario has a store of its own, in memory. One that does not end as it has to is a defect: a {@link ScenarioError}.
 *
 * **Details**
 *
 * `thenWrites` expects what was written to the streams, in the order of global positions; ids, times and metadata do not
 * count. `thenFails` and `thenNothing` expect that nothing was. Services beside the store are required by the scenario: so
 * is a `KeyEncryption`, if messages have personal fields.
 *
 * **Example**
 *
 * ```ts
 * const { given } = Scenario.on(Courses, subscribe) // (course: string, student: string) => Effect<…>
 *
 * it.effect("has a seat", () =>
 *   given({ stream: "course-c1", messages: new CourseDefined({ course: "c1", capacity: 1 }) })
 *     .when("c1", "Ada")
 *     .thenWrites({ stream: "course-c1", messages: new Subscribed({ course: "c1", student: "Ada" }) }))
 * ```
 */
export const on = <Self, Id extends string, A, P extends Path, N, Args extends ReadonlyArray<unknown>, E, R>(
  store: ServiceClass<Self, Id, A, P, N>,
  decide: (...args: Args) => Effect.Effect<unknown, E, R>
): StoreScenarios<Args, A, E, Exclude<R, Self> | N> => ({
  given: (...written) => ({
    when: (...args) => {
      const decided = Effect.gen(function*() {
        const opened = yield* store
        const positions = yield* Effect.orDie(opened.writeAll(written))
        const exit = yield* Effect.exit(decide(...args))
        const { readWildcard } = yield* Effect.orDie(opened.reader)
        const fromGlobalPosition = Math.max(0, ...positions.map(({ globalPosition }) => globalPosition)) + 1
        const added = yield* Effect.orDie(Stream.runCollect(readWildcard("%", { fromGlobalPosition })))
        const writes = added.flatMap(({ message, stream }) => contentsOf({ stream, messages: message }))
        return Exit.isSuccess(exit) ? { writes } : { ...outcomeOf(exit), ...writes.length > 0 && { writes } }
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.fresh(Layer.orDie(store.layerMemory)))
      ) as Effect.Effect<Outcome, never, Exclude<R, Self> | N> // less the scope
      const ends = endsOf(written.flatMap(contentsOf), args.length === 1 ? args[0] : args, decided)
      return {
        thenWrites: (...expected) => ends({ writes: expected.flatMap(contentsOf) }),
        thenNothing: ends({ writes: [] }),
        thenFails: (error) => ends(failsWith(error))
      }
    }
  })
})

type Outcome =
  | { readonly writes: ReadonlyArray<unknown> }
  | { readonly fails: unknown; readonly writes?: ReadonlyArray<unknown> }
  | { readonly dies: unknown; readonly writes?: ReadonlyArray<unknown> }

/** Whether a scenario ended as expected. */
const endsOf =
  <R>(given: ReadonlyArray<unknown>, command: unknown, outcome: Effect.Effect<Outcome, never, R>) =>
  (expected: Outcome): Effect.Effect<void, never, R> =>
    Effect.flatMap(outcome, (actual) =>
      Equal.equals(expected, actual)
        ? Effect.void
        : Effect.die(new ScenarioError(given, command, expected, actual)))

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

/** The messages of a stream, each with the stream's name. */
const contentsOf = <A>({ messages, stream }: InStream<A>): ReadonlyArray<unknown> =>
  Arr.ensure(messages).map((message) => ({ stream, message: contentOf(message) }))
