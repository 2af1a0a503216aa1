/** Projecting while writers, other projectors and faults are at work. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Random, Result, Schedule, Stream } from "effect"
import { type MessageStore, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { type ChildProcess, fork } from "node:child_process"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { inject } from "vitest"
import { assertLinked, blocked, fill, hold, moved, several, test } from "./support/links.ts"
import { type Moved, shared, type Tally, Transfers } from "./support/transfers.ts"

setFlagsFromString("--expose-gc")
const collectGarbage: () => void = runInNewContext("gc")

/** In MiB, of what is reachable. */
const heap = Effect.sync(() => {
  collectGarbage()
  return process.memoryUsage().heapUsed / 2 ** 20
})

/** The same chances each time this seed is given; which is told when it fails. */
const seeded = <A, E, R>(effect: Effect.Effect<A, E, R>, seed: string = globalThis.crypto.randomUUID()) =>
  effect.pipe(Random.withSeed(seed), Effect.tapCause(() => Effect.sync(() => console.error(`seed: ${seed}`))))

/** How soon the database is asked again. */
const looking = Schedule.spaced("2 millis")

const levels = ["repeatable read", "serializable"]

const streams = ["s-0", "s-1", "s-2", "s-3", "s-4", "s-5", "s-6"]

/** Something that a writer may do. Conflicts, deadlocks and faults are its lot; what is committed tells. */
const act = Effect.fnUntraced(function*(store: MessageStore.MessageStore<Moved>) {
  const sql = yield* SqlClient.SqlClient
  // Streams are taken in any order: who waits for each other in a circle shall find out soon.
  const transaction = <A, E, R>(inside: Effect.Effect<A, E, R>) =>
    store.withTransaction(Effect.andThen(sql`set local deadlock_timeout to '10ms'`, inside))
  const pick = Random.choice(streams)
  const write = Effect.gen(function*() {
    const messages = several(yield* Random.nextIntBetween(1, 4))
    const stream = yield* pick
    if (yield* Random.nextBoolean) return yield* store.write(stream, messages)
    const { version } = yield* store.head(stream)
    return yield* store.write(stream, messages, { expectedVersion: version })
  })
  const nested = Effect.gen(function*() {
    const result = yield* Effect.result(store.withTransaction(
      Effect.andThen(write, Effect.flatMap(Random.nextBoolean, (fails) => fails ? Effect.fail("back") : Effect.void))
    ))
    // A deadlock or a lost connection is the whole transaction's.
    if (Result.isFailure(result) && result.failure !== "back") return yield* Effect.fail(result.failure)
  })
  switch (yield* Random.nextIntBetween(0, 5)) {
    case 0:
      return yield* write
    case 1: {
      const parts = (yield* Random.shuffle(streams)).slice(0, 3)
      return yield* store.writeAll(parts.map((stream) => ({ stream, messages: several(2) })))
    }
    case 2:
      return yield* transaction(Effect.andThen(write, Effect.fail("back")))
    case 3:
      return yield* transaction(Effect.andThen(write, nested))
    default:
      return yield* transaction(Effect.andThen(nested, Effect.andThen(nested, write)))
  }
})

