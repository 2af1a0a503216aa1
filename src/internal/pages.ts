/**
 * Reads in keyset pages: each begins beyond the last row of the one before, and memory stays constant however much is read.
 *
 * Backends bound the bytes of a page, and end it early. Here the number of rows follows from that: the first page is small,
 * the next ones grow while rows are small, so that no backend looks at many more rows than it returns. Outside of
 * transactions the next page is fetched while this one is decoded and consumed.
 */
import { type Array as Arr, Cause, Channel, Effect, Fiber, type Pull, Result, type Scope, Stream } from "effect"

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

export const read = <Row, A, E1, E2>(source: Source<Row, A, E1, E2>): Stream.Stream<A, E1 | E2> =>
  Stream.fromChannel(
    Channel.fromTransform((_, scope) =>
      Effect.map(source.inTransaction, (isIn) => slices(source, isIn ? undefined : scope))
    )
  )

/**
 * Decodes and returns the next rows each time it is run, by which streams are pulled: most reads have one page, and whatever is
 * between that and the consumer costs as much as many of its rows. Pages are fetched ahead in the scope.
 */
const slices = <Row, A, E1, E2>(
  { decode, fetch, position, range }: Source<Row, A, E1, E2>,
  ahead: Scope.Scope | undefined
): Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E1 | E2> => {
  const fetchPage = (rest: Range, size: number) => fetch({ ...rest, limit: Math.min(rest.limit, size) })
  const done: Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E1 | E2> = Cause.done()
  let rest = range
  let size = firstPage
  let page = isEmpty(range) ? undefined : fetchPage(range, size)
  let rows: ReadonlyArray<Row> = []
  let decoded = 0 // of them

  const decodeSlice = Effect.suspend(() => {
    const slice = rows.length <= sliceSize ? rows : rows.slice(decoded, decoded + sliceSize)
    decoded += slice.length
    return Effect.fromResult(decodeAll(slice, decode))
  }) as Effect.Effect<
    Arr.NonEmptyReadonlyArray<A>, // as many as there are rows
    E2
  >

  const nextSlice = Effect.suspend(() =>
    rows.length - decoded < sliceSize ? decodeSlice : Effect.andThen(Effect.yieldNow, decodeSlice)
  )

  /** Begins to fetch the page behind it. */
  const take = ({ messages, more }: Page<Row>): Effect.Effect<unknown> => {
    rows = messages
    page = undefined
    const last = messages.at(-1)
    if (last === undefined || !more) return Effect.void
    rest = rest.direction === "forward"
      ? { ...rest, from: position(last) + 1, limit: rest.limit - messages.length }
      : { ...rest, to: position(last) - 1, limit: rest.limit - messages.length }
    if (isEmpty(rest)) return Effect.void
    size = messages.length === size ? Math.min(2 * size, largestPage) : Math.max(2 * messages.length, smallestPage)
    page = fetchPage(rest, size)
    if (ahead === undefined) return Effect.void
    // at once: decoding leaves no other fiber a turn
    return Effect.map(Effect.forkIn(page, ahead, { startImmediately: true }), (fiber) => {
      page = Fiber.join(fiber)
    })
  }

  return Effect.suspend((): Pull.Pull<Arr.NonEmptyReadonlyArray<A>, E1 | E2> => {
    if (decoded < rows.length) return nextSlice
    if (page === undefined) return done
    rows = [] // nobody should have two pages while the next one is awaited
    decoded = 0
    const taken = Effect.flatMap(page, take)
    return Effect.flatMap(taken, () => rows.length === 0 ? done : nextSlice)
  })
}

const isEmpty = ({ from, limit, to }: Range): boolean => limit === 0 || from > to

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
