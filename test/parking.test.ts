/**
 * At the port: what is parked behind a message, and who takes that away or requeues it, wait for each other. Errors that are alike
 * are so in the database and in the process.
 */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { alike } from "../src/internal/alike.ts"
import * as MemoryStorage from "../src/memory/storage.ts"
import * as Migrations from "../src/postgres/migrations/run.ts"
import { errorMessage } from "../src/postgres/parked.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { Storage } from "../src/Storage.ts"
import { databaseLayer } from "./support/database.ts"
import { until } from "./support/processes.ts"

const entry = (position: number) => ({
  partition: 0,
  position,
  messageId: `00000000-0000-7000-8000-00000000000${position}`,
  error: { tag: "Boom", message: "" },
  attempts: 1,
  key: "a"
})

const made = Effect.gen(function*() {
  const storage = yield* Storage
  const aggregated = yield* storage.aggregatedStream({ name: "parking", patterns: ["%"], partitioner: undefined })
  const subscribed = yield* aggregated.subscription("parking")
  yield* subscribed.initialise(Effect.succeed([]))
  yield* subscribed.park(entry(1))
  const left = Effect.map(
    subscribed.parked({}),
    (all) => all.map(({ position, requeuedAt }) => `${position}${requeuedAt === undefined ? "" : " requeued"}`)
  )
  return { storage, subscribed, left }
})

/** Runs an effect in a transaction, which it leaves open; answers what ends it. */
const opened = Effect.fnUntraced(function*<A, E>(storage: Storage["Service"], effect: Effect.Effect<A, E>) {
  const [done, end] = [yield* Deferred.make<A, E>(), yield* Deferred.make<void, "rolled back">()]
  const fiber = yield* Effect.forkScoped(storage.withTransaction(
    effect.pipe(Effect.onExit((exit) => Deferred.done(done, exit)), Effect.andThen(Deferred.await(end)))
  ))
  yield* Deferred.await(done)
  return {
    commit: Effect.andThen(Deferred.succeed(end, undefined), Fiber.join(fiber)),
    rollBack: Effect.andThen(Deferred.fail(end, "rolled back"), Fiber.await(fiber))
  }
})

/** In memory, fibers that can go on do so meanwhile; in the database, a session is seen that waits for a lock. */
const nothingHappens = Effect.sleep("50 millis")
const sessionWaits = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  yield* until(
    "a session waits",
    Effect.map(
      sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      (rows) => rows.length > 0
    )
  )
})

const postgres = PostgresStorage.layer("dead_letters").pipe(
  Layer.provide(Layer.effectDiscard(Migrations.run("dead_letters")))
)
const kinds = [
  { name: "memory", layer: MemoryStorage.layer, waits: nothingHappens },
  { name: "PostgreSQL", layer: postgres, waits: sessionWaits }
]

