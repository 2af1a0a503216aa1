/** Versions of read models on PostgreSQL: what they are made beside, what they take the place of, and when they are dropped. */
import { assert, describe } from "@effect/vitest"
import { Effect, Exit, Fiber, Latch } from "effect"
import { Projection } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { asProcess, isSomebodyWaiting, projection, promoted, shapes, shown, total, write } from "./support/counts.ts"
import { until } from "./support/processes.ts"
import { Done, Work } from "./support/work.ts"
import { test } from "./support/working.ts"

describe("PostgreSQL projections", () => {
  test("are kept from going on while another version takes their place", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      yield* write(500)
      const { made: first, stream } = yield* projection(1)
      yield* stream.projector.runOnce
      yield* Effect.forkScoped(asProcess("old", Effect.flatMap(projection(1), ({ run }) => run)))
      yield* promoted(first)
      const { made: second, run: runSecond } = yield* projection(2, { promotion: "manual" })
      const two = yield* Effect.forkScoped(runSecond)
      yield* until("it is level", Effect.map(second.subscription.lag, (lag) => lag === 0))
      yield* Fiber.interrupt(two) // what comes now, it does not have

      const waits = (application: string) =>
        until(
          `${application} waits for a lock`,
          Effect.map(
            sql`select pid from pg_stat_activity where datname = current_database()
              and application_name = ${application} and wait_event_type = 'Lock'`,
            (rows) => rows.length > 0
          )
        )
      const held = Latch.makeUnsafe(false)
      const release = Latch.makeUnsafe(false)
      const reading = yield* Effect.forkScoped(asProcess(
        "reader",
        Effect.gen(function*() {
          const own = yield* SqlClient.SqlClient
          yield* own.withTransaction(Effect.andThen(total, Effect.andThen(held.open, release.await)))
        })
      ))
      yield* held.await
      const promoter = yield* Effect.forkScoped(
        asProcess("promoter", Effect.flatMap(projection(2, { promotion: "manual" }), ({ made }) => made.promote()))
      )
      yield* waits("promoter") // it has found the second level, and waits for the reader
      yield* work.write("late", new Done({ number: 1 }))
      yield* stream.projector.runOnce
      yield* waits("old") // it cannot acknowledge what the second does not have
      yield* release.open
      yield* Fiber.join(promoter)
      yield* Fiber.join(reading)
      assert.strictEqual(yield* shown, 2)
      assert.strictEqual(yield* total, 500)
      yield* until("the old one has gone on", Effect.map(first.subscription.lag, (lag) => lag === 0))
      assert.strictEqual(yield* total, 500)
    }))

  test("keep the rights of readers, and the objects that depend on their views", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const grantees = sql<{ readonly grantee: string; readonly privilege: string }>`
        select coalesce(r.rolname, 'public')::text as grantee, a.privilege_type as privilege
        from pg_class c cross join lateral aclexplode(c.relacl) a left join pg_roles r on r.oid = a.grantee
        where c.relname = 'counts' and a.grantee <> c.relowner order by 1, 2`
      const { made: first, stream } = yield* projection(1)
      yield* write(50)
      yield* stream.projector.runOnce
      yield* first.promote(1, { lag: 50 })
      yield* sql`grant select on counts to public`
      yield* sql`grant select, update on counts to pg_monitor with grant option`
      const before = yield* grantees
      assert.lengthOf(before, 3)
      const { made: second } = yield* projection(2, { promotion: "manual" })
      yield* second.promote(2, { lag: 50 }) // made anew
      assert.strictEqual(yield* shown, 2)
      assert.deepStrictEqual(yield* grantees, before)
      // A column more, behind the others: what depends on the view stays.
      yield* sql`create view depending as select sum(messages) as sum from counts`
      const { made: third } = yield* projection(3, { promotion: "manual" })
      yield* third.promote(3, { lag: 50 })
      assert.strictEqual(yield* shown, 3)
      assert.deepStrictEqual(yield* grantees, before)
      // Fewer columns: refused, and nothing has changed.
      const refused = yield* Effect.flip(third.promote(1, { lag: 50 }))
      assert.strictEqual(refused._tag, "SetupError")
      assert.match(refused.message, /view depending depends on view counts/)
      assert.strictEqual(yield* shown, 3)
      yield* sql`drop view depending`
      yield* third.promote(1, { lag: 50 })
      assert.strictEqual(yield* shown, 1)
    }))

  test("are not made in the place of what is there", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      for (const [name, kind] of [["counts", "table"], ["counts_v1", "table"], ["counts", "view"]] as const) {
        yield* sql.unsafe(kind === "view" ? `create view ${name} as select 1 as one` : `create table ${name} (id int)`)
          .unprepared
        const refused = yield* Effect.flip(projection(1))
        assert.include(String(refused), `"${name}" is there already`)
        yield* sql.unsafe(`drop ${kind} ${name}`).unprepared
      }
      const [left] = yield* sql<{ readonly tables: number }>`select count(*)::int as tables from pg_class
        where relname in ('counts_v1', 'seen_v1')`
      assert.strictEqual(left?.tables, 0)
      const unmade = Effect.flatMap(projection(2), ({ stream }) =>
        stream.projection({
          name: "counts",
          version: 3,
          model: Projection.tables(["counts", "more"], () => Effect.void)
        }))
      assert.match(String(yield* Effect.flip(unmade)), /SetupError: "counts" has not made the table counts_v3/)
      const others = Effect.flatMap(projection(2), ({ stream }) =>
        stream.projection({
          name: "counts",
          version: 2,
          model: Projection.tables(["counts"], () => Effect.void)
        }))
      assert.match(String(yield* Effect.flip(others)), /has a version 2 with other tables \(counts, seen\)/)
      const inMemory = Effect.flatMap(projection(2), ({ stream }) =>
        stream.projection({
          name: "forgetful",
          version: 1,
          model: Projection.state(() => 0)
        }))
      assert.match(String(yield* Effect.flip(inMemory)), /InvalidArgumentError: model must be tables/)
    }))

  test("do not take the place of what came meanwhile, nor of another projection's view", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { made, stream } = yield* projection(1)
      const other = yield* stream.projection({
        name: "others",
        version: 2,
        model: Projection.tables(["counts"], ({ counts }) => sql`create table ${sql(counts)} ${sql.literal(shapes[1])}`)
      })
      yield* made.promote(1, { lag: 50 })
      const refused = yield* Effect.flip(other.promote(2, { lag: 50 }))
      assert.match(refused.message, /cannot show version 2: readers are to have a view "counts"/)
      assert.strictEqual(yield* shown, 1)
      assert.deepStrictEqual((yield* other.status).map(({ state }) => state), ["building"])
      yield* made.dropAll
      yield* sql`create view counts as select 1 as one`
      assert.strictEqual((yield* Effect.flip(other.promote(2, { lag: 50 })))._tag, "SetupError")
      yield* sql`drop view counts`
      yield* other.promote(2, { lag: 50 })
      assert.deepStrictEqual((yield* other.status).map(({ state }) => state), ["promoted"])
      yield* other.dropAll
    }))

  test("move with their views to the schema in which a version is made", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const { stream } = yield* projection(1)
      yield* sql`create schema "Else. Where"`
      const made = (version: number, place: string) =>
        stream.projection({
          name: "moving",
          version,
          promotion: "manual",
          model: Projection.tables(["moved"], ({ moved }) =>
            Effect.andThen(
              sql`set local search_path = ${sql.literal(`"${place}"`)}, public`,
              sql`create table ${sql(moved)} (id int)`
            ))
        })
      const first = yield* made(1, "public")
      yield* first.promote(1)
      const second = yield* made(2, "Else. Where")
      yield* second.promote(2, { lag: 50 })
      const places = sql<{ readonly place: string }>`
        select n.nspname::text as place from pg_class c join pg_namespace n on n.oid = c.relnamespace where relname = 'moved'`
      assert.deepStrictEqual(yield* places, [{ place: "Else. Where" }])
      yield* second.promote(1, { lag: 50 })
      assert.deepStrictEqual(yield* places, [{ place: "public" }])
      yield* second.dropAll
      assert.deepStrictEqual(yield* places, [])
    }))

  test("are made though others hold the lock of versions for longer than it is waited for", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* projection(1)
      const [isHeld, mayEnd] = [Latch.makeUnsafe(false), Latch.makeUnsafe(false)]
      const holding = yield* Effect.forkScoped(sql.withTransaction(Effect.gen(function*() {
        yield* sql`lock table effect_message_store_versions_counts in share row exclusive mode`
        yield* isHeld.open
        yield* mayEnd.await
      })))
      yield* isHeld.await
      const making = yield* Effect.forkScoped(projection(2))
      const isDone = () => making.pollUnsafe() !== undefined
      yield* until("it waits", isSomebodyWaiting)
      yield* until("it has given up", Effect.map(isSomebodyWaiting, (waits) => !waits || isDone()))
      yield* until("it waits again", Effect.map(isSomebodyWaiting, (waits) => waits || isDone()))
      yield* mayEnd.open
      yield* Fiber.join(holding)
      const { made } = yield* Fiber.join(making)
      assert.deepStrictEqual((yield* made.status).map(({ version }) => version), [1, 2])
    }))

  test("can be looked at while one of them is dropped", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      for (const version of [1, 2] as const) {
        const { made, run } = yield* projection(version)
        const running = yield* Effect.forkScoped(run)
        yield* promoted(made)
        yield* Fiber.interrupt(running)
      }
      const { made } = yield* projection(2)
      const isDropped = yield* Latch.make()
      const mayCommit = yield* Latch.make()
      // What dropping a version does to what a status reads.
      const dropping = yield* Effect.forkScoped(sql.withTransaction(Effect.gen(function*() {
        yield* sql`drop table depeche_subscriptions_counts_v1`
        yield* sql`delete from effect_message_store_versions_counts where version = 1`
        yield* isDropped.open
        yield* mayCommit.await
      })))
      yield* isDropped.await
      const looking = yield* Effect.forkScoped(made.status)
      yield* until(
        "the status waits for the table",
        isSomebodyWaiting
      )
      yield* mayCommit.open
      yield* Fiber.join(dropping)
      assert.deepStrictEqual((yield* Fiber.join(looking)).map(({ version }) => version), [2])
    }))

  test("are dropped when they were unused for long, but none that is in use", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const age = (version: number) =>
        sql`update effect_message_store_versions_counts set used_at = now() - interval '2 hours' where version = ${version}`
      const { made: first, run: runFirst } = yield* projection(1)
      const one = yield* Effect.forkScoped(runFirst)
      yield* promoted(first)
      yield* Fiber.interrupt(one)
      const { made: second, run: runSecond } = yield* projection(2)
      const two = yield* Effect.forkScoped(runSecond)
      yield* promoted(second)
      yield* age(1)
      yield* age(2)
      const { run: runThird } = yield* projection(3, { keep: "1 hour" })
      const three = yield* Effect.forkScoped(runThird)
      const versions = Effect.map(second.status, (all) => all.map(({ version }) => version))
      yield* until("the first is dropped", Effect.map(versions, (all) => !all.includes(1)))
      yield* until("the third is promoted", Effect.map(second.status, (all) => all.at(-1)?.state === "promoted"))
      assert.deepStrictEqual(yield* versions, [2, 3])
      const left = yield* sql`select relname from pg_class where relname like '%counts\\_v1%'`
      assert.deepStrictEqual(left, [])
      assert.isTrue(Exit.isSuccess(yield* Effect.exit(Fiber.interruptAll([two, three]))))
    }))
})
