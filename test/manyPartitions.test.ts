/** Subscriptions whose partitions are many: what they ask for is asked for in few statements, and promises hold as for one. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Exit, Fiber, Layer, Result, Scope, Stream } from "effect"
import { Storage } from "effect-message-store"
import { SqlClient } from "effect/sql"
import * as MemoryStorage from "../src/memory/storage.ts"
import * as Advancing from "../src/postgres/advancing.ts"
import * as Objects from "../src/postgres/objects.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import type { ClaimMode, Claims } from "../src/Storage.ts"
import { clientNamed, lockers, until } from "./support/processes.ts"
import { Done, Work } from "./support/work.ts"
import { test } from "./support/working.ts"

const count = 100
const all = Arr.makeBy(count, (i) => i)
const definition = { name: "many", patterns: ["many-%"] as const }

/** An aggregated stream that has so many messages in each of the partitions. */
const written = Effect.fnUntraced(function*(messages: number, partitions: Arr.NonEmptyReadonlyArray<number> = all) {
  const work = yield* Work
  const stream = yield* work.aggregatedStream({
    ...definition,
    partitioner: (stored) => Number(stored.stream.slice(5))
  })
  yield* work.writeAll(Arr.map(partitions, (partition) => ({
    stream: `many-${partition}`,
    messages: Arr.makeBy(messages, (number) => new Done({ number }))
  })))
  yield* stream.projector.runOnce
  return stream
})

/** The port of a subscription, with connections of its own. */
const port = Effect.fnUntraced(function*(application: string, name: string) {
  const context = yield* Layer.build(
    Layer.fresh(Layer.provideMerge(PostgresStorage.layer("work"), clientNamed(application)))
  )
  return yield* Effect.gen(function*() {
    const storage = yield* Storage.Storage
    const aggregated = yield* storage.aggregatedStream({ ...definition, partitioner: undefined })
    const subscribed = yield* aggregated.subscription(name)
    yield* subscribed.initialise(Effect.succeed([]))
    return subscribed
  }).pipe(Effect.provide(context))
})

/** Claims all partitions at once; answers those it got, and what releases them. */
const claimAll = Effect.fnUntraced(function*(claims: Claims) {
  const claimed = yield* Effect.forEach(
    all,
    (partition) =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const claim = yield* Scope.provide(claims.claim(partition), scope)
        return claim === undefined ? [] : [{ claim, release: Scope.close(scope, Exit.void) }]
      }),
    { concurrency: "unbounded" }
  )
  return claimed.flat()
})

