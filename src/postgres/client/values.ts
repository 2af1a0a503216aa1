/**
 * Values between JavaScript and PostgreSQL that do not depend on how the client decodes and encodes: an application may
 * give its client other `types` for int8, timestamps and JSON.
 */
import { DateTime } from "effect"
import type { Schema } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import { timeText } from "../../internal/timeText.ts"

/** int8 as this driver, or a client's own `types`, decodes it. */
export type Int8 = bigint | number | string

/** A parameter for `::int8`: text, which the server parses, whatever the client does with its own numbers. */
export const int8 = (value: number | bigint): string => String(value)

/** SQL for a point in time as milliseconds, which every client decodes as a number. */
export const milliseconds = (column: string): string =>
  `pg_catalog.date_part('epoch'::text, ${column}) operator(pg_catalog.*) 1000::float8`

/** SQL for how long ago that was, in milliseconds, by the clock of the database. */
export const age = (column: string): string =>
  `greatest(${milliseconds(`pg_catalog.clock_timestamp() operator(pg_catalog.-) ${column}`)}, 0::float8)`

/** What {@link milliseconds} has read. Microseconds are cut off, as they are where the driver makes a `Date`. */
export const toTime = (epochMilliseconds: number): DateTime.Utc =>
  DateTime.makeUnsafe(Math.floor(epochMilliseconds + 0.0005)) // the fraction is not exact

/** The driver parses JSON; a client's own `types` may leave it as text. Text that is no JSON is a JSON string. */
export const toJson = (value: Schema.Json): Schema.Json => {
  if (typeof value !== "string") return value
  try {
    return JSON.parse(value)
  } catch {
    return value
  }
}

/** How a time becomes a parameter for `::timestamptz`: a `Date` is the fastest, text is for clients with `types`. */
export const timeParameter = (sql: SqlClient): (time: DateTime.Utc) => Date | string => {
  const { config } = sql as { readonly config?: { readonly types?: unknown } }
  return config === undefined || config.types !== undefined ? timeText : DateTime.toDateUtc
}
