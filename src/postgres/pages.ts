/** Pages of rows, cut off at a size; of one query, or of several small ones at once. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import { type Int8, milliseconds } from "./client/values.ts"
import { type Store, timeAdded } from "./objects.ts"

export interface Row {
  readonly message_id: string
  readonly version: number
  readonly global_position: Int8
  /** In milliseconds. */
  readonly added_at: number
  /** As text, whose size is known before it is sent; null if that is more than the driver reads at once. */
  readonly message: string | null
  /** Of message and metadata, in bytes; it may be absent if the message is not null. */
  readonly size?: number
  /** As text: rows that were written together share it, and it is parsed once. */
  readonly metadata: string | null
}

/** The columns of a small row, in their order: as values, which are cheaper than objects. */
export type SmallRow = readonly [
  messageId: string,
  version: number,
  globalPosition: Int8,
  addedAt: number,
  message: string,
  metadata: string | null
]

/** A page ends with the row that brings what is sent of it, metadata included, to this size in bytes. */
export const pageBytes = 4 * 1024 * 1024

/**
 * Stored rows that are larger than this, in bytes, are read in pages of their own: what a row comes to as text shows when it
 * is made, and nobody should make a thousand large ones to send the first few. Compressed, it is less than the text: by a
 * factor of 90 at most, which the numbers of jsonb (`1e308`) multiply.
 */
const largeRow = 8192
const largeRowsAtATime = 16

/** What a driver reads at once, less the columns beside message and metadata. */
const readableBytes = (sql: SqlClient): number => {
  const { config } = sql as { readonly config?: { readonly maxMessageSize?: number | undefined } }
  return (config?.maxMessageSize ?? 16 * 1024 * 1024) - 4096
}

/** The message of a row, given as text, in a statement that is bounded by the number of its rows. */
export const readable = (sql: SqlClient, message = "m.message::text"): string => {
  const size = `pg_catalog.octet_length(${message})`
  return `case when ${size} <= ${readableBytes(sql)} then ${message} end as message, ${size} as size`
}

export interface PageOptions {
  /** A row that has a state in `s.state` is that of a snapshot, and has it in place of its message. */
  readonly snapshot?: boolean
  /** A text that is read with the page, in one view, whether it has rows or not. */
  readonly beside?: Statement.Fragment
}

interface FoundPage<R> {
  readonly rows: ReadonlyArray<R>
  readonly beside: string | undefined
}

/** The rows of a query, with their sizes. */
const sizedRows = (sql: SqlClient, store: Store) => {
  const size = sql.literal(
    `coalesce(pg_catalog.octet_length(message), ${pageBytes}) + coalesce(pg_catalog.octet_length(metadata), 0)`
  )
  const stored = sql.literal(
    `message_id, version, global_position, ${milliseconds("added_at")} as added_at, metadata, size,
        case when size <= ${readableBytes(sql)} then message end as message`
  )
  const added = sql.literal(timeAdded(store, "m"))
  return (
    shown: string,
    found: Statement.Fragment,
    limit: Statement.Fragment,
    largest: number,
    message = "case"
  ) => {
    const rows = sql`(
          select m.message_id, stream, version, global_position, ${added} as added_at, metadata::text as metadata,
            ${
      sql.literal(`${message} when pg_catalog.pg_column_size(message) <= ${largest}`)
    } then message::text end as message${found}
          limit ${limit}
        ) found`
    return {
      columns: sql`${sql.literal(shown)}${stored}`,
      rows: sql`(
        select *, ${size} as size, sum(${size}) over (rows unbounded preceding) as bytes from ${rows}
      ) sized`,
      /** All of them, but without what is in those of more bytes. */
      withoutLarger: (bytes: Statement.Fragment) =>
        sql`select ${sql.literal(shown)}message_id, version, global_position, ${
          sql.literal(milliseconds("added_at"))
        } as added_at, case when ${size} <= ${bytes} then message end as message,
        case when ${size} <= ${bytes} then metadata end as metadata from ${rows}`
    }
  }
}

/** Of those, the ones that fit into so many bytes. */
const fitInto = (sql: SqlClient, bytes: number) => sql.literal(`bytes - size < ${bytes}`)

/**
 * Cuts the rows of a query off at the size of a page, in its order. The query calls the messages `m`; `shown` are columns
 * beside those of a {@link Row}, each with a comma behind it.
 */
