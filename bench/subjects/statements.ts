/** How many statements the server runs. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql"

/** On whatever connection; without BEGIN and COMMIT, which it counts once when prepared. */
export const countStatements = <A, E, R>(sql: SqlClient.SqlClient, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    yield* sql`create extension if not exists pg_stat_statements`.unprepared
    yield* sql`select pg_stat_statements_reset()`
    yield* effect
    const [row] = yield* sql<{ readonly calls: number }>`select sum(calls)::float8 as calls from pg_stat_statements
      where dbid = (select oid from pg_database where datname = current_database()) and query not like '%pg_stat_statements%'`
    return row?.calls ?? NaN
  })
