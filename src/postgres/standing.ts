/**
 * What stands already of the objects that are to be opened: of a worker that starts, all of them, as a rule. Fibers that open
 * several at once ask in one statement: which relations there are, and then what the rows of those say.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Gather } from "./client/gathered.ts"

/** A table or a sequence, and whether it has the column that was asked for. */
interface Relation {
  readonly kind: string
  readonly hasColumn: boolean
}

/** Those that there are, on the search path, by their names. */
export type Found = ReadonlyMap<string, Relation>

/** A name, and a column by which it is told from others of that name. */
export type Wanted = readonly [relation: string, column?: string]

/** What the rows of an object's tables say. */
export interface Row {
  /** The number of the last migration that has run, if it was asked for. */
  readonly latest: number | null
  /** The store of a stream; the stream of a subscription. */
  readonly owner: string | null
  /** What the locks of a subscription begin with. */
  readonly prefix: string | null
  /** Whether it is stored where a subscription begins. */
  readonly is_started: boolean | null
}

/** SQL for the columns of a row: names of objects in it come from `objects.ts`. */
export type Columns = { readonly [Column in keyof Row]?: string | undefined }

/** How many objects one statement asks about. */
const gathered = { statements: 2, maximum: 50, isPatient: true }

export const make = (sql: SqlClient, gather: Gather) => {
  const relations = (
    wanted: ReadonlyArray<ReadonlyArray<Wanted>>
  ): Effect.Effect<ReadonlyArray<Found>, SqlError> => {
    const all = wanted.flatMap((names, i) => names.map(([relation, column = ""]) => ({ i, relation, column })))
    return Effect.map(
      sql<{ readonly i: number; readonly relation: string; readonly kind: string; readonly has_column: boolean }>`
        select w.i, w.relation, c.relkind::text as kind, exists (
          select from pg_catalog.pg_attribute a
          where a.attrelid operator(pg_catalog.=) c.oid and a.attname::text operator(pg_catalog.=) w.name
            and not a.attisdropped
        ) as has_column
        from rows from (
          pg_catalog.unnest(${all.map(({ i }) => i)}::int[]),
          pg_catalog.unnest(${all.map(({ relation }) => relation)}::text[]),
          pg_catalog.unnest(${all.map(({ column }) => column)}::text[])
        ) w(i, relation, name)
        join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) pg_catalog.to_regclass(w.relation)::oid`,
      (rows) => {
        const found = wanted.map(() => new Map<string, Relation>())
        for (const { has_column, i, kind, relation } of rows) found[i]?.set(relation, { kind, hasColumn: has_column })
        return found
      }
    )
  }

  const rows = (all: ReadonlyArray<Columns>): Effect.Effect<ReadonlyArray<Row | undefined>, SqlError> => {
    const selects = all.map(({ is_started, latest, owner, prefix }, i) =>
      `select ${i} as i, ${latest ?? "null"}::int as latest, ${owner ?? "null"}::text as owner,
        ${prefix ?? "null"}::text as prefix, ${is_started ?? "null"}::boolean as is_started`
    )
    return Effect.map(
      sql.unsafe<Row & { readonly i: number }>(selects.join("\nunion all ")).unprepared,
      (found) => {
        const byNumber = new Map(found.map((row) => [row.i, row]))
        return all.map((_, i) => byNumber.get(i))
      }
    )
  }

  return {
    relations: gather({ ...gathered, put: relations }),
    /** Of tables that are known to be there. */
    row: gather({ ...gathered, put: rows })
  }
}
