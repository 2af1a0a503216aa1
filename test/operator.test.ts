/** The operator on PostgreSQL: time limits, transactions of others, other stores, and objects of another version. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Schedule, Schema, Stream } from "effect"
import { Message, MessageStore, Operator, Partitioner } from "effect-message-store"
import { SqlClient, SqlError } from "effect/sql"
import { TestClock } from "effect/testing"
import { takeSteps } from "../src/operator/search.ts"
import { databaseLayer } from "./support/database.ts"
import { moved } from "./support/links.ts"
import { Transfers } from "./support/transfers.ts"

class Noted extends Schema.TaggedClass<Noted>()("Noted", { ...Message.fields, text: Schema.String }) {}

class Notes extends MessageStore.Service<Notes>()("test/operator/Notes", { name: "notes", schema: Noted }) {}

const merged = { name: "merged", patterns: "%", partitioner: Partitioner.constant(1) }

/** Made by an application; what is asked then has the name of the store alone. */
const prepared = Effect.provide(
  Effect.gen(function*() {
    const transfers = yield* Transfers
    const stream = yield* transfers.aggregatedStream(merged)
    yield* transfers.write("s", moved())
    yield* stream.projector.runOnce
    yield* stream.subscription({ name: "consumer" })
  }),
  Layer.fresh(Transfers.layer)
)

const operated = <A, E, R>(
  use: (operator: Operator.OperatorService) => Effect.Effect<A, E, R>,
  options?: Operator.OperatorOptions
) => Effect.provide(Effect.flatMap(Operator.Operator, use), Layer.fresh(Operator.layer("transfers", options)))

const test = (name: string, body: Effect.Effect<void, unknown, SqlClient.SqlClient>) =>
  it.live(name, () => Effect.provide(body, Layer.fresh(databaseLayer())))

/** Runs an effect while another transaction has done something, and is open. */
const during = Effect.fnUntraced(function*<A, E, R, A2, E2, R2>(
  done: Effect.Effect<A2, E2, R2>,
  effect: Effect.Effect<A, E, R>
) {
  const sql = yield* SqlClient.SqlClient
  const [reached, over] = [yield* Deferred.make<void>(), yield* Deferred.make<void>()]
  const holding = yield* Effect.forkChild(sql.withTransaction(
    done.pipe(Effect.andThen(Deferred.succeed(reached, undefined)), Effect.andThen(Deferred.await(over)))
  ))
  yield* Deferred.await(reached)
  const result = yield* effect
  yield* Deferred.succeed(over, undefined)
  yield* Fiber.join(holding)
  return result
})

