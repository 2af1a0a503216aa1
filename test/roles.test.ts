/** Roles with few rights: what each needs, and that what is missing is said. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Logger, Result, Schedule, Schema, type Scope, Stream } from "effect"
import { Decision, Fold, Partitioner, Projection } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { moved } from "./support/links.ts"
import { type As, Clients, createRole, sharedDatabaseLayer } from "./support/sharedDatabase.ts"
import { Transfers } from "./support/transfers.ts"

const merged = { name: "merged", patterns: "%", partitioner: Partitioner.constant(1) }

/** What a process does as a role; what it fails with, as text. */
const as = <A>(
  role: As,
  effect: Effect.Effect<A, unknown, Transfers | Scope.Scope>,
  layer: Layer.Layer<Transfers, unknown, SqlClient.SqlClient> = Transfers.layer
) =>
  Effect.gen(function*() {
    const clients = yield* Clients
    const transfers = Layer.provide(Layer.fresh(layer), clients.layer(role))
    return yield* Effect.result(Effect.provide(Effect.scoped(effect), transfers))
  })

/** What the database says, or the library. */
const said = (result: Result.Result<unknown, unknown>): string => {
  if (Result.isSuccess(result)) return "nothing: it succeeded"
  const failure = Object(result.failure)
  return String(failure.reason?.cause?.message ?? failure.message)
}

const statements = (texts: ReadonlyArray<string>) =>
  Effect.flatMap(
    SqlClient.SqlClient,
    (sql) => Effect.forEach(texts, (text) => sql.unsafe(text).unprepared, { discard: true })
  )

const test = (name: string, body: Effect.Effect<void, unknown, Clients | SqlClient.SqlClient>) =>
  it.live(name, () => Effect.provide(body, Layer.fresh(sharedDatabaseLayer)))

const write = Effect.flatMap(Transfers, (transfers) => transfers.write("s", moved()))
const read = Effect.flatMap(Transfers, (transfers) => Stream.runCollect(transfers.read("s")))

/** Made by the owner: a store with a stream, a subscription, and a message. */
const prepared = Effect.provide(
  Effect.gen(function*() {
    const transfers = yield* Transfers
    const stream = yield* transfers.aggregatedStream(merged)
    yield* stream.subscription({ name: "consumer" })
    yield* write
  }),
  Layer.fresh(Transfers.layer)
)

