/** Claims by session behind a pooler: refused where it shares sessions out by transaction, before anything is locked. */
import { PgConnection } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer } from "effect"
import { SqlClient } from "effect/sql"
import * as Pooled from "../src/postgres/client/pooled.ts"
import { databaseLayer } from "./support/database.ts"
import { bounced, isInstalled } from "./support/pgbouncer.ts"
import { Done, stream, Work } from "./support/work.ts"

/** How many locks of claims there are, in whichever session. */
const locksOf = (sql: SqlClient.SqlClient) =>
  Effect.map(
    sql<{ readonly count: number }>`
      select count(*)::int as count from pg_locks l join pg_database d on d.oid = l.database
      where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and d.datname = current_database()`,
    ([row]) => row?.count
  )

/** Runs a subscription until it has handled a message; what it failed with, else the message's number. */
const consume = Effect.gen(function*() {
  const work = yield* Work
  const sql = yield* SqlClient.SqlClient
  const worked = yield* stream(4)
  yield* work.write("s", new Done({ number: 7 }))
  yield* worked.projector.runOnce
  const subscription = yield* worked.subscription({ name: "pooled", pollInterval: "50 millis" })
  const handled = yield* Deferred.make<number>()
  const ended = yield* Effect.raceFirst(
    Effect.flip(subscription.run(({ number }) => Deferred.succeed(handled, number))),
    Deferred.await(handled)
  )
  const locks = yield* locksOf(sql)
  const { claimed } = yield* Effect.map(
    subscription.status,
    (partitions) => ({ claimed: partitions.filter(({ claimedBy }) => claimedBy !== undefined).length })
  )
  return { ended, locks, claimed }
}).pipe(Effect.provide(Layer.fresh(Work.layer)))

describe.skipIf(!isInstalled)("Claims by session behind PgBouncer", () => {
  for (const inTurn of [true, false]) {
    it.live(`by transaction are refused, before anything is locked${inTurn ? ", its sessions in turn" : ""}`, () =>
      Effect.gen(function*() {
        const { claimed, ended, locks } = yield* consume
        if (typeof ended === "number") return assert.fail("a message was handled")
        assert.strictEqual(ended._tag, "SetupError")
        assert.include(ended.message, "claims: { lease:")
        assert.include(ended.message, "docs/scale.md")
        assert.deepStrictEqual([claimed, locks], [0, 0])
      }).pipe(Effect.provide(bounced({ inTurn }))))
  }

  it.live("by transaction are refused as soon as a statement is found in another session, where nobody has looked before, and leave no lock", () =>
    Effect.gen(function*() {
      const work = yield* Work
      const worked = yield* stream(64)
      const subscription = yield* worked.subscription({ name: "pooled", pollInterval: "20 millis" })
      let written = 0
      const write = Effect.suspend(() => work.write(`s${++written}`, new Done({ number: written }))).pipe(
        Effect.andThen(worked.projector.runOnce),
        Effect.forever
      )
      const ended = yield* Effect.raceFirst(Effect.flip(subscription.run(() => Effect.void)), write)
      assert.strictEqual(ended._tag, "SetupError")
      assert.strictEqual(yield* locksOf(yield* SqlClient.SqlClient), 0)
    }).pipe(Effect.provide(Layer.provideMerge(Layer.fresh(Work.layer), bounced({ ownSockets: true })))))

  it.live("by session are made", () =>
    Effect.gen(function*() {
      assert.strictEqual((yield* consume).ended, 7)
    }).pipe(Effect.provide(bounced({ mode: "session" }))))
})

it.live("A connection that is found in another session later is noticed by what its statements answer", () =>
  Effect.gen(function*() {
    const sql = yield* SqlClient.SqlClient
    const pooled = Pooled.make(sql)
    const { config } = sql as typeof sql & { readonly config: PgConnection.Config }
    const connection = yield* PgConnection.make(config)
    yield* pooled.look(connection)
    const { rows } = yield* connection.query(`select ${Pooled.inSession}`)
    pooled.note(connection, rows)
    pooled.note(connection, []) // nothing was answered
    assert.isFalse(pooled.has(connection))
    pooled.note(connection, [{ session: connection.processId + 1 }])
    assert.isTrue(pooled.has(connection))
  }).pipe(Effect.scoped, Effect.provide(databaseLayer())))
