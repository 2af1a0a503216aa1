/** A schema of the database for each tenant. The layers of a tenant are built when they are first asked for. */
import { PgClient } from "@effect/sql-pg"
import { Console, Effect, Layer, LayerMap, Redacted, Schema } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { PgliteClient } from "effect-message-store/pglite"
import { SqlClient } from "effect/sql"

class OrderPlaced extends Schema.TaggedClass<OrderPlaced>()("OrderPlaced", {
  ...Message.fields,
  amount: Schema.Int
}) {}
class Orders
  extends MessageStore.Service<Orders>()("examples/Orders", { name: "example_tenants", schema: OrderPlaced })
{}

const url = process.env["DATABASE_URL"]

/** Made beforehand, by whoever takes a tenant in. On PGlite each tenant has a database of its own. */
const createSchema = (tenant: string) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) => sql`create schema if not exists ${sql(tenant)}`)

const layerDatabase = (tenant: string) =>
  url
    ? PgClient.layer({ url: Redacted.make(url), startupParameters: { search_path: tenant } })
    : PgliteClient.layer()

class Tenants extends LayerMap.Service<Tenants>()("examples/Tenants", {
  // A layer is built once, and shared: without `fresh` all tenants would have the store of the first one.
  lookup: (tenant: string) => Layer.fresh(Orders.layer).pipe(Layer.provide(layerDatabase(tenant))),
  idleTimeToLive: "5 minutes"
}) {}

const place = Effect.fn("place")(function*(tenant: string, amount: number) {
  const { version } = yield* Effect.flatMap(
    Orders,
    (orders) => orders.write("order-1", new OrderPlaced({ amount }))
  ).pipe(Effect.provide(Tenants.get(tenant)))
  yield* Console.log(`${tenant}: order-1 is at version ${version}`)
})

const program = Effect.gen(function*() {
  yield* place("tenant_a", 25)
  yield* place("tenant_b", 30)
  yield* place("tenant_a", 35)
})

const schemas = Effect.forEach(["tenant_a", "tenant_b"], createSchema).pipe(
  Effect.provide(url ? PgClient.layer({ url: Redacted.make(url) }) : PgliteClient.layer())
)

await Effect.andThen(schemas, program).pipe(Effect.provide(Tenants.layer), Effect.runPromise)