export const sized = (sql: SqlClient, store: Store) => {
  const sizing = sizedRows(sql, store)
  const fits = fitInto(sql, pageBytes)
  const find = <R extends Row>(
    shown: string,
    found: Statement.Fragment,
    limit: number,
    largest: number,
    { beside, snapshot }: PageOptions
  ): Effect.Effect<FoundPage<R>, SqlError> => {
    const message = snapshot ? "s.state is not null as is_snapshot, case when s.state is not null then s.state" : "case"
    const { columns, rows } = sizing(shown, found, sql`${limit}`, largest, message)
    if (beside === undefined) {
      return Effect.map(
        sql<R>`select ${columns} from ${rows} where ${fits}`,
        (all) => ({ rows: all, beside: undefined })
      )
    }
    // The first row has it; an empty page is one row that has nothing else.
    const page = sql<R & { readonly beside: string | null }>`
      select ${columns}, case when bytes > size then null else ${beside} end as beside
      from (values (1)) one left join ${rows} on ${fits}`
    return Effect.map(page, (all) => ({
      rows: all[0]?.size === null ? [] : all,
      beside: all[0]?.beside ?? undefined
    }))
  }

  /** How many pages are to be read with the sum of their sizes, which costs the server as much as all the rest. */
  let withSums = 0
  /** Rows of which as many as are asked for fit into a page have no need of it. */
  const mostBytes = (limit: number) => Math.min(Math.floor(pageBytes / limit), readableBytes(sql))

  const page = Effect.fnUntraced(function*<R extends Row>(
    shown: string,
    found: Statement.Fragment,
    limit: number,
    options: PageOptions = {}
  ): Effect.fn.Return<FoundPage<R> & { readonly more: boolean }, SqlError> {
    if (withSums > 0) withSums--
    else if (options.beside === undefined && options.snapshot !== true) {
      const rows = yield* sql<R>`${
        sizing(shown, found, sql`${limit}`, largeRow).withoutLarger(sql`${mostBytes(limit)}::int`)
      }`
      if (rows.every(({ message }) => message !== null)) return { rows, beside: undefined, more: rows.length === limit }
      withSums = pagesWithSums
    }
    const first = yield* find<R>(shown, found, limit, largeRow, options)
    const large = first.rows.findIndex((row) => row.message === null)
    if (large > 0) return { ...first, rows: first.rows.slice(0, large), more: true }
    if (large < 0) return { ...first, more: isCut(first.rows, limit) }
    const atATime = Math.min(limit, largeRowsAtATime)
    const ofLarge = yield* find<R>(shown, found, atATime, 2 ** 31 - 1, options)
    return { ...ofLarge, more: isCut(ofLarge.rows, atATime) }
  })

  /**
   * The same of small rows alone, for a query that is asked so often that its text is made once: SQL with so many parameters. Nothing
   * if a row is larger, or likely to be: then it is a page as above.
   */
  const small = (found: string, parameters: number) => {
    const [limited, bound] = [sql.literal(`$${parameters + 1}`), sql.literal(`$${parameters + 2}::int`)]
    const [text] = sql`${sizing("", sql.literal(found), limited, largeRow).withoutLarger(bound)}`.compile()
    const statement = text.replaceAll(/\n */g, " ") // the client looks it up by its text
    return (
      given: ReadonlyArray<unknown>,
      limit: number
    ): Effect.Effect<ReadonlyArray<SmallRow> | undefined, SqlError> =>
      withSums > 0 ? Effect.undefined : Effect.map(
        sql.unsafe(statement, [...given, limit, mostBytes(limit)]).values as Effect.Effect<
          ReadonlyArray<SmallRow>,
          SqlError
        >,
        (rows) => {
          if (rows.every((row) => row[4] !== null)) return rows
          withSums = pagesWithSums + 1 // this page as well
          return undefined
        }
      )
  }

  return { page, small }
}

/** After a page that had larger rows, so many pages are read as if they had some: for the next one is likely to. */
const pagesWithSums = 100

const isCut = (rows: ReadonlyArray<Row>, limit: number, bytes = pageBytes): boolean =>
  rows.length === limit || rows.reduce((sum, { size = 0 }) => sum + size, 0) >= bytes

/** How many bytes a page has that is read together with others. */
const smallPageBytes = pageBytes / 64

/** A small page of several; none if it begins with a large row, and is to be read alone. */
interface SmallPage<R> {
  readonly page: { readonly rows: ReadonlyArray<R>; readonly more: boolean } | undefined
}

/**
 * The same for several small pages at once. `asked` is SQL for what is asked, as `q`: with its number in `q.i`, its limit in
 * `q.max`, and what its page is answered with, in columns with a comma behind each.
 */
export const sizedTogether = (sql: SqlClient, store: Store) => {
  const sizing = sizedRows(sql, store)
  const fits = fitInto(sql, smallPageBytes)
  return <R extends Row, Answered extends object>(
    shown: string,
    asked: Statement.Fragment,
    answered: string,
    found: Statement.Fragment,
    limits: ReadonlyArray<number>
  ): Effect.Effect<ReadonlyArray<Answered & SmallPage<R>>, SqlError> => {
    const of = sizing(shown, found, sql`q.max`, largeRow)
    return Effect.map(
      sql<R & Answered & { readonly i: number; readonly bytes: number | null }>`
        select q.i::int as i, ${sql.literal(answered)}page.* from ${asked} left join lateral (
          select ${of.columns}, bytes::float8 as bytes from ${of.rows} where ${fits}
        ) page on true order by q.i, page.bytes`,
      (all) => {
        const pages = Map.groupBy(all, ({ i }) => i)
        return limits.map((limit, i) => {
          const page = pages.get(i + 1) ?? []
          // An empty page is one row that has nothing else.
          const rows = page.filter(({ bytes }) => bytes !== null)
          const large = rows.findIndex((row) => row.message === null)
          const whole = large > 0
            ? { rows: rows.slice(0, large), more: true }
            : { rows, more: isCut(rows, limit, smallPageBytes) }
          return { ...page[0] as R & Answered, page: large === 0 ? undefined : whole }
        })
      }
    )
  }
}
