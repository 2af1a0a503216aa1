/** Scheduled messages on PostgreSQL: processes that are killed while they move them, and messages that cannot be written. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Clock, DateTime, Effect, Fiber, Random, Schedule, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { type ChildProcess, fork } from "node:child_process"
import * as path from "node:path"
import { place, until } from "./support/processes.ts"
import { Done, Work } from "./support/work.ts"
import { test } from "./support/working.ts"

const program = path.join(import.meta.dirname, "support", "schedulerProcess.ts")

/** A scheduler that is started again whenever it was killed. */
const supervised = Effect.fnUntraced(function*(name: string) {
  const at = yield* place
  let current: ChildProcess | undefined
  let generation = 0
  const start = () => {
    current = fork(program, [JSON.stringify({ ...at, name: `${name}-${++generation}` })], {
      execArgv: ["--conditions=@effect-message-store/source"],
      stdio: ["ignore", "ignore", "inherit", "ipc"]
    })
  }
  yield* Effect.acquireRelease(Effect.sync(start), () => Effect.sync(() => void current?.kill("SIGKILL")))
  return {
    kill: Effect.sync(() => {
      current?.kill("SIGKILL")
      start()
    })
  }
})

describe("PostgreSQL scheduled messages", () => {
  test("are each written once, and none before its time, though schedulers are killed", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      const total = 10_000
      const messages = Arr.makeBy(total, (number) => new Done({ number }))
      // Half of them at once, the others in the five seconds after.
      const inAnHour = (yield* Clock.currentTimeMillis) + 3_600_000
      let firstAt = inAnHour
      const dueAt = (i: number) => DateTime.makeUnsafe(firstAt + (i % 2 === 0 ? 0 : Math.floor(i / 2)))
      yield* Effect.forEach(
        Arr.chunksOf(messages, 500),
        (chunk, n) =>
          work.withTransaction(Effect.forEach(chunk, (message, i) =>
            work.schedule(`s-${(500 * n + i) % 40}`, message, { at: dueAt(500 * n + i) }))),
        { concurrency: 4 }
      )
      const [scheduled] = yield* sql<{ readonly early: number }>`
        select count(*)::int as early from effect_message_store_scheduled_work where due_at > clock_timestamp()`
      assert.strictEqual(scheduled?.early, total)
      // All are scheduled, however long that took. The hour is over when the processes have begun.
      firstAt = (yield* Clock.currentTimeMillis) + 2000
      yield* sql`update effect_message_store_scheduled_work
        set due_at = due_at - ${inAnHour - firstAt}::int * interval '1 millisecond'`

      const processes = yield* Effect.forEach(["a", "b", "c"], supervised)
      const killing = yield* Effect.forkScoped(Effect.repeat(
        Effect.flatMap(Random.nextIntBetween(0, 2), (i) =>
          processes[i]?.kill ?? Effect.void),
        Schedule.max([Schedule.spaced("1 second"), Schedule.recurs(15)])
      ))
      const written = Effect.map(
        sql<{ readonly count: number }>`select count(*)::int as count from depeche_msgs_work`,
        ([row]) => row?.count ?? 0
      )
      yield* until("all are written", Effect.map(written, (count) => count >= total), 120)
      yield* Fiber.interrupt(killing)
      yield* Effect.sleep("1 second") // nothing comes after
      const rows = yield* sql<{ readonly message_id: string; readonly added: number; readonly stream: string }>`
        select message_id, stream, (date_part('epoch', recorded_at) * 1000)::float8 as added from depeche_msgs_work
        order by stream, version`
      assert.lengthOf(rows, total)
      const places = new Map(messages.map(({ messageId }, i) => [messageId, i]))
      const early = rows.filter(({ added, message_id }) =>
        added < DateTime.toEpochMillis(dueAt(places.get(message_id) ?? 0))
      )
      assert.deepStrictEqual(early, [])
      // Of each stream in the order of times.
      for (const [i, row] of rows.entries()) {
        const before = rows[i - 1]
        if (before === undefined || before.stream !== row.stream) continue
        const [first, second] = [before, row].map(({ message_id }) => dueAt(places.get(message_id) ?? 0))
        assert.isAtMost(first?.epochMilliseconds ?? 0, second?.epochMilliseconds ?? 0)
      }
      const left = yield* sql`select key from effect_message_store_scheduled_work`
      assert.deepStrictEqual(left, [])
    }), 240_000)

  test("that cannot be written hold up no others, and are told", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      yield* sql.unsafe(`create function refuse_7() returns trigger language plpgsql as $$ begin
        if new.message::json ->> 'number' = '7' then raise exception 'seven is refused'; end if; return new; end $$`)
        .unprepared
      yield* sql`create trigger refuses before insert on depeche_msgs_work for each row execute function refuse_7()`
      const at = DateTime.makeUnsafe(0)
      const messages = Arr.makeBy(10, (number) => new Done({ number }))
      for (const message of messages) {
        yield* work.schedule("s", message, { at, key: `key ${message.number}` })
      }
      assert.strictEqual(yield* work.scheduler.runOnce, 9)
      assert.strictEqual(yield* work.scheduler.runOnce, 0)
      const left = yield* sql`select key, refused from effect_message_store_scheduled_work`
      assert.deepStrictEqual(left, [{ key: "key 7", refused: "seven is refused" }])
      const [told, ...others] = yield* Stream.runCollect(work.scheduled({ refused: true }))
      assert.deepInclude(told, { key: "key 7", at, stream: "s", message: messages[7], refused: "seven is refused" })
      assert.deepStrictEqual(others, [])
      // It can be scheduled anew, or be cancelled.
      yield* sql`drop trigger refuses on depeche_msgs_work`
      assert.strictEqual(yield* work.scheduler.runOnce, 0)
      yield* work.schedule("s", messages[7] ?? new Done({ number: 0 }), { at, key: "key 7" })
      assert.strictEqual(yield* work.scheduler.runOnce, 1)
      assert.strictEqual((yield* work.head("s")).version, 10)
    }))
})
