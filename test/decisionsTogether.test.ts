/** Decisions that leave together on PostgreSQL: what the database refuses, and lost connections. */
import { assert, describe, layer } from "@effect/vitest"
import { Effect, Exit, Fiber, Latch, Layer, Schema, Stream } from "effect"
import { Decision, Fold, Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { databaseLayer } from "./support/database.ts"

class Booked extends Schema.TaggedClass<Booked>()("Booked", {
  ...Message.fields,
  flight: Message.tag("flight", Schema.String),
  seat: Schema.Int
}) {}

class Flights extends MessageStore.Service<Flights>()("test/Flights", { name: "flights", schema: Booked }) {}

const seats = Fold.make<Booked>()({
  initial: [] as ReadonlyArray<number>,
  Booked: (sofar, { seat }) => [...sofar, seat]
})

/** What the database lets nobody write. */
const poison = 13

/** Books these seats, all decided while the first one is held; returns their exits. */
const book = Effect.fnUntraced(function*(
  flight: string,
  given: ReadonlyArray<number>,
  meanwhile: Effect.Effect<unknown, unknown, SqlClient.SqlClient> = Effect.void
) {
  const flights = yield* Flights
  const sql = yield* SqlClient.SqlClient
  const [held, release] = [yield* Latch.make(), yield* Latch.make()]
  const holder = yield* Effect.forkChild(sql.withTransaction(Effect.gen(function*() {
    yield* sql`lock table depeche_msgs_flights in share row exclusive mode`
    yield* held.open
    yield* release.await
  })))
  yield* held.await
  const made = new Set<number>()
  const fibers = yield* Effect.forEach(given, (seat) =>
    Effect.forkChild(
      flights.decide({ taken: Decision.tagged({ flight }, seats) }, ({ taken }) => {
        made.add(seat)
        return { stream: `${flight} ${seat}`, messages: new Booked({ flight, seat: seat + 100 * taken.length }) }
      }),
      { startImmediately: true }
    ))
  while (made.size < given.length) yield* Effect.yieldNow
  yield* meanwhile
  yield* release.open
  yield* Fiber.join(holder)
  return yield* Effect.forEach(fibers, Fiber.await)
})

const booked = (flight: string) =>
  Effect.flatMap(
    Flights,
    (flights) =>
      Effect.map(Stream.runCollect(flights.readTagged({ flight })), (all) => all.map(({ message }) => message.seat))
  )

describe("PostgreSQL", () => {
  layer(Flights.layer.pipe(Layer.provideMerge(databaseLayer())), { excludeTestServices: true })(
    "decisions together",
    (it) => {
      it.effect("fail alone with a message that the database refuses", () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          yield* sql`create function refuse() returns trigger language plpgsql as 'begin raise exception ''poison''; end'`
          yield* sql`create trigger refuse before insert on depeche_msgs_flights
            for each row when (((new.message->>'seat')::int % 100) = ${sql.literal(String(poison))})
            execute function refuse()`
          const exits = yield* book("f1", [1, 2, 3, poison, 5, 6, 7, 8])
          assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, true, true, false, true, true, true, true])
          assert.include(String(exits[3]), "poison")
          assert.deepStrictEqual(yield* booked("f1"), [1, 102, 203, 305, 406, 507, 608])
        }))

      it.effect("fail if their connection is lost, and the others go on", () =>
        Effect.gen(function*() {
          const sql = yield* SqlClient.SqlClient
          const kill = Effect.gen(function*() {
            const waiting = sql`select pid from pg_stat_activity
              where datname = current_database() and wait_event_type = 'Lock'`
            while ((yield* waiting).length === 0) { /* looks again */ }
            yield* sql`select pg_terminate_backend(pid) from pg_stat_activity
              where datname = current_database() and wait_event_type = 'Lock'`
          })
          const exits = yield* book("f2", [1, 2, 3], kill)
          assert.deepStrictEqual(exits.map(Exit.isSuccess), [false, true, true])
          assert.deepStrictEqual(yield* booked("f2"), [2, 103])
        }))

      it.effect("of 64 callers of one stream leave in few statements", () =>
        Effect.gen(function*() {
          const flights = yield* Flights
          const sql = yield* SqlClient.SqlClient
          yield* Effect.forEach(
            Array.from({ length: 64 }, (_, i) => i),
            (i) =>
              flights.update("one", seats, (taken) => {
                assert.lengthOf(new Set(taken), taken.length)
                return Effect.succeed(new Booked({ flight: "f3", seat: 100 * i }))
              }),
            { concurrency: "unbounded" }
          )
          const transactions = yield* sql`select distinct tx::text from depeche_msgs_flights where stream = 'one'`
          assert.isAtMost(transactions.length, 4)
          assert.lengthOf(yield* booked("f3"), 64)
        }))
    }
  )
})
