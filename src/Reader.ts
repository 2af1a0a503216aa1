/**
 * Typed reads: by id, by stream, by pattern.
 *
 * Streams of messages are read in keyset pages: memory stays constant however long they are, and no connection is
 * held while the consumer works.
 */
import { Array as Arr, Effect, Option, Result, Stream } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { checkMessageId, checkPattern, checkStreamName, checkWhole, invalid, maximumVersion } from "./arguments.ts"
import { type InvalidArgumentError, MessageNotFoundError, type SerializationError } from "./errors.ts"
import type { StoredMessage, StreamHead } from "./Message.ts"
import type { MessageCodec } from "./Serializer.ts"
import type { Direction, EncodedStoredMessage, Storage } from "./Storage.ts"

export interface ReadOptions {
  /** The first version that is read, included; 1 or more. Default 1. */
  readonly fromVersion?: number | undefined
  /** The last version that is read, included. Default: to the end, as far as it is when it is reached. */
  readonly toVersion?: number | undefined
  /** `"backward"` begins at `toVersion` and ends at `fromVersion`. Default `"forward"`. */
  readonly direction?: Direction | undefined
  /** How many messages are read at most; 0 or more. Default: all. */
  readonly limit?: number | undefined
}

export interface ReadWildcardOptions {
  /** The first global position that is read, included; 0 or more. Default 0. */
  readonly fromPosition?: number | undefined
  /** The last global position that is read, included. Default: to the end. */
  readonly toPosition?: number | undefined
  /** `"backward"` begins at the end. Default `"forward"`. */
  readonly direction?: Direction | undefined
  /** How many messages are read at most; 0 or more. Default: all. */
  readonly limit?: number | undefined
}

type ReadError = InvalidArgumentError | SerializationError | SqlError

/**
 * One consistent view of a store, for as long as the scope it was made in is open. Inside a transaction it is that
 * transaction's view, its own writes included.
 */
export interface Reader<out A> {
  /** The message of this id. */
  readonly getMessageById: (
    messageId: string
  ) => Effect.Effect<StoredMessage<A>, MessageNotFoundError | ReadError>
  /** The messages of these ids, in the order asked; ids that are not stored are left out. */
  readonly getMessagesByIds: (
    messageIds: ReadonlyArray<string>
  ) => Effect.Effect<ReadonlyArray<StoredMessage<A>>, ReadError>
  /** The messages of one stream, in the order of versions. */
  readonly read: (stream: string, options?: ReadOptions) => Stream.Stream<StoredMessage<A>, ReadError>
  /**
   * The messages of all streams whose names match a LIKE pattern, in the order of global positions: `%` stands for
   * any run of characters, `_` for any one, `\` takes the next one literally.
   */
  readonly readWildcard: (
    pattern: string,
    options?: ReadWildcardOptions
  ) => Stream.Stream<StoredMessage<A>, ReadError>
  /** The last position of a stream; version 0 when it has no message. */
  readonly head: (stream: string) => Effect.Effect<StreamHead, InvalidArgumentError | SqlError>
}

/** Rows fetched at a time. */
const pageSize = 1000

/**
 * @internal
 */
export const make = <A>(storage: Storage["Service"], codec: MessageCodec<A>): Reader<A> => {
  const decodeAll = (rows: ReadonlyArray<EncodedStoredMessage>) => Effect.fromResult(decodeRows(codec, rows))

  const getMessagesByIds = Effect.fnUntraced(function*(messageIds: ReadonlyArray<string>) {
    const wanted = yield* Effect.fromResult(Result.all(messageIds.map(checkMessageId)))
    const found = new Map<string, StoredMessage<A>>()
    for (const chunk of Arr.chunksOf(Arr.dedupe(wanted), pageSize)) {
      for (const stored of yield* decodeAll(yield* storage.readByIds(chunk))) found.set(stored.messageId, stored)
    }
    return Arr.getSomes(wanted.map((id) => Option.fromUndefinedOr(found.get(id))))
  })

  return {
    getMessagesByIds,
    getMessageById: (messageId) =>
      Effect.flatMap(
        getMessagesByIds([messageId]),
        ([stored]) =>
          stored === undefined ? Effect.fail(new MessageNotFoundError({ messageId })) : Effect.succeed(stored)
      ),

    read: (stream, options) =>
      Stream.unwrap(
        Effect.map(Effect.fromResult(checkRead(stream, options)), (range) =>
          pages({
            ...range,
            position: (row) => row.version
          }, (from, to, limit) =>
            Effect.flatMap(
              storage.readStream({ stream, fromVersion: from, toVersion: to, direction: range.direction, limit }),
              decodeAll
            )))
      ),

    readWildcard: (pattern, options) =>
      Stream.unwrap(
        Effect.map(Effect.fromResult(checkReadWildcard(pattern, options)), (range) =>
          pages({
            ...range,
            position: (row) => row.globalPosition
          }, (from, to, limit) =>
            Effect.flatMap(
              storage.readPattern({ pattern, fromPosition: from, toPosition: to, direction: range.direction, limit }),
              decodeAll
            )))
      ),

    head: (stream) => Effect.flatMap(Effect.fromResult(checkStreamName(stream)), storage.head)
  }
}

