/** Appends with tags and conditions leave together, and wait for nobody else's streams and tags. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Layer, Result, Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { Storage } from "../src/Storage.ts"
import {
  append,
  holdTags,
  inLine,
  itemOf,
  name,
  nobodyWrote,
  standsInLine,
  storageLayer,
  unique,
  waitUntil
} from "./support/appending.ts"
import { databaseLayer } from "./support/database.ts"
import { layerDatabase, startOwnServer } from "./support/server.ts"

const live = { excludeTestServices: true }

describe("PostgreSQL", () => {
  layer(Layer.provideMerge(storageLayer, databaseLayer()), live)("appends with tags and conditions", (it) => {
    it.effect("leave in far fewer statements than there are, those of one tag too", () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const tag = unique()
        const item = (i: number) =>
          i % 2 === 0
            ? itemOf(`few-${i}`, [tag, `few:${i}`])
            : itemOf(`few-${i}`, [`few:${i}`], { conditions: [nobodyWrote(`few:${i}`), nobodyWrote(`none:${i}`)] })
        const outcomes = yield* Effect.forEach(Arr.range(1, 300), (i) => append(item(i)), { concurrency: "unbounded" })
        assert.isTrue(outcomes.every(({ _tag }) => _tag === "Written"))
        const [row] = yield* sql<{ readonly statements: number }>`
          select count(distinct tx)::int as statements from depeche_msgs_together where stream like 'few-%'`
        assert.isBelow(row?.statements ?? 0, 20)
      }))

    it.effect("of one stream keep their order, whether they have tags or not", () =>
      Effect.gen(function*() {
        const stream = unique()
        const outcomes = yield* Effect.forEach(
          Arr.range(1, 200),
          (i) => append(itemOf(stream, i % 3 === 0 ? [`order:${i % 4}`] : [])),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(
          outcomes.map((outcome) => outcome._tag === "Written" ? outcome.version : 0),
          Arr.range(1, 200)
        )
      }))

    it.effect("wait for nobody's tags but their own", () =>
      Effect.gen(function*() {
        const storage = yield* Storage
        const [tag, other, stream] = [unique(), unique(), unique()]
        const release = yield* holdTags([tag])
        const waiting = yield* Effect.forEach(
          [
            ...Arr.makeBy(20, () => itemOf(unique(), [tag, other])),
            ...Arr.makeBy(10, () => itemOf(unique(), [other], { conditions: [{ ...nobodyWrote(tag), types: ["B"] }] })),
            itemOf(stream, [tag])
          ],
          (item) => Effect.forkChild(append(item), { startImmediately: true })
        )
        yield* standsInLine
        // Disjoint tags, what is asked about others, and plain writes go through; so does a tag that those who wait need too.
        const free = yield* Effect.forEach(Arr.range(1, 200), (i) =>
          append(
            i % 4 === 0
              ? itemOf(unique(), [])
              : i % 4 === 1
              ? itemOf(unique(), [`free:${i}`], { conditions: [nobodyWrote(`free:${i}`), nobodyWrote(unique())] })
              : i % 4 === 2
              ? itemOf(unique(), [`free:${i}`, other])
              : itemOf(unique(), [], { conditions: [{ ...nobodyWrote(other), types: ["B"] }] })
          ), { concurrency: 50 })
        assert.isTrue(free.every(({ _tag }) => _tag === "Written"))
        // Nor does it keep others from the stream, or from its other tags, that it waits in line.
        yield* storage.append([itemOf(stream, []), itemOf(unique(), [other])], { atomic: true })
        assert.strictEqual(yield* inLine, 1)
        const asking = yield* holdTags([other])
        assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
        yield* asking
        yield* release
        const outcomes = yield* Effect.forEach(waiting, Fiber.join)
        assert.isTrue(outcomes.every(({ _tag }) => _tag === "Written"))
        assert.strictEqual(yield* inLine, 0)
      }))

    it.effect("that are interrupted while they wait for a tag leave nothing, and let those behind them go", () =>
      Effect.gen(function*() {
        const storage = yield* Storage
        const [tag, stream] = [unique(), unique()]
        const release = yield* holdTags([tag])
        const first = yield* Effect.forkChild(append(itemOf(stream, [tag])), { startImmediately: true })
        const behind = yield* Effect.forkChild(append(itemOf(stream, [])), { startImmediately: true })
        const last = yield* Effect.forkChild(append(itemOf(unique(), [tag])), { startImmediately: true })
        yield* standsInLine
        assert.isUndefined(behind.pollUnsafe())
        yield* Fiber.interrupt(first)
        assert.deepInclude(yield* Fiber.join(behind), { _tag: "Written", version: 1 })
        assert.isUndefined(last.pollUnsafe())
        yield* Fiber.interrupt(last)
        yield* waitUntil(Effect.map(inLine, (count) => count === 0))
        yield* release
        assert.strictEqual((yield* storage.ends([], [tag])).tags[0], 0)
        assert.strictEqual((yield* append(itemOf(stream, [tag])))._tag, "Written")
        assert.strictEqual((yield* storage.head(stream)).version, 2)
      }))

    it.effect("wait for each of their tags in turn", () =>
      Effect.gen(function*() {
        const tags = Arr.makeBy(4, unique)
        const releases = yield* Effect.forEach(tags, (tag) => holdTags([tag]))
        const waiting = yield* Effect.forkChild(append(itemOf(unique(), tags)), { startImmediately: true })
        for (const release of releases) {
          yield* standsInLine
          assert.isUndefined(waiting.pollUnsafe())
          yield* release
        }
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "Written")
      }))
  })

  const client: Readonly<Record<string, { readonly maxConnections?: number; readonly multiplex?: boolean }>> = {
    "a pool of 2": { maxConnections: 2 },
    "multiplexed connections": { multiplex: true }
  }
  for (const [title, options] of Object.entries(client)) {
    it.live(`with ${title}, tags that others hold block nobody else`, () =>
      Effect.gen(function*() {
        const tags = Arr.makeBy(12, unique)
        // Held from outside of the pool.
        const elsewhere = Layer.provideMerge(
          PostgresStorage.layer(name),
          PgClient.layer({ ...(yield* PgClient.PgClient).config, maxConnections: 2 })
        )
        const release = yield* Effect.provide(holdTags(tags), yield* Layer.build(Layer.fresh(elsewhere)))
        const waiting = yield* Effect.forEach([...tags, ...tags], (tag) =>
          Effect.forkChild(append(itemOf(unique(), [tag])), { startImmediately: true }))
        yield* Effect.provide(standsInLine, yield* Layer.build(Layer.fresh(elsewhere)))
        for (let i = 0; i < 50; i++) {
          yield* Effect.forEach([[], ["a"], ["b"]], (free) =>
            append(itemOf(unique(), free)), {
            concurrency: "unbounded"
          })
        }
        assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
        assert.strictEqual(yield* inLine, 1)
        yield* release
        const outcomes = yield* Effect.forEach(waiting, Fiber.join)
        assert.isTrue(outcomes.every(({ _tag }) => _tag === "Written"))
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(storageLayer, databaseLayer(options)))), 20_000)
  }

  it.live(
    "a lock_timeout fails those who have waited for a tag, with an error that is worth a retry",
    () =>
      Effect.gen(function*() {
        const [tag, other] = [unique(), unique()]
        const release = yield* holdTags([tag, other])
        const results = yield* Effect.forEach(
          Arr.range(1, 40),
          (i) => Effect.result(append(itemOf(unique(), [i % 2 === 0 ? tag : other]))),
          { concurrency: "unbounded" }
        ).pipe(Effect.timeout("5 seconds"))
        for (const result of results) {
          assert(Result.isFailure(result))
          assert.strictEqual(result.failure.reason._tag, "LockTimeoutError")
          assert.isTrue(result.failure.isRetryable)
        }
        yield* release
        assert.strictEqual((yield* append(itemOf(unique(), [tag])))._tag, "Written")
      }).pipe(
        Effect.provide(
          Layer.provideMerge(storageLayer, databaseLayer({ startupParameters: { lock_timeout: "500ms" } }))
        )
      ),
    20_000
  )

  it.live("may need more locks than the server has, under way and while they wait", () =>
    Effect.gen(function*() {
      const { url } = yield* startOwnServer({ settings: { max_connections: "25", max_locks_per_transaction: "32" } })
      yield* Effect.gen(function*() {
        const tag = unique()
        const release = yield* holdTags([tag])
        const fibers = yield* Effect.forEach(Arr.range(1, 1000), (i) =>
          Effect.forkChild(
            append(itemOf(unique(), [...Arr.makeBy(31, (n) => `many:${i}-${n}`), i % 2 === 0 ? tag : unique()])),
            { startImmediately: true }
          ))
        yield* Effect.forEach(fibers.filter((_, i) => i % 2 === 0), Fiber.join)
        yield* standsInLine
        yield* release
        const outcomes = yield* Effect.forEach(fibers, Fiber.join)
        assert.isTrue(outcomes.every(({ _tag }) => _tag === "Written"))
      }).pipe(Effect.provide(Layer.provideMerge(storageLayer, layerDatabase(url))))
    }).pipe(Effect.scoped), 60_000)

  it.live("that ask fail alone where sessions begin with another isolation level", () =>
    Effect.gen(function*() {
      const outcomes = yield* Effect.forEach(
        Arr.range(1, 60),
        (i) => {
          const tag = unique()
          return append(itemOf(unique(), [tag], i % 3 === 0 ? { conditions: [nobodyWrote(tag)] } : {}))
        },
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        outcomes.map(({ _tag }) => _tag),
        Arr.makeBy(60, (i) => i % 3 === 2 ? "WrongIsolation" : "Written")
      )
    }).pipe(
      Effect.provide(Layer.provideMerge(
        storageLayer,
        databaseLayer({ startupParameters: { default_transaction_isolation: "repeatable read" } })
      ))
    ))

  it.live("end with the layer: who waits for a tag is interrupted", () =>
    Effect.gen(function*() {
      yield* Migrations.run(name)
      const [scope, others] = [yield* Scope.make(), yield* Layer.build(PostgresStorage.layer(name))]
      const closing = yield* Layer.buildWithScope(Layer.fresh(PostgresStorage.layer(name)), scope)
      const tag = unique()
      const release = yield* Effect.provide(holdTags([tag]), others)
      const waiting = yield* Effect.forEach(Arr.range(1, 10), () =>
        Effect.forkChild(Effect.provide(append(itemOf(unique(), [tag])), closing), { startImmediately: true }))
      yield* standsInLine
      yield* Scope.close(scope, Exit.void)
      for (const fiber of waiting) {
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      }
      yield* waitUntil(Effect.map(inLine, (count) =>
        count === 0))
      yield* release
      assert.deepStrictEqual(
        (yield* Effect.provide(Effect.flatMap(Storage, ({ ends }) => ends([], [tag])), others)).tags,
        [0]
      )
    }).pipe(Effect.scoped, Effect.provide(databaseLayer())), 20_000)
})
