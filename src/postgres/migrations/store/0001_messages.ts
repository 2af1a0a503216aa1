/** What depeche_db's contract asks for, where it does not exist: a store that Python made is adopted as it is. */
import type { Objects } from "../../objects.ts"
import type { PayloadType } from "../Migration.ts"
import { inSchemaOf } from "../schema.ts"

export const messages = (objects: Objects, payload: PayloadType): ReadonlyArray<string> => [
  inSchemaOf(objects.table),

  `create sequence if not exists ${objects.sequence}`,

  `create table if not exists ${objects.table} (
  message_id uuid primary key,
  global_position bigint not null unique,
  added_at timestamp not null default pg_catalog.now(),
  stream varchar(255) not null,
  version int not null,
  message ${payload} not null,
  constraint ${objects.versionConstraint} unique (stream, version)
)`
]
