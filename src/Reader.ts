/**
 * Typed reads: by id, by stream, by pattern.
 *
 * Streams of messages are read in keyset pages: memory stays constant however long they are. What is read from a store
 * holds no connection while the consumer works; a `reader` holds one until its scope closes.
 */
import { Array as Arr, Effect, Option, Result, Stream } from "effect"
import type { Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import {
  type InvalidArgumentError,
  MessageNotFoundError,
  type PersonalDataError,
  SerializationError,
  type TagsIncompleteError
} from "./errors.ts"
import {
  checkMessageId,
  checkPattern,
  checkStreamName,
  checkWhole,
  invalid,
  maximumVersion
} from "./internal/checks.ts"
import * as Pages from "./internal/pages.ts"
import { checkQueries } from "./internal/tags.ts"
import type { StoredMessage, StreamHead, TaggedMessage, Tags } from "./Message.ts"
import type { MessageCodec } from "./Serializer.ts"
import type {
  Direction,
  EncodedSnapshot,
  EncodedStoredMessage,
  Ends,
  Page,
  SnapshotKey,
  Storage,
  StreamQuery,
  TaggedQuery,
  TagQuery
} from "./Storage.ts"

/** Whether messages are read with their tags. */
export interface TagsOption {
  /**
   * Whether each message has its `tags`, as the schema declares them. Default `false`. A message that could not be written
   * with its tags today (too many, or too long) has none, and is not found by any.
   */
  readonly tags?: boolean | undefined
}

/** Which messages of a stream are read, and in which direction. */
export interface ReadOptions extends TagsOption {
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
export interface ReadWildcardOptions extends TagsOption {
  /** The first global position that is read, included; 0 or more. Default 0. */
  readonly fromGlobalPosition?: number | undefined
  /** The last global position that is read, included; 0 or more. Default: the end. */
  readonly toGlobalPosition?: number | undefined
  /** `"backward"` begins at the end. Default `"forward"`. */
  readonly direction?: Direction | undefined
  /** How many messages are read at most; 0 or more. Default: all. */
  readonly limit?: number | undefined
}

/** Which messages of given tags are read, and in which direction. */
export interface ReadTaggedOptions<Type extends string = string> extends ReadWildcardOptions {
  /** Which types of messages are read. Default: all that have the tags. */
  readonly types?: Arr.NonEmptyReadonlyArray<Type> | undefined
}

/** Asks for messages with their tags. */
export interface WithTags {
  readonly tags: true
}

/** The messages of these types. */
export type OfType<A, Type extends string> = string extends Type ? A : Extract<A, { readonly _tag: Type }>

/** Why reading may fail: a bad argument, a stored message that does not decode, the database. */
export type ReadError = InvalidArgumentError | SerializationError | SqlError

/** Why reading by tags may fail. */
export type ReadTaggedError = ReadError | TagsIncompleteError

/**
 * One consistent view of a store, for as long as the scope it was made in is open. Inside a transaction it is that
 * transaction's view, its own writes included: at READ COMMITTED, each page sees what has been committed by then.
 */
export interface Reader<out A> {
  /** The message of this id. */
  readonly getMessageById: {
    (messageId: string, options: WithTags): Effect.Effect<TaggedMessage<A>, MessageNotFoundError | ReadError>
    (messageId: string, options?: TagsOption): Effect.Effect<StoredMessage<A>, MessageNotFoundError | ReadError>
  }
  /** The messages of these ids, in the order asked; ids that are not stored are left out. */
  readonly getMessagesByIds: {
    (messageIds: ReadonlyArray<string>, options: WithTags): Effect.Effect<ReadonlyArray<TaggedMessage<A>>, ReadError>
    (messageIds: ReadonlyArray<string>, options?: TagsOption): Effect.Effect<ReadonlyArray<StoredMessage<A>>, ReadError>
  }
  /** The messages of one stream, in the order of versions. */
  readonly read: {
    (stream: string, options: ReadOptions & WithTags): Stream.Stream<TaggedMessage<A>, ReadError>
    (stream: string, options?: ReadOptions): Stream.Stream<StoredMessage<A>, ReadError>
  }
  /**
   * The messages of all streams whose names match a LIKE pattern, in the order of global positions: `%` stands for
   * any run of characters, `_` for any one, `\` takes the next one literally.
   *
   * **Gotchas**
   *
   * Do not follow a store by reading on from the last global position: a transaction may commit late, at positions below it.
   * Aggregated streams are made for that.
   */
  readonly readWildcard: {
    (pattern: string, options: ReadWildcardOptions & WithTags): Stream.Stream<TaggedMessage<A>, ReadError>
    (pattern: string, options?: ReadWildcardOptions): Stream.Stream<StoredMessage<A>, ReadError>
  }
  /**
   * The messages that have all of these tags, in the order of global positions. Given several sets of tags, those that have
   * all tags of at least one set. It reads what there is when it begins, in one consistent view. Fails with
   * `TagsIncompleteError` while it would miss messages that were stored before their tags were declared.
   */
  readonly readTagged: {
    <const Type extends string = string>(
      tags: Tags | Arr.NonEmptyReadonlyArray<Tags>,
      options: ReadTaggedOptions<Type> & WithTags
    ): Stream.Stream<TaggedMessage<OfType<A, Type>>, ReadTaggedError>
    <const Type extends string = string>(
      tags: Tags | Arr.NonEmptyReadonlyArray<Tags>,
      options?: ReadTaggedOptions<Type>
    ): Stream.Stream<StoredMessage<OfType<A, Type>>, ReadTaggedError>
  }
  /** The last position of a stream; version 0 when it has no message. */
  readonly head: (stream: string) => Effect.Effect<StreamHead, InvalidArgumentError | SqlError>
}

/**
 * Where the first tags of queries end.
 *
 * @internal
 */
export type TagEnds = Pick<Ends, "tags" | "editions">

/**
 * What the store itself reads with.
 *
 * @internal
 */
export interface Internal<out A> extends Reader<A> {
  /**
   * Of each query the messages up to its last position; if none has one, up to where its first tag ends: that is told before
   * any message is.
   */
  readonly readQueries: (
    queries: TaggedQuery["queries"],
    ended?: (ends: TagEnds) => void
  ) => Stream.Stream<StoredMessage<A>, SerializationError | SqlError>
  /**
   * The messages of a stream. Of each page that is not empty `begins` is told in which edition of the stream it was read. The first
   * one may have a snapshot that its messages stand behind: if that is not taken, it is read again without.
   */
  readonly readEditions: (
    stream: string,
    options: Pick<ReadOptions, "fromVersion" | "toVersion">,
    snapshot: SnapshotKey | undefined,
    begins: (edition: number, snapshot: EncodedSnapshot | undefined) => boolean
  ) => Stream.Stream<StoredMessage<A>, ReadError>
}

/**
 * Refuses queries whose messages are not all found by their tags yet, by what is declared in a view of the store.
 *
 * @internal
 */
export interface RequireTags {
  (
    queries: ReadonlyArray<TagQuery>,
    declaredTags: Storage["Service"]["declaredTags"]
  ): Effect.Effect<void, TagsIncompleteError | SqlError>
}

/** How many messages are asked for by their ids at a time. */
const idsAtATime = 1000

/**
 * @internal
 */
export const make = <A>(
  storage: Storage["Service"],
  codec: MessageCodec<A>,
  requireTags: RequireTags
): Internal<A> => {
  const plain = (row: EncodedStoredMessage) => decodeRow(codec, row)
  const withTags = (row: EncodedStoredMessage): Result.Result<TaggedMessage<A>, SerializationError> =>
    Result.map(plain(row), (stored) => ({ ...stored, tags: Result.getOrElse(codec.tagsOf(stored.message), () => []) }))
  // The overloads of the reads promise tags only where they are asked for.
  const decoding = (options: TagsOption | undefined) => (options?.tags === true ? withTags : plain) as typeof withTags

  const getMessagesByIds = Effect.fnUntraced(function*(messageIds: ReadonlyArray<string>, options?: TagsOption) {
    const wanted = yield* Effect.fromResult(Result.all(messageIds.map(checkMessageId)))
    const found = new Map<string, TaggedMessage<A>>()
    for (const chunk of Arr.chunksOf(Arr.dedupe(wanted), idsAtATime)) {
      const decoded = yield* Effect.fromResult(Pages.decodeAll(yield* storage.readByIds(chunk), decoding(options)))
      for (const stored of decoded) found.set(stored.messageId, stored)
    }
    return Arr.getSomes(wanted.map((id) => Option.fromUndefinedOr(found.get(id))))
  })

  const pages = <E = never>(
    range: Pages.Range,
    options: TagsOption | undefined,
    position: (message: EncodedStoredMessage) => number,
    fetch: (range: Pages.Range) => Effect.Effect<Page, SqlError | E>
  ) => Pages.read({ range, position, fetch, decode: decoding(options), inTransaction: storage.inTransaction })

  const readStream =
    (stream: string, asked?: Pick<StreamQuery, "snapshot" | "withEdition">) =>
    ({ direction, from, limit, to }: Pages.Range): Effect.Effect<Page, SqlError> =>
      storage.readStream({ ...asked, stream, fromVersion: from, toVersion: to, direction, limit })

  /** The first page tells where the tags end, unless that is given; the next ones are read up to there. */
  const tagged = <E = never>(
    given: TaggedQuery["queries"],
    range: Pages.Range,
    options?: TagsOption,
    ended: (ends: TagEnds) => Effect.Effect<void, E> = () => Effect.void
  ) =>
    Stream.suspend(() => {
      let queries = given
      return pages(
        range,
        options,
        (message) => message.globalPosition,
        ({ direction, from, limit, to }) =>
          Effect.flatMap(
            storage.readTagged({ queries, fromPosition: from, toPosition: to, direction, limit }),
            (page) => {
              const { ends } = page
              if (ends === undefined) return Effect.succeed(page)
              queries = Arr.map(given, (query, i) => ({ ...query, upTo: ends.tags[i] ?? 0 }))
              return Effect.as(ended(ends), page)
            }
          )
      )
    })

  return {
    getMessagesByIds,
    getMessageById: (messageId: string, options?: TagsOption) =>
      Effect.flatMap(
        getMessagesByIds([messageId], options),
        ([stored]) =>
          stored === undefined ? Effect.fail(new MessageNotFoundError({ messageId })) : Effect.succeed(stored)
      ),
    read: (stream: string, options?: ReadOptions) =>
      whereValid(
        checkRead(stream, options),
        (range) => pages(range, options, (message) => message.version, readStream(stream))
      ),
    readEditions: (stream, options, snapshot, begins) =>
      whereValid(checkRead(stream, options), (all) => {
        const read = readStream(stream, { withEdition: true })
        const first = snapshot === undefined ? read : readStream(stream, { snapshot, withEdition: true })
        return pages(all, undefined, (message) =>
          message.version, (range) =>
          Effect.flatMap((range.from > all.from ? read : first)(range), (page) =>
            page.edition === undefined || begins(page.edition, page.snapshot) ? Effect.succeed(page) : read(range)))
      }),
    readWildcard: (pattern: string, options?: ReadWildcardOptions) =>
      whereValid(
        checkReadWildcard(pattern, options),
        (range) =>
          pages(range, options, (message) =>
            message.globalPosition, ({ direction, from, limit, to }) =>
            storage.readPattern({ pattern, fromPosition: from, toPosition: to, direction, limit }))
      ),
    readTagged: <Type extends string>(
      tags: Tags | Arr.NonEmptyReadonlyArray<Tags>,
      options: ReadTaggedOptions<Type> = {}
    ) =>
      Stream.unwrap(Effect.gen(function*() {
        const queries = yield* Effect.fromResult(checkQueries(codec.tags, tags, options.types))
        const range = yield* Effect.fromResult(checkPositions(options))
        yield* requireTags(queries, storage.declaredTags)
        // Once more behind the first page: another server may have answered.
        return tagged(queries, range, options, () => requireTags(queries, storage.declaredTags))
      })) as Stream.Stream<TaggedMessage<OfType<A, Type>>, ReadTaggedError>, // as the query says
    readQueries: (queries, ended) =>
      tagged(queries, allPositions, undefined, ended && ((ends) => Effect.sync(() => ended(ends)))),
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
  codec: MessageCodec<A>,
  requireTags: RequireTags
): Effect.Effect<Reader<A>, SqlError, Scope.Scope> =>
  Effect.map(storage.snapshot, (within) =>
    make(
      {
        ...storage,
        readStream: (query) => within(storage.readStream(query)),
        readPattern: (query) => within(storage.readPattern(query)),
        readTagged: (query) => within(storage.readTagged(query)),
        ends: (streams, tags) => within(storage.ends(streams, tags)),
        declaredTags: within(storage.declaredTags),
        readByIds: (messageIds) => within(storage.readByIds(messageIds)),
        head: (stream) => within(storage.head(stream)),
        inTransaction: Effect.succeed(true) // a snapshot is one: pages are not fetched ahead
      },
      codec,
      requireTags
    ))

const whereValid = <A, E>(
  range: Result.Result<Pages.Range, InvalidArgumentError>,
  read: (range: Pages.Range) => Stream.Stream<A, E>
): Stream.Stream<A, E | InvalidArgumentError> =>
  Result.isFailure(range) ? Stream.fail(range.failure) : read(range.success)

const allPositions: Pages.Range = { from: 0, to: Number.MAX_SAFE_INTEGER, direction: "forward", limit: Infinity }

const checkRead = (stream: string, options: ReadOptions = {}): Result.Result<Pages.Range, InvalidArgumentError> =>
  Result.flatMap(checkStreamName(stream), () =>
    Result.all({
      from: checkWhole("fromVersion", options.fromVersion ?? 1, 1, maximumVersion),
      to: checkWhole("toVersion", options.toVersion ?? maximumVersion, 0, maximumVersion),
      direction: checkDirection(options.direction),
      limit: checkLimit(options.limit)
    }))

const checkReadWildcard = (
  pattern: string,
  options: ReadWildcardOptions = {}
): Result.Result<Pages.Range, InvalidArgumentError> =>
  Result.flatMap(checkPattern(pattern), () => checkPositions(options))

const checkPositions = (options: ReadWildcardOptions): Result.Result<Pages.Range, InvalidArgumentError> =>
  Result.all({
    from: checkWhole("fromGlobalPosition", options.fromGlobalPosition ?? 0, 0),
    to: checkWhole("toGlobalPosition", options.toGlobalPosition ?? Number.MAX_SAFE_INTEGER, 0),
    direction: checkDirection(options.direction),
    limit: checkLimit(options.limit)
  })

const checkLimit = (limit: number | undefined): Result.Result<number, InvalidArgumentError> =>
  limit === undefined ? Result.succeed(Infinity) : checkWhole("limit", limit, 0)

const checkDirection = (direction: Direction = "forward"): Result.Result<Direction, InvalidArgumentError> =>
  direction === "forward" || direction === "backward"
    ? Result.succeed(direction)
    : invalid("direction", "must be \"forward\" or \"backward\"")

/** @internal */
export const decodeRow = <A>(
  codec: MessageCodec<A>,
  row: EncodedStoredMessage
): Result.Result<StoredMessage<A>, SerializationError> => {
  if (row.oversize !== undefined) return Result.fail(tooLarge(row, row.oversize))
  if (row.unreadable !== undefined) return Result.fail(undecipherable(row, row.unreadable))
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

const undecipherable = (
  { messageId, stream, version }: EncodedStoredMessage,
  cause: PersonalDataError
): SerializationError =>
  new SerializationError({ operation: "deserialize", reason: cause.message, stream, version, messageId, cause })

const tooLarge = ({ messageId, stream, version }: EncodedStoredMessage, bytes: number): SerializationError => {
  const reason = `it has ${bytes} bytes as the database prints it, more than the client reads at once (maxMessageSize)`
  return new SerializationError({ operation: "deserialize", reason, stream, version, messageId })
}
