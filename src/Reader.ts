/**
 * Typed reads: by id, by stream, by pattern.
 *
 * Streams of messages are read in keyset pages: memory stays constant however long they are. What is read from a store
 * holds no connection while the consumer works; a `reader` holds one until its scope closes.
 */
import { Array as Arr, Effect, Fiber, Option, Result, Stream } from "effect"
import type { Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { type InvalidArgumentError, MessageNotFoundError, type SerializationError } from "./errors.ts"
import {
  checkMessageId,
  checkPattern,
  checkStreamName,
  checkWhole,
  invalid,
  maximumVersion
} from "./internal/checks.ts"
import type { StoredMessage, StreamHead } from "./Message.ts"
import type { MessageCodec } from "./Serializer.ts"
import type { Direction, EncodedStoredMessage, Page, Storage } from "./Storage.ts"

/** Which messages of a stream are read, and in which direction. */
export interface ReadOptions {
  /** The first version that is read, included; 1 or more. Default 1. */
  readonly fromVersion?: number | undefined
  /** The last version that is read, included; 0 or more. Default: the end of the stream, as it is when it is reached. */
  readonly toVersion?: number | undefined
  /** `"backward"` begins at `toVersion` and ends at `fromVersion`. Default `"forward"`. */
  readonly direction?: Direction | undefined
  /** How many messages are read at most; 0 or more. Default: all. */
  readonly limit?: number | undefined
}

/** Which messages of several streams are read, and in which direction. */
export interface ReadWildcardOptions {
  /** The first global position that is read, included; 0 or more. Default 0. */
  readonly fromGlobalPosition?: number | undefined
  /** The last global position that is read, included; 0 or more. Default: the end. */
  readonly toGlobalPosition?: number | undefined
  /** `"backward"` begins at the end. Default `"forward"`. */
  readonly direction?: Direction | undefined
  /** How many messages are read at most; 0 or more. Default: all. */
  readonly limit?: number | undefined
}

/** Why reading may fail: a bad argument, a stored message that does not decode, the database. */
export type ReadError = InvalidArgumentError | SerializationError | SqlError

/**
 * One consistent view of a store, for as long as the scope it was made in is open. Inside a transaction it is that
 * transaction's view, its own writes included: at READ COMMITTED, each page sees what has been committed by then.
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
   *
   * **Gotchas**
   *
   * This is no way to follow a store: a transaction may commit late, at global positions below the last one that was
   * read. Aggregated streams are made for that.
   */
  readonly readWildcard: (
    pattern: string,
    options?: ReadWildcardOptions
  ) => Stream.Stream<StoredMessage<A>, ReadError>
  /** The last position of a stream; version 0 when it has no message. */
  readonly head: (stream: string) => Effect.Effect<StreamHead, InvalidArgumentError | SqlError>
}

/** Messages fetched at a time, at most: a backend sends less where they are large. */
const pageSize = 1000

/** Messages decoded at a time. In between, the socket is read: the server sends the next page meanwhile. */
const sliceSize = 250

/**
 * @internal
 */
