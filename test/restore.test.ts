/** A store that pg_dump saved and psql brings back elsewhere; where both are installed, and as new as the server. */
import type { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Stream } from "effect"
import { Decision, Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { spawnSync } from "node:child_process"
import { inject } from "vitest"
import { databaseLayer } from "./support/database.ts"
import { createDepecheStore } from "./support/depeche.ts"
import { moved } from "./support/links.ts"
import { Before, joined, joinedBefore, Members, pythonWrites, wronglyTagged } from "./support/members.ts"
import { Transfers } from "./support/transfers.ts"

const merged = { name: "merged", patterns: "%", partitioner: Partitioner.constant(1) }

const run = (command: string, args: ReadonlyArray<string>, input?: string): string => {
  const done = spawnSync(command, args, { encoding: "utf8", input, maxBuffer: 2 ** 28 })
  assert.strictEqual(done.status, 0, `${command}: ${done.stderr}`)
  return done.stdout
}

const urlOf = Effect.map(SqlClient.SqlClient, (sql) => {
  const url = new URL(inject("postgresUrl"))
  url.pathname = `/${(sql as PgClient.PgClient).config.database ?? "postgres"}`
  return url.toString()
})

const inDatabase = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provide(effect, Layer.fresh(Members.layer))

describe("PostgreSQL", () => {
  it.live("goes on with tags, with declarations, and with a tagging that was under way", (context) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const [server] = yield* sql<{ readonly major: number }>`
        select current_setting('server_version_num')::int / 10000 as major`
      const found = spawnSync("pg_dump", ["--version"], { encoding: "utf8" }).stdout?.match(/(\d+)/)?.[1]
      if (Number(found ?? 0) < (server?.major ?? 0)) return context.skip()
      yield* Effect.provide(
        Before.use((before) =>
          Effect.forEach(
            Array.from({ length: 6 }),
            () => before.write("before", Array.from({ length: 500 }, (_, i) => joinedBefore(i)) as never)
          )
        ),
        Before.layer
      )
      yield* inDatabase(Members.use((members) => Stream.runDrain(Stream.take(members.tagging(), 1))))
      const dump = run("pg_dump", ["--no-owner", "--dbname", yield* urlOf])
      yield* Effect.gen(function*() {
        run("psql", ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", yield* urlOf], dump)
        // Who knows no tags writes first.
        yield* pythonWrites("python", joinedBefore(1))
        yield* inDatabase(Members.use(Effect.fnUntraced(function*(members) {
          const refused = yield* Effect.flip(Stream.runDrain(members.readTagged({ club: "c1" })))
          assert.strictEqual(refused._tag, "TagsIncompleteError")
          const last = yield* Stream.runLast(members.tagging())
          assert.strictEqual(last._tag === "Some" ? last.value.tagged : 0, 1000)
          const { excess, expected, missing } = yield* wronglyTagged
          assert.deepStrictEqual([missing, excess], [[], []])
          assert.isAbove(expected, 3000)
          yield* members.decide(
            { club: Decision.tagged({ club: "c1" }, { initial: 0, evolve: (n) => n + 1 }) },
            () => ({
              stream: "decided",
              messages: joined(1)
            })
          )
        })))
      }).pipe(Effect.provide(Layer.fresh(databaseLayer())))
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))

  it.live("goes on with a store that was dumped and restored, rows from before it was adopted included", (context) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const [server] = yield* sql<{ readonly major: number }>`
        select current_setting('server_version_num')::int / 10000 as major`
      const found = spawnSync("pg_dump", ["--version"], { encoding: "utf8" }).stdout?.match(/(\d+)/)?.[1]
      if (Number(found ?? 0) < (server?.major ?? 0)) return context.skip()
      yield* createDepecheStore("transfers")
      yield* sql`select version from depeche_write_message_transfers(gen_random_uuid(), 's'::varchar,
        '{"_tag":"Moved","messageId":"0198e59e-0000-7000-8000-000000000001","occurredAt":"2026-01-01T00:00:00.000Z",
          "amount":1}'::json)`
      yield* Effect.gen(function*() {
        const transfers = yield* Transfers
        yield* transfers.write("s", [moved(2), moved(3)])
        const stream = yield* transfers.aggregatedStream(merged)
        assert.include(yield* stream.projector.runOnce, { linked: 3 })
        yield* transfers.write("s", moved(4))
      }).pipe(Effect.provide(Layer.fresh(Transfers.layer)))
      const dump = run("pg_dump", ["--no-owner", "--dbname", yield* urlOf])
      yield* Effect.gen(function*() {
        run("psql", ["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", yield* urlOf], dump)
        const restored = yield* Effect.provide(
          Effect.gen(function*() {
            const transfers = yield* Transfers
            yield* transfers.write("s", moved(5), { expectedVersion: 4 })
            const stream = yield* transfers.aggregatedStream(merged)
            assert.include(yield* stream.projector.runOnce, { linked: 2 })
            return yield* Stream.runCollect(stream.read(1))
          }),
          Layer.fresh(Transfers.layer)
        )
        assert.deepStrictEqual(restored.map(({ message }) => message.amount), [1, 2, 3, 4, 5])
        const refused = yield* Effect.flip(
          Effect.flatMap(
            SqlClient.SqlClient,
            (other) =>
              other`insert into depeche_msgs_transfers (message_id, global_position, stream, version, message)
            values (gen_random_uuid(), 99, 's', 99, '{}')`
          )
        )
        assert.strictEqual(Object(refused.reason.cause).code, "P0001")
      }).pipe(Effect.provide(Layer.fresh(databaseLayer())))
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))
})
