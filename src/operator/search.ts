/**
 * Searches for messages, for as long as whoever asks is ready to wait: then it tells how far it has come, and goes on there
 * when it is asked again.
 */
import { DateTime, Duration, Effect, Predicate, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import {
  checkDuration,
  checkPattern,
  checkStreamName,
  checkText,
  checkWhole,
  earliestTime,
  invalid,
  optional
} from "../internal/checks.ts"
import * as Moment from "../internal/moment.ts"
import { maximumTags } from "../internal/tags.ts"
import type { EncodedStoredMessage, OperatorStorage, SearchQuery } from "../Storage.ts"
import { type Message, toMessage, type TypeOf } from "./messages.ts"
import { checkLimit, numberCursor, type Page, type PageOptions } from "./page.ts"

/** What is searched for: messages that all of this is true of. */
export interface SearchOptions extends PageOptions {
  /** The name of a stream: its messages are looked at in the order of versions. */
  readonly stream?: string | undefined
  /** A LIKE pattern of names of streams: `%` any run of characters, `_` any one, `\` the next one literally. */
  readonly pattern?: string | undefined
  /** The name of their type, as it is stored. */
  readonly type?: string | undefined
  /** Tags that they have, all of them, as `name:value`: 32 at most, as messages have. */
  readonly tags?: ReadonlyArray<string> | undefined
  /** Of their metadata. */
  readonly correlationId?: string | undefined
  /** Of their metadata. */
  readonly causationId?: string | undefined
  /**
   * When they were added, bounds included. What a transaction has added that was open for more than an hour may be left
   * out.
   */
  readonly fromTime?: DateTime.DateTime | undefined
  readonly toTime?: DateTime.DateTime | undefined
  /** Their global positions, bounds included. */
  readonly fromPosition?: number | undefined
  readonly toPosition?: number | undefined
  /** Default `"backward"`: the newest first. */
  readonly direction?: "forward" | "backward" | undefined
  /**
   * For how long it searches, if it does not find enough: then the page has what was found, and `next` to go on. Default 2
   * seconds, at most 1 minute. At least one look is taken.
   */
  readonly timeLimit?: Duration.Input | undefined
}

/** A page of messages that were found; it may be empty, and others may be behind it. */
export interface Found extends Page<Message> {
  /**
   * Where the search has come to, while `next` leads on: a global position, or, of one stream, a version. Undefined: it has
   * looked at everything.
   */
  readonly reached: number | undefined
}

/** How many messages one statement looks at: at first, at least, and at most. */
const firstScan = 1000
const leastScan = 16
const mostScan = 50_000

/** How long one look should take, in milliseconds. */
const wanted = 200

/** In milliseconds. */
export const checkTimeLimit = (
  timeLimit: Duration.Input = "2 seconds"
): Result.Result<number, InvalidArgumentError> => {
  const bounds = { minimum: 0, maximum: 60_000, reason: "must be a time of at most a minute" }
  return Result.map(checkDuration("timeLimit", timeLimit, bounds), Duration.toMillis)
}

const text = (argument: string) => (value: string) => checkText(argument, value, 1000)

const position = (argument: string) => (value: number) => checkWhole(argument, value, 0)

const tags = (given: ReadonlyArray<string>) =>
  given.length > maximumTags
    ? invalid("tags", `must be ${maximumTags} at most: no message has more`)
    : Result.all(given.map((tag) =>
      tag.includes(":") ? text("tags")(tag) : invalid("tags", `must be "name:value" each, not ${JSON.stringify(tag)}`)
    ))

/** Hours before and behind a time are looked at, which databases have to know as well. */
const margin = Duration.toMillis("1 day")
const [earliest, latest] = [earliestTime.epochMilliseconds + margin, 8_640_000_000_000_000 - margin]

/** Times outside of what PostgreSQL has are bounds of nothing. */
const bounded = (time: DateTime.DateTime | undefined) =>
  time && DateTime.makeUnsafe(Math.min(Math.max(time.epochMilliseconds, earliest), latest))

const check = (options: SearchOptions) =>
  Result.all({
    stream: optional(options.stream, checkStreamName),
    pattern: optional(options.pattern, checkPattern),
    type: optional(options.type, text("type")),
    tags: tags(options.tags ?? []),
    correlationId: optional(options.correlationId, text("correlationId")),
    causationId: optional(options.causationId, text("causationId")),
    fromPosition: optional(options.fromPosition, position("fromPosition")),
    toPosition: optional(options.toPosition, position("toPosition")),
    limit: checkLimit(options.limit),
    after: numberCursor(options.cursor),
    timeLimit: checkTimeLimit(options.timeLimit)
  })

const isTimeout = (error: unknown): boolean =>
  Predicate.isTagged(error, "SqlError") && (error as SqlError).reason._tag === "StatementTimeoutError"

/** What is looked for, step by step, until it is enough. */
interface Steps {
  readonly query: Omit<SearchQuery, "after" | "limit" | "scan">
  readonly after: number | undefined
  readonly limit: number
  /** In milliseconds. */
  readonly timeLimit: number
  /** Whether a message that was found is one. */
  readonly isMeant: (stored: EncodedStoredMessage) => boolean
}

/**
 * Looks at more at a time while that goes fast, at no more than there is time for, and at less where a statement was ended
 * because it took too long.
 */
export const takeSteps = Effect.fnUntraced(function*(
  search: OperatorStorage["search"],
  { after, isMeant, limit, query, timeLimit }: Steps
): Effect.fn.Return<
  { readonly found: ReadonlyArray<EncodedStoredMessage>; readonly reached: number | undefined },
  SqlError
> {
  const begin = yield* Moment.now
  const found: Array<EncodedStoredMessage> = []
  let reached = after
  let scan = firstScan
  while (true) {
    const before = yield* Moment.now
    const step = yield* Effect.result(search({ ...query, after: reached, limit: limit - found.length, scan }))
    if (Result.isFailure(step)) {
      if (!isTimeout(step.failure) || scan === leastScan) return yield* step.failure
      const isOver = (yield* Moment.since(begin)) >= timeLimit
      scan = isOver ? leastScan : Math.max(leastScan, Math.floor(scan / 8))
      continue
    }
    found.push(...step.success.found.filter(isMeant))
    reached = step.success.reached
    const left = timeLimit - (yield* Moment.since(begin))
    if (reached === undefined || found.length >= limit || left <= 0) return { found, reached }
    const took = yield* Moment.since(before)
    const inTime = took > 0 ? Math.floor((scan * left) / took) : mostScan
    if (took < wanted / 2) scan *= 4
    else if (took > wanted * 2) scan = Math.floor(scan / 2)
    scan = Math.max(leastScan, Math.min(scan, inTime, mostScan))
  }
})

export const make = (storage: OperatorStorage, typeOf: TypeOf) =>
  Effect.fnUntraced(function*(
    options: SearchOptions = {}
  ): Effect.fn.Return<Found, InvalidArgumentError | SqlError> {
    const checked = yield* Effect.fromResult(check(options))
    const fromTime = bounded(options.fromTime)
    const toTime = bounded(options.toTime)
    const around = fromTime === undefined && toTime === undefined
      ? { from: 0, to: Number.MAX_SAFE_INTEGER }
      : yield* storage.positionsAt({ from: fromTime, to: toTime })
    const { after, fromPosition = 0, limit, timeLimit, toPosition = Number.MAX_SAFE_INTEGER, type, ...rest } = checked
    const { found, reached } = yield* takeSteps(storage.search, {
      query: {
        ...rest,
        direction: options.direction ?? "backward",
        mentions: type === undefined ? [] : [type],
        related: undefined,
        fromPosition: Math.max(fromPosition, around.from),
        toPosition: Math.min(toPosition, around.to),
        fromTime,
        toTime
      },
      after,
      limit,
      timeLimit,
      isMeant: ({ data, oversize }) => type === undefined || oversize !== undefined || typeOf(data) === type
    })
    return { items: found.map(toMessage(typeOf)), next: reached === undefined ? undefined : String(reached), reached }
  })
