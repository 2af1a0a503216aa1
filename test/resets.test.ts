/** At the port: a reset waits for the acknowledgements that are under way, and fences those that come later. */
import { assert, describe, it } from "@effect/vitest"
import { Array as Arr, DateTime, Deferred, Effect, Fiber, Layer, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import * as MemoryStorage from "../src/memory/storage.ts"
import * as Migrations from "../src/postgres/migrations/run.ts"
import * as PostgresStorage from "../src/postgres/storage.ts"
import { type EncodedStoredMessage, type Link, Storage } from "../src/Storage.ts"
import { isScanned } from "../src/storage/streams.ts"
import { outsider } from "../src/testing/fixture.ts"
import { databaseLayer } from "./support/database.ts"
import { until } from "./support/processes.ts"

const toFirst = ({ messageId }: EncodedStoredMessage): Link => ({ messageId, partition: 0, occurredAt: undefined })

const made = Effect.gen(function*() {
  const storage = yield* Storage
  const aggregated = yield* storage.aggregatedStream({
    name: "reset",
    patterns: ["%"],
    partitioner: undefined
  })
  yield* storage.append([{
    stream: "work",
    expectedVersion: undefined,
    metadata: "{}",
    messages: Arr.map([1, 2, 3] as const, (n) => ({
      messageId: `00000000-0000-7000-8000-00000000000${n}`,
      occurredAt: DateTime.makeUnsafe(0),
      data: "{}"
    }))
  }], { atomic: false })
  const project = Effect.gen(function*() {
    const page = yield* aggregated.scan(undefined, 100)
    if (!isScanned(page)) return false
    return (yield* aggregated.link(page.token, page.messages.map(toFirst)))?.linked === 3
  })
  yield* Effect.repeat(project, { until: (linked) => linked })
  const subscribed = yield* aggregated.subscription("reset")
  yield* subscribed.initialise(Effect.succeed([]))
  const claims = yield* subscribed.claims({ _tag: "Lease", milliseconds: 60_000 }, undefined)
  const claimed = Effect.flatMap(claims.claim(0), (claim) => claim ? Effect.succeed(claim) : Effect.die("not claimed"))
  return { storage, subscribed, claimed }
})

/** Runs an effect in a transaction, which it leaves open; answers what commits it. */
const opened = Effect.fnUntraced(function*<A, E>(storage: Storage["Service"], effect: Effect.Effect<A, E>) {
  const [done, commit] = [yield* Deferred.make<A, E>(), yield* Deferred.make<void>()]
  const fiber = yield* Effect.forkScoped(storage.withTransaction(
    effect.pipe(Effect.onExit((exit) => Deferred.done(done, exit)), Effect.andThen(Deferred.await(commit)))
  ))
  const result = yield* Deferred.await(done)
  return { result, commit: Effect.andThen(Deferred.succeed(commit, undefined), Fiber.join(fiber)) }
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

const database = databaseLayer()
const postgres = PostgresStorage.layer("resets").pipe(Layer.provide(Layer.effectDiscard(Migrations.run("resets"))))
const kinds = [
  { name: "memory", layer: MemoryStorage.layer, waits: nothingHappens },
  { name: "PostgreSQL", layer: postgres, waits: sessionWaits }
]

for (const { layer, name, waits } of kinds) {
  const test = <E>(title: string, body: Effect.Effect<void, E, Storage | SqlClient.SqlClient | Scope.Scope>) =>
    it.live(title, () => body.pipe(Effect.scoped, Effect.provide(Layer.fresh(Layer.provideMerge(layer, database)))))

  describe(name, () => {
    test(
      "a reset waits for an acknowledgement that is under way, and undoes it",
      Effect.gen(function*() {
        const { claimed, storage, subscribed } = yield* made
        const claim = yield* claimed
        const acknowledged = yield* opened(storage, subscribed.advance(claim, -1, 2))
        assert.strictEqual(acknowledged.result, "Advanced")
        const resetting = yield* Effect.forkScoped(subscribed.reset)
        yield* waits
        assert.isUndefined(resetting.pollUnsafe())
        yield* acknowledged.commit
        yield* Fiber.join(resetting)
        assert.strictEqual(yield* subscribed.checkpoint(0), -1)
        assert.strictEqual(yield* subscribed.advance(claim, -1, 2), "Fenced")
        assert.strictEqual(yield* subscribed.advance(claim, 2, 3), "Fenced")
      })
    )

    test(
      "an acknowledgement, and the note of a halt, wait for a reset that is under way, and are fenced",
      Effect.gen(function*() {
        const { claimed, storage, subscribed } = yield* made
        const claim = yield* claimed
        assert.strictEqual(yield* subscribed.advance(claim, -1, 0), "Advanced")
        const reset = yield* opened(storage, subscribed.reset)
        const advancing = yield* Effect.forkScoped(subscribed.advance(claim, 0, 2))
        yield* waits
        assert.isUndefined(advancing.pollUnsafe())
        yield* reset.commit
        assert.strictEqual(yield* Fiber.join(advancing), "Fenced")
        assert.strictEqual(yield* subscribed.checkpoint(0), -1)
        const entry = {
          partition: 0,
          position: 1,
          messageId: "00000000-0000-7000-8000-000000000002",
          error: { tag: "Boom", message: "" },
          attempts: 1
        }
        assert.isFalse(yield* subscribed.halt(claim, entry))
        assert.isUndefined((yield* subscribed.status)[0]?.halted)
      })
    )

    test(
      "what is acknowledged by the first claim of a partition does not survive a reset that is under way",
      Effect.gen(function*() {
        const { claimed, storage, subscribed } = yield* made
        const reset = yield* opened(storage, subscribed.reset)
        const acknowledging = yield* Effect.forkScoped(
          Effect.flatMap(claimed, (claim) => subscribed.advance(claim, -1, 2))
        )
        yield* waits
        yield* reset.commit
        // Claimed before it, and fenced, or claimed behind it.
        const outcome = yield* Fiber.join(acknowledging)
        assert.strictEqual(yield* subscribed.checkpoint(0), outcome === "Fenced" ? -1 : 2)
        if (name === "memory") assert.strictEqual(outcome, "Fenced")
      })
    )
  })
}

it.live("a reset at REPEATABLE READ fails where it does not see an acknowledgement", () =>
  Effect.gen(function*() {
    const { claimed, storage, subscribed } = yield* made
    const sql = yield* SqlClient.SqlClient
    const outside = yield* outsider
    const claim = yield* claimed
    const failure = yield* storage.withTransaction(Effect.gen(function*() {
      yield* sql`select 1` // takes the snapshot
      assert.strictEqual(yield* outside(subscribed.advance(claim, -1, 2)), "Advanced")
      yield* subscribed.reset
    })).pipe(
      Effect.provideService(SqlClient.BeginTransaction, "begin isolation level repeatable read"),
      Effect.flip
    )
    assert.strictEqual(failure.reason._tag, "SerializationError")
    assert.strictEqual(yield* subscribed.checkpoint(0), 2)
  }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Layer.provideMerge(postgres, database)))))