export const make = <A>(storage: Storage["Service"], codec: MessageCodec<A>): Reader<A> => {
  const getMessagesByIds = Effect.fnUntraced(function*(messageIds: ReadonlyArray<string>) {
    const wanted = yield* Effect.fromResult(Result.all(messageIds.map(checkMessageId)))
    const found = new Map<string, StoredMessage<A>>()
    for (const chunk of Arr.chunksOf(Arr.dedupe(wanted), pageSize)) {
      const decoded = yield* Effect.fromResult(decodeAll(codec, yield* storage.readByIds(chunk)))
      for (const stored of decoded) found.set(stored.messageId, stored)
    }
    return Arr.getSomes(wanted.map((id) => Option.fromUndefinedOr(found.get(id))))
  })

  const decodeSlice = (rows: Arr.NonEmptyReadonlyArray<EncodedStoredMessage>) => {
    const decoded = Effect.suspend(() => Effect.fromResult(decodeAll(codec, rows))) as Effect.Effect<
      Arr.NonEmptyReadonlyArray<StoredMessage<A>>, // as many as there are rows
      SerializationError
    >
    return rows.length < sliceSize ? decoded : Effect.andThen(Effect.yieldNow, decoded)
  }

  /** Keyset pages: each begins beyond the last message of the one before. */
  const pages = (
    given: Range,
    position: (message: EncodedStoredMessage) => number,
    fetch: (range: Range) => Effect.Effect<Page, SqlError>
  ): Stream.Stream<StoredMessage<A>, SerializationError | SqlError> =>
    Stream.unwrap(Effect.gen(function*() {
      const scope = yield* Effect.scope
      // The next page is fetched while this one is decoded and consumed. Not in a transaction: a consumer that stops
      // would cancel the statement, and with it the transaction.
      const ahead = !(yield* storage.inTransaction)
      const fetchPage = (range: Range) => fetch({ ...range, limit: Math.min(range.limit, pageSize) })
      const first = { range: given, page: fetchPage(given) }

      return Stream.paginate(
        first,
        Effect.fnUntraced(function*({ page, range }) {
          if (range.limit === 0 || range.from > range.to) return [[], Option.none()] as const
          const { messages, more } = yield* page
          const slices = Arr.chunksOf(messages, sliceSize)
          const last = messages.at(-1)
          const left = range.limit - messages.length
          if (last === undefined || !more || left === 0) return [slices, Option.none()] as const
          const next = range.direction === "forward"
            ? { ...range, from: position(last) + 1, limit: left }
            : { ...range, to: position(last) - 1, limit: left }
          const fetching = ahead && next.from <= next.to
            // at once: while this page is decoded, no other fiber would start
            ? Fiber.join(yield* Effect.forkIn(fetchPage(next), scope, { startImmediately: true }))
            : fetchPage(next)
          return [slices, Option.some({ range: next, page: fetching })] as const
        })
      ).pipe(Stream.mapEffect(decodeSlice), Stream.flattenArray)
    }))

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
          pages(range, (message) =>
            message.version, ({ direction, from, limit, to }) =>
            storage.readStream({ stream, fromVersion: from, toVersion: to, direction, limit })))
      ),
    readWildcard: (pattern, options) =>
      Stream.unwrap(
        Effect.map(Effect.fromResult(checkReadWildcard(pattern, options)), (range) =>
          pages(range, (message) =>
            message.globalPosition, ({ direction, from, limit, to }) =>
            storage.readPattern({ pattern, fromPosition: from, toPosition: to, direction, limit })))
      ),
    head: (stream) => Effect.flatMap(Effect.fromResult(checkStreamName(stream)), storage.head)
  }
}

/**
 * The same reads, each in the view of a snapshot.
 *
 * @internal
 */
export const inSnapshot = <A>(
  storage: Storage["Service"],
  codec: MessageCodec<A>
): Effect.Effect<Reader<A>, SqlError, Scope.Scope> =>
  Effect.map(storage.snapshot, (within) =>
    make({
      ...storage,
      readStream: (query) => within(storage.readStream(query)),
      readPattern: (query) => within(storage.readPattern(query)),
      readByIds: (messageIds) => within(storage.readByIds(messageIds)),
      head: (stream) => within(storage.head(stream)),
      inTransaction: Effect.succeed(true) // a snapshot is one: pages are not fetched ahead
    }, codec))

interface Range {
  readonly from: number
  readonly to: number
  readonly direction: Direction
  readonly limit: number
}

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
      from: yield* checkWhole("fromGlobalPosition", options.fromGlobalPosition ?? 0, 0),
      to: yield* checkWhole("toGlobalPosition", options.toGlobalPosition ?? Number.MAX_SAFE_INTEGER, 0),
      direction: yield* checkDirection(options.direction),
      limit: options.limit === undefined ? Infinity : yield* checkWhole("limit", options.limit, 0)
    }
  })

const checkDirection = (direction: Direction = "forward"): Result.Result<Direction, InvalidArgumentError> =>
  direction === "forward" || direction === "backward"
    ? Result.succeed(direction)
    : invalid("direction", "must be \"forward\" or \"backward\"")

/** @internal */
export const decodeRow = <A>(
  codec: MessageCodec<A>,
  row: EncodedStoredMessage
): Result.Result<StoredMessage<A>, SerializationError> => {
  const message = codec.decode(row.data, row)
  if (Result.isFailure(message)) return Result.fail(message.failure)
  return Result.succeed({
    stream: row.stream,
    version: row.version,
    globalPosition: row.globalPosition,
    messageId: row.messageId,
    addedAt: row.addedAt,
    message: message.success,
    metadata: row.metadata
  })
}

const decodeAll = <A>(
  codec: MessageCodec<A>,
  rows: ReadonlyArray<EncodedStoredMessage>
): Result.Result<ReadonlyArray<StoredMessage<A>>, SerializationError> => {
  // A plain loop: this runs for every message.
  const messages: Array<StoredMessage<A>> = []
  for (const row of rows) {
    const stored = decodeRow(codec, row)
    if (Result.isFailure(stored)) return Result.fail(stored.failure)
    messages.push(stored.success)
  }
  return Result.succeed(messages)
}
