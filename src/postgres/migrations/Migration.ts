/**
 * The type of the column that holds messages, in a table that this library creates. `json` keeps the text as it was
 * written and is the faster one to write and to read; `jsonb` has containment operators and GIN indexes.
 */
export type PayloadType = "json" | "jsonb"

export type { Migration } from "../../storage/migrations.ts"
