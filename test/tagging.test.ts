/**
 * Tags that are declared while builds that do not know them, version 0.1 and Python go on writing. An oracle compares all tags with
 * those of all messages; where the tagging does not wait for open transactions, it finds some missing.
 */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Layer, Result, Schedule, Stream } from "effect"
import { Decision } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { fork } from "node:child_process"
import * as path from "node:path"
import { databaseLayer } from "./support/database.ts"
import {
  Before,
  joined,
  joinedBefore,
  Members,
  noted,
  pythonWrites,
  version01Writes,
  wronglyTagged
} from "./support/members.ts"
import { place } from "./support/processes.ts"

const program = path.join(import.meta.dirname, "support/taggingProcess.ts")

/** Runs a process until it has told so many steps, then kills it; or to its end. */
const tagInProcess = Effect.fnUntraced(function*(steps = Infinity) {
  const config = yield* place
  return yield* Effect.callback<ReadonlyArray<{ readonly position: number; readonly upTo: number }>>((resume) => {
    const child = fork(program, [JSON.stringify(config)], {
      execArgv: ["--conditions=@effect-message-store/source"],
      stdio: ["ignore", "pipe", "pipe", "ipc"]
    })
    const told: Array<{ readonly position: number; readonly upTo: number }> = []
    child.on("message", (message) => {
      if (told.push(message as (typeof told)[number]) === steps) child.kill("SIGKILL")
    })
    child.once("close", (code, signal) =>
      resume(
        code === 0 || signal === "SIGKILL"
          ? Effect.succeed(told)
          : Effect.die(new Error(`it ended with ${code ?? signal}`))
      ))
    return Effect.sync(() => child.kill("SIGKILL"))
  })
})

/** A store of 4,000 messages without tags. */
const prepared = Effect.provide(
  Before.use((before) =>
    Effect.forEach(
      Arr.makeBy(8, (i) => i),
      (i) => before.write(`s${i}`, Arr.makeBy(500, (j) => j % 10 === 0 ? noted() : joinedBefore(i * 500 + j))),
      { discard: true }
    )
  ),
  Before.layer
)

/** All kinds of writers, until they are interrupted. */
const writers = Effect.gen(function*() {
  const before = yield* Before
  let i = 0
  const kinds: ReadonlyArray<(n: number) => Effect.Effect<unknown, unknown, SqlClient.SqlClient>> = [
    (n) => before.write(`before-${n % 5}`, joinedBefore(n)),
    (n) => before.writeAll([{ stream: `x${n % 3}`, messages: joinedBefore(n) }, { stream: "y", messages: noted() }]),
    (n) => pythonWrites(`python-${n % 5}`, joinedBefore(n)),
    (n) => version01Writes(`old-${n % 5}`, [joinedBefore(n), joinedBefore(n + 1)]),
    (n) =>
      before.withTransaction(Effect.gen(function*() {
        yield* before.write(`long-${n}`, joinedBefore(n))
        yield* pythonWrites(`long-${n}`, joinedBefore(n + 1))
        yield* Effect.sleep(n % 20)
        if (n % 4 === 0) return yield* Effect.fail("no")
      }))
  ]
  yield* Effect.forEach(
    kinds,
    (kind) => Effect.forever(Effect.ignore(Effect.suspend(() => kind(i++)))),
    { concurrency: "unbounded", discard: true }
  )
})

const assertTagged = Effect.gen(function*() {
  const { excess, expected, missing } = yield* wronglyTagged
  assert.deepStrictEqual([missing.slice(0, 5), excess.slice(0, 5)], [[], []])
  return expected
})

const inProcess = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provide(effect, Layer.fresh(Members.layer))

const test = (name: string, body: Effect.Effect<void, unknown, Layer.Success<ReturnType<typeof databaseLayer>>>) =>
  it.live(name, () => Effect.provide(body, Layer.fresh(databaseLayer({ maxConnections: 20 }))), 120_000)