describe("PostgreSQL", () => {
  describe("a role", () => {
    test(
      "that may not create objects is told so, and by whom they can be made",
      Effect.scoped(Effect.gen(function*() {
        yield* createRole("esm_poor")
        yield* statements(["revoke create on schema public from public", "grant usage on schema public to esm_poor"])
        const refused = yield* as({ role: "esm_poor" }, write)
        assert.strictEqual(
          said(refused),
          "\"transfers\" cannot be made or brought up to date: the role \"esm_poor\" may not create objects in the schema " +
            "\"public\": let a role that may run what `migrations` prints"
        )
      }))
    )

    test(
      "that has no schema is told so",
      Effect.scoped(Effect.gen(function*() {
        yield* createRole("esm_homeless")
        const refused = yield* as({ role: "esm_homeless", schema: "nowhere" }, write)
        assert.include(said(refused), "\"transfers\" has no place: no schema of the search path exists")
      }))
    )

    test(
      "that may only read reads, and is told which table it may not write to",
      Effect.scoped(Effect.gen(function*() {
        yield* createRole("esm_reader")
        yield* prepared
        yield* statements([
          "revoke create on schema public from public",
          "grant usage on schema public to esm_reader",
          `grant select on depeche_msgs_transfers, effect_message_store_migrations_transfers,
          effect_message_store_settings_transfers to esm_reader`
        ])
        for (const layer of [Transfers.layer, Transfers.layerNoMigrations]) {
          const messages = yield* as({ role: "esm_reader" }, read, layer)
          assert.strictEqual(Result.isSuccess(messages) ? messages.success.length : said(messages), 1)
          const refused = yield* as({ role: "esm_reader" }, write, layer)
          assert.strictEqual(said(refused), "permission denied for table depeche_msgs_transfers")
        }
      }))
    )

    test(
      "that may not read what opens a store, a stream or a subscription is told which right it lacks, and where they are listed",
      Effect.scoped(Effect.gen(function*() {
        yield* createRole("esm_lacking")
        yield* prepared
        yield* statements(["revoke create on schema public from public", "grant usage on schema public to esm_lacking"])
        const open = Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(merged)
          yield* stream.subscription({ name: "consumer" })
        })
        for (const layer of [Transfers.layer, Transfers.layerNoMigrations]) {
          const lacking = (name: string, table: string) =>
            Effect.gen(function*() {
              const refused = yield* as({ role: "esm_lacking" }, open, layer)
              assert.strictEqual(
                said(refused),
                `"${name}" cannot be opened by this role: permission denied for table ${table}: ` +
                  "grant it what docs/operating.md lists (Roles and grants)"
              )
              assert.strictEqual(Result.isFailure(refused) && Object(refused.failure)._tag, "SetupError")
              yield* statements([`grant select on ${table} to esm_lacking`])
            })
          const migrates = layer === Transfers.layer
          if (migrates) yield* lacking("transfers", "effect_message_store_migrations_transfers")
          yield* lacking("transfers", "effect_message_store_settings_transfers")
          if (migrates) yield* statements(["grant select on effect_message_store_streamed_merged to esm_lacking"])
          yield* lacking("merged", "effect_message_store_projection_merged")
          if (migrates) yield* statements(["grant select on effect_message_store_subscribed_consumer to esm_lacking"])
          yield* lacking("consumer", "effect_message_store_origin_consumer")
          yield* statements(["revoke select on all tables in schema public from esm_lacking"])
        }
      }))
    )

    test(
      "that writes needs no more than this",
      Effect.scoped(Effect.gen(function*() {
        yield* createRole("esm_writer")
        yield* prepared
        yield* statements([
          "revoke create on schema public from public",
          "grant usage on schema public to esm_writer",
          `grant select on effect_message_store_migrations_transfers, effect_message_store_settings_transfers to esm_writer`,
          "grant select, insert on depeche_msgs_transfers to esm_writer"
        ])
        assert.strictEqual(
          said(yield* as({ role: "esm_writer" }, write)),
          "permission denied for sequence depeche_msgs_transfers_global_seq"
        )
        yield* statements(["grant usage on sequence depeche_msgs_transfers_global_seq to esm_writer"])
        const written = yield* as({ role: "esm_writer" }, write)
        assert.strictEqual(Result.isSuccess(written) ? written.success.version : said(written), 2)
      }))
    )

    test(
      "that decides needs no rights on snapshots: without them it has none, with select it writes none",
      Effect.scoped(Effect.gen(function*() {
        yield* createRole("esm_decider")
        yield* prepared
        yield* statements([
          "revoke create on schema public from public",
          "grant usage on schema public to esm_decider",
          "grant select on effect_message_store_settings_transfers to esm_decider",
          "grant select, insert on depeche_msgs_transfers to esm_decider",
          "grant usage on sequence depeche_msgs_transfers_global_seq to esm_decider"
        ])
        let folded = 0
        const count = Fold.withSnapshot(
          { initial: 0, evolve: (sofar: number) => (folded++, sofar + 1) },
          { name: "count", schema: Schema.Number, every: 1 }
        )
        const decided = Effect.flatMap(Transfers, (transfers) =>
          Effect.gen(function*() {
            folded = 0
            yield* transfers.withTransaction(transfers.update("s", count, () => Effect.succeed([])))
            yield* transfers.decide({ a: Decision.stream("s", count), b: Decision.stream("t", count) }, () => [])
            const { version } = yield* transfers.update("s", count, () => Effect.succeed(moved()))
            return [version, folded]
          }))
        const decide = Effect.map(
          as({ role: "esm_decider" }, decided, Transfers.layerNoMigrations),
          (result) => Result.isSuccess(result) ? result.success : said(result)
        )
        const sql = yield* SqlClient.SqlClient
        const saved = Effect.map(
          sql<{ readonly version: number }>`select version from effect_message_store_snapshots_transfers`,
          (rows) => rows.map(({ version }) => version)
        )
        // Read in the transaction; then remembered, and evolved by what is written.
        assert.deepStrictEqual(yield* decide, [2, 2])
        yield* statements(["grant select on effect_message_store_snapshots_transfers to esm_decider"])
        assert.deepStrictEqual(yield* decide, [3, 3])
        assert.deepStrictEqual(yield* saved, [])
        yield* statements([
          "grant insert, update, delete on effect_message_store_snapshots_transfers to esm_decider",
          "grant insert, update on effect_message_store_editions_transfers to esm_decider"
        ])
        assert.deepStrictEqual(yield* decide, [4, 4])
        assert.deepStrictEqual(yield* saved, [4])
        assert.deepStrictEqual(yield* decide, [5, 1])
      }))
    )

    test(
      "that projects and consumes needs no more than this",
      Effect.scoped(Effect.gen(function*() {
        yield* createRole("esm_worker")
        yield* prepared
        const working = Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(merged)
          yield* stream.projector.runOnce
          const subscription = yield* stream.subscription({ name: "consumer" })
          const handled = yield* Deferred.make<number>()
          yield* Effect.forkScoped(subscription.run(({ amount }) => Effect.asVoid(Deferred.succeed(handled, amount))))
          return yield* Deferred.await(handled)
        })
        const sql = yield* SqlClient.SqlClient
        const tables = yield* sql<{ readonly name: string; readonly ours: boolean }>`
        select relname::text as name, relname like 'effect%' as ours from pg_class
        where relkind = 'r' and relnamespace = 'public'::regnamespace and relname <> 'depeche_msgs_transfers'`
        yield* statements([
          "revoke create on schema public from public",
          "grant usage on schema public to esm_worker",
          "grant select on depeche_msgs_transfers to esm_worker",
          "grant select on sequence depeche_msgs_transfers_global_seq to esm_worker",
          ...tables.map(({ name }) => `grant select, insert, update, delete on ${name} to esm_worker`)
        ])
        const handled = yield* as({ role: "esm_worker" }, working)
        assert.strictEqual(Result.isSuccess(handled) ? handled.success : said(handled), 1)
      }))
    )

    test(
      "whose transactions are read-only is told in the log why nothing is projected and handled",
      Effect.scoped(Effect.gen(function*() {
        yield* createRole("esm_looking")
        yield* prepared
        const linked = Effect.flatMap(
          Effect.flatMap(Transfers, (transfers) => transfers.aggregatedStream(merged)),
          (stream) => stream.projector.runOnce
        )
        yield* Effect.provide(linked, Layer.fresh(Transfers.layer))
        yield* statements([
          "grant all on all tables in schema public to esm_looking",
          "grant all on all sequences in schema public to esm_looking",
          "alter role esm_looking set default_transaction_read_only = on"
        ])
        const lines: Array<string> = []
        const told = yield* Deferred.make<void>()
        const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
          if (logLevel === "Warn") lines.push(String(Array.isArray(message) ? message[0] : message))
          if (lines.length === 2) Deferred.doneUnsafe(told, Effect.void)
        })
        const working = Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(merged)
          yield* Effect.forkScoped(stream.projector.run())
          const subscription = yield* stream.subscription({ name: "consumer" })
          yield* Effect.forkScoped(subscription.run(() => Effect.void))
          yield* Deferred.await(told)
        })
        yield* Effect.provide(as({ role: "esm_looking" }, working), Logger.layer([logger]))
        assert.deepStrictEqual(lines.toSorted(), [
          "subscription consumer tries again",
          "the projector of merged tries again"
        ])
      }))
    )

    test(
      "that handles messages for a version of a projection needs no more than this",
      Effect.scoped(Effect.gen(function*() {
        const sql = yield* SqlClient.SqlClient
        yield* createRole("esm_modeller")
        const projection = Effect.gen(function*() {
          const transfers = yield* Transfers
          const stream = yield* transfers.aggregatedStream(merged)
          yield* stream.projector.runOnce
          return yield* stream.projection({
            name: "model",
            version: 1,
            promotion: "manual",
            model: Projection.tables(["model"], ({ model }) => sql`create table ${sql(model)} (messages int)`)
          })
        })
        yield* prepared
        yield* Effect.provide(projection, Layer.fresh(Transfers.layer))
        yield* statements([
          "revoke create on schema public from public",
          "grant usage on schema public to esm_modeller",
          "grant select on depeche_msgs_transfers, effect_message_store_settings_transfers to esm_modeller",
          "grant usage on sequence depeche_msgs_transfers_global_seq to esm_modeller",
          `grant select, insert, update, delete on depeche_stream_merged, depeche_stream_merged_maxpos,
            effect_message_store_projection_merged, depeche_subscriptions_model_v1, effect_message_store_origin_model_v1,
            effect_message_store_claims_model_v1, effect_message_store_parked_model_v1,
            effect_message_store_halted_model_v1, effect_message_store_paused_model_v1 to esm_modeller`,
          "grant select on effect_message_store_locks_model_v1 to esm_modeller",
          "grant select, update on effect_message_store_versions_model to esm_modeller"
        ])
        const handled = yield* as(
          { role: "esm_modeller" },
          Effect.gen(function*() {
            const made = yield* projection
            const running = yield* Effect.forkScoped(made.run(() => Effect.void))
            yield* Effect.raceFirst(
              Effect.repeat(made.subscription.lag, {
                until: (lag) => lag === 0,
                schedule: Schedule.spaced("5 millis")
              }),
              Fiber.join(running)
            )
            return (yield* made.status).map((version) => version.handled)
          }),
          Transfers.layerNoMigrations
        )
        assert.deepStrictEqual(Result.isSuccess(handled) ? handled.success : said(handled), [1])
      }))
    )
  })

  test(
    "a role other than the writer's may run the printed migrations, by hand",
    Effect.scoped(Effect.gen(function*() {
      yield* createRole("esm_owner")
      yield* createRole("esm_application")
      yield* statements([
        "create schema shop authorization esm_owner",
        "grant usage on schema shop to esm_application",
        `alter default privileges for role esm_owner in schema shop
        grant select, insert, update, delete on tables to esm_application`,
        "alter default privileges for role esm_owner in schema shop grant usage, select on sequences to esm_application"
      ])
      const clients = yield* Clients
      const application = { role: "esm_application", schema: "shop" }
      assert.include(
        said(yield* as(application, write, Transfers.layerNoMigrations)),
        "does not exist: there is no table depeche_msgs_transfers in the schemas of the search path"
      )
      const texts = [
        ...yield* Transfers.migrations,
        ...yield* Transfers.streamMigrations("merged"),
        ...yield* Transfers.subscriptionMigrations("consumer")
      ].flatMap((migration) => migration.statements)
      yield* Effect.provide(
        Effect.flatMap(SqlClient.SqlClient, (sql) => sql.withTransaction(statements(texts))),
        clients.layer({ role: "esm_owner", schema: "shop" })
      )
      const worked = yield* as(
        application,
        Effect.gen(function*() {
          const transfers = yield* Transfers
          yield* write
          const stream = yield* transfers.aggregatedStream(merged)
          const { linked } = yield* stream.projector.runOnce
          const subscription = yield* stream.subscription({ name: "consumer" })
          return [linked, yield* subscription.lag]
        }),
        Transfers.layerNoMigrations
      )
      assert.deepStrictEqual(Result.isSuccess(worked) ? worked.success : said(worked), [1, 1])
    }))
  )
})
