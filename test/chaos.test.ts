/**
 * Workers that are killed, connections that are terminated and a server that crashes: every message is handled, in order,
 * and with transactional delivery exactly once. `CHAOS_SEED` repeats a run as far as chance was ours.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Clock, Context, Effect, Layer, Random, Schedule } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import process from "node:process"
import { place, start, type Started, terminate, until, untilTold } from "./support/processes.ts"
import { layerDatabase, type OwnServer, startOwnServer } from "./support/server.ts"
import { createEffects, stream, Work } from "./support/work.ts"

class Server extends Context.Service<Server, OwnServer>()("test/Server") {}

const partitions = 16
const workers = 3
const writers = 2
const batch = { batches: 150, batchSize: 40, streams: 100, pauseMilliseconds: 30 }
const total = writers * batch.batches * batch.batchSize
const batchSize = 50

/** What is done to processes and their connections in each third of the work, in an order that chance decides. */
const disturbances = ["kill", "kill", "terminate", "terminate", "terminate", "terminate"] as const

/** When something was done to a worker, or to all; in milliseconds. */
interface Disturbance {
  readonly worker: string | undefined
  readonly from: number
  readonly to: number
}

/** What a worker does on a connection that is still well may be noted this long after another of its own was lost. */
const noticeMilliseconds = 2000

/** A worker that is started again whenever it has ended, as a supervisor does. */
interface Slot {
  readonly name: string
  current: Started | undefined
  generation: number
}

