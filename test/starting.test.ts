/** What a process asks the database when it starts, where everything is there already. */
import { assert } from "@effect/vitest"
import { Effect, Layer, Result, Tracer } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { Work } from "./support/work.ts"
import { test } from "./support/working.ts"

/** Opens streams, each with a subscription; a new store, with what it has opened before forgotten. */
const start = (count: number, concurrency: number | "unbounded") =>
  Effect.gen(function*() {
    const work = yield* Work
    return yield* Effect.forEach(
      Array.from({ length: count }, (_, i) => i + 1),
      (i) =>
        Effect.flatMap(
          work.aggregatedStream({ name: `s${i}`, patterns: "%", partitioner: Partitioner.constant() }),
          (stream) => stream.subscription({ name: `of_s${i}` })
        ),
      { concurrency }
    )
  }).pipe(Effect.provide(Layer.fresh(Work.layer)))

/** How many statements there are meanwhile, by their spans. */
const counted = Effect.fnUntraced(function*<A, E, R>(effect: Effect.Effect<A, E, R>) {
  let statements = 0
  const tracer = Tracer.make({
    span: (options) => {
      if (options.kind === "client") statements++
      return new Tracer.NativeSpan(options)
    }
  })
  const value = yield* Effect.provideService(effect, Tracer.Tracer, tracer)
  return { statements, value }
})

test("A process that starts asks two things of each stream and subscription, and of many at once", () =>
  Effect.gen(function*() {
    const made = yield* counted(start(5, 1))
    assert.isAbove(made.statements, 150) // it does count
    const none = (yield* counted(start(0, 1))).statements
    assert.isAtMost(none, 6)
    assert.strictEqual((yield* counted(start(5, 1))).statements, none + 5 * 4)
    // All streams in two statements, then all subscriptions.
    assert.isAtMost((yield* counted(start(5, "unbounded"))).statements, none + 8)
  }))

test("A process that starts in a transaction, or where migrations are missing, makes or refuses as it should", () =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    yield* sql.withTransaction(start(2, 1))
    yield* sql`drop table effect_message_store_paused_of_s1`
    yield* sql`delete from effect_message_store_subscribed_of_s1 where migration_id = 4`
    const [subscription] = yield* start(2, "unbounded")
    yield* (subscription?.pause() ?? Effect.die("none"))
    // The start of a subscription is stored once, and again behind a reset.
    const stored = Effect.map(
      sql`select from depeche_subscriptions_of_s1 where partition = -1`,
      (rows) => rows.length
    )
    assert.strictEqual(yield* stored, 1)
    yield* (subscription?.reset() ?? Effect.die("none"))
    assert.strictEqual(yield* stored, 1)
    yield* sql`create table depeche_msgs_s3 (id int)`
    yield* sql`create table depeche_subscriptions_of_s4 (id int)`
    const third = yield* Effect.result(start(3, 1))
    assert.include(String(Result.isFailure(third) ? third.failure : ""), "is taken by a message store")
    yield* sql`drop table depeche_msgs_s3`
    const fourth = yield* Effect.result(start(4, "unbounded"))
    assert.include(
      String(Result.isFailure(fourth) ? fourth.failure : ""),
      "depeche_subscriptions_of_s4 is something else"
    )
  }))
