/** Stores and subscriptions of the same names in schemas of their own: no tenant waits for another. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer } from "effect"
import { Partitioner } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { createDepecheStore } from "./support/depeche.ts"
import { moved } from "./support/links.ts"
import { Clients, sharedDatabaseLayer } from "./support/sharedDatabase.ts"
import { Transfers } from "./support/transfers.ts"

const byAll = { name: "all", patterns: "%", partitioner: Partitioner.constant(1) }

const consumer = Effect.gen(function*() {
  const transfers = yield* Transfers
  const stream = yield* transfers.aggregatedStream(byAll)
  yield* transfers.write("s", moved())
  yield* stream.projector.runOnce
  return yield* stream.subscription({ name: "consumer" })
})

/** The key that depeche_db takes, from whatever schema it writes. */
const pythonsLock = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly free: boolean }>`
    select pg_try_advisory_xact_lock(left('x' || md5('s'), 17)::bit(64)::bigint) as free`
  return row?.free
})

describe("PostgreSQL", () => {
  describe("two tenants with stores and subscriptions of the same names", () => {
    for (const schemas of [["tenant_a", "tenant_b"], ["public", "tenant_b"]] as const) {
      it.live(`do not wait for each other, in ${schemas.join(" and ")}`, () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const { layer } = yield* Clients
          for (const schema of schemas) yield* sql`create schema if not exists ${sql(schema)}`
          const [busy, other] = schemas.map((schema) => Layer.provide(Layer.fresh(Transfers.layer), layer({ schema })))
          assert.isDefined(busy)
          assert.isDefined(other)
          const [held, release] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
          const first = yield* Effect.forkChild(
            Effect.gen(function*() {
              const subscription = yield* consumer
              const transfers = yield* Transfers
              // A writer that holds the stream, and a handler that holds the partition.
              return yield* subscription.run(() =>
                transfers.withTransaction(Effect.andThen(
                  transfers.write("s", moved()),
                  Effect.andThen(Deferred.succeed(held, undefined), Deferred.await(release))
                ))
              )
            }).pipe(Effect.scoped, Effect.provide(busy))
          )
          yield* Effect.raceFirst(Deferred.await(held), Fiber.join(first))
          yield* Effect.gen(function*() {
            const subscription = yield* consumer
            const handled = yield* Deferred.make<string>()
            yield* Effect.forkScoped(
              subscription.run((_, { stream }) => Effect.asVoid(Deferred.succeed(handled, stream)))
            )
            assert.strictEqual(yield* Deferred.await(handled), "s")
          }).pipe(Effect.scoped, Effect.provide(other), Effect.timeout("20 seconds"))
          yield* Deferred.succeed(release, undefined)
          yield* Fiber.interrupt(first)
        }).pipe(Effect.provide(Layer.fresh(sharedDatabaseLayer))))
    }
  })

  describe("the lock of a stream has depeche_db's key", () => {
    const cases = [
      ["in public", "public", false, false],
      ["in a schema where depeche_db made the table", "python", true, false],
      ["in no other schema", "tenant", false, true]
    ] as const
    for (const [where, schema, isPythons, isFree] of cases) {
      it.live(where, () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const { layer } = yield* Clients
          yield* sql`create schema if not exists ${sql(schema)}`
          const client = layer({ schema })
          if (isPythons) yield* Effect.provide(createDepecheStore("transfers"), client)
          const outside = yield* Effect.context<SqlClient.SqlClient>()
          const free = Effect.gen(function*() {
            const transfers = yield* Transfers
            return yield* transfers.withTransaction(Effect.andThen(
              transfers.write("s", moved()),
              Effect.provideContext(pythonsLock, outside)
            ))
          })
          assert.strictEqual(yield* Effect.provide(free, Layer.provide(Layer.fresh(Transfers.layer), client)), isFree)
        }).pipe(Effect.provide(Layer.fresh(sharedDatabaseLayer))))
    }
  })
})
