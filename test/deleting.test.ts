/** Deleting and redacting on PostgreSQL: rights, isolation levels, rows of tags that cannot be found by what a message says. */
import { assert, describe, it } from "@effect/vitest"
import { type Context, Deferred, Effect, Fiber, Layer, Result, Schedule, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"
import { moved, several } from "./support/links.ts"
import { Clients, createRole, sharedDatabaseLayer } from "./support/sharedDatabase.ts"
import { Moved, Transfers } from "./support/transfers.ts"

const said = (result: Result.Result<unknown, unknown>): string => {
  if (Result.isSuccess(result)) return "nothing: it succeeded"
  const failure = Object(result.failure)
  return String(failure.reason?.cause?.message ?? failure.message)
}

class Joined extends Schema.TaggedClass<Joined>()("Joined", {
  ...Message.fields,
  club: Message.tag("club", Schema.String)
}) {}
class JoinedBefore extends Schema.TaggedClass<JoinedBefore>()("Joined", { ...Message.fields, club: Schema.String }) {}
class ClubsBefore extends MessageStore.Service<ClubsBefore>()("test/ClubsBefore", {
  name: "clubs",
  schema: JoinedBefore
}) {}
class Clubs extends MessageStore.Service<Clubs>()("test/Clubs", { name: "clubs", schema: Joined }) {}

describe("PostgreSQL", () => {
  it.live("a role that deletes and redacts needs no more than this, and is told what it lacks", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const clients = yield* Clients
      yield* createRole("esm_forgetter")
      const message = moved()
      yield* Effect.provide(
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream({ name: "a", patterns: "%", partitioner: () => 0 })
          yield* transfers.write("s", [message, moved()])
          yield* stream.projector.runOnce
        }),
        Layer.fresh(Transfers.layer)
      )
      const grant = (what: string) => sql.unsafe(`grant ${what} to esm_forgetter`).unprepared
      yield* grant("usage on schema public")
      yield* grant("select on depeche_msgs_transfers, effect_message_store_settings_transfers")
      const as = <A>(use: (transfers: Transfers["Service"]) => Effect.Effect<A, unknown>) =>
        Effect.result(Effect.provide(
          Effect.flatMap(Transfers, use),
          Layer.provide(Layer.fresh(Transfers.layerNoMigrations), clients.layer({ role: "esm_forgetter" }))
        ))
      const redact = as((transfers) =>
        transfers.redact(message.messageId, (one) => new Moved({ ...one, amount: one.amount + 1 }))
      )
      const remove = as((transfers) => transfers.delete("s", { toVersion: 1 }))
      assert.strictEqual(said(yield* redact), "permission denied for table depeche_msgs_transfers")
      yield* grant("delete, update on depeche_msgs_transfers")
      assert.strictEqual(said(yield* redact), "permission denied for table effect_message_store_editions_transfers")
      yield* grant("insert, update on effect_message_store_editions_transfers")
      assert.strictEqual(said(yield* redact), "permission denied for table effect_message_store_snapshots_transfers")
      yield* grant("select, delete on effect_message_store_snapshots_transfers")
      assert.strictEqual(said(yield* redact), "nothing: it succeeded")
      // Nothing of what was refused is left.
      const [{ amount } = { amount: 0 }] = yield* sql<{ readonly amount: number }>`
        select (message ->> 'amount')::int as amount from depeche_msgs_transfers where version = 1`
      assert.strictEqual(amount, message.amount + 1)
      assert.strictEqual(said(yield* remove), "permission denied for table depeche_stream_a")
      yield* grant("select, delete on depeche_stream_a")
      assert.strictEqual(said(yield* remove), "nothing: it succeeded")
      const left = yield* sql<{ readonly position: number }>`select position from depeche_stream_a`
      assert.deepStrictEqual(left.map(({ position }) => position), [1])
    }).pipe(Effect.scoped, Effect.provide(Layer.fresh(sharedDatabaseLayer))))

  it.live("whoever does not see what was written last fails, as who writes does, and can try again", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const transfers = yield* Transfers
      const [first, ...others] = several(3)
      yield* transfers.write("s", [first ?? moved(), ...others])
      const outside = yield* Effect.context<never>()
      const late = <A, E>(effect: Effect.Effect<A, E>, level: string) =>
        sql.withTransaction(Effect.gen(function*() {
          yield* transfers.head("s") // it sees what there is from here on
          yield* Fiber.join(
            yield* Effect.forkDetach(Effect.updateContext(
              transfers.write("s", moved()),
              (_: Context.Context<never>) => outside
            ))
          )
          return yield* effect
        })).pipe(Effect.provideService(SqlClient.BeginTransaction, `begin isolation level ${level}`))
      for (const isolation of ["repeatable read", "serializable"]) {
        const refused = yield* Effect.flip(late(transfers.delete("s"), isolation))
        assert.deepInclude<object>(refused, { _tag: "SqlError", isRetryable: true }, isolation)
        const { version } = yield* transfers.head("s")
        yield* Effect.flip(late(transfers.delete("s", { toVersion: 1, expectedVersion: version }), isolation))
        // The first messages are what they are.
        const { deleted } = yield* late(transfers.delete("s", { toVersion: 1 }), isolation)
        assert.isAtMost(deleted, 1)
      }
      const { version } = yield* transfers.head("s")
      assert.strictEqual(version, 9)
      assert.include(yield* transfers.delete("s"), { deleted: 8, version: 0 })
    }).pipe(
      Effect.scoped,
      Effect.provide(Layer.fresh(Layer.provideMerge(Transfers.layer, databaseLayer())))
    ))

  it.live("the tags of a message go that cannot be found by what it says", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const clubs = yield* Clubs
      yield* clubs.write("s", [new Joined({ club: "chess" }), new Joined({ club: "go" })])
      yield* clubs.write("t", new Joined({ club: "chess" }))
      yield* sql`update depeche_msgs_clubs set message = '{"_tag":"Joined"}' where version = 1 and stream = 's'`
      yield* clubs.delete("s")
      const left = yield* sql<{ readonly tag: string; readonly stream: string }>`
        select t.tag, m.stream from effect_message_store_tags_clubs t left join depeche_msgs_clubs m using (global_position)`
      assert.deepStrictEqual(left.map(({ stream, tag }) => [stream, tag]), [["t", "club:chess"]])
    }).pipe(Effect.provide(Layer.fresh(Layer.provideMerge(Clubs.layer, databaseLayer())))))

  it.live("a message that is deleted while it is tagged leaves no tags behind", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const joined = [new JoinedBefore({ club: "chess" }), new JoinedBefore({ club: "go" })] as const
      yield* Effect.provide(ClubsBefore.use((before) => before.write("s", joined)), Layer.fresh(ClubsBefore.layer))
      const deleted = Effect.gen(function*() {
        const clubs = yield* Clubs
        const [isDeleted, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
        const deleting = yield* Effect.forkChild(clubs.withTransaction(Effect.gen(function*() {
          yield* clubs.delete("s", { toVersion: 1 })
          yield* Deferred.succeed(isDeleted, undefined)
          yield* Deferred.await(release)
        })))
        yield* Deferred.await(isDeleted)
        const tagging = yield* Effect.forkChild(Stream.runDrain(clubs.tagging()))
        const waits = Effect.repeat(
          sql`select from pg_locks where locktype = 'advisory' and not granted`,
          { until: (rows) => rows.length > 0, schedule: Schedule.spaced("2 millis") }
        )
        yield* Effect.raceFirst(waits, Fiber.join(tagging))
        yield* Deferred.succeed(release, undefined)
        yield* Fiber.join(deleting)
        yield* Fiber.join(tagging)
      })
      yield* Effect.provide(deleted, Layer.fresh(Clubs.layer))
      const left = yield* sql<{ readonly tag: string }>`select tag from effect_message_store_tags_clubs`
      assert.deepStrictEqual(left, [{ tag: "club:go" }])
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))
})
