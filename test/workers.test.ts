/** Worker processes on PostgreSQL: shutdown, fairness, quiet. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, Random } from "effect"
import { SqlClient } from "effect/sql"
import process from "node:process"
import { place, start, terminate, until, untilTold } from "./support/processes.ts"
import { Done, stream, Work, type WorkerConfig } from "./support/work.ts"
import { checkpoint, consumer, handled, test, write } from "./support/working.ts"

describe("PostgreSQL workers", () => {
  describe("shutdown", () => {
    test("at any moment leaves no claim, no connection and no half of a batch", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const kinds = (["transactional", "atLeastOnce"] as const).flatMap((delivery) =>
          (["message", "batch"] as const).flatMap((acknowledge) =>
            (["session", { lease: "2 seconds" }] as const).map((claims) => ({ delivery, acknowledge, claims }))
          )
        )
        const seed = Number(process.env["SHUTDOWN_SEED"] ?? Math.floor(Math.random() * 1e6))
        console.log(`shutdown: seed ${seed}`)
        let unfinished = 0
        const attempt = Effect.fnUntraced(function*(index: number) {
          const name = `shutdown_${index}`
          const kind = kinds[index % kinds.length]
          yield* write(1, `late-${index}`, 4)
          const running = consumer(name, 4, { name, batchSize: 7, ...kind })
          yield* Effect.timeoutOption(running, yield* Random.nextIntBetween(1, 400))
          const owned = yield* sql`select to_regclass(${`effect_message_store_claims_${name}`}) is not null as made`
          if (owned[0]?.["made"] === true) {
            const owners = yield* sql`select owner from ${
              sql(`effect_message_store_claims_${name}`)
            } where partition >= 0 and owner <> ''`
            assert.lengthOf(owners, 0, `${index}`)
            const [{ wrong, open } = { wrong: NaN, open: NaN }] = yield* sql<Record<"wrong" | "open", number>>`
              with done as (select partition, position, count(*) as times from effects where subscription = ${name}
                group by 1, 2),
              c as (select h.partition, h.max_position, coalesce(c.position, -1) as position
                from depeche_stream_worked_maxpos h left join ${
              sql(`depeche_subscriptions_${name}`)
            } c using (partition)),
              per as (select c.*, (select count(*) from done where done.partition = c.partition) as handled,
                (select max(times) from done where done.partition = c.partition) as times from c)
              select count(*) filter (where handled < position + 1 or times > 1
                or handled > position + ${kind?.delivery === "transactional" ? 1 : 2})::int as wrong,
                count(*) filter (where position < max_position)::int as open from per`
            assert.strictEqual(wrong, 0, `${index} ${kind?.delivery} ${kind?.acknowledge}`)
            if (open > 0) unfinished++
          }
          yield* until(
            `no connection of ${name} is left`,
            Effect.map(sql`select from pg_stat_activity where application_name = ${name}`, (rows) => rows.length === 0)
          )
          assert.lengthOf(
            yield* sql`select from pg_locks l join pg_stat_activity a using (pid)
            where l.locktype = 'advisory' and a.datname = current_database()`,
            0
          )
        })
        for (let i = 0; i < 40; i++) yield* write(50, `early-${i}`, 4)
        let times = 0
        // On a slow machine some end before they have begun: others take their place.
        const again = Effect.suspend(() => attempt(times++))
        yield* Random.withSeed(
          Effect.repeat(again, { until: () => times >= 50 && (unfinished > 10 || times >= 150) }),
          seed
        )
        console.log(`shutdown: ${times} times, ${unfinished} of them before the end of the work`)
        assert.isAbove(unfinished, 10)
      }), 240_000)

    for (const delivery of ["transactional", "atLeastOnce"] as const) {
      test(`by SIGTERM: ${delivery}`, () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          for (let i = 0; i < 40; i++) yield* write(100, `work-${i}`, 4)
          const started = yield* start({
            _tag: "Worker",
            ...yield* place,
            name: "terminated",
            partitions: 4,
            projects: true,
            subscriptions: [{ name: "terminated", delivery, batchSize: 50 }]
          })
          const count = Effect.map(handled(), ({ length }) => length)
          yield* until("it is at work", Effect.map(count, (done) => done > 200))
          assert.strictEqual(yield* terminate(started), 0, started.output())
          assert.strictEqual(started.output(), "")
          const [row] = yield* sql<{ readonly acknowledged: number }>`
            select sum(position + 1)::int as acknowledged from depeche_subscriptions_terminated`
          const done = yield* count
          assert.isBelow(done, 4000)
          // At least once, each partition may have handled one whose acknowledgement it was about to note.
          assert.isAtMost(done - (row?.acknowledged ?? 0), delivery === "transactional" ? 0 : 4)
          assert.isAtLeast(done, row?.acknowledged ?? 0)
          assert.lengthOf(
            yield* sql`select from effect_message_store_claims_terminated where partition >= 0 and owner <> ''`,
            0
          )
          yield* until(
            "no connection is left",
            Effect.map(sql`select from pg_stat_activity where application_name = 'terminated'`, (rows) =>
              rows.length === 0)
          )
        }))
    }
  })

  const worker = Effect.fnUntraced(function*(name: string, config: Partial<WorkerConfig>) {
    const started = yield* start({
      _tag: "Worker",
      ...yield* place,
      name,
      partitions: 8,
      projects: true,
      subscriptions: [{ name: "shared", pauseMilliseconds: 20 }],
      ...config
    })
    yield* untilTold(started, "Ready")
    return started
  })

  test("a consumer that comes later gets its share", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      yield* stream(8)
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(
        Effect.forEach(Arr.range(0, 39), (i) => work.write(`load-${i}`, [new Done({ number: i })])),
        Effect.sleep("100 millis")
      )))
      const claimed = Effect.map(
        sql<{ readonly owner: string; readonly count: number }>`
          select owner, count(*)::int as count from effect_message_store_claims_shared where partition >= 0 and owner <> '' group by owner`,
        (rows) => rows.map(({ count }) => count).toSorted((a, b) => b - a)
      )
      yield* worker("first", {})
      yield* until("the first has all", Effect.map(claimed, ([count]) => count === 8))
      const began = performance.now()
      yield* worker("second", {})
      const share = (name: string) =>
        Effect.map(
          sql<{ readonly partition: number }>`select distinct partition from effects where worker = ${name}`,
          (rows) => rows.length
        )
      yield* until("the second has handled something", Effect.map(share("second"), (count) => count > 0), 15)
      const first = performance.now() - began
      yield* until("the second has some", Effect.map(claimed, ([, count = 0]) => count >= 2), 15)
      const seconds = (performance.now() - began) / 1000
      console.log(
        `fairness: the first message after ${(first / 1000).toFixed(1)} s, ` +
          `claims ${(yield* claimed).join(" and ")} after ${seconds.toFixed(1)} s`
      )
      const last = Effect.map(sql<{ readonly seq: bigint }>`select max(seq) as seq from effects`, ([row]) =>
        row?.seq ?? 0n)
      const now = yield* last
      for (const name of ["first", "second"]) {
        yield* until(
          `${name} goes on`,
          Effect.map(sql`select from effects where worker = ${name} and seq > ${now} limit 1`, (rows) =>
            rows.length > 0),
          5
        )
      }
    }))

  test("a worker without messages is quiet", () =>
    Effect.gen(function*() {
      yield* write(8)
      const quiet = yield* worker("quiet", { partitions: 1, subscriptions: [{ name: "one" }, { name: "two" }] })
      for (const name of ["one", "two"]) {
        yield* until("it has handled what there was", Effect.map(checkpoint(name), (position) => position === 7))
      }
      const usage = Effect.gen(function*() {
        const told = quiet.told.length
        yield* quiet.ask
        yield* until("it tells what it has used", Effect.sync(() => quiet.told.length > told))
        const last = quiet.told.at(-1)
        if (last?._tag !== "Usage") return assert.fail("no usage")
        return { ...last, at: performance.now() }
      })
      const before = yield* usage
      yield* Effect.sleep("6 seconds") // what is measured, polls of 5 seconds among it
      const after = yield* usage
      const seconds = (after.at - before.at) / 1000
      const statements = (after.sent - before.sent) / seconds
      const cpu = (after.processor - before.processor) / 1e4 / seconds
      console.log(`quiet: ${statements.toFixed(1)} statements a second, ${cpu.toFixed(1)} % of a processor`)
      assert.isAbove(statements, 0)
      assert.isBelow(statements, 2)
      assert.isBelow(cpu, 5)
    }))
})
