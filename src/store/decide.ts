/**
 * Decisions on several sources: each is read up to one moment, and each is a condition of what is written.
 *
 * The ends of all sources are read in one statement; what is read up to them later is still what was there at that moment.
 * So no snapshot and no connection is held while something is read, decided and written.
 */
import { Array as Arr, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type Answer, type Source, type StreamSource, type Writes, writesOf } from "../Decision.ts"
import {
  DecisionConflictError,
  DuplicateMessageError,
  type InvalidArgumentError,
  IsolationError,
  type SerializationError
} from "../errors.ts"
import { checkStreamName, invalid } from "../internal/checks.ts"
import type { MessagePosition } from "../Message.ts"
import type { ReadError } from "../Reader.ts"
import type { AppendItem, AppendOutcome, Storage } from "../Storage.ts"
import type { Invalid, Items, StreamWrite } from "./encode.ts"
import type { Attempt, Basis, Turns } from "./turns.ts"
import { basisOf, evolved, type Known, type ReadStream, streamKey } from "./update.ts"

/** Why a decision may fail, beside what it says itself. */
export type DecideError =
  | DecisionConflictError
  | IsolationError
  | DuplicateMessageError
  | SerializationError
  | InvalidArgumentError
  | SqlError

/** How many sources are read at once; in a transaction one. */
const atOnce = 4

/** `MessageStore.decide`. */
export interface Decide<in out A> {
  <States, Given extends Answer<A>>(
    sources: { readonly [Name in keyof States]: Source<States[Name], A> },
    decide: (states: { readonly [Name in keyof States]: States[Name] }) => Given
  ): Effect.Effect<ReadonlyArray<MessagePosition>, DecideError | Effect.Error<Given>, Effect.Services<Given>>
}

/** A source under its name, whatever its state is. */
interface Named<A> {
  readonly name: string
  readonly source: StreamSource<unknown, A>
}

/** Of each source what it comes to, in their order. */
type View = ReadonlyArray<Known<unknown>>

type Written<A> = ReturnType<typeof writesOf<A>>[number]

type Outcome = Attempt<View, ReadonlyArray<MessagePosition>, DecideError>

/**
 * @internal
 */
