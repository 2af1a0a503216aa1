/** Decisions on several sources: each of them is a condition of what is written. */
import { Array as Arr, Effect, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type Answer, type Source, told, type Writes, writesOf } from "../Decision.ts"
import {
  DecisionConflictError,
  DuplicateMessageError,
  type InvalidArgumentError,
  IsolationError,
  type SerializationError,
  type TagsIncompleteError
} from "../errors.ts"
import { typesOf } from "../Fold.ts"
import { checkSources, checkStreamName, invalid } from "../internal/checks.ts"
import { checkQueries } from "../internal/tags.ts"
import type { Operations, Sending } from "../internal/telemetry.ts"
import type { MessagePosition } from "../Message.ts"
import type { RequireTags } from "../Reader.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { AppendItem, AppendOutcome, EncodedStoredMessage, Storage } from "../Storage.ts"
import type { Conditional } from "./conditional.ts"
import type { EncodeParts } from "./evolving.ts"
import type { Snapshots } from "./snapshots.ts"
import { type Named, withKept } from "./sources.ts"
import type { DecideOn } from "./together.ts"
import { sendingParts } from "./update.ts"

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

/** What decisions are made with. */
interface Means<A> {
  readonly storage: Storage["Service"]
  readonly operation: Operations
  readonly codec: MessageCodec<A>
  readonly decideOn: DecideOn<A>
  readonly snapshots: Snapshots
  readonly requireTags: RequireTags
  readonly encodeParts: EncodeParts<A>
}

/**
 * @internal
 */
export const make = <A>(
  { codec, decideOn, encodeParts, operation, requireTags, snapshots, storage }: Means<A>
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
  ): Effect.Effect<never, DecisionConflictError | SqlError> =>
    Effect.flatMap(added, ([message]) => {
      if (message === undefined) return new DecisionConflictError({ source })
      const { globalPosition, messageId, stream, version } = message
      return new DecisionConflictError({ source, messageId, globalPosition, stream, version })
    })

  const refused =
    (named: ReadonlyArray<Named<A>>) =>
    ({ conditions, items }: Conditional, outcomes: ReadonlyArray<AppendOutcome>): Effect.Effect<never, DecideError> => {
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
            const source = named.find((one) => one.source._tag === "Stream" && one.source.stream === stream)
            return conflict(
              source?.name ?? stream,
              Effect.map(storage.readStream(query), ({ messages }) => messages)
            )
          }
          case "Conflict":
            return conflict(conditions[outcome.condition] ?? "", storage.readByIds([outcome.messageId]))
          case "Outdated":
            return Effect.fail(new DecisionConflictError({ source: conditions[outcome.condition] ?? "" }))
          case "Duplicate":
            return Effect.fail(new DuplicateMessageError({ messageId: outcome.messageId }))
          case "WrongIsolation":
            return Effect.fail(new IsolationError())
          case "Refused":
            return Effect.fail(outcome.error)
          case "Written":
          case "Unchanged":
          case "Skipped": // the reason is another item's
        }
      }
      return Effect.die("no item was refused")
    }

  const decideSending = Effect.fnUntraced(
    function*<States, Given extends Answer<A>>(
      sending: Sending,
      sources: { readonly [Name in keyof States]: Source<States[Name], A> },
      decide: (states: { readonly [Name in keyof States]: States[Name] }) => Given
    ): Effect.fn.Return<ReadonlyArray<MessagePosition>, DecideError | Effect.Error<Given>, Effect.Services<Given>> {
      const named = yield* Effect.fromResult(Result.all(
        Object.entries(sources).map(([name, source]) => checked(name, source as Source<unknown, A>))
      ))
      if (named.length === 0) return yield* Effect.fromResult(invalid("sources", "must not be empty"))
      const queries = named.flatMap((one) => "queries" in one ? one.queries : [])
      const streams = named.flatMap(({ source }) => source._tag === "Stream" ? [source.stream] : [])
      yield* Effect.fromResult(checkSources(streams, queries.length))
      if (queries.length > 0) yield* requireTags(queries, storage.declaredTags)
      const sourced = yield* Effect.forEach(named, (one) => withKept(snapshots, one, codec.tags))
      const { positions } = yield* decideOn(sourced, {
        decide: (known) =>
          // Once more: another server may have answered what was read.
          Effect.flatMap(queries.length === 0 ? Effect.void : requireTags(queries, storage.declaredTags), () => {
            const given = decide(Object.fromEntries(named.map(({ name }, i) => [name, known[i]?.state])) as never)
            return Effect.flatMap(told<Given, Writes<A>>(given), (writes) => {
              const some = writesOf(writes)
              return sendingParts(sending, Arr.isReadonlyArrayNonEmpty(some) ? encodeParts(some) : Effect.succeed([]))
            })
          }),
        refused: refused(named)
      })
      return positions
    }
  )

  const deciding = operation("decide", "send")
  return (sources, decide) => deciding.run((sending) => decideSending(sending, sources, decide))
}
