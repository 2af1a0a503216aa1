/**
 * The data keys of subjects in a table of the store: a row for each subject.
 *
 * In a transaction, who encrypts under a key locks its row, shared with others who do (`for share`, which needs the right to
 * update); who forgets it locks the row alone. A row that another transaction has added, and not committed, is waited for at
 * the unique index. Rows are locked in the order of their subjects, as the index has it; who wraps keys anew has many, and waits
 * for one at a time, holding none.
 */
import { Effect, Option } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import type { Rewrapped, SubjectKey, SubjectKeyStorage } from "../Storage.ts"
import type { Store } from "./objects.ts"

interface Row {
  readonly subject: string
  readonly id: string
  readonly generation: number
  readonly wrapped: string | null
  readonly wrapped_by: string | null
}

const toKey = ({ generation, id, subject, wrapped, wrapped_by }: Row): SubjectKey => ({
  subject,
  id,
  generation,
  wrapped: wrapped === null || wrapped_by === null ? undefined : { data: wrapped, keyId: wrapped_by }
})

const toKeys = (rows: Effect.Effect<ReadonlyArray<Row>, SqlError>) => Effect.map(rows, (found) => found.map(toKey))

export const make = (sql: SqlClient, store: Store): SubjectKeyStorage => {
  const table = sql(store.keysTable)
  const columns = sql.literal("k.subject, k.id::text as id, k.generation, k.wrapped, k.wrapped_by")

  /** Answers the ids of those that it has replaced. */
  const replace = (keys: ReadonlyArray<Rewrapped>, locking: Statement.Fragment) =>
    Effect.map(
      sql<Pick<Row, "id">>`with free as materialized (
          select k.id, n.wrapped, n.wrapped_by from ${table} k
          join unnest(${keys.map(({ id }) => id)}::uuid[], ${keys.map(({ generation }) => generation)}::int[], ${
        keys.map(({ before }) => before.data)
      }::text[], ${keys.map(({ wrapped }) => wrapped.data)}::text[], ${
        keys.map(({ wrapped }) => wrapped.keyId)
      }::text[]) n(id, generation, before, wrapped, wrapped_by)
            on k.id = n.id and k.generation = n.generation and k.wrapped = n.before
          ${locking}
        )
        update ${table} k set wrapped = f.wrapped, wrapped_by = f.wrapped_by from free f where k.id = f.id
        returning k.id::text as id`,
      (rows) => rows.map(({ id }) => id)
    )

  return {
    get: (ids) => toKeys(sql<Row>`select ${columns} from ${table} k where k.id = any(${ids}::uuid[])`),

    // One that is forgotten is not locked: of two transactions that add the next key, one has to wait for the other alone.
    current: (subjects) =>
      Effect.flatMap(Effect.serviceOption(sql.transactionService), (transaction) =>
        toKeys(
          Option.isNone(transaction)
            ? sql<Row>`select ${columns} from ${table} k where k.subject = any(${subjects}::text[])`
            : sql<Row>`with live as materialized (
                select ${columns} from ${table} k
                where k.subject = any(${subjects}::text[]) and k.wrapped is not null order by k.subject for share
              )
              select * from live
              union all
              select ${columns} from ${table} k where k.subject = any(${subjects}::text[]) and k.wrapped is null`
        )),

    add: (keys) =>
      Effect.asVoid(sql`insert into ${table} as k (subject, id, generation, wrapped, wrapped_by)
        select n.subject, n.id, n.generation, n.wrapped, n.wrapped_by
        from unnest(${keys.map(({ subject }) => subject)}::text[], ${keys.map(({ id }) => id)}::uuid[], ${
        keys.map(({ generation }) => generation)
      }::int[], ${keys.map(({ wrapped }) => wrapped?.data ?? "")}::text[], ${
        keys.map(({ wrapped }) => wrapped?.keyId ?? "")
      }::text[]) n(subject, id, generation, wrapped, wrapped_by)
        order by n.subject collate "C"
        on conflict (subject) do update set generation = excluded.generation, wrapped = excluded.wrapped,
          wrapped_by = excluded.wrapped_by, created_at = pg_catalog.now(), forgotten_at = null
          where k.wrapped is null and k.generation = excluded.generation - 1`),

    forget: (subjects) =>
      toKeys(sql<Row>`insert into ${table} as k (subject, id, generation, forgotten_at)
        select n.subject, n.id, 0, pg_catalog.now()
        from unnest(${subjects.map(({ subject }) => subject)}::text[], ${
        subjects.map(({ id }) => id)
      }::uuid[]) with ordinality n(subject, id, i)
        order by n.i
        on conflict (subject) do update
          set wrapped = null, wrapped_by = null, forgotten_at = coalesce(k.forgotten_at, pg_catalog.now())
        returning ${columns}`),

    wrappedByOthers: ({ after, keyId, limit }) =>
      toKeys(sql<Row>`select ${columns} from ${table} k
        where k.id > ${after}::uuid and k.wrapped_by <> ${keyId}::text order by k.id limit ${limit}`),

    // Transactions lock keys in whatever order they use them: those that are locked are waited for one by one.
    rewrap: (keys) =>
      Effect.flatMap(replace(keys, sql`for update of k skip locked`), (replaced) => {
        const ids = new Set(replaced)
        const others = keys.filter(({ id }) => !ids.has(id))
        return Effect.map(
          Effect.forEach(others, (key) => replace([key], sql`for update of k`)),
          (found) => replaced.length + found.flat().length
        )
      })
  }
}