const run = Effect.fnUntraced(function*(delivery: "transactional" | "atLeastOnce", seed: number) {
  const server = yield* Server
  const sql = yield* SqlClient.SqlClient
  const at = yield* place
  /** Our own connections are lost as well. */
  const ask = <A, R>(effect: Effect.Effect<A, SqlError.SqlError, R>) =>
    Effect.orDie(Effect.retry(effect, Schedule.spaced("20 millis")))

  yield* createEffects
  yield* Effect.provide(stream(partitions), Work.layer)
  const counts = { kills: 0, terminations: 0, restarts: 0, failedStarts: 0 }
  const slots = Array.from(
    { length: workers },
    (_, i): Slot => ({ name: `worker-${i}`, current: undefined, generation: 0 })
  )
  const ended: Array<string> = []
  const disturbed: Array<Disturbance> = []
  const disturb = Effect.fnUntraced(function*<A, E, R>(
    what: Effect.Effect<A, E, R>,
    workerOf: (result: A) => string | undefined
  ) {
    const from = yield* Clock.currentTimeMillis
    const result = yield* what
    disturbed.push({ worker: workerOf(result), from, to: yield* Clock.currentTimeMillis })
    return result
  })
  const started: Array<Started> = []

  const startWorker = Effect.fnUntraced(function*(slot: Slot) {
    slot.current = yield* start({
      _tag: "Worker",
      ...at,
      name: `${slot.name}-${++slot.generation}`,
      partitions,
      projects: true,
      subscriptions: [{ name: "chaos", delivery, batchSize }]
    })
    started.push(slot.current)
  })
  // A worker that cannot start, because there is no server, is started again; what has begun must not end by itself.
  const supervise = Effect.gen(function*() {
    for (const slot of slots) {
      const { current } = slot
      if (current === undefined || current.ended() === undefined) continue
      if (current.ended() !== "SIGKILL") {
        if (current.hasTold("Ready")) ended.push(`${slot.name} (${current.ended()}):\n${current.output()}`)
        else counts.failedStarts++
      }
      yield* startWorker(slot)
    }
  })
  for (const slot of slots) yield* startWorker(slot)
  const supervisor = yield* Effect.forkScoped(Effect.repeat(supervise, Schedule.spaced("50 millis")))

  const writing = yield* Effect.forEach(
    Array.from({ length: writers }, (_, i) => i),
    (i) => start({ _tag: "Writer", ...at, name: `writer-${i}`, ...batch })
  )
  for (const each of [...writing, ...started]) yield* untilTold(each, "Ready")
  const written = ask(Effect.map(
    sql<{ readonly count: number }>`select count(*)::int as count from depeche_msgs_work`,
    ([row]) => row?.count ?? 0
  ))

  const acknowledged = ask(Effect.map(
    sql<{ readonly count: number | null }>`
      select sum(position + 1)::int as count from depeche_subscriptions_chaos where partition >= 0`,
    ([row]) => row?.count ?? 0
  ))
  const rest = Effect.map(acknowledged, (count) => total - count)

  const began = performance.now()
  const killWorker = Effect.gen(function*() {
    let slot: Slot | undefined
    const look = Effect.map(Random.shuffle(slots), (shuffled) => {
      slot = shuffled.find(({ current }) => current?.ended() === undefined)
      return slot !== undefined
    })
    yield* until("a worker is alive", look)
    const { current, generation, name } = slot ?? assert.fail("no worker is alive")
    const killing = Effect.andThen(
      current?.kill("SIGKILL") ?? Effect.void,
      until(`${name} has ended`, Effect.sync(() => current?.ended() !== undefined))
    )
    yield* disturb(killing, () => `${name}-${generation}`)
    counts.kills++
  })
  const terminateBackend = Effect.gen(function*() {
    const chance = yield* Random.next
    const terminating = ask(sql<{ readonly done: boolean; readonly name: string }>`
      with candidates as (
        select pid, application_name as name, row_number() over (order by application_name, backend_start) as n,
          count(*) over () as total
        from pg_stat_activity where datname = current_database()
          and (application_name like 'worker%' or application_name like 'writer%')
      ) select pg_terminate_backend(pid) as done, name from candidates
      where n = 1 + floor(${chance}::float8 * total)::int`)
    const rows = yield* disturb(terminating, ([row]) => row?.name ?? "none")
    return rows[0]?.done === true
  })
  const terminateOne = Effect.andThen(
    until("a connection was terminated", terminateBackend),
    Effect.sync(() => counts.terminations++)
  )
  const restartServer = Effect.gen(function*() {
    yield* disturb(server.restart(counts.restarts === 0 ? "fast" : "immediate"), () => undefined)
    counts.restarts++
  })

  const acts = []
  for (let third = 0; third < 3; third++) {
    for (const each of yield* Random.shuffle(disturbances)) acts.push(each === "kill" ? killWorker : terminateOne)
    if (third < 2) acts.push(restartServer)
  }
  // Each comes when so many messages are written and handled: while both are done, and to those who do what is left as well.
  const progress = Effect.zipWith(written, acknowledged, (one, other) => one + other)
  for (const [i, act] of acts.entries()) {
    const moment = 2 * total * (i + (yield* Random.next)) / (acts.length + 1) // chaos has no rhythm
    yield* until("messages are written and handled", Effect.map(progress, (count) => count >= moment), 60)
    yield* act
  }
  for (const writer of writing) {
    yield* until("a writer ends", Effect.sync(() => writer.ended() !== undefined), 60)
    assert.strictEqual(writer.ended(), 0, writer.output())
  }

  const atEnd = yield* rest
  yield* until("all is handled", Effect.map(rest, (count) => count === 0), 60).pipe(
    Effect.onError(() =>
      Effect.flatMap(
        rest,
        (count) =>
          Effect.sync(() => console.log(`${count} not handled`, ...slots.map((slot) => slot.current?.output())))
      )
    )
  )
  const seconds = (performance.now() - began) / 1000
  yield* Effect.sync(() => supervisor.interruptUnsafe())
  for (const slot of slots) {
    const { current } = slot
    if (current?.ended() === undefined && current !== undefined) {
      yield* until(`${slot.name} is ready`, Effect.sync(() => current.hasTold("Ready")))
      assert.strictEqual(yield* terminate(current), 0, current.output())
    }
  }

  const [row] = yield* ask(
    sql<Record<"messages" | "links" | "handled" | "distinct" | "foreign" | "disorder" | "parked", number>>`
    with firsts as (select partition, position, min(seq) as seq from effects group by 1, 2),
    ordered as (select seq - lag(seq) over (partition by partition order by position) as step from firsts)
    select (select count(*)::int from depeche_msgs_work) as messages,
      (select count(*)::int from depeche_stream_worked) as links,
      (select count(*)::int from effects) as handled,
      (select count(distinct message_id)::int from effects) as distinct,
      (select count(*)::int from effects e where not exists (select from depeche_stream_worked l
        where (l.partition, l.position, l.message_id) = (e.partition, e.position, e.message_id))) as foreign,
      (select count(*)::int from ordered where step < 0) as disorder,
      (select count(*)::int from effect_message_store_parked_chaos) as parked`
  )
  if (row === undefined) return assert.fail("no row")
  const duplicates = row.handled - row.distinct
  console.log(
    `chaos, ${delivery}: seed ${seed}, ${row.messages} messages in ${
      seconds.toFixed(1)
    } s (${atEnd} behind at the end of ` +
      `writing), ${counts.kills} kills, ${counts.terminations} terminations, ${counts.restarts} restarts, ` +
      `${counts.failedStarts} starts in vain, ${duplicates} duplicates`
  )
  assert.deepStrictEqual(ended, [])
  assert.deepStrictEqual(
    row,
    { messages: total, links: total, handled: row.handled, distinct: total, foreign: 0, disorder: 0, parked: 0 }
  )
  assert.strictEqual(counts.kills, 6)
  assert.strictEqual(counts.terminations, 12)
  assert.strictEqual(counts.restarts, 2)
  if (delivery === "transactional") return assert.strictEqual(duplicates, 0)
  // What was handled twice was disturbed in between: nobody else handles what a worker has in hand, nor does it do so again.
  const repeated = yield* ask(
    sql<{ readonly worker: string; readonly at: number; readonly next: number; readonly position: number }>`
      with handlings as (
        select worker, partition, position, at, lead(at) over (partition by message_id order by seq) as next from effects
      ) select worker, position, extract(epoch from at)::float8 * 1000 as at, extract(epoch from next)::float8 * 1000 as next
      from handlings where next is not null`
  )
  assert.lengthOf(repeated, duplicates)
  const undisturbed = repeated.filter(({ at: first, next, worker }) =>
    !disturbed.some((each) =>
      (each.worker === undefined || each.worker === worker) && each.from <= next &&
      first <= each.to + noticeMilliseconds
    )
  )
  assert.deepStrictEqual(undisturbed, [])
})

const isForeign = Boolean(process.env["DATABASE_URL"])
if (isForeign) console.log("chaos: skipped, since DATABASE_URL names a server that is not ours to crash")

describe.skipIf(isForeign)("PostgreSQL", () => {
  layer(Layer.effect(Server, startOwnServer({ durable: true })), { excludeTestServices: true, timeout: "1 minute" })(
    "subscriptions in chaos",
    (it) => {
      for (const delivery of ["transactional", "atLeastOnce"] as const) {
        it.effect(delivery, () =>
          Effect.gen(function*() {
            const seed = Number(process.env["CHAOS_SEED"] ?? Math.floor(Math.random() * 1e6))
            console.log(`chaos, ${delivery}: seed ${seed}`)
            const { url } = yield* Server
            yield* run(delivery, seed).pipe(
              Random.withSeed(seed),
              Effect.scoped,
              Effect.provide(Layer.fresh(layerDatabase(url)))
            )
          }), 90_000)
      }
    }
  )
})