describe("an operator", () => {
  test(
    "waits for no statement longer than it says, and leaves nothing of that behind",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* prepared
      yield* operated((operator) =>
        Effect.gen(function*() {
          const failure = yield* during(
            sql`lock table depeche_msgs_transfers in access exclusive mode`,
            Effect.all([Effect.flip(operator.streams()), Effect.flip(operator.search({ type: "Moved" }))])
          )
          for (const error of failure) {
            assert.isTrue(error._tag === "SqlError" && error.reason._tag === "StatementTimeoutError")
          }
          assert.lengthOf((yield* operator.streams()).items, 1)
        }), { statementTimeout: "50 millis" })
      const settings = yield* Effect.forEach(
        Array.from({ length: 10 }),
        () => sql<{ readonly statement_timeout: string }>`show statement_timeout`,
        { concurrency: 10 }
      )
      assert.isTrue(settings.flat().every((row) => row.statement_timeout === "0"))
    })
  )

  it.effect("looks at the least once a look was ended and its time is over", () =>
    Effect.gen(function*() {
      const reason = new SqlError.StatementTimeoutError({ cause: new Error("statement timeout") })
      const looks: Array<number> = []
      const search = yield* Effect.forkChild(takeSteps(
        ({ scan }) =>
          Effect.suspend(() => {
            looks.push(scan)
            return scan > 16
              ? Effect.andThen(Effect.sleep("5 seconds"), Effect.fail(new SqlError.SqlError({ reason })))
              : Effect.succeed({ found: [], reached: undefined })
          }),
        { query: {} as never, after: undefined, limit: 50, timeLimit: 600, isMeant: () => true }
      ))
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* Fiber.join(search), { found: [], reached: undefined })
      assert.deepStrictEqual(looks, [1000, 16])
    }))

  it.live("looks at no more messages than it says, in a table without statistics too", () =>
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* Effect.provide(Transfers, Layer.fresh(Transfers.layer))
      yield* sql`alter table depeche_msgs_transfers set (autovacuum_enabled = false)`
      yield* sql`
        insert into depeche_msgs_transfers (message_id, global_position, stream, version, message, tx)
        select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
          nextval('depeche_msgs_transfers_global_seq'), 's-' || n % 100, 1 + n / 100, '{}', pg_current_xact_id()
        from generate_series(0, 29999) n`
      // In the one session of this client.
      const fetched = Effect.andThen(
        sql`select pg_stat_force_next_flush()`,
        Effect.map(
          sql<{ readonly count: number }>`
            select (seq_tup_read + idx_tup_fetch)::int as count from pg_stat_user_tables
            where relname = 'depeche_msgs_transfers'`,
          ([row]) => row?.count ?? 0
        )
      )
      yield* operated((operator) =>
        Effect.gen(function*() {
          for (
            const options of [{ type: "Nothing" }, {
              correlationId: "c",
              fromPosition: 2,
              direction: "forward"
            }] as const
          ) {
            const before = yield* fetched
            const { next } = yield* operator.search({ ...options, timeLimit: "1 minute" })
            assert.isUndefined(next)
            assert.isAtMost((yield* fetched) - before, 32_000)
          }
        })
      )
    }).pipe(Effect.provide(Layer.fresh(databaseLayer({ maxConnections: 1 })))))

  test(
    "warns of messages that nobody has taken up for half a minute, linked or not",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* prepared
      const waitFor = (seconds: number) =>
        sql`update depeche_msgs_transfers set recorded_at = clock_timestamp() - ${seconds}::float8 * interval '1 second'`
      yield* operated((operator) =>
        Effect.gen(function*() {
          const health = Effect.map(operator.health(), ({ isHealthy, problems, waiting }) => ({
            isHealthy,
            waiting,
            problems: problems.map(({ kind, of, severity }) => `${severity}: ${of} ${kind}`)
          }))
          assert.deepStrictEqual(yield* health, { isHealthy: true, problems: [], waiting: 1 })
          yield* waitFor(40)
          const unclaimed = "warning: consumer unclaimed"
          assert.deepStrictEqual(yield* health, { isHealthy: true, problems: [unclaimed], waiting: 1 })
          yield* Effect.provide(
            Effect.flatMap(Transfers, (transfers) => transfers.write("s", moved())),
            Layer.fresh(Transfers.layer)
          )
          yield* waitFor(40)
          const problems = ["warning: merged projectorBehind", unclaimed]
          assert.deepStrictEqual(yield* health, { isHealthy: true, problems, waiting: 2 })
          const [consumer] = (yield* operator.subscriptions()).items
          assert.strictEqual(consumer?.totals?.lag, 2)
          yield* waitFor(301)
          assert.deepStrictEqual(yield* health, {
            isHealthy: false,
            problems: problems.map((each) => each.replace("warning", "error")),
            waiting: 2
          })
        })
      )
    })
  )

  test(
    "tells of transactions that are open for long, and of objects of another version",
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      yield* prepared
      yield* operated((operator) =>
        Effect.gen(function*() {
          const kinds = (bounds: Operator.HealthBounds) =>
            Effect.map(operator.health(bounds), ({ problems }) => problems.map(({ kind, of }) => `${kind} ${of}`))
          assert.deepStrictEqual(yield* during(sql`select txid_current()`, kinds({ transaction: 0 })), [
            "transaction database"
          ])
          assert.deepStrictEqual(yield* kinds({ sessions: 0 }), ["sessions database"])
          assert.deepStrictEqual(yield* kinds({}), [])
          yield* sql`insert into effect_message_store_streamed_merged (migration_id, name) values (1000, 'of tomorrow')`
          yield* sql`delete from effect_message_store_subscribed_consumer where migration_id > 1`
          assert.deepStrictEqual(yield* kinds({}), ["newer merged", "outdated consumer"])
          const [status] = (yield* operator.subscriptions()).items
          assert.deepInclude(status, { name: "consumer", totals: undefined, objects: { made: 1, known: 4 } })
          const refused = yield* Effect.flip(operator.pause("consumer"))
          assert.deepInclude({ ...refused }, { _tag: "SetupError", identifier: "consumer" })
        })
      )
    })
  )

  test(
    "follows what is committed late, behind what was committed meanwhile",
    Effect.gen(function*() {
      yield* prepared
      yield* Effect.provide(
        Effect.gen(function*() {
          const transfers = yield* Transfers
          const operator = yield* Operator.Operator
          const shown: Array<string> = []
          const following = yield* operator.follow({ pollInterval: "20 millis", after: 1 }).pipe(
            Stream.take(2),
            Stream.runForEach(({ stream }) => Effect.sync(() => shown.push(stream))),
            Effect.forkChild
          )
          yield* during(
            transfers.write("late", moved()),
            Effect.gen(function*() {
              yield* transfers.write("soon", moved())
              yield* Effect.repeat(Effect.sync(() => shown.length > 0), {
                until: (isShown) => isShown,
                schedule: Schedule.spaced("5 millis")
              })
            })
          )
          yield* Effect.timeout(Fiber.join(following), "10 seconds")
          assert.deepStrictEqual(shown, ["soon", "late"])
        }),
        Layer.fresh(Layer.provideMerge(Operator.layerOf(Transfers), Transfers.layer))
      )
    })
  )

  test(
    "sees what belongs to its own store",
    Effect.gen(function*() {
      yield* prepared
      yield* Effect.provide(
        Effect.gen(function*() {
          const stream = yield* (yield* Notes).aggregatedStream({ ...merged, name: "merged_notes" })
          yield* stream.subscription({ name: "reader" })
        }),
        Layer.fresh(Notes.layer)
      )
      assert.deepStrictEqual(yield* Operator.stores, ["notes", "transfers"])
      yield* operated((operator) =>
        Effect.gen(function*() {
          const { aggregatedStreams, subscriptions } = yield* operator.overview
          assert.deepStrictEqual([aggregatedStreams, subscriptions], [["merged"], ["consumer"]])
          const failure = yield* Effect.flip(operator.pause("reader"))
          assert.include(failure.message, "must name a subscription of this store, not \"reader\": it has consumer")
        })
      )
    })
  )
})
