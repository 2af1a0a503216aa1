/**
 * Whether names are free: no relation of another kind stands where the objects of a store, an aggregated stream or a
 * subscription are, or would be. What Python made keeps its name, whatever that ends in.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError, type UnsupportedEngineError } from "../errors.ts"
import { checkEnding, type Named } from "../internal/names.ts"
import { probe, type Probed, probing } from "./engine.ts"
import * as Objects from "./objects.ts"

/** A relation of depeche_db's, and a column that only this one has; sequences have none of ours. */
type Expected = readonly [relation: string, kind: "r" | "S", column: string]

interface Found {
  readonly relation: string
  readonly kind: string
  readonly fits: boolean
}

const check = Effect.fnUntraced(function*(
  named: Named,
  identifier: string,
  expected: ReadonlyArray<Expected>
): Effect.fn.Return<void, InvalidNameError | SqlError, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const found = yield* sql<Found>`
    select e.relation, c.relkind::text as kind, c.relkind::text operator(pg_catalog.=) e.kind and exists (
      select from pg_catalog.pg_attribute a
      where a.attrelid operator(pg_catalog.=) c.oid and a.attname::text operator(pg_catalog.=) e.column
        and not a.attisdropped
    ) as fits
    from (values ${
    sql.literal(expected.map((each) => `(${each.map((text) => `'${text}'::text`).join(", ")})`).join(", "))
  }) e(relation, kind, "column")
    join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) to_regclass(e.relation)::oid`
  const wrong = found.find(({ fits }) => !fits)
  if (wrong !== undefined) {
    return yield* new InvalidNameError({
      identifier,
      reason: `cannot name the ${named}: ${wrong.relation} is something else in this database`
    })
  }
  const isThere = found.some(({ relation }) => relation === expected[0]?.[0])
  if (!isThere) yield* Effect.fromResult(checkEnding(named, identifier))
})

interface Taken {
  readonly taken: boolean
}

/** A store and a stream of one name would share depeche_db's channel. */
const unlessTaken = (row: Taken | undefined, identifier: string, owner: string) =>
  row?.taken === true ? new InvalidNameError({ identifier, reason: `is taken by ${owner}` }) : Effect.void

type Check = Effect.Effect<void, InvalidNameError | SqlError, SqlClient.SqlClient>

/** The first statement of a store's layer: it tells whether this is PostgreSQL as well. */
export const checkStoreName = (
  name: string
): Effect.Effect<void, InvalidNameError | UnsupportedEngineError | SqlError, SqlClient.SqlClient> =>
  Effect.gen(function*() {
    const { sequence, table } = yield* Effect.fromResult(Objects.forStore(name))
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const first = sql<Taken & Probed>`
    select to_regclass(${`depeche_stream_${name}`}::text) is not null as taken, ${sql.literal(probe)}`
    yield* unlessTaken(yield* probing(sql, first), name, "an aggregated stream")
    yield* check("store", name, [[table, "r", "message"], [sequence, "S", "last_value"]])
  })

export const checkStreamName = (name: string): Check =>
  Effect.gen(function*() {
    const { maximumTable, table } = yield* Effect.fromResult(Objects.forStream(name))
    const sql = (yield* SqlClient.SqlClient).withoutTransforms()
    const [row] = yield* sql<Taken>`select to_regclass(${`depeche_msgs_${name}`}::text) is not null as taken`
    yield* unlessTaken(row, name, "a message store")
    yield* check("aggregated stream", name, [[table, "r", "origin_stream"], [maximumTable, "r", "max_position"]])
  })

export const checkSubscriptionName = (name: string): Check =>
  Effect.gen(function*() {
    const { table } = yield* Effect.fromResult(Objects.forSubscription(name))
    yield* check("subscription", name, [[table, "r", "subscription_name"]])
  })
