/** What tests of projections on PostgreSQL share: a store of their own, held transactions, and a look at the tables. */
import type { PgClient } from "@effect/sql-pg"
import { assert, it } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Layer, Schedule, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./database.ts"
import { Moved, Transfers } from "./transfers.ts"

export const moved = (amount = 1): Moved => new Moved({ amount })
export const several = (count: number): Arr.NonEmptyArray<Moved> => Arr.makeBy(count, moved)

type Given = Transfers | SqlClient.SqlClient | PgClient.PgClient | Scope.Scope

/** A test on a store in a new database. */
export const test = <E>(
  name: string,
  body: () => Effect.Effect<void, E, Given>,
  options: {
    readonly timeout?: number
    readonly maxConnections?: number
    readonly startupParameters?: Readonly<Record<string, string>>
  } = {}
): void =>
  it.live(
    name,
    () =>
      Effect.provide(
        Effect.scoped(body()),
        Layer.fresh(Layer.provideMerge(
          Transfers.layer,
          databaseLayer({ maxConnections: options.maxConnections, startupParameters: options.startupParameters })
        ))
      ),
    options.timeout
  )

/** Does this in a transaction of another fiber, which is held open; what comes out commits it. */
export const hold = <E, R>(inside: Effect.Effect<unknown, E, R>) =>
  Effect.map(
    open(inside),
    ({ holder, release }) => Effect.andThen(Deferred.succeed(release, undefined), Fiber.join(holder))
  )

const open = Effect.fnUntraced(function*<E, R>(inside: Effect.Effect<unknown, E, R>) {
  const sql = yield* SqlClient.SqlClient
  const [held, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
  const holder = yield* Effect.forkScoped(sql.withTransaction(
    Effect.andThen(inside, Effect.andThen(Deferred.succeed(held, undefined), Deferred.await(release)))
  ))
  yield* Effect.raceFirst(Deferred.await(held), Fiber.join(holder))
  return { holder, release }
})

/** Does this, and rolls it back. */
export const rolledBack = Effect.fnUntraced(function*<A, E, R>(inside: Effect.Effect<A, E, R>) {
  const sql = yield* SqlClient.SqlClient
  const done = yield* Deferred.make<A>()
  const failing = Effect.andThen(Effect.flatMap(inside, (a) => Deferred.succeed(done, a)), Effect.fail("rolled back"))
  const error = yield* Effect.flip(sql.withTransaction(failing))
  return error === "rolled back" ? yield* Deferred.await(done) : yield* Effect.fail(error)
})

/** Until a statement of this database that contains the text waits for a lock. */
export const blocked = Effect.fnUntraced(function*(text: string) {
  const sql = yield* SqlClient.SqlClient
  return yield* Effect.repeat(
    sql<{ readonly pid: number; readonly began: string }>`
      select pid, query_start::text as began from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid() and state = 'active'
        and wait_event_type = 'Lock' and query like ${`%${text}%`}`,
    { until: (rows) => rows.length > 0, schedule: Schedule.spaced("2 millis") }
  )
})

/** Messages straight into the table as the append function leaves them, spread over streams. */
export const fill = Effect.fnUntraced(function*(count: number, streams: number, prefix = "s") {
  const sql = yield* SqlClient.SqlClient
  // The id first, then positions: what a writer owes to the projection.
  yield* sql.withTransaction(Effect.andThen(
    sql`select pg_current_xact_id()::text`,
    sql`insert into depeche_msgs_transfers (message_id, global_position, stream, version, message, occurred_at, tx)
      select id, nextval('depeche_msgs_transfers_global_seq'), ${prefix} || '-' || i % ${streams}, i / ${streams} + 1,
        json_build_object('_tag', 'Moved', 'messageId', id, 'occurredAt', '2026-01-01T00:00:00.000Z', 'amount', i),
        '2026-01-01T00:00:00Z', pg_current_xact_id()
      from (select i, gen_random_uuid() as id from generate_series(0, ${count - 1}::int) i) given order by i`
  ))
})

/** How the links of a stream differ from what they should be, and how many they are. */
export const inspect = Effect.fnUntraced(function*(name: string, pattern = "%") {
  const sql = yield* SqlClient.SqlClient
  const [table, maxima] = [sql(`depeche_stream_${name}`), sql(`depeche_stream_${name}_maxpos`)]
  const [row] = yield* sql<
    Readonly<Record<"messages" | "links" | "wrong" | "missing" | "gaps" | "disorder" | "heads", number>>
  >`
    with m as materialized (select * from depeche_msgs_transfers where stream like ${pattern}),
      l as materialized (select * from ${table}),
      both_of as materialized (
        select l.message_id as linked, m.message_id as stored, l.origin_stream = m.stream
          and l.origin_stream_version = m.version and l.origin_stream_global_position = m.global_position
          and l.origin_stream_added_at = m.added_at
          and l.message_occurred_at = occurred.at::timestamp and coalesce(l.occurred_at = occurred.at, true) as is_right
        from m full join l using (message_id) cross join lateral (
          select coalesce(m.occurred_at, (m.message ->> 'occurredAt')::timestamptz) as at
        ) occurred
      )
    select (select count(*)::int from m) as messages, (select count(*)::int from l) as links,
      (select count(*)::int from both_of where linked is null) as missing,
      (select count(*)::int from both_of where linked is not null and is_right is not true) as wrong,
      (select count(*)::int from (
        select from l group by partition
        having min(position) <> 0 or max(position) <> count(*) - 1 or count(distinct position) <> count(*)
      ) g) as gaps,
      (select count(*)::int from (
        select origin_stream_version - lag(origin_stream_version) over (
          partition by partition, origin_stream order by position
        ) as step from l
      ) steps where step < 1) as disorder,
      (select count(*)::int from (select partition, max(position) as head from l group by partition) h
        full join ${maxima} x using (partition) where head is distinct from max_position) as heads`
  return row ?? assert.fail("no row")
})

/** Every message of the streams that match is linked once, in order, densely, and `_maxpos` says how far. */
export const assertLinked = Effect.fnUntraced(function*(name: string, expected?: number, pattern = "%") {
  const { links, messages, ...faults } = yield* inspect(name, pattern)
  assert.deepStrictEqual(faults, { missing: 0, wrong: 0, gaps: 0, disorder: 0, heads: 0 }, `${links} of ${messages}`)
  if (expected !== undefined) assert.strictEqual(links, expected)
  return links
})
