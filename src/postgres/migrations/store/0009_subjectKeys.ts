/** The data keys of subjects, wrapped. */
import type { Objects } from "../../objects.ts"
import { inSchemaOf } from "../schema.ts"

export const subjectKeys = ({ keysTable, settingsTable, table }: Objects): ReadonlyArray<string> => [
  inSchemaOf(table),

  // A key that was forgotten is in the row's dead version until that is vacuumed: soon, however few rows there are.
  `create table if not exists ${keysTable} (
  subject text collate "C" primary key,   -- empty: nobody, for snapshots
  id uuid not null unique,                -- what is encrypted names it
  generation integer not null,            -- of the last key: 1, 2, 3, ...; 0: there was none
  wrapped text,                           -- the key, encrypted; null: forgotten
  wrapped_by text,                        -- the id of the key that has encrypted it
  created_at timestamptz not null default pg_catalog.now(),
  forgotten_at timestamptz
) with (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0.001)`,
  `update ${settingsTable} set version = 9`
]
