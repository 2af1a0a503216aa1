/** Subscriptions that are paused, on PostgreSQL: against reads that are under way, and in other processes. */
import { assert, describe } from "@effect/vitest"
import { Deferred, Effect, Fiber } from "effect"
import { SqlClient } from "effect/sql"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { Storage } from "../src/Storage.ts"
import { place, start, terminate, until, untilTold } from "./support/processes.ts"
import { stream, Work } from "./support/work.ts"
import { test, write } from "./support/working.ts"

describe("PostgreSQL: a pause", () => {
  test("counts for each read that begins after its commit, and each confirmation of a claim", () =>
    Effect.gen(function*() {
      yield* write(4)
      const subscription = yield* (yield* stream(1)).subscription({ name: "raced" })
      yield* Effect.gen(function*() {
        const storage = yield* Storage
        const aggregated = yield* storage.aggregatedStream({
          name: "worked",
          patterns: ["%"],
          partitioner: { _tag: "StreamName", count: 1 }
        })
        const subscribed = yield* aggregated.subscription("raced")
        const claims = yield* subscribed.claims({ _tag: "Session" }, undefined)
        const claim = yield* claims.claim(0)
        assert.isDefined(claim)
        if (claim === undefined) return
        const count = Effect.map(
          subscribed.read({ partition: 0, fromPosition: 0, limit: 10 }),
          ({ messages }) => messages.length
        )
        const isPaused = Effect.map(subscribed.pending, ([pending]) => pending?.isPaused)
        const [done, commit] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const pausing = yield* Effect.forkChild((yield* Work).withTransaction(
          subscription.pause({ partition: 0 }).pipe(
            Effect.andThen(Deferred.succeed(done, undefined)),
            Effect.andThen(Deferred.await(commit))
          )
        ))
        yield* Deferred.await(done)
        assert.strictEqual(yield* count, 4)
        assert.isFalse(yield* isPaused)
        assert.strictEqual(yield* subscribed.advance(claim, -1, 0), "Advanced")
        assert.strictEqual(yield* claim.confirm, "Confirmed")
        yield* Deferred.succeed(commit, undefined)
        yield* Fiber.join(pausing)
        assert.strictEqual(yield* count, 0)
        assert.isTrue(yield* isPaused)
        assert.strictEqual(yield* claim.confirm, "Paused")
        assert.strictEqual(yield* subscribed.advance(claim, 0, 1), "Advanced")
        assert.strictEqual(yield* subscribed.checkpoint(0), 1)
        yield* subscription.resume({ partition: 0 })
        assert.strictEqual(yield* count, 4)
        yield* subscription.pause()
        assert.strictEqual(yield* count, 0)
        assert.strictEqual(yield* claim.confirm, "Paused")
        yield* subscribed.reset
        assert.strictEqual(yield* claim.confirm, "Fenced")
      }).pipe(Effect.provide(PostgresStorage.layer("work")), Effect.scoped)
    }))

  for (
    const [kind, options] of [
      ["transactional, by sessions", { delivery: "transactional" }],
      ["at least once, by leases", { delivery: "atLeastOnce", lease: 10_000 }]
    ] as const
  ) {
    test(`stops every process, and those that start later: ${kind}`, () =>
      Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        const work = Effect.fnUntraced(function*(named: string) {
          const started = yield* start({
            _tag: "Worker",
            ...yield* place,
            name: named,
            partitions: 4,
            projects: true,
            subscriptions: [
              { name: "held", batchSize: 5, pauseMilliseconds: 10, ...options },
              { name: "witness", batchSize: 100 }
            ]
          })
          yield* untilTold(started, "Ready")
          return started
        })
        for (let i = 0; i < 8; i++) yield* write(150, `early-${i}`, 4)
        const subscription = yield* (yield* stream(4)).subscription({ name: "held" })
        const count = (name: string) =>
          Effect.map(
            sql<{ readonly count: number }>`select count(*)::int as count from effects where subscription = ${name}`,
            ([row]) => row?.count ?? 0
          )
        const now = Effect.map(
          sql<{ readonly now: string }>`select clock_timestamp()::text as now`,
          ([row]) => row?.now ?? ""
        )
        const first = yield* work("first")
        yield* work("second")
        const pauses: Array<readonly [string, string]> = []
        let written = 1200
        for (const round of [1, 2, 3]) {
          const before = yield* count("held")
          yield* until("some are handled", Effect.map(count("held"), (handled) => handled > before + 20))
          yield* subscription.pause({ reason: "a test" })
          yield* until(
            "what is in hand is over",
            Effect.map(subscription.status, (all) => all.every(({ claimedBy }) => claimedBy === undefined))
          )
          const since = yield* now
          if (round === 1) assert.strictEqual(yield* terminate(first), 0, first.output())
          if (round === 2) yield* work("third")
          for (let i = 0; i < 8; i++) yield* write(10, `late-${i}`, 4)
          written += 80
          yield* until("others see what is new", Effect.map(count("witness"), (handled) => handled >= written))
          pauses.push([since, yield* now])
          assert.isTrue(yield* subscription.resume())
        }
        yield* until("all is handled", Effect.map(subscription.lag, (lag) => lag === 0), 40)
        assert.strictEqual(yield* count("held"), written)
        for (const [from, to] of pauses) {
          assert.lengthOf(
            yield* sql`select from effects where subscription = 'held'
              and at between ${from}::text::timestamptz and ${to}::text::timestamptz`,
            0
          )
        }
      }), 90_000)
  }
})
