/**
 * Decisions on one stream: what the stream comes to is the state, and its head is the condition.
 */
import { Array as Arr, Effect, Predicate, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Decision from "../Decision.ts"
import type {
  DuplicateMessageError,
  InvalidArgumentError,
  OptimisticConcurrencyError,
  SerializationError
} from "../errors.ts"
import { type Fold, snapshotOf } from "../Fold.ts"
import type { MessagePosition, StreamHead } from "../Message.ts"
import type { Internal, ReadError } from "../Reader.ts"
import type { EncodedSnapshot } from "../Storage.ts"
import { toPositions, type WriteOptions } from "./encode.ts"
import type { EncodeParts } from "./evolving.ts"
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
   * comes back, tells whether the stream is still the same one. One that was truncated is read like any other.
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
export const makeReadStream = <A>(
  { read, readBehind }: Pick<Internal<A>, "read" | "readBehind">
): ReadStream<A> => {
  const all: ReadStream<A>["all"] = <S>(stream: string, fold: Fold<S, A>, kept: KeptStream<S>, toVersion?: number) =>
    Effect.suspend(() => {
      let first: Known<S> = {
        state: fold.initial,
        unsaved: 0,
        head: { stream, version: 0, globalPosition: undefined }
      }
      const found = (snapshot: EncodedSnapshot): boolean => {
        const state = kept?.stateOf(snapshot)
        if (state !== undefined) first = knownOf(stream, state, snapshot)
        return state !== undefined
      }
      const messages = kept === undefined
        ? read(stream, { toVersion })
        : readBehind(stream, { toVersion }, kept.key, found)
      const folded = Stream.runFold(
        messages,
        (): Known<S> | undefined => undefined,
        (now, stored) => evolved(fold, now ?? first, stored, [stored.message])
      )
      return Effect.map(folded, (known) => known ?? first)
    })
  return {
    all,
    on: <S>(stream: string, fold: Fold<S, A>, kept: KeptStream<S>, known: Known<S>, toVersion?: number) => {
      const { globalPosition, version } = known.head
      if (version === 0) return all(stream, fold, kept, toVersion)
      const added = Stream.runFold(
        read(stream, { fromVersion: version, toVersion }),
        (): Known<S> | undefined => undefined,
        (now, stored) =>
          stored.globalPosition === globalPosition ? known : now && evolved(fold, now, stored, [stored.message])
      )
      return Effect.filterOrElse(added, Predicate.isNotUndefined, () => all(stream, fold, kept, toVersion))
    }
  }
}

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
  snapshots(fold, `stream ${stream}`, ({ head }: Known<S>) => ({
    version: head.version,
    ends: [head.globalPosition ?? 0]
  }))

/**
 * What a snapshot says of a stream.
 *
 * @internal
 */
export const knownOf = <S>(
  stream: string,
  { state }: { readonly state: S },
  { ends, version }: EncodedSnapshot
): Known<S> => ({ state, unsaved: 0, head: { stream, version, globalPosition: ends[0] } })

/**
 * What is expected of a stream that was folded: its version; and, where the state may have been remembered for long, the message
 * that it ended with, since a stream that was truncated may be back at that version.
 *
 * @internal
 */
export const expectedOf = <S>(fold: Fold<S, never>, { globalPosition, version }: StreamHead) => ({
  expectedVersion: version,
  expectedPosition: snapshotOf(fold) === undefined ? undefined : globalPosition
})

/**
 * @internal
 */
export const make = <A>(decideOn: DecideOn<A>, snapshots: Snapshots, encoded: EncodeParts<A>): Update<A> =>
  Effect.fn("MessageStore.update")(
    function*<S, Given extends Decision.StreamAnswer<A>>(
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
            return Arr.isReadonlyArrayNonEmpty(messages)
              ? encoded([{ ...options, stream, messages }])
              : Effect.succeed([])
          })
        },
        refused: ({ items }, outcomes) =>
          Effect.flatMap(Effect.fromResult(toPositions(items, outcomes)), () => Effect.die("no item was refused"))
      })
      const [position = (known[0] as Known<S>).head] = positions
      return { ...position, appended }
    }
  )

/**
 * @internal
 */
export const evolved = <S, A>(
  fold: Fold<S, A>,
  { state, unsaved }: Known<S>,
  { globalPosition, stream, version }: MessagePosition,
  messages: ReadonlyArray<A>
): Known<S> => ({
  state: messages.reduce((sofar, message) => fold.evolve(sofar, message), state),
  unsaved: unsaved + messages.length,
  head: { stream, version, globalPosition }
})