for (const { layer, name, waits } of kinds) {
  const test = <E>(title: string, body: Effect.Effect<void, E, Storage | SqlClient.SqlClient | Scope.Scope>) =>
    it.live(
      title,
      () => body.pipe(Effect.scoped, Effect.provide(Layer.fresh(Layer.provideMerge(layer, databaseLayer()))))
    )

  describe(name, () => {
    test(
      "a message is not parked behind one that is being taken away, unless that is rolled back",
      Effect.gen(function*() {
        for (const isKept of [false, true]) {
          const { left, storage, subscribed } = yield* made
          const taking = yield* opened(storage, subscribed.unpark(entry(1)))
          const parking = yield* Effect.forkScoped(subscribed.parkBehind(entry(2), 10))
          yield* waits
          assert.isUndefined(parking.pollUnsafe())
          yield* isKept ? taking.rollBack : taking.commit
          assert.strictEqual(yield* Fiber.join(parking), isKept ? "Parked" : "Free")
          assert.deepStrictEqual(yield* left, isKept ? ["1", "2"] : [])
        }
      })
    )

    test(
      "a message that is parked behind one while that is requeued is requeued as well",
      Effect.gen(function*() {
        const { left, storage, subscribed } = yield* made
        const requeueing = yield* opened(storage, subscribed.requeue({ places: [entry(1)] }))
        const parking = yield* Effect.forkScoped(subscribed.parkBehind(entry(2), 10))
        yield* waits
        assert.isUndefined(parking.pollUnsafe())
        yield* requeueing.commit
        assert.strictEqual(yield* Fiber.join(parking), "Parked")
        assert.deepStrictEqual(yield* left, ["1 requeued", "2 requeued"])
      })
    )

    test(
      "a requeue takes along what is being parked behind what it means",
      Effect.gen(function*() {
        const { left, storage, subscribed } = yield* made
        const parking = yield* opened(storage, subscribed.parkBehind(entry(2), 10))
        const requeueing = yield* Effect.forkScoped(subscribed.requeue({ messageIds: [entry(1).messageId] }))
        yield* waits
        assert.isUndefined(requeueing.pollUnsafe())
        yield* parking.commit
        assert.strictEqual(yield* Fiber.join(requeueing), 2)
        assert.deepStrictEqual(yield* left, ["1 requeued", "2 requeued"])
      })
    )

    test(
      "it is not full while one is being taken away, and stays full until the partition is halted",
      Effect.gen(function*() {
        yield* Effect.forEach(
          [false, true],
          Effect.fnUntraced(function*(isLast) {
            const { left, storage, subscribed } = yield* made
            assert.strictEqual(yield* subscribed.parkBehind(entry(2), 3), "Parked")
            const taking = yield* opened(storage, subscribed.unpark(entry(isLast ? 2 : 1)))
            const parking = yield* Effect.forkScoped(subscribed.parkBehind(entry(3), 2))
            yield* waits
            assert.isUndefined(parking.pollUnsafe())
            yield* taking.commit
            assert.strictEqual(yield* Fiber.join(parking), "Parked")
            const stays = isLast ? 1 : 2
            assert.deepStrictEqual(yield* left, [`${stays}`, "3"])
            const claims = yield* subscribed.claims({ _tag: "Session" }, undefined)
            const claim = yield* claims.claim(0, { ask: false })
            if (claim === undefined) return assert.fail("not claimed")
            const halting = yield* opened(
              storage,
              Effect.tap(subscribed.parkBehind(entry(4), 2), () => subscribed.halt(claim, entry(4)))
            )
            const unparking = yield* Effect.forkScoped(subscribed.unpark(entry(3)))
            yield* waits
            assert.isUndefined(unparking.pollUnsafe())
            yield* halting.commit
            assert.isTrue(yield* Fiber.join(unparking))
            assert.isTrue((yield* subscribed.status).every(({ halted }) => halted === undefined))
            yield* subscribed.reset
          }, Effect.scoped),
          { discard: true }
        )
      })
    )

    test(
      "no more are parked than the limit says, and only the first is handed out",
      Effect.gen(function*() {
        const { left, subscribed } = yield* made
        assert.strictEqual(yield* subscribed.parkBehind(entry(2), 3), "Parked")
        assert.strictEqual(yield* subscribed.parkBehind(entry(3), 3), "Parked")
        assert.strictEqual(yield* subscribed.parkBehind(entry(4), 3), "Full")
        assert.strictEqual(yield* subscribed.parkBehind({ ...entry(4), key: "b" }, 3), "Free")
        assert.strictEqual(yield* subscribed.requeue(undefined), 3)
        assert.strictEqual(yield* subscribed.parkBehind(entry(4), 3), "Requeued")
        assert.strictEqual((yield* subscribed.requeued(0))?.position, 1)
        // One that fails again holds those behind it.
        assert.isTrue(yield* subscribed.park(entry(1), { onlyIfParked: true }))
        assert.deepStrictEqual(yield* left, ["1", "2", "3"])
        assert.isUndefined(yield* subscribed.requeued(0))
        assert.isFalse(yield* subscribed.unpark(entry(2), { ifFirst: true }))
        assert.isTrue(yield* subscribed.unpark(entry(1), { ifFirst: true }))
        assert.isTrue(yield* subscribed.isFirstParked(entry(2)))
        assert.isFalse(yield* subscribed.isFirstParked(entry(3)))
      })
    )
  })
}

describe("errors that are alike", () => {
  it("differ in numbers, UUIDs and hexadecimal words alone", () => {
    for (
      const [message, expected] of [
        ["no order 12 of 3F2504E0-4f89-41d3-9a0c-0305e82c3301", "no order # of #"],
        ["no order 3f9a, c0ffee1 or ord_9e107d9d372bb6826bd81d3542a419d6", "no order #, # or ord_#"],
        ["a bad face is dead: added x1b2g", "a bad face is dead: added x#b#g"],
        ["#: 1e3.5", "#: #.#"]
      ] as const
    ) {
      assert.strictEqual(alike(message), expected)
      assert.strictEqual(alike(expected), expected)
    }
  })

  it.effect("are so in the database as in the process", () =>
    Effect.gen(function*() {
      const uuid = "3F2504E0-4f89-41d3-9a0c-0305e82c3301"
      const parts = [
        "",
        "a",
        "F",
        "g",
        "Z",
        "1",
        "90",
        "_",
        "-",
        " ",
        "\n",
        "#",
        "é",
        "\u0661",
        "\u212a",
        uuid,
        uuid.slice(0, 13)
      ]
      const texts = parts.flatMap((one) => parts.flatMap((two) => parts.flatMap((three) => [one + two + three + one])))
      const sql = yield* SqlClient.SqlClient
      const rows = yield* sql<{ readonly message: string }>`select ${sql.literal(errorMessage("p"))} as message
        from unnest(${texts}::text[]) with ordinality p(error, i) order by i`
      assert.deepStrictEqual(rows.map(({ message }) => message), texts.map(alike))
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))
})
