/**
 * Read, decide, write; and again, when another process wrote in between.
 *
 * Updates of one stream take turns in this process. Each passes the state of the stream on to the next, which reads only
 * what other processes have added: usually nothing.
 */
import { Array as Arr, Effect, Exit, Predicate, RcMap, Result, Scope, Semaphore, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type {
  DuplicateMessageError,
  InvalidArgumentError,
  OptimisticConcurrencyError,
  SerializationError
} from "../errors.ts"
import type { Fold } from "../Fold.ts"
import type { MessagePosition, StreamHead } from "../Message.ts"
import type { Reader } from "../Reader.ts"
import type { Storage } from "../Storage.ts"
import type { StreamWrite, WriteOptions } from "./encode.ts"

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

/** The state that the messages of a stream fold to, and the head it was folded up to. */
interface Known<S> {
  readonly state: S
  readonly head: StreamHead
}

/** The turns of one stream. They exist while an update runs or waits. */
interface Turns {
  readonly semaphore: Semaphore.Semaphore
  /** What the last update knew, for the next one; undefined after a failure or an interruption. */
  left: { readonly fold: unknown; readonly known: () => Known<unknown> } | undefined
}

/**
 * @internal
 */
export const make = Effect.fnUntraced(function*<A>(
  storage: Storage["Service"],
  read: Reader<A>["read"],
  append: (write: StreamWrite<A>) => Effect.Effect<MessagePosition, WriteError>
) {
  const turnsByStream = yield* RcMap.make({
    lookup: (_stream: string) => Effect.sync((): Turns => ({ semaphore: Semaphore.makeUnsafe(1), left: undefined }))
  })

  const readAll = <S>(stream: string, fold: Fold<S, A>) =>
    Stream.runFold(
      read(stream),
      (): Known<S> => ({ state: fold.initial, head: { stream, version: 0, globalPosition: undefined } }),
      (known, stored) => evolved(fold, known, stored, [stored.message])
    )

  /**
   * Reads the messages added since. The last known message is read again: its global position, which is never given out
   * twice, tells whether the stream is still the same. One that was truncated is read from the beginning.
   */
  const readOn = <S>(stream: string, fold: Fold<S, A>, known: Known<S>) => {
    const { globalPosition, version } = known.head
    if (version === 0) return readAll(stream, fold)
    const added = Stream.runFold(
      read(stream, { fromVersion: version }),
      (): Known<S> | undefined => undefined,
      (now, stored) =>
        stored.globalPosition === globalPosition ? known : now && evolved(fold, now, stored, [stored.message])
    )
    return Effect.filterOrElse(added, Predicate.isNotUndefined, () => readAll(stream, fold))
  }

  return Effect.fn("MessageStore.update")(
    function*<S, E, R>(
      stream: string,
      fold: Fold<S, A>,
      decide: (state: S, version: number) => Effect.Effect<A | ReadonlyArray<A>, E, R>,
      options?: Pick<WriteOptions, "metadata">
    ): Effect.fn.Return<Appended, E | WriteError, R> {
      /**
       * The database checks a decision that writes: the stream must be at the version it was made on. A decision that
       * writes nothing, or fails, stands only if the stream was read in this turn.
       */
      const inTurn = Effect.fnUntraced(function*(turns: Turns | undefined, conflicts: number) {
        const left = turns?.left
        if (turns !== undefined) turns.left = undefined // nothing is passed on after an interruption or a failure
        const leave = (known: () => Known<S>) => {
          if (turns !== undefined) turns.left = { fold, known }
        }
        let isRead = left?.fold !== fold
        let known = isRead ? yield* readAll(stream, fold) : left?.known() as Known<S> // the same fold, so the same S
        for (let conflict = 0;;) {
          const { head, state } = known
          const decision = yield* Effect.exit(Effect.suspend(() => decide(state, head.version)))
          const messages = Exit.isSuccess(decision) ? Arr.ensure(decision.value) : []
          if (Arr.isReadonlyArrayNonEmpty(messages)) {
            const expectedVersion = head.version
            const written = yield* Effect.result(append({ ...options, stream, messages, expectedVersion }))
            if (Result.isSuccess(written)) {
              // Reading them back would give equal messages, by the first law of serializers.
              leave(() => evolved(fold, { head, state }, written.success, messages))
              return { ...written.success, appended: messages.length }
            }
            if (written.failure._tag !== "OptimisticConcurrencyError" || ++conflict > conflicts) {
              return yield* written.failure
            }
            known = yield* readOn(stream, fold, known)
          } else {
            const decidedOn = known
            if (!isRead) known = yield* readOn(stream, fold, decidedOn)
            if (known.head.globalPosition === decidedOn.head.globalPosition) {
              leave(() => decidedOn)
              if (Exit.isFailure(decision)) return yield* Effect.failCause(decision.cause)
              return { ...head, appended: 0 }
            }
          }
          isRead = true
        }
      })

      if (yield* storage.inTransaction) return yield* inTurn(undefined, 1)
      return yield* Effect.scopedWith((scope) =>
        Effect.flatMap(
          Scope.provide(RcMap.get(turnsByStream, stream), scope),
          (turns) => turns.semaphore.withPermit(inTurn(turns, Infinity))
        )
      )
    }
  )
})

const evolved = <S, A>(
  fold: Fold<S, A>,
  { state }: Known<S>,
  { globalPosition, stream, version }: MessagePosition,
  messages: ReadonlyArray<A>
): Known<S> => ({
  state: messages.reduce((sofar, message) => fold.evolve(sofar, message), state),
  head: { stream, version, globalPosition }
})
