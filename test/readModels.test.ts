/** Projections on PostgreSQL: a new version takes the place of the old one under load, and under kills at every point. */
import type { PgClient } from "@effect/sql-pg"
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Latch, Layer, Ref, Schedule, type Scope, Stream } from "effect"
import { Partitioner, Projection } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { clientNamed, until } from "./support/processes.ts"
import { Done, Work } from "./support/work.ts"
import { test } from "./support/working.ts"

const partitions = 8

/** The first shape; the second has another column before, so that the view has to be made anew. */
const shapes = {
  1: "(stream text primary key, messages int not null)",
  2: "(stream text primary key, highest int not null, messages int not null)",
  3: "(stream text primary key, highest int not null, messages int not null, lowest int)"
}

type Version = keyof typeof shapes

/** Counts messages by stream, and notes each of them: twice is once too often. */
const projection = (version: Version, options?: Partial<Projection.Options<never>>) =>
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
const asProcess = <A, E>(
  name: string,
  effect: Effect.Effect<A, E, SqlClient.SqlClient | PgClient.PgClient | Work | Scope.Scope>
) => Effect.provide(effect, Layer.fresh(Layer.provideMerge(Work.layer, clientNamed(name))))

const write = Effect.fnUntraced(function*(count: number, streams = 50) {
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

const total = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly total: number }>`select coalesce(sum(messages), 0)::int as total from counts`
  return row?.total ?? 0
})

/** What readers see: the version of the view, and whether it is the one that is promoted. */
const shown = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly definition: string; readonly promoted: number }>`
    select pg_get_viewdef('counts'::regclass) as definition,
      (select version from effect_message_store_versions_counts where is_promoted) as promoted`
  const version = Number(/counts_v(\d+)/.exec(row?.definition ?? "")?.[1])
  assert.strictEqual(version, row?.promoted)
  return version
})

/** Until readers see the version. */
const promoted = <A, M>(made: Projection.Projection<A, M>) =>
  until(
    `version ${made.version} is promoted`,
    Effect.map(made.status, (all) => all.some(({ state, version }) => version === made.version && state === "promoted"))
  )

/** Whether somebody waits for a lock in this database: others of the server have tests of their own. */
const isSomebodyWaiting = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const waiting = yield* sql`select from pg_locks l join pg_stat_activity a using (pid)
    where a.datname = current_database() and not l.granted`
  return waiting.length > 0
})

/** The second version of 500 messages, level with the first one, which is promoted; both run. */
const secondLevel = Effect.gen(function*() {
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
