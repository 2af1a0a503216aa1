/** Engines that look like PostgreSQL are recognised by what they do, in the statement that a layer begins with. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Schema } from "effect"
import { Message, MessageStore, Operator, type UnsupportedEngineError } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { probing } from "../src/postgres/engine.ts"
import { databaseLayer } from "./support/database.ts"
import { type Answer, startEngine } from "./support/engine.ts"
import { clientNamed } from "./support/processes.ts"

class Happened extends Schema.TaggedClass<Happened>()("Happened", { ...Message.fields }) {}
class Store extends MessageStore.Service<Store>()("test/Store", { name: "engines", schema: Happened }) {}

const everything = {
  has_locks: true,
  has_snapshots: true,
  has_transactions: true,
  has_functions: true,
  has_runs: true
}

const postgres = "PostgreSQL 17.2 on x86_64-pc-linux-gnu"

/** Answers the statement that probes as a whole. */
const answering = (engine: string, has: Partial<typeof everything> = {}) => (): Answer => ({
  row: { taken: false, engine, ...everything, ...has }
})

/** Refuses statements in which one of these is named, as what it does not know, and answers others. */
const without = (engine: string, names: ReadonlyArray<string>, code = "42883") => (statement: string): Answer => {
  const unknown = names.find((name) => statement.includes(name))
  return unknown === undefined ? { row: { has: true, engine } } : { code, message: `unknown: ${unknown}()` }
}

const opened = Effect.fnUntraced(function*(
  answer: (statement: string) => Answer,
  layer: Layer.Layer<never, unknown, SqlClient.SqlClient> = Layer.effectDiscard(Effect.void).pipe(
    Layer.provide(Store.layer)
  )
) {
  const engine = yield* startEngine(answer)
  const client = PgClient.layer({ url: Redacted.make(engine.url), maxConnections: 1 })
  const error = yield* Effect.flip(Effect.scoped(Layer.build(Layer.fresh(Layer.provide(layer, client)))))
  return { error: error as UnsupportedEngineError, asked: engine.asked }
})

describe("PostgreSQL", () => {
  for (
    const [name, answer, missing] of [
      ["whose advisory locks do nothing", answering(postgres, { has_locks: false }), ["advisory locks"]],
      ["whose snapshots say nothing", answering(postgres, { has_snapshots: false }), ["snapshots of transactions"]],
      ["that says who it is", answering("CockroachDB CCL v25.1.0"), ["advisory locks"]],
      ["that says so in its version", answering("PostgreSQL 15.2-YB-2.25.0.0-b0"), ["transaction ids"]],
      [
        "that lacks functions",
        without("CockroachDB CCL v24.3.1", ["pg_current_snapshot", "pg_try_advisory_xact_lock_shared"]),
        ["advisory locks", "snapshots of transactions"]
      ],
      ["that has no rows with transaction ids", without(postgres, ["d.xmin"], "0A000"), ["transaction ids"]],
      ["that knows no languages", without(postgres, ["pg_language"], "42P01"), ["functions in PL/pgSQL"]]
    ] as const
  ) {
    it.live(`refuses an engine ${name}`, () =>
      Effect.gen(function*() {
        const { asked, error } = yield* opened(answer)
        assert.strictEqual(error._tag, "UnsupportedEngineError")
        assert.lengthOf(error.missing, missing.length)
        for (const [i, what] of missing.entries()) assert.include(error.missing[i], what)
        assert.include(error.message, "docs/scale.md")
        assert.include(error.message, error.engine)
        // What it needs is asked together; one by one only where that was refused.
        const together = "code" in answer(asked[0] ?? "") ? 7 : 1
        assert.lengthOf(asked, together)
      }).pipe(Effect.scoped))
  }

  it.live("refuses it by every layer, before anything is made", () =>
    Effect.gen(function*() {
      const layers: ReadonlyArray<Layer.Layer<never, unknown, SqlClient.SqlClient>> = [
        Store.layerNoMigrations,
        Store.layerReadOnly,
        Operator.layer("engines")
      ].map((layer) => Layer.provide(Layer.effectDiscard(Effect.void), layer as typeof Store.layer))
      for (const layer of layers) {
        const { asked, error } = yield* opened(answering(postgres, { has_locks: false }), layer)
        assert.strictEqual(error._tag, "UnsupportedEngineError")
        assert.lengthOf(asked, 1)
      }
    }).pipe(Effect.scoped))

  it.effect("takes PostgreSQL for what it is, whoever has built it, and whatever its version", () =>
    Effect.forEach([
      postgres,
      "PostgreSQL 15.4 (Debian 15.4-2.pgdg120+1) on x86_64-pc-linux-gnu, compiled by gcc (Debian 12.2.0-14) 12.2.0, 64-bit",
      "PostgreSQL 19beta1 on aarch64-unknown-linux-musl, compiled by clang version 21.0.0, 64-bit",
      "PostgreSQL 20devel on x86_64-linux, compiled by gcc-15.1.0, 64-bit",
      "PostgreSQL 17.2 (EnterpriseDB Advanced Server 17.2.0) on x86_64-pc-linux-gnu, compiled by gcc, 64-bit",
      "PostgreSQL 16.8 on aarch64-unknown-linux-gnu, compiled by aarch64-unknown-linux-gnu-gcc (GCC) 9.5.0, 64-bit", // Aurora
      "PostgreSQL 17.5 (6bc9ef8) on aarch64-unknown-linux-gnu, compiled by gcc (Debian 12.2.0-14+deb12u1) 12.2.0, 64-bit", // Neon
      "PostgreSQL 15.7 on x86_64-pc-linux-gnu, compiled by Debian clang version 12.0.1, 64-bit", // AlloyDB, Cloud SQL
      "PostgreSQL 16.4, compiled by Visual C++ build 1940, 64-bit",
      "PostgreSQL 17.0 (OrioleDB public beta 12 PGTAG=patches17_12) on x86_64-pc-linux-gnu"
    ], (engine) => probing(null as never, Effect.succeed([{ engine, ...everything }])))) // nothing else is asked

  it.live("tells a failure of PostgreSQL as it is", () =>
    Effect.gen(function*() {
      const { error } = yield* opened((statement) =>
        statement.includes("as taken")
          ? { code: "42501", message: "permission denied for function version" }
          : { row: { has: true, engine: postgres } }
      )
      assert.strictEqual(error._tag as string, "SqlError")
    }).pipe(Effect.scoped))

  it.live("takes PostgreSQL for what it is while somebody else has the lock that is tried", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const held = sql`select pg_advisory_xact_lock(1162694475, 17)`
      yield* sql.withTransaction(Effect.andThen(
        held,
        // On connections of its own.
        Effect.scoped(Layer.build(Layer.fresh(Layer.provide(Store.layer, clientNamed("other")))))
      ))
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))

  it.live("takes PostgreSQL for what it is, in a transaction as well", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* sql.withTransaction(Effect.scoped(Layer.build(Layer.fresh(Store.layer))))
    }).pipe(Effect.provide(Layer.fresh(databaseLayer()))))
})
