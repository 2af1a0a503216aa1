/**
 * The columns that this library adds to the table of messages. Rows of an adopted table are not rewritten: theirs stay
 * null, for "before any transaction that runs now", which the table lock makes true of `tx`.
 */
import type { Objects } from "../../objects.ts"

export const columns = (objects: Objects): ReadonlyArray<string> => [
  `alter table ${objects.table}
  add column if not exists tx xid8,
  add column if not exists metadata jsonb,
  add column if not exists occurred_at timestamptz`
]
