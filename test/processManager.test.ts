/** The process manager of the examples: in memory, on a clock of the test, and on PostgreSQL while its workers are cut off. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, Effect, Fiber, Layer, Random, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import { TestClock } from "effect/testing"
import { AllBookings, Bookings, eventsOf, managing, pay, Payments, reserve } from "../examples/18-process-manager.ts"
import { databaseLayer } from "./support/database.ts"
import { clientNamed, until } from "./support/processes.ts"

const services = Layer.provideMerge(Payments.layer, AllBookings.layer)

describe("the process manager", () => {
  it.effect("confirms what is paid in time, and lets the rest expire", () =>
    Effect.gen(function*() {
      /** Lets others work, without time going by. */
      const settled = (id: string, last: string) =>
        Effect.repeat(Effect.andThen(Effect.yieldNow, eventsOf(id)), { until: (events) => events.at(-1) === last })

      yield* reserve("1", "sea view", "15 minutes")
      yield* reserve("2", "garden", "15 minutes")
      yield* TestClock.adjust("14 minutes")
      yield* pay("1", 12_000)
      yield* settled("1", "Confirmed")
      assert.deepStrictEqual(yield* eventsOf("2"), ["Reserved"])

      yield* TestClock.adjust("1 minute")
      yield* settled("2", "Expired")
      assert.deepStrictEqual(yield* eventsOf("1"), ["Reserved", "Paid", "Confirmed"])
      assert.deepStrictEqual(yield* eventsOf("2"), ["Reserved", "PaymentOverdue", "Expired"])

      yield* pay("2", 9000)
      yield* settled("2", "RefundOwed")
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(yield* eventsOf("1"), ["Reserved", "Paid", "Confirmed"])
    }).pipe(Effect.provide(managing.pipe(Layer.provideMerge(services), Layer.provideMerge(Bookings.layerMemory)))))

  it.live("takes each step once, though its workers are cut off from the database", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const bookings = yield* Bookings
      const count = 300
      /** Two workers with connections of their own. */
      const worker = (name: string) =>
        Effect.forkScoped(Layer.launch(managing.pipe(
          Layer.provide(services),
          Layer.provide(Bookings.layer),
          Layer.provide(clientNamed(name)),
          Layer.fresh
        )))
      const workers = yield* Effect.forEach(["worker-1", "worker-2"], worker)
      const killing = yield* Effect.forkScoped(Effect.repeat(
        Effect.gen(function*() {
          const name = `worker-${yield* Random.nextIntBetween(1, 2)}`
          yield* sql`select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and application_name = ${name}`
        }),
        Schedule.max([Schedule.spaced("400 millis"), Schedule.recurs(12)])
      ))
      const ids = Arr.makeBy(count, String)
      yield* Effect.forEach(
        ids,
        (id, i) =>
          Effect.gen(function*() {
            // Some are paid at once, some about when they expire, some never.
            yield* reserve(id, "room", i % 3 === 2 ? "1 second" : i % 3 === 1 ? "800 millis" : "1 hour")
            if (i % 3 === 0) yield* pay(id, 100)
            if (i % 3 === 1) yield* Effect.andThen(Effect.sleep(750 + i % 100), pay(id, 100))
          }),
        { concurrency: 50 }
      )
      const isOver = (i: number, events: ReadonlyArray<string>) =>
        i % 3 === 2
          ? events.includes("Expired")
          : events.includes("Paid") && (events.includes("Confirmed") || events.includes("RefundOwed"))
      yield* until(
        "all is decided",
        Effect.map(Effect.forEach(ids, eventsOf, { concurrency: 8 }), (all) =>
          all.every((events, i) => isOver(i, events))),
        90
      )
      yield* Fiber.interrupt(killing)
      // Whatever could come twice would come now.
      yield* until(
        "the workers are idle",
        Effect.map((yield* Payments).lag, (lag) =>
          lag === 0),
        60
      )
      assert.strictEqual(yield* bookings.scheduler.runOnce, 0)
      const outcomes = [
        "Reserved, Paid, Confirmed",
        "Reserved, PaymentOverdue, Expired",
        "Reserved, PaymentOverdue, Expired, Paid, RefundOwed",
        "Reserved, PaymentOverdue, Paid, Expired, RefundOwed",
        "Reserved, PaymentOverdue, Paid, Confirmed",
        "Reserved, Paid, PaymentOverdue, Confirmed"
      ]
      for (const [i, events] of (yield* Effect.forEach(ids, eventsOf)).entries()) {
        assert.include(outcomes, events.join(", "), `booking ${i}`)
        if (i % 3 === 0) assert.deepStrictEqual(events, ["Reserved", "Paid", "Confirmed"])
      }
      yield* Fiber.interruptAll(workers)
    }).pipe(
      Effect.scoped,
      Effect.provide(
        Layer.fresh(services.pipe(Layer.provideMerge(Bookings.layer), Layer.provideMerge(databaseLayer())))
      )
    ), 240_000)
})