/** The same reads, each in the view of a snapshot. */
export const inSnapshot = <A>(
  storage: Storage["Service"],
  codec: MessageCodec<A>
) =>
  Effect.map(storage.snapshot, (within) =>
    make({
      ...storage,
      readStream: (page) => within(storage.readStream(page)),
      readPattern: (page) => within(storage.readPattern(page)),
      readByIds: (messageIds) => within(storage.readByIds(messageIds)),
      head: (stream) => within(storage.head(stream))
    }, codec))

interface Range {
  readonly from: number
  readonly to: number
  readonly direction: Direction
  readonly limit: number
}

/** Keyset pages: each begins beyond the last row of the one before. A page that is not full is the last. */
const pages = <A, E>(
  range: Range & { readonly position: (row: StoredMessage<A>) => number },
  fetch: (from: number, to: number, limit: number) => Effect.Effect<ReadonlyArray<StoredMessage<A>>, E>
): Stream.Stream<StoredMessage<A>, E> =>
  Stream.paginate(range, ({ direction, from, limit, position, to }) => {
    const size = Math.min(limit, pageSize)
    if (size === 0 || from > to) return Effect.succeed([[], Option.none()] as const)
    return Effect.map(fetch(from, to, size), (rows) => {
      const last = rows.at(-1)
      if (last === undefined || rows.length < size) return [rows, Option.none()] as const
      const next = direction === "forward" ? { from: position(last) + 1, to } : { from, to: position(last) - 1 }
      return [rows, Option.some({ ...next, direction, limit: limit - rows.length, position })] as const
    })
  })

const checkRead = (stream: string, options: ReadOptions = {}): Result.Result<Range, InvalidArgumentError> =>
  Result.gen(function*() {
    yield* checkStreamName(stream)
    return {
      from: yield* checkWhole("fromVersion", options.fromVersion ?? 1, 1, maximumVersion),
      to: yield* checkWhole("toVersion", options.toVersion ?? maximumVersion, 0, maximumVersion),
      direction: yield* checkDirection(options.direction),
      limit: options.limit === undefined ? Infinity : yield* checkWhole("limit", options.limit, 0)
    }
  })

const checkReadWildcard = (
  pattern: string,
  options: ReadWildcardOptions = {}
): Result.Result<Range, InvalidArgumentError> =>
  Result.gen(function*() {
    yield* checkPattern(pattern)
    return {
      from: yield* checkWhole("fromPosition", options.fromPosition ?? 0, 0),
      to: yield* checkWhole("toPosition", options.toPosition ?? Number.MAX_SAFE_INTEGER, 0),
      direction: yield* checkDirection(options.direction),
      limit: options.limit === undefined ? Infinity : yield* checkWhole("limit", options.limit, 0)
    }
  })

const checkDirection = (direction: Direction = "forward"): Result.Result<Direction, InvalidArgumentError> =>
  direction === "forward" || direction === "backward"
    ? Result.succeed(direction)
    : invalid("direction", "must be \"forward\" or \"backward\"")

const decodeRows = <A>(
  codec: MessageCodec<A>,
  rows: ReadonlyArray<EncodedStoredMessage>
): Result.Result<ReadonlyArray<StoredMessage<A>>, SerializationError> => {
  const messages: Array<StoredMessage<A>> = []
  for (const { data, ...place } of rows) {
    const message = codec.decode(data, { stream: place.stream, version: place.version, messageId: place.messageId })
    if (Result.isFailure(message)) return Result.fail(message.failure)
    messages.push({ ...place, message: message.success })
  }
  return Result.succeed(messages)
}
