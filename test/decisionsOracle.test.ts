/**
 * Many processes decide on the same courses and students, with transactions that stay open, are rolled back, and commit late.
 * An oracle then replays all that was accepted, and evaluates each decision anew. It is shown to bite: where the protocol is
 * weakened in one of two plausible ways, it finds decisions that were wrong.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"
import { CapacityChanged, type Counts, Courses, type DecidersConfig, judge, type Way } from "./support/deciding.ts"
import { place, runToEnd } from "./support/processes.ts"

/** Runs a process to its end. */
const run = (config: DecidersConfig): Effect.Effect<Counts> =>
  Effect.flatMap(runToEnd("deciderProcess.ts", config), ({ by, output, told }) => {
    const counts = told.at(-1) as Counts | undefined
    return by === 0 && counts !== undefined
      ? Effect.succeed(counts)
      : Effect.die(new Error(`a process ended with ${by}:\n${output}`))
  })

const many = { courses: 4, students: 8, capacities: 4, beginsTogether: false }
/** One that all want: those of a process decide on it together. */
const hot = { courses: 1, students: 40, capacities: 40, beginsTogether: true }
const processes = 4

const round = Effect.fnUntraced(function*(number: number, way: Way, decisions: number, what = many) {
  const { database, url } = yield* place
  const counts = yield* Effect.forEach(
    Array.from({ length: processes }, (_, i) => `${way} ${number}-${i}`),
    (name) => run({ url, database, name, way, deciders: 8, decisions, ...what }),
    { concurrency: "unbounded" }
  )
  const sum = (count: (one: Counts) => number) => counts.reduce((total, one) => total + count(one), 0)
  return {
    accepted: sum((one) => one.accepted),
    refused: sum((one) => one.refused),
    rolledBack: sum((one) => one.rolledBack)
  }
})

const prepared = Effect.gen(function*() {
  const store = yield* Courses
  for (let i = 0; i < many.courses; i++) {
    yield* store.write(`c${i}`, new CapacityChanged({ course: `c${i}`, capacity: 3 }))
  }
  return store
})

/** The function without the locks of tags: each call takes some that nobody else has. */
const unlocked = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly text: string }>`
    select pg_get_functiondef(oid) as text from pg_proc where proname = 'effect_message_store_decide_courses'`
  const text = row?.text ?? ""
  const without = text.replaceAll(/_locks\[(i|_k)\], 0::bigint/g, "pg_catalog.gen_random_uuid()::text, 0::bigint")
  assert.notStrictEqual(without, text)
  yield* sql.unsafe(without)
})

/** Until the oracle finds a wrong decision: which races there are is a matter of chance, and on a busy machine of patience. */
const bites = Effect.fnUntraced(function*(way: Way) {
  const store = yield* prepared
  for (let number = 0; number < 40; number++) {
    yield* round(number, way, 12)
    const { wrong } = yield* judge(store)
    if (wrong.length > 0) return
  }
  assert.fail("nothing was wrong")
})

const layer = () => Layer.provideMerge(Courses.layer, databaseLayer())

describe("an oracle", () => {
  for (const way of ["as it is", "with snapshots"] as const) {
    it.live(
      `finds every decision of 32 deciders in 4 processes right, ${way}`,
      () =>
        Effect.gen(function*() {
          const store = yield* prepared
          const counts = yield* round(0, way, 30)
          const { decisions, wrong } = yield* judge(store)
          assert.deepStrictEqual(wrong, [])
          assert.isAbove(decisions, 50, JSON.stringify(counts))
          assert.isAbove(counts.refused, 50)
          assert.isAbove(counts.rolledBack, 20)
          const sql = yield* SqlClient.SqlClient
          const saved = yield* sql`select 1 from effect_message_store_snapshots_courses`
          if (way === "with snapshots") assert.isAbove(saved.length, many.courses)
          else assert.lengthOf(saved, 0)
        }).pipe(Effect.provide(layer())),
      180_000
    )
  }

  for (const way of ["as it is", "with snapshots"] as const) {
    it.live(
      `finds every decision right that was made together with others on one course, ${way}`,
      () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const store = yield* prepared
          yield* store.write("c0", new CapacityChanged({ course: "c0", capacity: 100 })) // for all who begin
          const counts = yield* round(0, way, 20, hot)
          const { decisions, wrong } = yield* judge(store)
          assert.deepStrictEqual(wrong, [])
          assert.isAbove(decisions, 50, JSON.stringify(counts))
          const together = yield* sql`select tx::text from depeche_msgs_courses
          where message->>'_tag' in ('Subscribed', 'Dropped') group by tx having count(*) > 1`
          assert.isAbove(together.length, 0, JSON.stringify(counts))
        }).pipe(Effect.provide(layer())),
      180_000
    )
  }

  it.live(
    "finds wrong ones where one position stands for all tags",
    () => bites("with one position").pipe(Effect.provide(layer())),
    300_000
  )

  it.live(
    "finds wrong ones where nothing is locked",
    () => Effect.andThen(unlocked, bites("as it is")).pipe(Effect.provide(layer())),
    300_000
  )
})
