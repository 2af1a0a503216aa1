/**
 * Reads in keyset pages: each begins beyond the last row of the one before, and memory stays constant however much is read.
 *
 * Backends bound the bytes of a page, and end it early. Here the number of rows follows from that: the first page is small,
 * the next ones grow while rows are small, so that no backend looks at many more rows than it returns. Outside of
 * transactions the next page is fetched while this one is decoded and consumed.
 */
import { Array as Arr, Effect, Fiber, Option, Result, Stream } from "effect"

/** Which rows are read, by a number that rises from row to row; bounds included. */
export interface Range {
  readonly from: number
  readonly to: number
  readonly direction: "forward" | "backward"
  readonly limit: number
}

/** Rows as they were read, and whether there may be more behind them. An empty page has nothing behind it. */
interface Page<Row> {
  readonly messages: ReadonlyArray<Row>
  readonly more: boolean
}

interface Source<Row, A, E1, E2> {
  readonly range: Range
  readonly position: (row: Row) => number
  readonly fetch: (range: Range) => Effect.Effect<Page<Row>, E1>
  readonly decode: (row: Row) => Result.Result<A, E2>
  /** The next page would be lost with the transaction if the consumer stopped, and the statement were cancelled. */
  readonly inTransaction: Effect.Effect<boolean>
}

/** Rows of the first page, of the smallest, and of the largest. */
const firstPage = 250
const smallestPage = 16
const largestPage = 1000

/** Rows decoded at a time. In between, what the server sends of the next page is received. */
const sliceSize = 250

export const read = <Row, A, E1, E2>(
  { decode, fetch, inTransaction, position, range }: Source<Row, A, E1, E2>
): Stream.Stream<A, E1 | E2> =>
  Stream.unwrap(Effect.gen(function*() {
    const scope = yield* Effect.scope
    const ahead = !(yield* inTransaction)
    const fetchPage = (rest: Range, size: number) => fetch({ ...rest, limit: Math.min(rest.limit, size) })
    const first = { rest: range, size: firstPage, page: fetchPage(range, firstPage) }

    return Stream.paginate(
      first,
      Effect.fnUntraced(function*({ page, rest, size }) {
        if (rest.limit === 0 || rest.from > rest.to) return [[], Option.none()] as const
        const { messages, more } = yield* page
        const slices = Arr.chunksOf(messages, sliceSize)
        const last = messages.at(-1)
        const limit = rest.limit - messages.length
        if (last === undefined || !more || limit === 0) return [slices, Option.none()] as const
        const next = rest.direction === "forward"
          ? { ...rest, from: position(last) + 1, limit }
          : { ...rest, to: position(last) - 1, limit }
        if (next.from > next.to) return [slices, Option.none()] as const
        const isFull = messages.length === size
        const nextSize = isFull ? Math.min(2 * size, largestPage) : Math.max(2 * messages.length, smallestPage)
        const fetching = ahead
          // at once: decoding leaves no other fiber a turn
          ? Fiber.join(yield* Effect.forkIn(fetchPage(next, nextSize), scope, { startImmediately: true }))
          : fetchPage(next, nextSize)
        return [slices, Option.some({ rest: next, size: nextSize, page: fetching })] as const
      })
    ).pipe(Stream.mapEffect((rows) => decodeSlice(rows, decode)), Stream.flattenArray)
  }))

const decodeSlice = <Row, A, E>(
  rows: Arr.NonEmptyReadonlyArray<Row>,
  decode: (row: Row) => Result.Result<A, E>
): Effect.Effect<Arr.NonEmptyReadonlyArray<A>, E> => {
  const decoded = Effect.suspend(() => Effect.fromResult(decodeAll(rows, decode))) as Effect.Effect<
    Arr.NonEmptyReadonlyArray<A>, // as many as there are rows
    E
  >
  return rows.length < sliceSize ? decoded : Effect.andThen(Effect.yieldNow, decoded)
}

/** The first failure, or all. */
export const decodeAll = <Row, A, E>(
  rows: ReadonlyArray<Row>,
  decode: (row: Row) => Result.Result<A, E>
): Result.Result<ReadonlyArray<A>, E> => {
  // A plain loop: this runs for every message.
  const decoded: Array<A> = []
  for (const row of rows) {
    const one = decode(row)
    if (Result.isFailure(one)) return Result.fail(one.failure)
    decoded.push(one.success)
  }
  return Result.succeed(decoded)
}
