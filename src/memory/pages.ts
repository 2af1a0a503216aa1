/** Bounds of pages in memory: those of PostgreSQL, though nothing has to be sent. */

/** A page ends with the row that brings its JSON to this size, in characters. */
const pageSize = 4 * 1024 * 1024

export interface SizedRow {
  /** In characters of JSON, metadata included. */
  readonly size: number
}

/** The first of these rows that make a page, and whether there may be more behind them. */
export const cut = <Row extends SizedRow>(
  rows: Iterable<Row>,
  limit: number
): { readonly rows: ReadonlyArray<Row>; readonly more: boolean } => {
  const found: Array<Row> = []
  let size = 0
  for (const row of rows) {
    if (found.length === limit || size >= pageSize) return { rows: found, more: true }
    found.push(row)
    size += row.size
  }
  return { rows: found, more: found.length === limit }
}
