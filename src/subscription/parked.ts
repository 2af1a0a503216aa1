/**
 * Dead letters: parked messages, to be listed, replayed, or discarded.
 */
import { Effect, Option, Result, Stream } from "effect"
import type { DateTime } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type InvalidArgumentError, MessageNotFoundError, type SerializationError } from "../errors.ts"
import type { Handler } from "../Handlers.ts"
import { checkMessageId, checkPartition, checkWhole, maximumPartition } from "../internal/checks.ts"
import { isConnectionError, isPermanent } from "../internal/transient.ts"
import type { Metadata, StoredMessage } from "../Message.ts"
import { decodeRow } from "../Reader.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { EncodedParkedMessage, Failure, Storage, SubscriptionStorage } from "../Storage.ts"
import type { Delivering } from "./attempt.ts"
import type { BatchStopped } from "./claimedPartition.ts"
import { annotationsOf, each, HandlerFailure, typeIn } from "./consumer.ts"
import { toFailure } from "./failure.ts"

/** The place of a message in an aggregated stream, as a {@link ParkedMessage} has it. */
export interface Place {
  readonly partition: number
  /** From 0. After the stream was rebuilt, still the one at which the message was parked. */
  readonly position: number
}

/** A dead letter: a parked message. Fields of the store are undefined if the store no longer has the message. */
export interface ParkedMessage<out A> extends Place {
  readonly messageId: string
  /** Undefined as well if it cannot be decoded. */
  readonly message: A | undefined
  readonly stream: string | undefined
  readonly version: number | undefined
  readonly globalPosition: number | undefined
  readonly addedAt: DateTime.Utc | undefined
  readonly metadata: Metadata | undefined
  /** The last failure, with its causes. */
  readonly error: Failure
  /** How often its handler has failed, replays included. */
  readonly attempts: number
  /** With `onFailure: "parkStream"`, what it has in common with those that are parked behind it: as a rule its stream. */
  readonly key: string | undefined
  /** When it failed for the last time. */
  readonly parkedAt: DateTime.Utc
  /** When it was requeued; undefined if workers leave it alone. */
  readonly requeuedAt: DateTime.Utc | undefined
}

/** The result of a replay. */
export interface Replayed {
  /** Messages that were handled, and are not parked any more. */
  readonly handled: number
  /** Messages whose handler failed again. */
  readonly failed: number
}

/** Which parked messages are read. */
export interface ReadParkedOptions {
  /** Those behind this place: the last one that was read. Default: from the first on. */
  readonly after?: Place | undefined
  /** How many are read at most; 0 or more. Default: all. */
  readonly limit?: number | undefined
}

/** How many parked messages are read at once. */
const pageSize = 100

const toParkedMessage =
  <A>(codec: MessageCodec<A>) => ({ stored, ...entry }: EncodedParkedMessage): ParkedMessage<A> => ({
    ...entry,
    key: entry.key,
    message: stored === undefined
      ? undefined
      : Result.match(decodeRow(codec, stored), { onFailure: () => undefined, onSuccess: ({ message }) => message }),
    stream: stored?.stream,
    version: stored?.version,
    globalPosition: stored?.globalPosition,
    addedAt: stored?.addedAt,
    metadata: stored?.metadata
  })

/** In pages, with no connection held between them. */
const pages = (
  subscribed: SubscriptionStorage,
  first: Place | undefined,
  limit: number
): Stream.Stream<EncodedParkedMessage, SqlError> =>
  Stream.paginate(
    { after: first, left: limit },
    ({ after, left }) =>
      Effect.map(subscribed.parked({ after, limit: Math.min(left, pageSize) }), (entries) => {
        const last = entries.at(-1)
        return [
          entries,
          last !== undefined && entries.length === pageSize && left > pageSize
            ? Option.some({ after: last as Place | undefined, left: left - pageSize })
            : Option.none()
        ]
      })
  )

/** @internal */
export const read = <A>(
  subscribed: SubscriptionStorage,
  codec: MessageCodec<A>,
  { after, limit = Infinity }: ReadParkedOptions = {}
): Stream.Stream<ParkedMessage<A>, InvalidArgumentError | SqlError> =>
  Stream.unwrap(Effect.map(
    Effect.fromResult(Result.all([
      after === undefined ? Result.void : checkPlace(after),
      limit === Infinity ? Result.void : checkWhole("limit", limit, 0)
    ])),
    () => limit === 0 ? Stream.empty : Stream.map(pages(subscribed, after, limit), toParkedMessage(codec))
  ))

/** @internal */
export const list = <A>(
  subscribed: SubscriptionStorage,
  codec: MessageCodec<A>
): Effect.Effect<ReadonlyArray<ParkedMessage<A>>, SqlError> =>
  Effect.map(subscribed.parked({}), (entries) => entries.map(toParkedMessage(codec)))

const checkPlace = ({ partition, position }: Place): Result.Result<Place, InvalidArgumentError> =>
  Result.map(
    Result.all([checkPartition(partition), checkWhole("position", position, 0, maximumPartition)]),
    () => ({ partition, position })
  )

