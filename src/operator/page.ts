/** Pages, and the cursors that lead from one to the next. */
import { Result } from "effect"
import type { InvalidArgumentError } from "../errors.ts"
import { checkWhole, invalid } from "../internal/checks.ts"

/** A page of a list. */
export interface Page<out A> {
  readonly items: ReadonlyArray<A>
  /** Give it as `cursor` to go on; undefined: nothing more is there. Text without a promise about its form. */
  readonly next: string | undefined
}

/** Asks for a page. */
export interface PageOptions {
  /** `next` of the page before. Default: from the beginning. */
  readonly cursor?: string | undefined
  /** How many items the page has at most: 1 to 1,000. Default 50. */
  readonly limit?: number | undefined
}

export const checkLimit = (limit: number = 50): Result.Result<number, InvalidArgumentError> =>
  checkWhole("limit", limit, 1, 1000)

const refused = () => invalid("cursor", "must be the `next` of a page of the same list")

/** A cursor that is a number. */
export const numberCursor = (
  cursor: string | undefined
): Result.Result<number | undefined, InvalidArgumentError> => {
  if (cursor === undefined) return Result.succeed(undefined)
  return /^\d{1,16}$/.test(cursor) ? Result.succeed(Number(cursor)) : refused()
}

/** A cursor that is text: what a list was made of stays readable in it. */
export const textCursor = (
  cursor: string | undefined
): Result.Result<string | undefined, InvalidArgumentError> =>
  cursor === undefined || (cursor.length <= 100_000 && !cursor.includes("\0") && cursor.isWellFormed())
    ? Result.succeed(cursor)
    : refused()

/** A cursor of several parts. */
export const partsCursor = <A>(
  cursor: string | undefined,
  is: (parts: unknown) => parts is A
): Result.Result<A | undefined, InvalidArgumentError> =>
  Result.flatMap(textCursor(cursor), (text) => {
    if (text === undefined) return Result.succeed(undefined)
    const parsed = Result.try((): unknown => JSON.parse(text))
    return Result.isSuccess(parsed) && is(parsed.success) ? Result.succeed(parsed.success) : refused()
  })

/** Of a list that is known as a whole, in the order of names, a page. */
export const pageOf = <A>(
  all: ReadonlyArray<A>,
  nameOf: (item: A) => string,
  { cursor, limit }: PageOptions = {}
): Result.Result<Page<A>, InvalidArgumentError> =>
  Result.map(
    Result.all({ after: textCursor(cursor), most: checkLimit(limit) }),
    ({ after, most }) => {
      const left = after === undefined ? all : all.filter((item) => nameOf(item) > after)
      const items = left.slice(0, most)
      const last = items.at(-1)
      return { items, next: left.length > most && last !== undefined ? nameOf(last) : undefined }
    }
  )