/** Two projectors run, whose backends are killed, while 10 writers do what they may. */
const survives = Effect.fnUntraced(function*(partitioner: Partitioner.Partitioner<Moved, never>) {
  const transfers = yield* Transfers
  const sql = yield* PgClient.PgClient
  const killing = Context.get(
    yield* Layer.build(PgClient.layer({ ...sql.config, maxConnections: 1 })),
    PgClient.PgClient
  )
  const stream = yield* transfers.aggregatedStream({ name: "a", patterns: "s-%", partitioner })
  const projectors = yield* Effect.forkScoped(
    Effect.forEach([1, 2], () => stream.projector.run({ pollInterval: "5 millis" }), { concurrency: 2 })
  )
  let killed = 0
  const finished = yield* Deferred.make<void>()
  const kill = Effect.gen(function*() {
    // Some round trips from one blow to the next.
    const looks = yield* Random.nextIntBetween(1, 60)
    for (let look = 0; look < looks; look++) yield* killing`select 1`
    const dead = yield* killing`
      select pg_terminate_backend(pid) from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid() and state = 'active'
        and query ~ 'effect_message_store_(project|scan|link)_a'`
    killed += dead.length
    return yield* Deferred.isDone(finished)
  })
  const killer = yield* Effect.forkScoped(Effect.repeat(kill, { until: (done) => done }))
  let written = 0
  const write = Effect.gen(function*() {
    yield* Effect.ignore(act(transfers))
    const [row] = yield* sql<{ readonly count: number }>`
      select count(*)::int as count from depeche_msgs_transfers`
    written = row?.count ?? 0
  })
  yield* Effect.all(
    Array.from(
      { length: 10 },
      () => Effect.repeat(Effect.ignore(write), { until: () => written >= 2000 && killed > 5 })
    ),
    { concurrency: "unbounded" }
  )
  yield* Deferred.succeed(finished, undefined)
  yield* Fiber.join(killer)
  assert.isUndefined(projectors.pollUnsafe()) // it waits out what was done to it
  yield* Fiber.interrupt(projectors)
  assert.isAbove(killed, 5)
  // The last blow may have met a connection that waits in the pool.
  yield* Effect.retry(stream.projector.runOnce, { while: (error) => error._tag === "SqlError" && error.isRetryable })
  assert.isAtLeast(yield* assertLinked("a"), 2000)
  assert.include(yield* stream.projector.runOnce, { linked: 0 })
})

