/** Decisions on PostgreSQL: isolation levels, and the function itself. */
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"

class Booked extends Schema.TaggedClass<Booked>()("Booked", { ...Message.fields, seat: Schema.String }) {}

class Seats extends MessageStore.Service<Seats>()("test/Seats", { name: "seats", schema: Booked }) {}

const count = Fold.make<Booked>()({ initial: 0, Booked: (sofar) => sofar + 1 })
const booked = () => new Booked({ seat: "1" })

const live = { excludeTestServices: true }

describe("PostgreSQL", () => {
  layer(Seats.layer.pipe(Layer.provideMerge(databaseLayer())), live)("decisions", (it) => {
    for (const level of ["repeatable read", "serializable"]) {
      it.effect(`under ${level} conditions are refused, and the transaction goes on`, () =>
        Effect.gen(function*() {
          const seats = yield* Seats
          const sql = yield* SqlClient.SqlClient
          const [a, b] = [`a ${level}`, `b ${level}`]
          yield* seats.write(b, booked())
          const sources = { a: Decision.stream(a, count), b: Decision.stream(b, count) }
          yield* sql.withTransaction(Effect.gen(function*() {
            const error = yield* Effect.flip(seats.decide(sources, () => ({ stream: a, messages: booked() })))
            assert.strictEqual(error._tag, "IsolationError")
            // Every source is written to: the database itself sees to it that nothing got in between.
            const both = yield* seats.decide(sources, () => [
              { stream: a, messages: booked() },
              { stream: b, messages: booked() }
            ])
            assert.deepStrictEqual(both.map(({ version }) => version), [1, 2])
            assert.deepStrictEqual(yield* seats.decide(sources, () => []), [])
            yield* seats.update(a, count, () => Effect.succeed(booked()))
          })).pipe(Effect.provideService(SqlClient.BeginTransaction, `begin isolation level ${level}`))
          assert.deepStrictEqual([(yield* seats.head(a)).version, (yield* seats.head(b)).version], [2, 2])
        }))
    }
  })
})
