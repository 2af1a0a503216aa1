/** Projections on PostgreSQL: a new version takes the place of the old one under load, and under kills at every point. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Latch, Ref, Schedule, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { asProcess, projection, promoted, secondLevel, shown, total, write } from "./support/counts.ts"
import { until } from "./support/processes.ts"
import { Done, Work } from "./support/work.ts"
import { test } from "./support/working.ts"

describe("PostgreSQL projections", () => {
  test(
    "are replaced and put back under load, and readers see nothing empty, partial or older",
    () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const prefilled = 50_000
        yield* write(prefilled)
        const { made: first, stream } = yield* projection(1)
        yield* stream.projector.runOnce
        const one = yield* Effect.forkScoped(asProcess("old", Effect.flatMap(projection(1), ({ run }) => run)))
        yield* promoted(first)
        assert.strictEqual(yield* total, prefilled)

        // Writers, a projector, and readers, from here to the end.
        const written = yield* Ref.make(prefilled)
        const isOver = yield* Ref.make(false)
        const whileRunning = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
          Effect.repeat(effect, { until: () => Ref.get(isOver) })
        yield* Effect.forkScoped(
          asProcess("projector", Effect.flatMap(projection(1), (each) => each.stream.projector.run()))
        )
        const writers = yield* Effect.forEach(
          [1, 2],
          (writer) =>
            Effect.forkScoped(whileRunning(Effect.gen(function*() {
              const work = yield* Work
              yield* work.write(`w-${writer}`, Arr.makeBy(10, (number) => new Done({ number })))
              yield* Ref.update(written, (count) => count + 10)
              yield* Effect.sleep("5 millis")
            })))
        )
        const faults: Array<string> = []
        let reads = 0
        let snapshots = 0
        const reading = (name: string) =>
          Effect.gen(function*() {
            let last = prefilled
            yield* whileRunning(Effect.gen(function*() {
              const seen = yield* total
              if (seen < last) faults.push(`${name}: ${seen} after ${last}`)
              last = seen
              reads++
            }))
          })
        const readers = yield* Effect.forEach(
          ["a", "b"],
          (name) => Effect.forkScoped(asProcess(`reader ${name}`, reading(name)))
        )
        // At REPEATABLE READ, by names. A snapshot may be older than a promotion that comes before the first read.
        const bySnapshot = yield* Effect.forkScoped(asProcess(
          "snapshots",
          Effect.gen(function*() {
            const own = yield* SqlClient.SqlClient
            const { made } = yield* projection(1)
            let last = prefilled
            yield* whileRunning(own.withTransaction(Effect.gen(function*() {
              yield* own`set transaction isolation level repeatable read`
              yield* own`select 1`
              yield* Effect.sleep("20 millis")
              const { model } = yield* made.promoted
              const [row] = yield* own<{ readonly total: number }>`
            select coalesce(sum(messages), 0)::int as total from ${own(model.counts)}`
              const seen = row?.total ?? 0
              if (seen < last) faults.push(`snapshot: ${seen} after ${last}`)
              last = seen
              snapshots++
            })))
          })
        ))

        const two = yield* Effect.forkScoped(asProcess("new", Effect.flatMap(projection(2), ({ run }) => run)))
        const { made: second } = yield* projection(2)
        const progress = yield* Stream.runCollect(second.progress)
        assert.strictEqual(yield* shown, 2)
        assert.isTrue(progress.some(({ messagesPerSecond, state }) => state === "building" && messagesPerSecond > 0))

        // New messages have come; the old version has them as well.
        const at = yield* Ref.get(written)
        yield* until("new messages are written", Effect.map(Ref.get(written), (count) => count > at + 200))
        yield* Effect.retry(second.rollback(), { schedule: Schedule.spaced("100 millis"), times: 50 })
        assert.strictEqual(yield* shown, 1)
        yield* Effect.sleep("1 second")
        assert.strictEqual(yield* shown, 1)
        yield* Effect.retry(second.promote(), { schedule: Schedule.spaced("100 millis"), times: 50 })
        assert.strictEqual(yield* shown, 2)

        yield* Ref.set(isOver, true)
        yield* Fiber.joinAll([...writers, ...readers, bySnapshot])
        const all = yield* Ref.get(written)
        for (const { subscription } of [first, second]) {
          yield* until("all is handled", Effect.map(subscription.lag, (lag) => lag === 0), 60)
        }
        for (const version of [1, 2]) {
          const [row] = yield* sql<{ readonly messages: number; readonly seen: number }>`
          select (select sum(messages)::int from ${sql(`counts_v${version}`)}) as messages,
            (select count(*)::int from ${sql(`seen_v${version}`)}) as seen`
          assert.deepStrictEqual(row, { messages: all, seen: all }, `version ${version}`)
        }
        assert.deepStrictEqual(faults, [])
        assert.isAbove(reads, 100)
        assert.isAbove(snapshots, 10)
        yield* Fiber.interruptAll([one, two])
      }),
    240_000
  )

  describe("a promotion that is killed", () => {
    /** What keeps it waiting, until the scope closes: a lock that another session holds. */
    const points: Readonly<Record<string, string>> = {
      "before it has begun": "lock table effect_message_store_versions_counts in share row exclusive mode",
      "before it has found the new version level": "lock table depeche_subscriptions_counts_v1 in row exclusive mode",
      "before it has switched a view": "lock table counts in access share mode",
      "between two views": "lock table seen in access share mode",
      "before it has noted it": "select pg_advisory_lock(1), pg_advisory_lock(2)",
      "before its commit": "select pg_advisory_lock(2)"
    }

    for (const [point, hold] of Object.entries(points)) {
      test(`${point} leaves what was, and can be repeated`, () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const second = yield* secondLevel
          for (
            const statement of [
              `create function pause() returns trigger language plpgsql as $$ begin
                perform pg_advisory_xact_lock(tg_argv[0]::int); return null; end $$`,
              `create trigger noted after update of is_promoted on effect_message_store_versions_counts
                for each statement execute function pause(1)`,
              `create constraint trigger committing after update of is_promoted on effect_message_store_versions_counts
                deferrable initially deferred for each row execute function pause(2)`
            ]
          ) yield* sql.unsafe(statement).unprepared

          const held = Latch.makeUnsafe(false)
          const release = Latch.makeUnsafe(false)
          const holding = yield* Effect.forkScoped(asProcess(
            "holder",
            Effect.gen(function*() {
              const own = yield* SqlClient.SqlClient
              yield* own.withTransaction(
                Effect.andThen(own.unsafe(hold).unprepared, Effect.andThen(held.open, release.await))
              )
            })
          ))
          yield* held.await
          const promoting = yield* Effect.forkScoped(
            asProcess("promoter", Effect.flatMap(projection(2, { promotion: "manual" }), ({ made }) => made.promote()))
          )
          const waiting = sql<{ readonly pid: number }>`select pid from pg_stat_activity
            where datname = current_database() and application_name = 'promoter' and wait_event_type = 'Lock'`
          yield* until("it waits", Effect.map(waiting, (rows) => rows.length > 0))
          // All its connections, as when the process is killed; and nothing tries again.
          const killing = yield* Effect.forkScoped(Fiber.interrupt(promoting))
          yield* sql`select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name = 'promoter'`
          yield* Fiber.await(killing)
          yield* release.open
          yield* Fiber.await(holding)
          yield* until("nothing of it is left", Effect.map(waiting, (rows) => rows.length === 0))
          assert.strictEqual(yield* shown, 1)
          assert.strictEqual(yield* total, 500)
          yield* second.promote()
          assert.strictEqual(yield* shown, 2)
          assert.strictEqual(yield* total, 500)
          assert.strictEqual(yield* second.rollback(), 1)
        }))
    }

    test("at any time leaves one of the two", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* secondLevel
        const outcomes = new Set<number>()
        for (let i = 0; i < 30 || outcomes.size < 2; i++) {
          const from = yield* shown
          const promoting = yield* Effect.forkScoped(
            asProcess(
              `promoter ${i}`,
              Effect.flatMap(projection(1), ({ made }) => Effect.exit(made.promote(from === 1 ? 2 : 1)))
            )
          )
          yield* Effect.sleep(8 * i)
          const killing = yield* Effect.forkScoped(Fiber.interrupt(promoting))
          yield* sql`select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name = ${`promoter ${i}`}`
          yield* Fiber.await(killing)
          outcomes.add((yield* shown) === from ? 0 : 1)
          assert.strictEqual(yield* total, 500)
        }
      }))
  })
})
