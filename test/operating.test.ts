/** What docs/operating.md tells operators to do, done: its grants are enough, and its printed migrations make a store. */
import { PgClient } from "@effect/sql-pg"
import { assert, describe, it } from "@effect/vitest"
import { PGlite } from "@electric-sql/pglite"
import { Effect, Layer, Redacted, References, Schedule, Schema, Stream } from "effect"
import {
  AggregatedStream,
  Decision,
  Message,
  MessageStore,
  Operator,
  Partitioner,
  Subscription
} from "effect-message-store"
import { PgliteClient } from "effect-message-store/pglite"
import { SqlClient } from "effect/sql"
import { execFileSync } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import { inject } from "vitest"
import { databaseLayer } from "./support/database.ts"
import { image } from "./support/pglite.ts"

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  customer: Schema.String
}) {}

const anything = { initial: 0, evolve: (count: number) => count + 1 }

class Orders extends MessageStore.Service<Orders>()("test/OperatedOrders", { name: "orders", schema: OrderPlaced }) {}

class ByCustomer extends AggregatedStream.Service<ByCustomer>()("test/OperatedByCustomer", {
  store: Orders,
  name: "by_customer",
  patterns: "order-%",
  partitioner: Partitioner.field("customer", 4)
}) {}

class Invoices extends Subscription.Service<Invoices>()("test/OperatedInvoices", {
  stream: ByCustomer,
  name: "invoices",
  retry: Schedule.recurs(0)
}) {}

const place = Effect.gen(function*() {
  const orders = yield* Orders
  yield* orders.write("order-1", new OrderPlaced({ customer: "Ada" }), { expectedVersion: 0 })
  yield* orders.write("order-1", new OrderPlaced({ customer: "Grace" }))
})

/** Projects and handles all there is; Grace's message is parked, and replayed. Then what operators look at, and do. */
const work = Effect.gen(function*() {
  const { projector, statistics } = yield* ByCustomer
  const invoices = yield* Invoices
  yield* projector.runOnce
  const handler = ({ customer }: OrderPlaced) => customer === "Grace" ? Effect.fail("no address") : Effect.void
  const handled = Effect.repeat(invoices.lag, { until: (lag) => lag === 0, schedule: Schedule.spaced("10 millis") })
  yield* Effect.raceFirst(invoices.run(handler), handled)
  assert.strictEqual((yield* invoices.parked).length, 1)
  assert.deepStrictEqual(yield* invoices.replay(() => Effect.void), { handled: 1, failed: 0 })
  assert.strictEqual((yield* statistics).waiting, 0)
  assert.isNotEmpty(yield* invoices.status)
  yield* invoices.reset("next")
})

/** The failure of the handler would be logged. */
const quietly = Effect.provideService(References.MinimumLogLevel, "None")

const worker = Invoices.layer.pipe(
  Layer.provideMerge(ByCustomer.layer),
  Layer.provideMerge(Orders.layerNoMigrations)
)

describe("docs/operating.md", () => {
  const document = fs.readFileSync(path.resolve(import.meta.dirname, "../docs/operating.md"), "utf8")
  const statements = Array.from(document.matchAll(/```sql\n([^]*?)```/g), ([, sql = ""]) => sql)
    .join("\n").split(";").map((statement) => statement.trim()).filter((statement) => statement !== "")

  it.live("grants what each role needs", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.provide(
        Effect.void,
        Layer.fresh(Invoices.layer).pipe(
          Layer.provide(ByCustomer.layer),
          Layer.provide(Orders.layer)
        )
      )
      const [row] = yield* sql<{ readonly name: string }>`select current_database() as name`
      // Roles belong to the server, which other tests use as well.
      const suffix = crypto.randomUUID().slice(0, 8)
      const roles = ["app_writer", "app_worker", "app_reader", "app_tagger", "app_forgetter", "app_operator"]
      const named = (text: string) => text.replaceAll(/\bapp_\w+/g, (role) => `${role}_${suffix}`)
      const as = (role: string) =>
        PgClient.layer({
          url: Redacted.make(inject("postgresUrl")),
          database: row?.name,
          username: named(role),
          password: Redacted.make("secret"),
          maxConnections: 4
        })
      // Each role has layers of its own.
      const provide = <A, E>(layer: Layer.Layer<A, E, SqlClient.SqlClient>, role: string) =>
        Effect.provide(Layer.provide(layer, as(role)), { local: true })
      yield* Effect.forEach(roles, (role) => sql.unsafe(named(`create role ${role} login password 'secret'`)))
      yield* Effect.addFinalizer(() =>
        Effect.orDie(Effect.forEach(roles, (role) =>
          Effect.andThen(sql.unsafe(named(`drop owned by ${role}`)), sql.unsafe(named(`drop role ${role}`)))))
      )
      assert.isNotEmpty(statements)
      yield* Effect.forEach(statements, (statement) =>
        sql.unsafe(named(statement)))

      yield* place.pipe(provide(Orders.layerNoMigrations, "app_writer"))
      yield* Orders.use((orders) =>
        orders.decide(
          { one: Decision.stream("order-1", anything), other: Decision.stream("order-2", anything) },
          () => ({ stream: "order-3", messages: new OrderPlaced({ customer: "Radia" }) })
        )
      ).pipe(provide(Orders.layerNoMigrations, "app_writer"))
      yield* work.pipe(provide(worker, "app_worker"))
      yield* Effect.gen(function*() {
        const orders = yield* Orders
        assert.strictEqual(yield* Stream.runCount(orders.read("order-1")), 2)
        const refused = yield* Effect.flip(orders.write("order-1", new OrderPlaced({ customer: "Edsger" })))
        assert.strictEqual(refused._tag, "SqlError")
      }).pipe(provide(Orders.layerNoMigrations, "app_reader"))
      yield* Effect.gen(function*() {
        const operator = yield* Operator.Operator
        const { problems } = yield* operator.health({ projector: "1 day" })
        assert.deepStrictEqual(problems, [])
        const { items: [first] } = yield* operator.search({ type: "OrderPlaced", limit: 1 })
        assert.strictEqual((yield* operator.message(first?.messageId ?? ""))?.message.stream, "order-3")
        assert.lengthOf((yield* operator.partitions("invoices")).items, 3)
        assert.lengthOf((yield* operator.scheduled()).items, 0)
        const refused = yield* Effect.flip(operator.pause("invoices"))
        assert.isTrue(refused._tag === "SqlError" && refused.reason._tag === "AuthorizationError")
      }).pipe(provide(Operator.layer("orders"), "app_operator"))
    }).pipe(Effect.scoped, Effect.provide(databaseLayer()), quietly))

  it.live("prints migrations that make all that is needed", () =>
    Effect.gen(function*() {
      const example = path.resolve(import.meta.dirname, "../examples/15-print-migrations.ts")
      const script = execFileSync(process.execPath, ["--conditions=@effect-message-store/source", example], {
        encoding: "utf8"
      })
      const database = yield* Effect.acquireRelease(
        Effect.flatMap(image, (loadDataDir) => Effect.promise(() => PGlite.create({ loadDataDir }))),
        (opened) => Effect.promise(() => opened.close())
      )
      yield* Effect.promise(() => database.exec(script))
      yield* Effect.provide(Effect.andThen(place, work), Layer.provideMerge(worker, PgliteClient.layerFrom(database)))
    }).pipe(Effect.scoped, quietly))
})