/** @internal */
export const requeue = (
  subscribed: SubscriptionStorage,
  which: ReadonlyArray<Place | string> | undefined
): Effect.Effect<number, InvalidArgumentError | SqlError> =>
  Effect.flatMap(
    Effect.fromResult(Result.all({
      places: Result.all((which ?? []).filter((one) => typeof one !== "string").map(checkPlace)),
      messageIds: Result.all((which ?? []).filter((one) => typeof one === "string").map(checkMessageId))
    })),
    (found) => subscribed.requeue(which === undefined ? undefined : found)
  )

type Replaying<A> = Pick<Delivering<A, never>, "codec" | "metrics" | "options" | "storage" | "subscribed">

/** @internal */
export const replay = Effect.fnUntraced(function*<A, E, R>(
  { codec, metrics, options: { delivery, name }, storage, subscribed }: Replaying<A>,
  handler: Handler<A, E, R>,
  places: ReadonlyArray<Place> | undefined
): Effect.fn.Return<Replayed, SqlError, R> {
  const isTransactional = delivery === "transactional"
  const consume = each(metrics, handler)
  let handled = 0
  let failed = 0
  /** Of messages that were handled, and none behind which has failed. */
  const keys = new Map<string, { readonly partition: number; readonly key: string }>()

  /** Whether it was still parked. */
  const once = (entry: EncodedParkedMessage) => {
    const { attempts, partition, position } = entry
    const unpark = subscribed.unpark(entry, { ifFirst: true })
    const handle = Effect.flatMap(
      Effect.fromResult(decodeParked(codec, entry)),
      (stored) => consume([{ ...stored, partition, position, attempt: attempts + 1 }], () => Effect.succeed(true))
    )
    if (!isTransactional) {
      const handleOnce = Effect.andThen(handle, unpark)
      return entry.key === undefined
        ? handleOnce
        : Effect.flatMap(
          subscribed.isFirstParked(entry),
          (isFirst) => isFirst ? handleOnce : Effect.succeed(false)
        )
    }
    return storage.withTransaction(
      Effect.flatMap(unpark, (isThere) => isThere ? Effect.as(handle, true) : Effect.succeed(false))
    ).pipe(
      // A transaction that the handler has broken fails when it is committed.
      Effect.catchIf(isPermanent, (cause) => Effect.fail(new HandlerFailure({ index: 0, cause })))
    )
  }

  const failedAgain = Effect.fnUntraced(function*(entry: EncodedParkedMessage, cause: unknown) {
    failed++
    keys.delete(JSON.stringify([entry.partition, entry.key]))
    yield* metrics.failed(1)
    const attempts = entry.attempts + 1
    const stream = entry.stored?.stream ?? "?"
    yield* Effect.logWarning(`subscription ${name}: a replayed message failed again`, cause).pipe(
      Effect.annotateLogs(annotationsOf({ ...entry, stream, attempt: attempts, type: typeIn(codec, entry.stored) }))
    )
    // A lost connection is no failure of the handler. A message that was discarded or handled meanwhile stays so.
    if (isConnectionError(cause)) return
    yield* subscribed.park({ ...entry, attempts, error: toFailure(cause) }, { onlyIfParked: true })
  })

  const entries = places === undefined
    ? pages(subscribed, undefined, Infinity)
    : Stream.fromIterableEffect(subscribed.parked({ places, withTheirKeys: true }))
  yield* Stream.runForEach(
    entries,
    Effect.fnUntraced(function*(entry) {
      const result: Result.Result<boolean, ReplayError> = yield* Effect.result(once(entry))
      if (Result.isSuccess(result)) {
        if (!result.success) return
        handled++
        yield* metrics.handled(1)
        const { key, partition } = entry
        if (key !== undefined) keys.set(JSON.stringify([partition, key]), { partition, key })
      } else if (result.failure._tag === "SqlError") return yield* result.failure
      else yield* failedAgain(entry, result.failure._tag === "HandlerFailure" ? result.failure.cause : result.failure)
    })
  )
  // What was parked behind these meanwhile, and waits for nothing any more.
  if (keys.size > 0) yield* subscribed.requeue({ keys: Array.from(keys.values()) })
  return { handled, failed }
})

/** @internal */
export const discard = (
  storage: Storage["Service"],
  subscribed: SubscriptionStorage,
  place: Place
): Effect.Effect<boolean, SqlError> =>
  storage.withTransaction(Effect.gen(function*() {
    const [entry] = yield* subscribed.parked({ places: [place] })
    const isFirst = entry?.key !== undefined && (yield* subscribed.isFirstParked(place))
    const isDiscarded = yield* subscribed.unpark(place)
    if (isDiscarded && isFirst && entry.key !== undefined) {
      yield* subscribed.requeue({ keys: [{ partition: entry.partition, key: entry.key }] })
    }
    return isDiscarded
  }))

type ReplayError = HandlerFailure | BatchStopped | MessageNotFoundError | SerializationError | SqlError

/** @internal */
export const decodeParked = <A>(
  codec: MessageCodec<A>,
  { messageId, stored }: EncodedParkedMessage
): Result.Result<StoredMessage<A>, MessageNotFoundError | SerializationError> =>
  stored === undefined ? Result.fail(new MessageNotFoundError({ messageId })) : decodeRow(codec, stored)