describe("PostgreSQL: many partitions", () => {
  const modes: ReadonlyArray<ClaimMode> = [{ _tag: "Session" }, { _tag: "Lease", milliseconds: 60_000 }]
  for (const mode of modes) {
    test(`are claimed and released together, and each by one process: ${mode._tag}`, () =>
      Effect.gen(function*() {
        yield* written(1)
        const [a, b] = [yield* port("one", "claimed"), yield* port("other", "claimed")]
        const [ofA, ofB] = [yield* a.claims(mode, "a"), yield* b.claims(mode, "b")]
        const [mine, others] = yield* Effect.all([claimAll(ofA), claimAll(ofB)], { concurrency: 2 })
        const partitions = [...mine, ...others].map(({ claim }) => claim.partition)
        assert.deepStrictEqual(partitions.toSorted((x, y) => x - y), all)
        for (const { claim } of mine) assert.strictEqual(yield* claim.confirm, "Confirmed")

        yield* Effect.forEach([...mine, ...others], ({ release }) => release, { concurrency: "unbounded" })
        assert.strictEqual((yield* lockers("one")).length + (yield* lockers("other")).length, 0)
        for (const { claim } of mine) if (mode._tag === "Session") assert.strictEqual(yield* claim.confirm, "Fenced")
        assert.isTrue((yield* b.status).every(({ claimedBy }) => claimedBy === undefined))
        const again = yield* claimAll(ofB)
        assert.lengthOf(again, count)
        assert.isTrue(again.every(({ claim }) => claim.token === 2))
      }))
  }

  test("are acknowledged together, each with its own outcome", () =>
    Effect.gen(function*() {
      yield* written(5, [0, 1, 2, 3, 4, 5, 6])
      const subscribed = yield* port("one", "acknowledged")
      const claims = yield* subscribed.claims({ _tag: "Session" }, undefined)
      const claimed = yield* Effect.forEach(
        all.slice(0, 7),
        (partition) => Effect.map(claims.claim(partition), (claim) => claim ?? { partition, token: NaN })
      )
      const sql = yield* SqlClient.SqlClient
      const advance = Advancing.make(sql, Result.getOrThrow(Objects.forSubscription("acknowledged")))
      const moves = (...each: ReadonlyArray<readonly [partition: number, from: number, to: number, behind?: number]>) =>
        Effect.suspend(() => {
          const asked = each.map(([partition, from, to, behind = 0]) => ({
            claim: { partition, token: (claimed[partition]?.token ?? NaN) - behind },
            from,
            to
          }))
          return Arr.isArrayNonEmpty(asked) ? advance(asked) : Effect.die("none")
        })
      assert.deepStrictEqual(yield* moves([3, -1, 2], [0, -1, 0], [1, -1, -1], [2, -1, 1, 1]), [
        "Advanced",
        "Advanced",
        "Fenced",
        "Fenced"
      ])
      assert.isUndefined(yield* Scope.provide(claims.claim(3, { ask: true }), yield* Scope.make()))
      yield* sql`update ${sql("effect_message_store_claims_acknowledged")} set is_wanted = true where partition = 3`
      assert.deepStrictEqual(yield* moves([5, -1, 4], [3, 2, 4], [0, 1, 2], [0, 0, 3, 1], [4, -1, 1]), [
        "Advanced",
        "Wanted",
        "Fenced",
        "Fenced",
        "Advanced"
      ])
      // Those of one partition, of an old claim and of a new one, are told apart.
      assert.deepStrictEqual(yield* moves([0, 0, 3, 1], [0, 0, 1]), ["Fenced", "Advanced"])
      assert.deepStrictEqual(
        (yield* subscribed.status).map(({ checkpoint }) => checkpoint),
        [1, -1, -1, 4, 1, 4, -1]
      )
    }))

  test("are read together as they are alone: paused, empty, large, and behind what is acknowledged", () =>
    Effect.gen(function*() {
      const stream = yield* written(4, [0, 1, 2, 3, 4])
      const sql = yield* SqlClient.SqlClient
      const subscribed = yield* port("one", "read")
      yield* subscribed.pause(1, { reason: undefined, by: undefined })
      const claims = yield* subscribed.claims({ _tag: "Session" }, undefined)
      const claim = (yield* claims.claim(2)) ?? { partition: 2, token: NaN }
      assert.strictEqual(yield* subscribed.advance(claim, -1, 1), "Advanced")
      // Random text, which does not compress.
      yield* sql`update depeche_msgs_work set message = jsonb_set(message::jsonb, '{note}', to_jsonb((
        select string_agg(md5(i::text), '') from generate_series(1, 2000) i
      )))::json where (stream, version) in (('many-3', 1), ('many-4', 2))`
      const begun = yield* Effect.forEach(
        [0, 1, 2, 3, 4, 77],
        (partition) => subscribed.begin({ partition, limit: 3 }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(
        begun.map(({ checkpoint, messages, more }) => [checkpoint, messages.map(({ position }) => position), more]),
        [[-1, [0, 1, 2], true], [-1, [], false], [1, [2, 3], false], [-1, [0, 1, 2], true], [-1, [0], true], [
          -1,
          [],
          false
        ]]
      )
      for (const [i, partition] of [0, 2].entries()) {
        const rows = yield* Stream.runCollect(stream.read(partition, { fromPosition: i * 2, limit: 3 }))
        assert.deepStrictEqual(
          begun[partition]?.messages.map(({ messageId }) => messageId),
          rows.map(({ messageId }) => messageId)
        )
      }
      const read = yield* Effect.forEach(
        [0, 1, 2],
        (partition) => subscribed.read({ partition, fromPosition: 3, limit: 5 }),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(read.map(({ messages }) => messages.map(({ position }) => position)), [[3], [], [3]])
      assert.include(yield* subscribed.begin({ partition: 0, limit: 500 }), { checkpoint: -1, more: true })
    }))

  test("that are acknowledged together, and a reset, wait for each other without a deadlock", () =>
    Effect.gen(function*() {
      yield* written(5, [1, 2])
      const subscribed = yield* port("one", "reset")
      const claims = yield* subscribed.claims({ _tag: "Session" }, undefined)
      const claimOf = (partition: number) =>
        Effect.map(claims.claim(partition), (claim) => claim ?? { partition, token: NaN })
      const [second, first] = [yield* claimOf(2), yield* claimOf(1)]
      for (const claim of [first, second]) assert.strictEqual(yield* subscribed.advance(claim, -1, 0), "Advanced")
      const sql = yield* SqlClient.SqlClient
      const advance = Advancing.make(sql, Result.getOrThrow(Objects.forSubscription("reset")))
      const waiting = (sessions: number) =>
        until(
          `${sessions} sessions wait`,
          Effect.map(
            sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
            (rows) => rows.length === sessions
          )
        )
      // Who holds the first of them keeps both waiting, in this order: the reset gets it before the others are let go.
      const [held, letGo] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
      const holding = yield* Effect.forkScoped(sql.withTransaction(
        sql`select from depeche_subscriptions_reset where partition = 1 for update`.pipe(
          Effect.andThen(Deferred.succeed(held, undefined)),
          Effect.andThen(Deferred.await(letGo))
        )
      ))
      yield* Deferred.await(held)
      const resetting = yield* Effect.forkScoped(subscribed.reset)
      yield* waiting(1)
      const advancing = yield* Effect.forkScoped(
        advance([{ claim: second, from: 0, to: 2 }, { claim: first, from: 0, to: 2 }])
      )
      yield* waiting(2)
      yield* Deferred.succeed(letGo, undefined)
      yield* Effect.forEach([holding, resetting], Fiber.join)
      assert.deepStrictEqual(yield* Fiber.join(advancing), ["Fenced", "Fenced"])
    }))
})

it.effect("partitions that wait for slots are not looked at anew for each slot", () =>
  Effect.gen(function*() {
    let looks = 0
    const counting = Layer.effect(
      Storage.Storage,
      Effect.map(Storage.Storage, (storage) => ({
        ...storage,
        aggregatedStream: (of: Storage.StreamDefinition) =>
          Effect.map(storage.aggregatedStream(of), (aggregated) => ({
            ...aggregated,
            subscription: (name: string) =>
              Effect.map(aggregated.subscription(name), (subscribed) => ({
                ...subscribed,
                pending: Effect.tap(subscribed.pending, () => Effect.sync(() => looks++))
              }))
          }))
      }))
    ).pipe(Layer.provide(MemoryStorage.layer))
    yield* Effect.gen(function*() {
      const stream = yield* written(2)
      const subscription = yield* stream.subscription({ name: "looks", concurrency: 4 })
      let handled = 0
      const done = yield* Deferred.make<void>()
      const handler = () => ++handled < 2 * count ? Effect.void : Deferred.succeed(done, undefined)
      yield* Effect.raceFirst(subscription.run(handler), Deferred.await(done))
    }).pipe(Effect.scoped, Effect.provide(Layer.provide(Work.layerStorage, counting)))
    assert.isBelow(looks, 10)
  }))

it.live("partitions that were claimed ahead of their slots are given up where handlers take long", () =>
  Effect.gen(function*() {
    const stream = yield* written(1)
    const subscription = yield* stream.subscription({ name: "ahead", concurrency: 2, shutdownTimeout: 0 })
    let [handled, hanging] = [0, 0]
    const hangs = () => {
      if (handled < 40) return Effect.sync(() => handled++)
      hanging++
      return Effect.never
    }
    yield* Effect.forkScoped(subscription.run(hangs))
    yield* until("handlers hang", Effect.sync(() => hanging === 2))
    yield* Effect.forkScoped(subscription.run(() => Effect.sync(() => handled++)))
    yield* until("all others are handled", Effect.sync(() => handled === count - 2))
    assert.strictEqual(hanging, 2)
  }).pipe(Effect.scoped, Effect.provide(Layer.provide(Work.layerStorage, MemoryStorage.layer))))
