/**
 * Decisions on one stream: what the stream comes to is the state, and its head is the condition.
 */
import { Array as Arr, Effect, Predicate, Result, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type {
  DuplicateMessageError,
  InvalidArgumentError,
  OptimisticConcurrencyError,
  SerializationError
} from "../errors.ts"
import type { Fold } from "../Fold.ts"
import type { MessagePosition, StreamHead } from "../Message.ts"
import type { Reader, ReadError } from "../Reader.ts"
import type { Storage } from "../Storage.ts"
import type { StreamWrite, WriteOptions } from "./encode.ts"
import type { Attempt, Basis, Turns } from "./turns.ts"

/** Why a write may fail. */
export type WriteError =
  | OptimisticConcurrencyError
  | DuplicateMessageError
  | SerializationError
  | InvalidArgumentError
  | SqlError

/** The head of a stream behind what a call wrote to it. */
export interface Appended extends StreamHead {
  /** How many messages this call appended. */
  readonly appended: number
}

/** `MessageStore.update`. */
export interface Update<in out A> {
  <S, E, R>(
    stream: string,
    fold: Fold<S, A>,
    decide: (state: S, version: number) => Effect.Effect<A | ReadonlyArray<A>, E, R>,
    options?: Pick<WriteOptions, "metadata">
  ): Effect.Effect<Appended, E | WriteError, R>
}

/** What the messages of a stream come to, and the last of them. */
export interface Known<S> {
  readonly state: S
  readonly head: StreamHead
}

/** Reads what a stream comes to, up to a version if one is given. */
export interface ReadStream<A> {
  readonly all: <S>(stream: string, fold: Fold<S, A>, toVersion?: number) => Effect.Effect<Known<S>, ReadError>
  /**
   * Reads what was added to what is known. The last message that is known is read again: its global position, which never
   * comes back, tells whether the stream is still the same one. One that was truncated is read from its beginning.
   */
  readonly on: <S>(
    stream: string,
    fold: Fold<S, A>,
    known: Known<S>,
    toVersion?: number
  ) => Effect.Effect<Known<S>, ReadError>
}

/**
 * @internal
 */
export const makeReadStream = <A>(read: Reader<A>["read"]): ReadStream<A> => {
  const all: ReadStream<A>["all"] = <S>(stream: string, fold: Fold<S, A>, toVersion?: number) =>
    Stream.runFold(
      read(stream, { toVersion }),
      (): Known<S> => ({ state: fold.initial, head: { stream, version: 0, globalPosition: undefined } }),
      (known, stored) => evolved(fold, known, stored, [stored.message])
    )
  return {
    all,
    on: <S>(stream: string, fold: Fold<S, A>, known: Known<S>, toVersion?: number) => {
      const { globalPosition, version } = known.head
      if (version === 0) return all(stream, fold, toVersion)
      const added = Stream.runFold(
        read(stream, { fromVersion: version, toVersion }),
        (): Known<S> | undefined => undefined,
        (now, stored) =>
          stored.globalPosition === globalPosition ? known : now && evolved(fold, now, stored, [stored.message])
      )
      return Effect.filterOrElse(added, Predicate.isNotUndefined, () => all(stream, fold, toVersion))
    }
  }
}

/**
 * The key of the turns of a stream.
 *
 * @internal
 */
export const streamKey = (stream: string): string => `stream ${stream}`

/**
 * @internal
 */
export const basisOf = <S, A>(
  reading: ReadStream<A>,
  stream: string,
  fold: Fold<S, A>
): Basis<Known<S>, ReadError> => ({
  keys: [streamKey(stream)],
  read: reading.all(stream, fold),
  readOn: (known) => reading.on(stream, fold, known),
  isSame: (before, now) => before.head.globalPosition === now.head.globalPosition,
  leaves: fold
})

/**
 * @internal
 */
export const makeWriteTo = <A>(append: (write: StreamWrite<A>) => Effect.Effect<MessagePosition, WriteError>) =>
<S>(
  fold: Fold<S, A>,
  known: Known<S>,
  messages: Arr.NonEmptyReadonlyArray<A>,
  options: Pick<WriteOptions, "metadata"> | undefined
): Effect.Effect<Attempt<Known<S>, MessagePosition, WriteError>, WriteError> => {
  const { stream, version: expectedVersion } = known.head
  return Effect.flatMap(
    Effect.result(append({ ...options, stream, messages, expectedVersion })),
    (result): Effect.Effect<Attempt<Known<S>, MessagePosition, WriteError>, WriteError> => {
      if (Result.isSuccess(result)) {
        const written = result.success
        // Reading them back would give equal messages, by the first law of serializers.
        return Effect.succeed({ _tag: "Written", written, known: () => evolved(fold, known, written, messages) })
      }
      const error = Effect.fail(result.failure)
      return result.failure._tag === "OptimisticConcurrencyError" ? Effect.succeed({ _tag: "Conflict", error }) : error
    }
  )
}

/**
 * @internal
 */
export const make = <A>(
  storage: Storage["Service"],
  turns: Turns,
  reading: ReadStream<A>,
  writeTo: ReturnType<typeof makeWriteTo<A>>
): Update<A> =>
  Effect.fn("MessageStore.update")(
    function*<S, E, R>(
      stream: string,
      fold: Fold<S, A>,
      decide: (state: S, version: number) => Effect.Effect<A | ReadonlyArray<A>, E, R>,
      options?: Pick<WriteOptions, "metadata">
    ): Effect.fn.Return<Appended, E | WriteError, R> {
      let appended = 0
      const { known, written } = yield* turns(
        basisOf(reading, stream, fold),
        {
          decide: ({ head, state }) => Effect.map(decide(state, head.version), Arr.ensure),
          write: (decidedOn, messages: Arr.NonEmptyReadonlyArray<A>) => {
            appended = messages.length
            return writeTo(fold, decidedOn, messages, options)
          }
        },
        yield* storage.inTransaction
      )
      return written === undefined ? { ...known.head, appended: 0 } : { ...written, appended }
    }
  )

/**
 * @internal
 */
export const evolved = <S, A>(
  fold: Fold<S, A>,
  { state }: Known<S>,
  { globalPosition, stream, version }: MessagePosition,
  messages: ReadonlyArray<A>
): Known<S> => ({
  state: messages.reduce((sofar, message) => fold.evolve(sofar, message), state),
  head: { stream, version, globalPosition }
})
