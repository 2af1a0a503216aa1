/** The read model of the contract of projections, in tables. */
import { Effect } from "effect"
import { Projection } from "effect-message-store"
import type { ProjectionContract } from "effect-message-store/testing"
import type { SqlClient } from "effect/sql"

interface Row {
  readonly id: string
  readonly count: number
}

export const readModel = (sql: SqlClient.SqlClient): ProjectionContract.ReadModel => {
  const table = (model: unknown) => sql(Object.values(model as Projection.TableNames<string>)[0] ?? "")
  return {
    model: (name) =>
      Projection.tables([name], (names) => sql`create table ${table(names)} (id uuid primary key, count int not null)`),
    add: (model, ids) =>
      sql`insert into ${table(model)} as t (id, count) select id, 1 from unnest(${ids}::uuid[]) id
        on conflict (id) do update set count = t.count + 1`,
    counts: (model) =>
      Effect.map(
        sql<Row>`select id, count from ${table(model)}`,
        (rows) => new Map(rows.map(({ count, id }) => [id, count]))
      )
  }
}
