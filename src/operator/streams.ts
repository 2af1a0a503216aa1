/** Streams, by their names. */
import { Effect, Result } from "effect"
import type { Duration } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { InvalidArgumentError } from "../errors.ts"
import { checkPattern } from "../internal/checks.ts"
import * as Moment from "../internal/moment.ts"
import type { OperatorStorage, StreamSummary } from "../Storage.ts"
import { checkLimit, type Page, type PageOptions, textCursor } from "./page.ts"
import { checkTimeLimit } from "./search.ts"

/** Asks for streams, in the order of their names as the database sorts them. */
export interface StreamsOptions extends PageOptions {
  /** A LIKE pattern of names: `%` any run of characters, `_` any one, `\` the next one literally. Default: all. */
  readonly pattern?: string | undefined
  /** For how long names are looked at that do not match. Default 2 seconds, at most 1 minute. */
  readonly timeLimit?: Duration.Input | undefined
}

/** How many names one statement looks at, if not all of them match. */
const scan = 2000

export const make = (storage: OperatorStorage) =>
  Effect.fnUntraced(function*(
    { cursor, limit, pattern, timeLimit }: StreamsOptions = {}
  ): Effect.fn.Return<Page<StreamSummary>, InvalidArgumentError | SqlError> {
    const checked = yield* Effect.fromResult(Result.all({
      pattern: pattern === undefined ? Result.succeed(undefined) : checkPattern(pattern),
      after: textCursor(cursor),
      limit: checkLimit(limit),
      timeLimit: checkTimeLimit(timeLimit)
    }))
    const begin = yield* Moment.now
    const items: Array<StreamSummary> = []
    let after = checked.after
    while (true) {
      const left = checked.limit - items.length
      const { found, reached } = yield* storage.streams({
        pattern: checked.pattern,
        after,
        limit: left,
        scan: checked.pattern === undefined ? left : scan
      })
      items.push(...found)
      if (
        reached === undefined || items.length === checked.limit || (yield* Moment.since(begin)) >= checked.timeLimit
      ) {
        return { items, next: reached }
      }
      after = reached
    }
  })
