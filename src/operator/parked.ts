/** Dead letters: looked at, handled again, or given up. */
import { Effect, Result } from "effect"
import type { DateTime } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import { alike } from "../internal/alike.ts"
import { checkMessageId, checkPartition, checkWhole, invalid, maximumPartition } from "../internal/checks.ts"
import type {
  EncodedParkedMessage,
  Failure,
  OperatorStorage,
  ParkedError,
  PartitionHead,
  Storage,
  SubscriptionStorage
} from "../Storage.ts"
import { discard, type Place } from "../subscription/parked.ts"
import { type Message, toMessage, type TypeOf } from "./messages.ts"
import type { Opened, OperatorError } from "./opened.ts"
import { checkLimit, type Page, type PageOptions, partsCursor } from "./page.ts"

/** Errors that are alike, in all but numbers and ids: of a {@link ParkedError}, or of a parked message. */
export interface ErrorKind {
  readonly tag: string
  readonly message: string
}

/** A parked message. */
export interface ParkedMessage extends Place {
  readonly messageId: string
  /** Undefined if the store no longer has it. */
  readonly message: Message | undefined
  /** The last failure, with its causes. */
  readonly error: Failure
  readonly attempts: number
  /** What it has in common with those that are parked behind it. */
  readonly key: string | undefined
  readonly parkedAt: DateTime.Utc
  /** When it was requeued; undefined if workers leave it alone. */
  readonly requeuedAt: DateTime.Utc | undefined
}

/** Asks for parked messages, in the order of partitions and positions. */
export interface ParkedOptions extends PageOptions {
  /** Those whose last failure is like this. */
  readonly error?: ErrorKind | undefined
}

/** Which parked messages are meant: all that one of these names. */
export interface WhichParked {
  readonly places?: ReadonlyArray<Place> | undefined
  readonly messageIds?: ReadonlyArray<string> | undefined
  /** Those whose last failure is like this. */
  readonly error?: ErrorKind | undefined
}

/** Of one page, when many are meant. */
const pageSize = 500

const isPlace = (parts: unknown): parts is readonly [number, number] =>
  Array.isArray(parts) && parts.length === 2 && parts.every((part) => Result.isSuccess(checkPartition(part)))

const checkPlace = ({ partition, position }: Place): Result.Result<Place, InvalidArgumentError> =>
  Result.map(
    Result.all([checkPartition(partition), checkWhole("position", position, 0, maximumPartition)]),
    () => ({ partition, position })
  )

const checkKind = (error: ErrorKind | undefined): Result.Result<ErrorKind | undefined, InvalidArgumentError> =>
  error === undefined || [error.tag, error.message].every((text) => !text.includes("\0") && text.isWellFormed())
    ? Result.succeed(error && { tag: error.tag, message: alike(error.message) })
    : invalid("error", "must be text without NUL and lone surrogates, as those of parked messages are")

const checkWhich = ({ error, messageIds = [], places = [] }: WhichParked) =>
  Result.flatMap(
    Result.all({
      places: Result.all(places.map(checkPlace)),
      messageIds: Result.all(messageIds.map(checkMessageId)),
      error: checkKind(error)
    }),
    (checked) =>
      checked.places.length === 0 && checked.messageIds.length === 0 && error === undefined
        ? invalid("which", "must name places, message ids or an error")
        : Result.succeed(checked)
  )

/** The places of those that are meant, page by page. */
const placesOf = Effect.fnUntraced(function*(
  subscribed: SubscriptionStorage,
  { error, messageIds, places }: Result.Result.Success<ReturnType<typeof checkWhich>>
) {
  const ids = new Set(messageIds)
  const found: Array<PartitionHead> = [...places]
  if (ids.size === 0 && error === undefined) return found
  let after: PartitionHead | undefined
  while (true) {
    const entries: ReadonlyArray<EncodedParkedMessage> = yield* subscribed.parked({
      after,
      limit: pageSize,
      error: ids.size === 0 ? error : undefined
    })
    for (const entry of entries) {
      const isLike = error !== undefined && entry.error.tag === error.tag &&
        alike(entry.error.message) === error.message
      if (isLike || ids.has(entry.messageId)) found.push({ partition: entry.partition, position: entry.position })
    }
    after = entries.at(-1)
    if (entries.length < pageSize) return found
  }
})

export const make = (storage: Storage["Service"], operator: OperatorStorage, opened: Opened, typeOf: TypeOf) => {
  const toParked = ({ stored, ...entry }: EncodedParkedMessage): ParkedMessage => ({
    ...entry,
    key: entry.key,
    message: stored && toMessage(typeOf)(stored)
  })

  return {
    parked: Effect.fnUntraced(function*(
      subscription: string,
      { cursor, error, limit }: ParkedOptions = {}
    ): Effect.fn.Return<Page<ParkedMessage>, OperatorError> {
      const checked = yield* Effect.fromResult(Result.all({
        after: partsCursor(cursor, isPlace),
        limit: checkLimit(limit),
        error: checkKind(error)
      }))
      const { subscribed } = yield* opened.subscription(subscription)
      const [partition, position] = checked.after ?? []
      const entries = yield* subscribed.parked({
        after: partition === undefined || position === undefined ? undefined : { partition, position },
        error: checked.error,
        limit: checked.limit
      })
      const last = entries.at(-1)
      return {
        items: entries.map(toParked),
        next: entries.length === checked.limit && last !== undefined
          ? JSON.stringify([last.partition, last.position])
          : undefined
      }
    }),

    parkedErrors: Effect.fnUntraced(function*(
      subscription: string,
      options: Pick<PageOptions, "limit"> = {}
    ): Effect.fn.Return<ReadonlyArray<ParkedError>, OperatorError> {
      const limit = yield* Effect.fromResult(checkLimit(options.limit))
      const { consumer } = yield* opened.subscription(subscription)
      return yield* operator.parkedErrors(consumer, limit)
    }),

    requeue: Effect.fnUntraced(function*(
      subscription: string,
      which?: WhichParked
    ): Effect.fn.Return<number, OperatorError> {
      const checked = which === undefined ? undefined : yield* Effect.fromResult(checkWhich(which))
      const { subscribed } = yield* opened.subscription(subscription)
      if (checked === undefined) return yield* subscribed.requeue(undefined)
      const { messageIds, places } = checked.error === undefined
        ? checked
        : { messageIds: checked.messageIds, places: yield* placesOf(subscribed, { ...checked, messageIds: [] }) }
      return places.length === 0 && messageIds.length === 0 ? 0 : yield* subscribed.requeue({ messageIds, places })
    }),

    discard: Effect.fnUntraced(function*(
      subscription: string,
      which: WhichParked
    ): Effect.fn.Return<number, OperatorError> {
      const checked = yield* Effect.fromResult(checkWhich(which))
      const { subscribed } = yield* opened.subscription(subscription)
      let count = 0
      for (const place of yield* placesOf(subscribed, checked)) {
        if (yield* discard(storage, subscribed, place)) count++
      }
      return count
    })
  }
}