export const make = <A>(
  storage: Storage["Service"],
  turns: Turns,
  reading: ReadStream<A>,
  encoded: <B, E>(
    writes: Arr.NonEmptyReadonlyArray<StreamWrite<A>>,
    use: (items: Items) => Effect.Effect<B, E>
  ) => Effect.Effect<B, E | Invalid>
): Decide<A> => {
  const basisOfAll = (sources: ReadonlyArray<Named<A>>, inTransaction: boolean): Basis<View, ReadError> => {
    const ends = storage.ends(sources.map(({ source }) => source.stream), [])
    const readUpTo = (known: View | undefined) =>
      Effect.flatMap(ends, ({ heads }) =>
        Effect.forEach(sources, ({ source: { fold, stream } }, i) => {
          const toVersion = heads[i]?.version ?? 0
          const before = known?.[i]
          return before === undefined
            ? reading.all(stream, fold, toVersion)
            : reading.on(stream, fold, before, toVersion)
        }, { concurrency: inTransaction ? 1 : atOnce }))
    return {
      keys: Arr.dedupe(sources.map(({ source }) => streamKey(source.stream))).toSorted(),
      read: readUpTo(undefined),
      readOn: readUpTo,
      isSame: (before, now) => before.every(({ head }, i) => head.globalPosition === now[i]?.head.globalPosition),
      leaves: undefined
    }
  }

  /** The conflict with the first message that somebody else wrote to a stream. */
  const conflictIn = (source: string, stream: string, fromVersion: number, toVersion: number): Outcome => {
    const added = storage.readStream({ stream, fromVersion, toVersion, direction: "forward", limit: 1 })
    const error = Effect.flatMap(added, ({ messages: [message] }) => {
      if (message === undefined) return new DecisionConflictError({ source })
      const { globalPosition, messageId, version } = message
      return new DecisionConflictError({ source, messageId, globalPosition, stream, version })
    })
    return { _tag: "Conflict", error }
  }

  /** The first refusal of an item; none if all were written. */
  const refusal = (
    named: ReadonlyArray<Named<A>>,
    items: Items,
    outcomes: ReadonlyArray<AppendOutcome>
  ): Effect.Effect<Outcome, DecideError> | undefined => {
    for (const [i, outcome] of outcomes.entries()) {
      const { expectedVersion, stream } = items[i] as AppendItem
      switch (outcome._tag) {
        case "WrongVersion": {
          const source = named.find((one) => one.source.stream === stream)?.name ?? stream
          return Effect.succeed(conflictIn(source, stream, Number(expectedVersion) + 1, outcome.actualVersion))
        }
        case "Duplicate":
          return Effect.fail(new DuplicateMessageError({ messageId: outcome.messageId }))
        case "WrongIsolation":
          return Effect.fail(new IsolationError())
        case "Conflict":
        case "Written":
        case "Unchanged":
        case "Skipped": // the reason is another item's
      }
    }
    return undefined
  }

  const writeIf =
    (named: ReadonlyArray<Named<A>>) =>
    (known: View, writes: Arr.NonEmptyReadonlyArray<Written<A>>): Effect.Effect<Outcome, DecideError> => {
      const versions = new Map(known.map(({ head }) => [head.stream, head.version]))
      const expecting = Arr.map(writes, (write): StreamWrite<A> => {
        const expectedVersion = versions.get(write.stream)
        versions.delete(write.stream) // a second part finds what the first one left
        return { ...write, expectedVersion }
      })
      return encoded(expecting, (written): Effect.Effect<Outcome, DecideError> => {
        const required = Array.from(versions, ([stream, expectedVersion]): AppendItem => ({
          stream,
          expectedVersion,
          messages: [],
          metadata: "{}"
        }))
        const items = Arr.appendAll(written, required)
        return Effect.flatMap(
          storage.append(items, { atomic: true }),
          (outcomes) =>
            refusal(named, items, outcomes) ??
              Effect.succeed({ _tag: "Written", written: positionsOf(items, outcomes), known: () => known })
        )
      })
    }

  return Effect.fn("MessageStore.decide")(
    function*<States, Given extends Answer<A>>(
      sources: { readonly [Name in keyof States]: Source<States[Name], A> },
      decide: (states: { readonly [Name in keyof States]: States[Name] }) => Given
    ): Effect.fn.Return<ReadonlyArray<MessagePosition>, DecideError | Effect.Error<Given>, Effect.Services<Given>> {
      const named = Object.entries(sources).map(([name, source]) => ({ name, source: source as Source<unknown, A> }))
      if (named.length === 0) return yield* Effect.fromResult(invalid("sources", "must not be empty"))
      for (const { source } of named) yield* Effect.fromResult(checkStreamName(source.stream))
      const answer = (states: ReadonlyArray<unknown>) => {
        const given = decide(Object.fromEntries(named.map(({ name }, i) => [name, states[i]])) as never)
        const writes = (Effect.isEffect(given) ? given : Effect.succeed(given)) as Effect.Effect<
          Writes<A>,
          Effect.Error<Given>,
          Effect.Services<Given>
        >
        return Effect.map(writes, writesOf)
      }
      const inTransaction = yield* storage.inTransaction
      const write = writeIf(named)
      const [only, ...others] = named
      const { written } = only !== undefined && others.length === 0
        ? yield* turns(
          basisOf(reading, only.source.stream, only.source.fold),
          {
            decide: (known) => answer([known.state]),
            write: (known, writes) =>
              Effect.map(write([known], writes), (attempt) =>
                attempt._tag === "Written"
                  ? { ...attempt, known: () => behind(only.source, known, writes, attempt.written) }
                  : attempt)
          },
          inTransaction
        )
        : yield* turns(
          basisOfAll(named, inTransaction),
          { decide: (known) => answer(known.map(({ state }) => state)), write },
          inTransaction
        )
      return written ?? []
    }
  )
}

/** Of the items that have messages. */
const positionsOf = (items: Items, outcomes: ReadonlyArray<AppendOutcome>): ReadonlyArray<MessagePosition> =>
  outcomes.flatMap((outcome, i) =>
    outcome._tag === "Written"
      ? [{ stream: (items[i] as AppendItem).stream, version: outcome.version, globalPosition: outcome.globalPosition }]
      : []
  )

/** What is known of a stream behind what was written to it. */
const behind = <A>(
  { fold, stream }: StreamSource<unknown, A>,
  known: Known<unknown>,
  writes: ReadonlyArray<Written<A>>,
  positions: ReadonlyArray<MessagePosition>
): Known<unknown> =>
  writes.reduce(
    (sofar, write, i) =>
      write.stream === stream
        ? evolved(fold, sofar, positions[i] as MessagePosition, Arr.ensure(write.messages) as ReadonlyArray<A>)
        : sofar,
    known
  )