describe("tagging on PostgreSQL", () => {
  test(
    "misses nothing that anybody writes meanwhile, though its process is killed and another one tags as well",
    Effect.gen(function*() {
      yield* prepared
      const writing = yield* Effect.forkChild(Effect.provide(writers, Before.layer))
      yield* Effect.sleep(200)
      const killed = yield* tagInProcess(2)
      assert.isAtLeast(killed.length, 2)
      const rest = yield* Effect.all([tagInProcess(), tagInProcess()], { concurrency: 2 })
      for (const steps of rest) assert.strictEqual(steps.at(-1)?.position, steps.at(-1)?.upTo)
      yield* Effect.sleep(200)
      yield* Fiber.interrupt(writing)
      assert.isAbove(yield* inProcess(assertTagged), 4000)
      yield* inProcess(Members.use((members) => Stream.runDrain(members.readTagged({ club: "c1" }))))
    })
  )

  for (const how of ["as it is", "without waiting"] as const) {
    test(
      how === "as it is"
        ? "waits for transactions and calls that were under way"
        : "would miss messages if it did not wait",
      Effect.scoped(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* prepared
        const written = yield* Deferred.make<void>()
        const commit = yield* Deferred.make<void>()
        // One has written, and one has begun a call; both know nothing of what is declared later.
        const holding = yield* Effect.forkChild(sql.withTransaction(Effect.gen(function*() {
          yield* version01Writes("held", [joinedBefore(1), joinedBefore(2)])
          yield* pythonWrites("held", joinedBefore(3))
          yield* Deferred.succeed(written, undefined)
          yield* Deferred.await(commit)
        })))
        yield* Deferred.await(written)
        const waiting = yield* Effect.forkChild(pythonWrites("held", joinedBefore(4)))
        yield* Effect.repeat(
          sql`select from pg_locks l join pg_stat_activity a using (pid)
            where a.datname = current_database() and l.locktype = 'advisory' and not l.granted`,
          { until: (rows) => rows.length > 0, schedule: Schedule.spaced("5 millis") }
        )
        const members = yield* Effect.provide(Members, yield* Layer.build(Layer.fresh(Members.layer)))
        if (how === "without waiting") yield* sql`update effect_message_store_tagged_members set waits_for = '{}'`
        let most = 0
        const tagging = yield* Effect.forkChild(
          Stream.runForEach(members.tagging(), ({ waitsFor }) => Effect.sync(() => most = Math.max(most, waitsFor)))
        )
        if (how === "as it is") {
          yield* Effect.repeat(Effect.sync(() => most), {
            until: (n) => n === 2,
            schedule: Schedule.spaced("5 millis")
          })
          assert.strictEqual(
            (yield* Effect.flip(Stream.runDrain(members.readTagged({ club: "c1" }))))._tag,
            "TagsIncompleteError"
          )
        } else yield* Fiber.join(tagging)
        yield* Deferred.succeed(commit, undefined)
        yield* Effect.all([Fiber.join(holding), Fiber.join(waiting), Fiber.join(tagging)])
        const { excess, missing } = yield* Effect.provideService(wronglyTagged, Members, members)
        assert.deepStrictEqual(excess, [])
        if (how === "as it is") assert.deepStrictEqual(missing, [])
        else assert.isAtLeast(missing.length, 4)
      }))
    )
  }

  test(
    "is in force for snapshots that are older than the declaration: such a write can be tried again",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* prepared
      const [begun, declared] = [yield* Deferred.make<void>(), yield* Deferred.make<void, unknown>()]
      yield* Effect.forkChild(
        Effect.andThen(Deferred.await(begun), Deferred.into(inProcess(Members.use(() => Effect.void)), declared))
      )
      const failure = yield* Effect.flip(
        sql.withTransaction(Effect.gen(function*() {
          yield* sql`select count(*) from depeche_msgs_members`
          yield* Deferred.succeed(begun, undefined)
          yield* Effect.orDie(Deferred.await(declared))
          yield* pythonWrites("python", joinedBefore(1))
        })).pipe(Effect.provideService(SqlClient.BeginTransaction, "begin isolation level repeatable read"))
      )
      assert(failure._tag === "SqlError")
      assert.isTrue(failure.isRetryable)
      yield* pythonWrites("python", joinedBefore(1))
      yield* inProcess(Members.use((members) => Stream.runDrain(members.tagging())))
      yield* inProcess(assertTagged)
    })
  )

  test(
    "finds no deadlock between decisions and writers that do not know the tags, in one call each",
    Effect.gen(function*() {
      const before = yield* Before
      const members = yield* Members
      const count = { initial: 0, evolve: (sofar: number) => sofar + 1 }
      const kinds: ReadonlyArray<(n: number) => Effect.Effect<unknown, unknown, SqlClient.SqlClient>> = [
        (n) => pythonWrites(`s${n % 4}`, joinedBefore(n)),
        (n) => version01Writes(`s${(n + 1) % 4}`, [joinedBefore(n), joinedBefore(n + 3)], n % 2 === 0),
        (n) => before.write(`s${(n + 2) % 4}`, [joinedBefore(n + 2), joinedBefore(n)]),
        (n) =>
          before.writeAll([
            { stream: `s${n % 4}`, messages: joinedBefore(n + 5) },
            { stream: `s${(n + 3) % 4}`, messages: joinedBefore(n) }
          ]),
        (n) => members.write(`s${n % 4}`, joined(n)),
        (n) =>
          members.decide({
            a: Decision.tagged({ club: `c${n % 7}` }, count),
            b: Decision.tagged({ role: "a" }, count),
            s: Decision.stream(`s${n % 4}`, count)
          }, () => ({ stream: `s${(n + 1) % 4}`, messages: joined(n + 1) }))
      ]
      const results = yield* Effect.forEach(
        Arr.makeBy(300, (n) => n),
        (n) => Effect.result((kinds[(n * 7) % kinds.length] ?? kinds[0])?.(n) ?? Effect.void),
        { concurrency: 40 }
      )
      const failures = results.filter(Result.isFailure).map(({ failure }) =>
        String(Object(failure).reason?.cause?.code ?? failure)
      )
      assert.deepStrictEqual(failures, [])
      yield* assertTagged
    }).pipe(Effect.provide([Layer.fresh(Members.layer), Layer.fresh(Before.layer)]))
  )

  test(
    "lets builds that do not know the tags wait for nobody's streams and tags but their own",
    Effect.scoped(Effect.gen(function*() {
      const before = yield* Effect.provide(Before, yield* Layer.build(Layer.fresh(Before.layer)))
      const members = yield* Effect.provide(Members, yield* Layer.build(Layer.fresh(Members.layer)))
      const [held, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const holder = yield* Effect.forkChild(members.withTransaction(Effect.gen(function*() {
        yield* members.write("held", joined(1))
        yield* Deferred.succeed(held, undefined)
        yield* Deferred.await(release)
      })))
      yield* Deferred.await(held)
      const waiting = yield* Effect.forEach(
        [before.write("held", noted()), before.write("of the club", joinedBefore(1)), before.write("held", noted())],
        (write) => Effect.forkChild(write, { startImmediately: true })
      )
      for (let i = 0; i < 20; i++) {
        yield* Effect.forEach(
          [before.write(`free-${i}`, noted()), before.write(`tagged-${i}`, joinedBefore(35 * i))],
          (write) => write,
          { concurrency: "unbounded" }
        )
      }
      assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
      yield* Deferred.succeed(release, undefined)
      yield* Fiber.join(holder)
      yield* Fiber.joinAll(waiting)
      assert.strictEqual((yield* before.head("held")).version, 3)
    }))
  )
})
