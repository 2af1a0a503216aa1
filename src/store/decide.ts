/** Decisions on several sources: each of them is a condition of what is written. */
import { Array as Arr, Effect, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type Answer, type Source, type StreamSource, type Writes, writesOf } from "../Decision.ts"
import {
  DecisionConflictError,
  DuplicateMessageError,
  type InvalidArgumentError,
  IsolationError,
  type SerializationError,
  type TagsIncompleteError
} from "../errors.ts"
import { typesOf } from "../Fold.ts"
import { checkStreamName, checkStreams, invalid } from "../internal/checks.ts"
import { checkQueries } from "../internal/tags.ts"
import type { MessagePosition } from "../Message.ts"
import type { Internal, RequireTags } from "../Reader.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { AppendItem, AppendOutcome, EncodedStoredMessage, Storage } from "../Storage.ts"
import type { Invalid, Items, PositionedWrite } from "./encode.ts"
import type { Snapshots } from "./snapshots.ts"
import { basisOfAll, type Named, requirementsOf, type View, withKept } from "./sources.ts"
import type { Attempt, Turns } from "./turns.ts"
import { basisOf, evolved, keptOf, type Known, type ReadStream } from "./update.ts"

/** Why a decision may fail, beside what it says itself. */
export type DecideError =
  | DecisionConflictError
  | IsolationError
  | DuplicateMessageError
  | SerializationError
  | InvalidArgumentError
  | TagsIncompleteError
  | SqlError

/** `MessageStore.decide`. */
export interface Decide<in out A> {
  <States, Given extends Answer<A>>(
    sources: { readonly [Name in keyof States]: Source<States[Name], A> },
    decide: (states: { readonly [Name in keyof States]: States[Name] }) => Given
  ): Effect.Effect<ReadonlyArray<MessagePosition>, DecideError | Effect.Error<Given>, Effect.Services<Given>>
}

type Written<A> = ReturnType<typeof writesOf<A>>[number]

type Outcome = Attempt<View, ReadonlyArray<MessagePosition>, DecideError>

/**
 * @internal
 */
export const make = <A>(
  storage: Storage["Service"],
  codec: MessageCodec<A>,
  turns: Turns,
  reading: ReadStream<A>,
  snapshots: Snapshots,
  readUpTo: Internal<A>["readUpTo"],
  requireTags: RequireTags,
  encoded: <B, E>(
    writes: Arr.NonEmptyReadonlyArray<PositionedWrite<A>>,
    use: (items: Items) => Effect.Effect<B, E>
  ) => Effect.Effect<B, E | Invalid>
): Decide<A> => {
  const checked = (name: string, source: Source<unknown, A>): Result.Result<Named<A>, InvalidArgumentError> => {
    if (source._tag === "Stream") return Result.map(checkStreamName(source.stream), () => ({ name, source }))
    // A fold may have cases for messages of other stores.
    const ofFold = typesOf(source.fold)?.filter((type) => codec.tags?.types.has(type) ?? true)
    return Result.map(
      checkQueries(codec.tags, source.tags, source.types ?? ofFold),
      (queries) => ({ name, source, queries })
    )
  }

  /** The conflict with the first message that somebody else has added. */
  const conflict = (
    source: string,
    added: Effect.Effect<ReadonlyArray<EncodedStoredMessage>, SqlError>
  ): Effect.Effect<Outcome> => {
    const error = Effect.flatMap(added, ([message]) => {
      if (message === undefined) return new DecisionConflictError({ source })
      const { globalPosition, messageId, stream, version } = message
      return new DecisionConflictError({ source, messageId, globalPosition, stream, version })
    })
    return Effect.succeed({ _tag: "Conflict", error })
  }

  /** The first refusal of an item; none if all were written. */
  const refusal = (
    items: Items,
    outcomes: ReadonlyArray<AppendOutcome>,
    sourceOf: (stream: string) => string,
    conditions: ReadonlyArray<{ readonly source: string }>
  ): Effect.Effect<Outcome, DecideError> | undefined => {
    for (const [i, outcome] of outcomes.entries()) {
      const { expectedVersion, stream } = items[i] as AppendItem
      switch (outcome._tag) {
        case "WrongVersion": {
          const fromVersion = Number(expectedVersion) + 1
          const query = {
            stream,
            fromVersion,
            toVersion: outcome.actualVersion,
            direction: "forward",
            limit: 1
          } as const
          return conflict(sourceOf(stream), Effect.map(storage.readStream(query), ({ messages }) => messages))
        }
        case "Conflict":
          return conflict(conditions[outcome.condition]?.source ?? "", storage.readByIds([outcome.messageId]))
        case "Duplicate":
          return Effect.fail(new DuplicateMessageError({ messageId: outcome.messageId }))
        case "WrongIsolation":
          return Effect.fail(new IsolationError())
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
      const { conditions, expected } = requirementsOf(named, known)
      const expecting = Arr.map(writes, (write): PositionedWrite<A> => {
        const head = expected.get(write.stream)
        expected.delete(write.stream) // a second part finds what the first one left
        return { ...write, ...head }
      })
      const sourceOf = (stream: string) =>
        named.find(({ source }) => source._tag === "Stream" && source.stream === stream)?.name ?? stream
      return encoded(expecting, ([first, ...others]): Effect.Effect<Outcome, DecideError> => {
        const required = Array.from(expected, ([stream, head]): AppendItem => ({
          stream,
          ...head,
          messages: [],
          metadata: "{}"
        }))
        const items: Items = [
          { ...first, conditions: conditions.map(({ condition }) => condition) },
          ...others,
          ...required
        ]
        return Effect.flatMap(
          storage.append(items, { atomic: true }),
          (outcomes) =>
            refusal(items, outcomes, sourceOf, conditions) ??
              Effect.succeed({ _tag: "Written", written: positionsOf(items, outcomes), known: () => known })
        )
      })
    }

  return Effect.fn("MessageStore.decide")(
    function*<States, Given extends Answer<A>>(
      sources: { readonly [Name in keyof States]: Source<States[Name], A> },
      decide: (states: { readonly [Name in keyof States]: States[Name] }) => Given
    ): Effect.fn.Return<ReadonlyArray<MessagePosition>, DecideError | Effect.Error<Given>, Effect.Services<Given>> {
      const named = yield* Effect.fromResult(Result.all(
        Object.entries(sources).map(([name, source]) => checked(name, source as Source<unknown, A>))
      ))
      if (named.length === 0) return yield* Effect.fromResult(invalid("sources", "must not be empty"))
      yield* Effect.fromResult(checkStreams(named.map(({ source }) => ({
        stream: source._tag === "Stream" ? source.stream : ""
      }))))
      const queries = named.flatMap((one) => "queries" in one ? one.queries : [])
      if (queries.length > 0) yield* requireTags(queries, storage.declaredTags)
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
      const [{ source: only } = { source: undefined }] = named
      const { written } = only?._tag === "Stream" && named.length === 1
        ? yield* turns(
          basisOf(
            storage,
            reading,
            only.stream,
            only.fold,
            yield* keptOf(snapshots, only.fold, only.stream),
            inTransaction
          ),
          {
            decide: (known) => answer([known.state]),
            write: (known, writes) =>
              Effect.map(write([known], writes), (attempt) =>
                attempt._tag === "Written"
                  ? { ...attempt, known: () => behind(only, known, writes, attempt.written) }
                  : attempt)
          },
          inTransaction
        )
        : yield* turns(
          basisOfAll(
            storage,
            reading,
            readUpTo,
            yield* Effect.forEach(named, (one) => withKept(snapshots, one, codec.tags)),
            inTransaction
          ),
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
