/** What roles need where tags are declared, and transactions that are prepared. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { Before, joinedBefore, Members, wronglyTagged } from "./support/members.ts"
import { layerDatabase, startOwnServer } from "./support/server.ts"
import { Clients, createRole, sharedDatabaseLayer } from "./support/sharedDatabase.ts"

const statements = (texts: ReadonlyArray<string>) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.forEach(texts, (text) => sql.unsafe(text).unprepared, { discard: true })
  )

/** The messages of errors, or what came out. */
const said = (result: Result.Result<unknown, unknown>): unknown =>
  Result.isSuccess(result) ? result.success : Object(result.failure).reason?.cause?.message ?? result.failure

const write = Before.use((before) => Effect.as(before.write("s", [joinedBefore(1), joinedBefore(2)]), "written"))
const tag = Members.use((members) => Effect.as(Stream.runDrain(members.tagging()), "tagged"))
const read = Members.use((members) => Stream.runCount(members.read("s")))

describe("PostgreSQL", () => {
  it.live("tells a role what it may not do with tags, and lets it do the rest", () =>
    Effect.scoped(Effect.gen(function*() {
      const clients = yield* Clients
      const as = <A, E, S>(
        role: string,
        effect: Effect.Effect<A, E, S>,
        store: Layer.Layer<S, unknown, SqlClient.SqlClient>
      ) =>
        Effect.map(
          Effect.result(Effect.provide(effect, Layer.provide(Layer.fresh(store), clients.layer({ role })))),
          said
        )
      yield* Effect.provide(write, Layer.fresh(Before.layer))
      yield* createRole("esm_old_writer")
      yield* createRole("esm_tagger")
      yield* statements([
        "revoke create on schema public from public",
        "grant usage on schema public to esm_old_writer, esm_tagger",
        `grant select on effect_message_store_settings_members, effect_message_store_migrations_members
          to esm_old_writer, esm_tagger`,
        "grant select, insert on depeche_msgs_members to esm_old_writer",
        "grant usage on sequence depeche_msgs_members_global_seq to esm_old_writer",
        "grant select on depeche_msgs_members to esm_tagger"
      ])
      const denied = (table: string) => `permission denied for table effect_message_store_${table}_members`
      assert.strictEqual(yield* as("esm_old_writer", write, Before.layer), "written")
      // Nobody has declared the tags, and this role may not.
      assert.strictEqual(yield* as("esm_tagger", read, Members.layer), denied("tagged"))
      yield* statements([
        "grant select, insert, update on effect_message_store_tagged_members to esm_tagger",
        "grant update (declared) on effect_message_store_settings_members to esm_tagger",
        "grant update on sequence effect_message_store_declared_members to esm_tagger",
        "grant select, insert on effect_message_store_tags_members to esm_tagger"
      ])
      assert.strictEqual(yield* as("esm_tagger", tag, Members.layer), "tagged")
      assert.strictEqual(yield* as("esm_old_writer", write, Before.layerNoMigrations), denied("tagged"))
      yield* statements([
        "grant select on effect_message_store_tagged_members to esm_old_writer",
        "grant select, insert on effect_message_store_tags_members to esm_old_writer"
      ])
      assert.strictEqual(yield* as("esm_old_writer", write, Before.layer), "written")
      assert.strictEqual(yield* as("esm_old_writer", read, Members.layer), 6)
      yield* Effect.provide(
        Effect.map(wronglyTagged, ({ excess, missing }) => assert.deepStrictEqual([excess, missing], [[], []])),
        Layer.fresh(Members.layer)
      )
    })).pipe(Effect.provide(Layer.fresh(sharedDatabaseLayer))))

  it.live("waits for transactions that are prepared", () =>
    Effect.scoped(Effect.gen(function*() {
      const { url } = yield* startOwnServer({ settings: { max_prepared_transactions: "2" } })
      yield* Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* Effect.provide(write, Layer.fresh(Before.layer))
        const session = yield* sql.reserve
        const execute = (text: string) => session.execute(text, [], undefined)
        yield* execute("begin")
        // The statement of 0.1: Python's notifies, and cannot be prepared.
        const id = "0198e59e-0000-7000-8000-000000000001"
        const json = { _tag: "Joined", messageId: id, occurredAt: "2026-01-01T00:00:00.000Z", club: "late", roles: [] }
        yield* execute(`select outcome from effect_message_store_append_members('{prepared}', '{0}', '{-2}',
          array['{}']::jsonb[], '{1}', '{1}', '{${id}}', array[now()], array['${JSON.stringify(json)}'], false, true)`)
        yield* execute("prepare transaction 'late'")
        const members = yield* Effect.provide(Members, yield* Layer.build(Layer.fresh(Members.layer)))
        const waiting = yield* Stream.runHead(members.tagging())
        assert.strictEqual(waiting._tag === "Some" ? waiting.value.waitsFor : 0, 1)
        const late = Stream.runCount(members.readTagged({ club: "late" }))
        assert.strictEqual((yield* Effect.flip(late))._tag, "TagsIncompleteError")
        yield* execute("commit prepared 'late'")
        yield* Stream.runDrain(members.tagging())
        assert.strictEqual(yield* late, 1)
      }).pipe(Effect.scoped, Effect.provide(layerDatabase(url)))
    })), 60_000)
})
