/** How a store and its database are: sizes, transactions, sessions, and what is scheduled. */
import { Duration, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { OperatorStorage, ScheduledTotals, Vitals } from "../../Storage.ts"
import { age, type Int8, milliseconds, toTime } from "../client/values.ts"
import type { Store } from "../objects.ts"

interface SizeRow {
  readonly messages: number | null
  readonly last_position: Int8 | null
  readonly bytes: Int8
  readonly now: number
  readonly sees_all: boolean
  readonly open: number
  readonly maximum: number
}

interface TransactionRow {
  readonly since: number
  readonly pid: number | null
  readonly name: string | null
  readonly state: string | null
}

export const make = (
  sql: SqlClient,
  store: Store
): Pick<OperatorStorage, "vitals" | "scheduledTotals"> => {
  const scheduled = sql(store.scheduledTable)

  const size = sql<SizeRow>`
    select case when c.reltuples operator(pg_catalog.>=) 0::float4 then c.reltuples::float8 end as messages,
      (select m.global_position from ${sql(store.table)} m order by m.global_position desc limit 1) as last_position,
      pg_catalog.pg_total_relation_size(c.oid) as bytes,
      ${sql.literal(milliseconds("pg_catalog.clock_timestamp()"))} as now,
      pg_catalog.pg_has_role('pg_read_all_stats'::name, 'usage'::text) as sees_all,
      (
        select pg_catalog.count(*)::int from pg_catalog.pg_stat_activity a
        where a.backend_type operator(pg_catalog.=) 'client backend'::text
      ) as open,
      pg_catalog.current_setting('max_connections')::int
        operator(pg_catalog.-) pg_catalog.current_setting('superuser_reserved_connections')::int as maximum
    from pg_catalog.pg_class c where c.oid operator(pg_catalog.=) ${store.table}::text::regclass::oid`

  /** Of this database: those of others do not hold back the cleaning of its tables. */
  const transactions = (openFor: number) =>
    sql<TransactionRow>`
      select ${sql.literal(milliseconds("t.since"))} as since, t.pid, t.name, t.state
      from (
        select a.xact_start as since, a.pid, a.application_name as name, a.state
        from pg_catalog.pg_stat_activity a
        where a.datname operator(pg_catalog.=) pg_catalog.current_database()
          and a.pid operator(pg_catalog.<>) pg_catalog.pg_backend_pid()
          and a.backend_type operator(pg_catalog.=) 'client backend'::text
        union all
        select p.prepared, null::int, p.gid, 'prepared'::text from pg_catalog.pg_prepared_xacts p
        where p.database operator(pg_catalog.=) pg_catalog.current_database()
      ) t
      where t.since < pg_catalog.clock_timestamp() operator(pg_catalog.-) ${openFor}::float8 * interval '1 millisecond'
      order by t.since limit 20`

  const scheduledTotals: Effect.Effect<ScheduledTotals, SqlError> = Effect.map(
    sql<{ readonly waiting: number; readonly refused: number; readonly overdue: number | null }>`
      select pg_catalog.count(*) filter (where refused is null)::int as waiting,
        pg_catalog.count(*) filter (where refused is not null)::int as refused,
        case when pg_catalog.min(due_at) filter (where refused is null) < pg_catalog.clock_timestamp()
          then ${sql.literal(age("pg_catalog.min(due_at) filter (where refused is null)"))} end as overdue
      from ${scheduled}`,
    ([row]) => ({
      waiting: row?.waiting ?? 0,
      refused: row?.refused ?? 0,
      overdue: typeof row?.overdue === "number" ? Duration.millis(row.overdue) : undefined
    })
  )

  return {
    vitals: Effect.fnUntraced(function*(openFor: number): Effect.fn.Return<Vitals, SqlError> {
      const [row] = yield* size
      const open = yield* transactions(openFor)
      return {
        messages: row?.messages ?? undefined,
        lastPosition: Number(row?.last_position ?? 0),
        bytes: row && Number(row.bytes),
        now: toTime(row?.now ?? 0),
        transactions: open.map(({ name, pid, since, state }) => ({
          since: toTime(since),
          pid: pid ?? undefined,
          name: name ?? "",
          state: state ?? "unknown"
        })),
        seesAllTransactions: row?.sees_all ?? false,
        sessions: row && { open: row.open, maximum: row.maximum }
      }
    }),

    scheduledTotals
  }
}
