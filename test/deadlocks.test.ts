/**
 * Calls of any kind, each in a call of its own, take their locks in one order: none of them ever waits in a circle, whatever
 * streams and tags they share, and whoever makes them.
 */
import { assert, describe, layer } from "@effect/vitest"
import { Array as Arr, type Context, Deferred, Effect, Fiber, Layer } from "effect"
import { SqlClient } from "effect/sql"
import { Bare, calls, Contended, type ContenderConfig, type Keys, Marked, type Store } from "./support/contending.ts"
import { databaseLayer } from "./support/database.ts"
import { clientNamed, place, runToEnd } from "./support/processes.ts"

/** Runs a process to its end; undefined if all went well. */
const run = (config: ContenderConfig): Effect.Effect<string | undefined> =>
  Effect.map(runToEnd("contenderProcess.ts", config), ({ by, output }) => by === 0 ? undefined : `${by}: ${output}`)

const storm = Effect.fnUntraced(function*(callsEach: number, kinds: ReadonlyArray<string> = Object.keys(calls)) {
  const { database, url } = yield* place
  const ended = yield* Effect.all(
    Arr.makeBy(2, () => run({ url, database, fibers: 12, calls: callsEach, kinds })),
    { concurrency: "unbounded" }
  )
  return ended.filter((output) => output !== undefined)
})

/** As the server has counted them, of sessions that have ended. */
const counted = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly deadlocks: number }>`
    select deadlocks::int from pg_stat_database where datname = current_database()`
  return row?.deadlocks
})

/** The functions take locks in whatever order. */
const unsorted = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly text: string }>`
    select pg_get_functiondef(oid) as text from pg_proc where proname = 'effect_message_store_decide_contended'`
  const text = row?.text ?? ""
  const without = text.replace("group by k.key order by k.key", "group by k.key order by pg_catalog.random()")
  assert.notStrictEqual(without, text)
  yield* sql.unsafe(without)
})

const live = { excludeTestServices: true, timeout: "1 minute" } as const
const database = () => Layer.provideMerge(Contended.layer, databaseLayer())

/** A store with connections of its own, as another process has it. */
const another = (name: string) =>
  Layer.build(Layer.fresh(Layer.provideMerge(Contended.layerNoMigrations, clientNamed(name))))

describe("calls that share streams and tags", () => {
  layer(database(), live)("two at a time", (it) => {
    it.effect("never wait in a circle, whatever of it a third one holds", () =>
      Effect.gen(function*() {
        const store = yield* Contended
        const sql = yield* SqlClient.SqlClient
        const [one, other] = [yield* another("one"), yield* another("other")]
        const waiting = sql<{ readonly count: number }>`select count(*)::int from pg_stat_activity
          where datname = current_database() and wait_event_type = 'Lock'`
        let key = 0
        const names = Object.keys(calls)

        const crossed = Effect.fnUntraced(
          function*(first: string, second: string, held: "stream" | "mark", commits: boolean) {
            const [a, b, x, y] = Arr.makeBy(4, () =>
              `${++key} ${globalThis.crypto.randomUUID()}`) as never as Arr.NonEmptyArray<string>
            const keys: Keys = { streams: [a, b ?? ""], marks: [x ?? "", y ?? ""] }
            const reversed: Keys = { streams: [b ?? "", a], marks: [y ?? "", x ?? ""] }
            const [isHeld, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
            const holder = yield* Effect.forkChild(Effect.exit(store.withTransaction(Effect.gen(function*() {
              yield* held === "stream"
                ? store.write(a, new Bare({}))
                : store.write(`${a} held`, new Marked({ marks: [x ?? ""] }))
              yield* Deferred.succeed(isHeld, undefined)
              yield* Deferred.await(release)
              if (!commits) {
                return yield* Effect.fail("rolled back")
              }
            }))))
            yield* Deferred.await(isHeld)
            const called = (name: string, context: Context.Context<Contended | SqlClient.SqlClient>, given: Keys) =>
              Effect.forkChild(Effect.provide(
                Effect.flatMap(Contended, (own: Store) =>
                  calls[name]?.(own, given) ?? Effect.void),
                context
              ))
            const fibers = [yield* called(first, one, keys), yield* called(second, other, reversed)]
            // Each waits for a lock, or has all that it wants.
            while (true) {
              const [row] = yield* waiting
              if (
                (row?.count ?? 0) >= fibers.filter((fiber) => fiber.pollUnsafe() === undefined).length
              ) break
            }
            yield* Deferred.succeed(release, undefined)
            yield* Fiber.join(holder)
            yield* Effect.forEach(fibers, Fiber.join)
          }
        )

        for (const [i, first] of names.entries()) {
          for (const second of names.slice(i)) {
            for (const held of ["stream", "mark"] as const) {
              yield* crossed(first, second, held, (i + second.length) % 2 === 0)
            }
          }
        }
      }).pipe(Effect.scoped), 120_000)
  })

  layer(database(), live)("in two processes", (it) => {
    it.effect("never wait in a circle, in any order", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* storm(60), [])
        assert.strictEqual(yield* counted, 0)
      }), 180_000)
  })

  layer(database(), live)("in two processes, where locks have no order", (it) => {
    it.effect("do wait in a circle", () =>
      Effect.gen(function*() {
        yield* unsorted
        const failed = yield* storm(60, ["writeAll, tagged"])
        assert.include(failed.join(), "deadlock detected")
      }), 180_000)
  })
})
