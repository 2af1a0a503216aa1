/**
 * Decisions on one stream: what the stream comes to is the state, and its head is the condition.
 */
import { Array as Arr, Effect, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Decision from "../Decision.ts"
import type {
  DuplicateMessageError,
  InvalidArgumentError,
  OptimisticConcurrencyError,
  SerializationError
} from "../errors.ts"
import type { Fold } from "../Fold.ts"
import type { Operations, Sending } from "../internal/telemetry.ts"
import type { MessagePosition, StreamHead } from "../Message.ts"
import type { Internal, ReadError } from "../Reader.ts"
import type { EncodedSnapshot } from "../Storage.ts"
import { toPositions, type WriteOptions } from "./encode.ts"
import type { EncodeParts, Part } from "./evolving.ts"
import type { Kept, Snapshots, Standing } from "./snapshots.ts"
import type { DecideOn } from "./together.ts"

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
  <S, Given extends Decision.StreamAnswer<A>>(
    stream: string,
    fold: Fold<S, A>,
    decide: (state: S, version: number) => Given,
    options?: Pick<WriteOptions, "metadata">
  ): Effect.Effect<Appended, WriteError | Effect.Error<Given>, Effect.Services<Given>>
}

/** What the messages of a stream come to, and the last of them. */
export interface Known<S> extends Standing<S> {
  readonly head: StreamHead
  /** Of the stream: messages that were deleted or redacted since are in the state. */
  readonly edition: number
}

/** What is kept of a fold on a stream, if it has snapshots. */
export type KeptStream<S> = Kept<S, Known<S>> | undefined

/** Reads what a stream comes to, up to a version if one is given. */
export interface ReadStream<A> {
  /** From the snapshot on, if there is one that stands. */
  readonly all: <S>(
    stream: string,
    fold: Fold<S, A>,
    kept: KeptStream<S>,
    toVersion?: number
  ) => Effect.Effect<Known<S>, ReadError>
  /**
   * Reads what was added to what is known. The last message that is known is read again: its global position, which never
   * comes back, tells whether the stream is still the same one. One that was deleted is read like any other, and so is one of
   * another edition.
   */
  readonly on: <S>(
    stream: string,
    fold: Fold<S, A>,
    kept: KeptStream<S>,
    known: Known<S>,
    toVersion?: number
  ) => Effect.Effect<Known<S>, ReadError>
}

/**
 * @internal
 */
export const makeReadStream = <A>({ readEditions }: Pick<Internal<A>, "readEditions">): ReadStream<A> => {
  const all: ReadStream<A>["all"] = <S>(stream: string, fold: Fold<S, A>, kept: KeptStream<S>, toVersion?: number) =>
    Effect.suspend(() => {
      let first: Known<S> = nothing(stream, fold, 0)
      const editions = new Set<number>()
      const begins = (edition: number, snapshot: EncodedSnapshot | undefined): boolean => {
        editions.add(edition)
        first = { ...first, edition }
        if (snapshot === undefined) return true
        const state = kept?.stateOf(snapshot)
        if (state !== undefined) first = knownOf(stream, state, snapshot, edition)
        return state !== undefined
      }
      const folded = Stream.runFold(
        readEditions(stream, { toVersion }, kept?.key, begins),
        (): Known<S> | undefined => undefined,
        (now, stored) => evolved(fold, now ?? first, stored, [stored.message])
      )
      // Something was deleted or redacted between two pages.
      return Effect.flatMap(
        folded,
        (known) => editions.size > 1 ? all(stream, fold, kept, toVersion) : Effect.succeed(known ?? first)
      )
    })
  return {
    all,
    on: <S>(stream: string, fold: Fold<S, A>, kept: KeptStream<S>, known: Known<S>, toVersion?: number) => {
      const { edition, head: { globalPosition, version } } = known
      if (version === 0) return all(stream, fold, kept, toVersion)
      let isSame = true
      const begins = (now: number): boolean => {
        isSame &&= now === edition
        return true
      }
      const added = Stream.runFold(
        readEditions(stream, { fromVersion: version, toVersion }, undefined, begins),
        (): Known<S> | undefined => undefined,
        (now, stored) =>
          isSame && stored.globalPosition === globalPosition
            ? known
            : now && evolved(fold, now, stored, [stored.message])
      )
      return Effect.flatMap(
        added,
        (now) => now === undefined || !isSame ? all(stream, fold, kept, toVersion) : Effect.succeed(now)
      )
    }
  }
}

