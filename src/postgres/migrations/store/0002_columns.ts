/** The columns that this library adds to the table of messages. */
import type { Objects } from "../../objects.ts"

export const columns = (objects: Objects): ReadonlyArray<string> => [
  // depeche_db's timestamp without time zone holds UTC; under this setting no row is rewritten.
  "set local timezone to 'UTC'",
  `alter table ${objects.table} alter column added_at type timestamptz`,
  // Defaults come in a second step, so that the rows of an adopted table are not rewritten: theirs stay null,
  // for "before any transaction that runs now", which the table lock makes true.
  `alter table ${objects.table} add column if not exists tx xid8`,
  `alter table ${objects.table} alter column tx set default pg_current_xact_id()`,
  `alter table ${objects.table} add column if not exists metadata jsonb`,
  `alter table ${objects.table} add column if not exists occurred_at timestamptz`
]
