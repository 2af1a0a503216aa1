/** Following an aggregated stream on PostgreSQL: connections that are lost, and what is left behind. */
import { assert, describe } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Layer, Ref, Schedule, Stream } from "effect"
import { SqlClient } from "effect/sql"
import * as Objects from "../src/postgres/objects.ts"
import { openStore } from "../src/postgres/open.ts"
import { readPartition } from "../src/postgres/streams.ts"
import { clientNamed, until } from "./support/processes.ts"
import { Done, stream, Work } from "./support/work.ts"
import { test, write } from "./support/working.ts"

const partitions = 4

describe("PostgreSQL followers", () => {
  test("miss nothing and get nothing twice, though their connections are lost", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      const worked = yield* stream(partitions)
      yield* Effect.forkScoped(worked.projector.run())
      const seen = yield* Ref.make<ReadonlyArray<string>>([])
      const following = yield* Effect.forkScoped(
        Effect.gen(function*() {
          const followed = yield* stream(partitions)
          const live = followed.follow({ from: "beginning", pollInterval: "1 second" }).pipe(
            Stream.map(({ partition, position }) => `${partition}:${position}`)
          )
          yield* Stream.runForEach(live, (place) => Ref.update(seen, (places) => [...places, place]))
        }).pipe(Effect.provide(Layer.fresh(Layer.provideMerge(Work.layer, clientNamed("follower")))))
      )
      yield* work.write("s-0", new Done({ number: 0 }))
      yield* until(
        "it follows",
        Effect.map(Ref.get(seen), (places) => places.length === 1)
      )
      const cutting = yield* Effect.forkScoped(Effect.repeat(
        sql`select pg_terminate_backend(pid) from pg_stat_activity
          where datname = current_database() and application_name = 'follower'`,
        Schedule.spaced("150 millis")
      ))
      for (let i = 0; i < 60; i++) {
        yield* work.write(
          `s-${i % 20}`,
          Arr.makeBy(20, (number) => new Done({ number }))
        )
        yield* Effect.sleep("50 millis")
      }
      yield* Fiber.interrupt(cutting)
      const hasCome = until("all has come", Effect.map(Ref.get(seen), (places) => places.length > 1200), 40)
      yield* Effect.raceFirst(hasCome, Effect.andThen(Fiber.join(following), Effect.die("it has ended")))
      const places = yield* Ref.get(seen)
      const all = (yield* worked.partitions).flatMap(({ partition, position }) =>
        Arr.makeBy(position + 1, (i) => `${partition}:${i}`)
      )
      assert.deepStrictEqual(places.toSorted(), all.toSorted())
      yield* Fiber.interrupt(following)
    }))

  test("are told by a page which run of the server has answered", () =>
    Effect.gen(function*() {
      yield* write(1)
      const sql = yield* SqlClient.SqlClient
      const store = yield* openStore("work")
      const { answered: { run } } = store
      const read = readPartition(sql, store, yield* Effect.fromResult(Objects.forStream("worked")))
      for (const [tellsRun, told] of [[undefined, 0], [true, run]] as const) {
        store.answered.run = 0
        assert.lengthOf((yield* read({ partition: 0, fromPosition: 0, limit: 10, tellsRun })).messages, 1)
        assert.strictEqual(store.answered.run, told)
      }
    }))

  test("leave nothing behind", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const work = yield* Work
      const worked = yield* stream(partitions)
      const relations = Effect.map(
        sql<{ readonly name: string }>`select relname::text as name from pg_class
        where relnamespace = current_schema()::regnamespace order by 1`,
        (rows) => rows.map(({ name }) => name)
      )
      const before = yield* relations
      yield* work.write("s-1", new Done({ number: 1 }))
      yield* worked.projector.runOnce
      yield* Effect.gen(function*() {
        const followed = yield* stream(partitions)
        for (let i = 0; i < 20; i++) {
          yield* Stream.runDrain(Stream.take(followed.follow({ from: "beginning" }), 1))
        }
      }).pipe(
        Effect.provide(Layer.fresh(Layer.provideMerge(Work.layer, clientNamed("follower")))),
        Effect.scoped
      )
      assert.deepStrictEqual(yield* relations, before)
      yield* until(
        "its connections are closed",
        Effect.map(
          sql`select pid from pg_stat_activity where datname = current_database() and application_name = 'follower'`,
          (found) => found.length === 0
        )
      )
    }))
})
