/** The versions of a projection. */
import type { ProjectionObjects } from "../../objects.ts"

export const versions = ({ versionsTable }: ProjectionObjects): ReadonlyArray<string> => [
  `create table if not exists ${versionsTable} (
  version int primary key,
  stream text not null,         -- the aggregated stream
  place text not null,          -- the schema of its tables, and of the views that readers use
  tables text[] not null,       -- without the version, as the views are called
  is_promoted boolean unique check (is_promoted), -- null: what readers see is another one
  is_held boolean not null default false, -- it was replaced by a lower version, and is promoted by hand alone
  created_at timestamptz not null default now(),
  promoted_at timestamptz,      -- the last time; null: never
  used_at timestamptz not null default now() -- a process was at work on it, or readers saw it
)`
]