describe("PostgreSQL", () => {
  describe("projecting", () => {
    const partitioners: ReadonlyArray<[string, Partitioner.Partitioner<Moved, never>]> = [
      ["in the database", Partitioner.streamName(3)],
      ["in the application", ({ message, stream }) => (Number(stream.at(-1)) + message.amount) % 3]
    ]

    for (const [where, partitioner] of partitioners) {
      test(
        `survives writers at random and backends that die, partitioned ${where}`,
        () => seeded(survives(partitioner)),
        { maxConnections: 20 }
      )
    }

    test("is shared by processes, which leave no gap and make no duplicate", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const sql = yield* SqlClient.SqlClient
        yield* transfers.aggregatedStream(shared)
        const [row] = yield* sql<{ readonly name: string }>`select current_database() as name`
        const children = yield* Effect.forEach([1, 2], () => startProjector(row?.name ?? ""), { concurrency: 2 })
        yield* Effect.forEach(
          Array.from({ length: 80 }, (_, i) => i),
          (i) =>
            transfers.writeAll([0, 1, 2, 3, 4].map((part) => ({
              stream: `s-${(i * 3 + part) % 20}`,
              messages: several(50)
            }))),
          { concurrency: 4 }
        )
        const tallies = yield* Effect.forEach(children, ({ stop }) => stop, { concurrency: 2 })
        yield* assertLinked("shared", 20_000)
        assert.strictEqual(tallies.reduce((sum, { linked }) => sum + linked, 0), 20_000)
        for (const { pages } of tallies) assert.isAtLeast(pages, 3)
      }))

    test("keeps nobody from writing", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const sql = yield* SqlClient.SqlClient
        const stream = yield* transfers.aggregatedStream({
          name: "a",
          patterns: "%",
          partitioner: Partitioner.constant()
        })
        yield* fill(1500, 10)
        // A page that has linked, and cannot end; then one that cannot begin.
        for (const table of ["depeche_stream_a_maxpos", "depeche_stream_a"]) {
          yield* transfers.write("s-1", moved())
          const release = yield* hold(sql`lock table ${sql(table)} in exclusive mode`)
          const running = yield* Effect.forkScoped(stream.projector.runOnce)
          yield* blocked("effect_message_store_project_a")
          yield* transfers.write("s-0", moved())
          yield* transfers.withTransaction(transfers.writeAll([
            { stream: "s-1", messages: several(10) },
            { stream: "new", messages: moved() }
          ]))
          assert.isUndefined(running.pollUnsafe())
          yield* release
          yield* Fiber.join(running)
        }
        yield* stream.projector.runOnce
        yield* assertLinked("a", 1526)
      }))

    for (const [where, partitioner] of partitioners) {
      test(`waits its turn wherever transactions are ${levels.join(" or ")}, partitioned ${where}`, () =>
        Effect.gen(function*() {
          const sql = yield* PgClient.PgClient
          const [row] = yield* sql<{ readonly name: string }>`select current_database() as name`
          let rounds = 0
          for (const level of levels) {
            yield* sql`alter database ${sql(row?.name ?? "")} set default_transaction_isolation to ${
              sql.literal(`'${level}'`)
            }`
            yield* Effect.gen(function*() {
              const there = yield* PgClient.PgClient
              assert.deepStrictEqual(yield* there`show transaction_isolation`, [{ transaction_isolation: level }])
              const store = yield* Transfers
              const stream = yield* store.aggregatedStream({ name: "a", patterns: "s-%", partitioner })
              for (let i = 0; i < 10; i++) {
                yield* store.write(`s-${i}`, several(100))
                const release = yield* hold(there`lock table depeche_stream_a in exclusive mode`)
                // Both have a snapshot, and wait: the second works on what the first has left.
                const project = Effect.retry(stream.projector.runOnce, {
                  while: (error) => error._tag === "SqlError" && error.isRetryable
                })
                const both = yield* Effect.forkScoped(Effect.all([project, project], { concurrency: 2 }))
                yield* Effect.repeat(blocked("effect_message_store_"), {
                  until: ({ length }) => length === 2,
                  schedule: looking
                })
                yield* release
                // What a run has linked before it had to begin again, it does not tell: hence by the tables.
                yield* Fiber.join(both)
                yield* assertLinked("a", ++rounds * 100)
              }
            }).pipe(
              Effect.scoped,
              Effect.provide(Layer.fresh(Layer.provideMerge(Transfers.layer, PgClient.layer(sql.config))))
            )
          }
          assert.strictEqual(rounds, 20)
        }))
    }

    test("outlasts a lock that is held for longer than a statement waits", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const sql = yield* SqlClient.SqlClient
        const stream = yield* transfers.aggregatedStream({ name: "a", patterns: "%", partitioner: () => 0 })
        yield* transfers.write("s", several(5))
        const release = yield* hold(sql`lock table depeche_stream_a in exclusive mode`)
        const logged: Array<string> = []
        const logger = Logger.layer([
          Logger.make(({ logLevel, message }) => void logged.push(`${logLevel} ${message}`))
        ])
        const running = yield* Effect.forkScoped(
          Effect.provide(stream.projector.run({ pollInterval: "10 millis" }), logger)
        )
        const first = yield* blocked("effect_message_store_")
        yield* Effect.repeat(blocked("effect_message_store_"), {
          until: ([now]) => now !== undefined && now.began !== first[0]?.began,
          schedule: looking
        })
        yield* release
        yield* Effect.repeat(stream.partitions, { until: ([head]) => head?.position === 4, schedule: looking })
        assert.isUndefined(running.pollUnsafe())
        assert.lengthOf(logged, 1)
        assert.match(logged[0] ?? "", /^Warn the projector of a tries again/)
      }))

    test("is rebuilt by its new definition, though a projector of the old one is at work", () =>
      Effect.gen(function*() {
        const transfers = yield* Transfers
        const sql = yield* SqlClient.SqlClient
        const before = yield* transfers.aggregatedStream({
          name: "a",
          patterns: "%",
          partitioner: Partitioner.constant()
        })
        const after = yield* transfers.aggregatedStream({
          name: "a",
          patterns: "%",
          partitioner: Partitioner.constant(1)
        })
        yield* transfers.write("s", several(5))
        yield* before.projector.runOnce
        // Locks are given in the order they were asked for: the links are gone, then the old one's turn comes.
        const release = yield* hold(sql`lock table depeche_stream_a in exclusive mode`)
        const rebuilding = yield* Effect.forkScoped(after.rebuild)
        yield* blocked("truncate")
        const old = yield* Effect.forkScoped(Effect.flip(before.projector.runOnce))
        yield* blocked("effect_message_store_project_a")
        yield* release
        assert.strictEqual((yield* Fiber.join(rebuilding)).linked, 5)
        assert.strictEqual((yield* Fiber.join(old))._tag, "StreamDefinitionError")
        assert.deepStrictEqual(yield* after.partitions, [{ partition: 1, position: 4 }])
        yield* assertLinked("a", 5)
      }))

    for (const [where, partitioner] of partitioners) {
      const total = where === "in the database" ? 300_000 : 60_000

      test(
        `rebuilds ${total} messages in flat memory, and goes on where it was stopped, partitioned ${where}`,
        () =>
          Effect.gen(function*() {
            const transfers = yield* Transfers
            const stream = yield* transfers.aggregatedStream({ name: "a", patterns: "s-%", partitioner })
            yield* transfers.write("s-0", several(3))
            yield* stream.projector.runOnce
            yield* fill(total - 5, 100, "s-full")
            yield* transfers.write("s-full-0", moved())

            const sql = yield* SqlClient.SqlClient
            const heaps: Array<number> = []
            const follow = (linked: number) =>
              linked < heaps.length * total / 20 ? Effect.void : Effect.map(heap, (mib) => void heaps.push(mib))
            const count = Effect.map(
              sql<{ readonly links: number }>`
              select coalesce(sum(max_position + 1), 0)::int as links from depeche_stream_a_maxpos`,
              ([row]) => row?.links ?? 0
            )
            const rebuilding = yield* Effect.forkScoped(stream.rebuild)
            const beside = yield* Effect.forkScoped(
              Effect.forEach(Array.from({ length: 150 }), () => transfers.write("s-beside-1", moved()))
            )
            yield* Effect.repeat(Effect.tap(count, follow), {
              until: (links) => links > 3 && links >= total / 2,
              schedule: looking
            })
            yield* Fiber.interrupt(rebuilding)
            const links = yield* count
            assert.isBelow(links, total * 0.9)
            yield* Fiber.join(beside)
            let rest = 0
            let begins = 0
            yield* Stream.runForEach(stream.projector.pages, (progress) => {
              if (begins === 0) begins = progress.position
              rest = progress.linked
              return follow(links + progress.linked)
            })
            assert.isAbove(begins, total / 2) // nothing is looked at again
            assert.strictEqual(links + rest, total - 1 + 150)
            yield* assertLinked("a", total - 1 + 150)
            const [lowest, highest] = [Math.min(...heaps), Math.max(...heaps)]
            assert.isAtLeast(heaps.length, 10)
            assert.isBelow(highest - lowest, 16, `heap in MiB: ${heaps.map((mib) => mib.toFixed(1)).join(" ")}`)
          }),
        { timeout: 60_000 }
      )
    }
  })
})

/** A process of its own, that projects until it is told to stop. */
const startProjector = Effect.fnUntraced(function*(database: string) {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      fork(new URL("support/projectorProcess.ts", import.meta.url), [inject("postgresUrl"), database], {
        execArgv: ["--conditions=@effect-message-store/source"]
      })
    ),
    (process_) => Effect.sync(() => process_.kill())
  )
  assert.strictEqual(yield* nextMessage(child), "ready")
  return {
    stop: Effect.suspend(() => {
      const reply = nextMessage(child)
      child.send("stop")
      return Effect.map(reply, (message) => message as Tally)
    })
  }
})

const nextMessage = (child: ChildProcess) =>
  Effect.callback<unknown>((resume) => {
    const onExit = (code: number | null) => resume(Effect.die(new Error(`the process ended (exit code ${code})`)))
    child.once("exit", onExit)
    child.once("message", (message) => {
      child.off("exit", onExit)
      resume(Effect.succeed(message))
    })
  })
