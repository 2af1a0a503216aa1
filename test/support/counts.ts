/** A read model in several versions, each of which counts the messages of streams. */
import type { PgClient } from "@effect/sql-pg"
import { assert } from "@effect/vitest"
import { Array as Arr, Effect, Layer, type Scope } from "effect"
import { Partitioner, Projection } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { clientNamed, until } from "./processes.ts"
import { Done, Work } from "./work.ts"

export const partitions = 8

/** The first shape; the second has another column before, so that the view has to be made anew. */
export const shapes = {
  1: "(stream text primary key, messages int not null)",
  2: "(stream text primary key, highest int not null, messages int not null)",
  3: "(stream text primary key, highest int not null, messages int not null, lowest int)"
}

export type Version = keyof typeof shapes

/** Counts messages by stream, and notes each of them: twice is once too often. */
export const projection = (version: Version, options?: Partial<Projection.Options<never>>) =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const work = yield* Work
    const stream = yield* work.aggregatedStream({
      name: "worked",
      patterns: "%",
      partitioner: Partitioner.streamName(partitions)
    })
    const made = yield* stream.projection({
      ...options,
      name: "counts",
      version,
      model: Projection.tables(["counts", "seen"], ({ counts, seen }) =>
        Effect.gen(function*() {
          yield* sql`create table ${sql(counts)} ${sql.literal(shapes[version])}`
          yield* sql`create table ${sql(seen)} (message_id uuid primary key)`
        }))
    })
    const run = made.run((deliveries, { counts, seen }) =>
      Effect.gen(function*() {
        const streams = deliveries.map((delivery) => delivery.stream)
        yield* sql`insert into ${sql(seen)} select * from unnest(${
          deliveries.map(({ messageId }) => messageId)
        }::uuid[])`
        const highest = sql.literal(version === 1 ? "" : ", highest")
        const none = sql.literal(version === 1 ? "" : ", 0")
        yield* sql`insert into ${sql(counts)} as c (stream, messages${highest})
          select stream, count(*)${none} from unnest(${streams}::text[]) stream group by stream
          on conflict (stream) do update set messages = c.messages + excluded.messages`
      })
    )
    return { made, run, stream }
  })

/** With connections of its own, as a process has. */
export const asProcess = <A, E>(
  name: string,
  effect: Effect.Effect<A, E, SqlClient.SqlClient | PgClient.PgClient | Work | Scope.Scope>
) => Effect.provide(effect, Layer.fresh(Layer.provideMerge(Work.layer, clientNamed(name))))

export const write = Effect.fnUntraced(function*(count: number, streams = 50) {
  const work = yield* Work
  yield* Effect.forEach(
    Arr.range(1, streams),
    (i) =>
      Effect.forEach(
        Arr.chunksOf(Arr.makeBy(count / streams, (number) => new Done({ number })), 500),
        (messages) => work.write(`s-${i}`, messages)
      ),
    { concurrency: 4 }
  )
})

export const total = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly total: number }>`select coalesce(sum(messages), 0)::int as total from counts`
  return row?.total ?? 0
})

/** What readers see: the version of the view, and whether it is the one that is promoted. */
export const shown = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly definition: string; readonly promoted: number }>`
    select pg_get_viewdef('counts'::regclass) as definition,
      (select version from effect_message_store_versions_counts where is_promoted) as promoted`
  const version = Number(/counts_v(\d+)/.exec(row?.definition ?? "")?.[1])
  assert.strictEqual(version, row?.promoted)
  return version
})

/** Until readers see the version. */
export const promoted = <A, M>(made: Projection.Projection<A, M>) =>
  until(
    `version ${made.version} is promoted`,
    Effect.map(made.status, (all) => all.some(({ state, version }) => version === made.version && state === "promoted"))
  )

/** Whether somebody waits for a lock in this database: others of the server have tests of their own. */
export const isSomebodyWaiting = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const waiting = yield* sql`select from pg_locks l join pg_stat_activity a using (pid)
    where a.datname = current_database() and not l.granted`
  return waiting.length > 0
})

/** The second version of 500 messages, level with the first one, which is promoted; both run. */
export const secondLevel = Effect.gen(function*() {
  yield* write(500)
  const { made: first, run: runFirst, stream } = yield* projection(1)
  yield* stream.projector.runOnce
  yield* Effect.forkScoped(runFirst)
  yield* promoted(first)
  const { made: second, run: runSecond } = yield* projection(2, { promotion: "manual" })
  yield* Effect.forkScoped(runSecond)
  yield* until("it is level", Effect.map(second.subscription.lag, (lag) => lag === 0))
  return second
})
