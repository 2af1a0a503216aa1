/**
 * What deleting and redacting leave behind: the edition of each stream and tag whose messages were changed so, which rises each
 * time. Whoever remembers what such messages came to is told by it. Keys are those of locks, so that no name is kept.
 *
 * Snapshots say what they were made of, by the same keys.
 */
import type { Objects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const forgetting = ({ editionsTable, settingsTable, snapshotsTable, table }: Objects): ReadonlyArray<string> => [
  inSchemaOf(table),

  `create table if not exists ${editionsTable} (
  key bigint primary key,
  edition bigint not null
)`,
  // Whoever decides looks at it, and may: these are numbers.
  `grant select on ${editionsTable} to public`,

  // What was saved before does not say what it was made of.
  `alter table ${snapshotsTable} add column if not exists keys bigint[] not null default '{}'`,
  `delete from ${snapshotsTable} where keys operator(pg_catalog.=) '{}'::bigint[]`,

  `update ${settingsTable} set version = 10`
]