/**
 * What a stream without messages comes to.
 *
 * @internal
 */
export const nothing = <S>(stream: string, { initial }: Fold<S, never>, edition: number): Known<S> => ({
  state: initial,
  unsaved: 0,
  head: { stream, version: 0, globalPosition: undefined },
  edition
})

/**
 * What is kept of a fold on a stream.
 *
 * @internal
 */
export const keptOf = <S>(
  snapshots: Snapshots,
  fold: Fold<S, never>,
  stream: string
): Effect.Effect<KeptStream<S>> =>
  snapshots(fold, `stream ${stream}`, ({ edition, head }: Known<S>) => ({
    version: head.version,
    ends: [head.globalPosition ?? 0],
    madeOf: [{ of: "stream", name: stream, edition }]
  }))

/**
 * What a snapshot says of a stream.
 *
 * @internal
 */
export const knownOf = <S>(
  stream: string,
  { state }: { readonly state: S },
  { ends, version }: EncodedSnapshot,
  edition: number
): Known<S> => ({ state, unsaved: 0, head: { stream, version, globalPosition: ends[0] }, edition })

/**
 * What is expected of a stream that was folded: its version, the message that it ended with, and that nothing was deleted or
 * redacted since.
 *
 * @internal
 */
export const expectedOf = ({ edition, head: { globalPosition, version } }: Known<unknown>) => ({
  expectedVersion: version,
  expectedPosition: globalPosition,
  expectedEdition: edition
})

/**
 * @internal
 */
export const make = <A>(
  decideOn: DecideOn<A>,
  operation: Operations,
  snapshots: Snapshots,
  encoded: EncodeParts<A>
): Update<A> => {
  const updateSending = Effect.fnUntraced(
    function*<S, Given extends Decision.StreamAnswer<A>>(
      sending: Sending,
      stream: string,
      fold: Fold<S, A>,
      decide: (state: S, version: number) => Given,
      options?: Pick<WriteOptions, "metadata">
    ): Effect.fn.Return<Appended, WriteError | Effect.Error<Given>, Effect.Services<Given>> {
      let appended = 0
      const source = Decision.stream(stream, fold as Fold<unknown, A>)
      const kept = yield* keptOf(snapshots, source.fold, stream)
      const sourced = { name: stream, source, kept, keys: [`stream ${stream}`] }
      const { known, positions } = yield* decideOn([sourced], {
        decide: ([given]) => {
          const { head, state } = given as Known<S>
          const answer = Decision.told<Given, A | ReadonlyArray<A>>(decide(state, head.version))
          return Effect.flatMap(answer, (decided) => {
            const messages = Arr.ensure(decided)
            appended = messages.length
            return sendingParts(
              sending,
              Arr.isReadonlyArrayNonEmpty(messages)
                ? encoded([{ ...options, stream, messages }])
                : Effect.succeed([])
            )
          })
        },
        refused: ({ items }, outcomes) =>
          Effect.flatMap(Effect.fromResult(toPositions(items, outcomes)), () => Effect.die("no item was refused"))
      })
      const [position = (known[0] as Known<S>).head] = positions
      return { ...position, appended }
    }
  )

  const updating = operation("update", "send")
  return (stream, fold, decide, options) =>
    updating.run((sending) => updateSending(sending, stream, fold, decide, options))
}

/**
 * What was decided last is what leaves.
 *
 * @internal
 */
export const sendingParts = <A, E, R>(
  sending: Sending,
  parts: Effect.Effect<ReadonlyArray<Part<A>>, E, R>
): Effect.Effect<ReadonlyArray<Part<A>>, E, R> =>
  Effect.map(parts, (decided) => {
    sending.items = decided.map(({ item }) => item)
    return decided
  })

/**
 * @internal
 */
export const evolved = <S, A>(
  fold: Fold<S, A>,
  { edition, state, unsaved }: Known<S>,
  { globalPosition, stream, version }: MessagePosition,
  messages: ReadonlyArray<A>
): Known<S> => ({
  state: messages.reduce((sofar, message) => fold.evolve(sofar, message), state),
  unsaved: unsaved + messages.length,
  head: { stream, version, globalPosition },
  edition
})
