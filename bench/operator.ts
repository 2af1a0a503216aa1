/**
 * How long an operator waits, on a large store: each thing that can be asked, once cold and then some times more.
 *
 *   node --conditions=@effect-message-store/source bench/operator.ts [messages] [streams] [--stay]
 *
 * With `--stay` the server goes on, for the command line, until it is interrupted.
 */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Array as Arr, Clock, Console, DateTime, Effect, Layer, Redacted, References, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Operator, Partitioner, Subscription } from "effect-message-store"
import { SqlClient } from "effect/sql"
import process from "node:process"
import { startServer } from "../test/support/server.ts"

class Placed extends Schema.TaggedClass<Placed>()("Placed", { ...Message.fields, customer: Schema.String }) {}
class Paid extends Schema.TaggedClass<Paid>()("Paid", { ...Message.fields, amount: Schema.Int }) {}

class Orders extends MessageStore.Service<Orders>()("bench/operator/Orders", {
  name: "orders",
  schema: Schema.Union([Placed, Paid])
}) {}

class All extends AggregatedStream.Service<All>()("bench/operator/All", {
  store: Orders,
  name: "all_orders",
  patterns: "order-%",
  partitioner: Partitioner.streamName(64)
}) {}

const retry = Schedule.recurs(0)
class Level
  extends Subscription.Service<Level>()("bench/operator/Level", { stream: All, name: "level", start: "next" })
{}
class Behind extends Subscription.Service<Behind>()("bench/operator/Behind", { stream: All, name: "behind" }) {}
class Fails extends Subscription.Service<Fails>()("bench/operator/Fails", {
  stream: All,
  name: "fails",
  start: "next",
  retry
}) {}

const [messages = 1_000_000, streams = 100_000] = process.argv.slice(2).filter((each) => /^\d+$/.test(each)).map(Number)

/** Rows as the store has them: a minute apart, the last ones some days ago, one of a hundred caused by the one before. */
const fill = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const page = 50_000
  for (let from = 0; from < messages; from += page) {
    yield* sql`
      insert into depeche_msgs_orders
        (message_id, global_position, stream, version, message, metadata, tx, occurred_at, recorded_at, added_at)
      select md5(i::text)::uuid, nextval('depeche_msgs_orders_global_seq'), 'order-' || i % ${streams}::int,
        1 + i / ${streams}::int,
        json_build_object('_tag', case when i % 10 = 0 then 'Paid' else 'Placed' end, 'messageId', md5(i::text)::uuid,
          'occurredAt', '2026-01-01T00:00:00.000Z', 'customer', 'customer ' || i % 1000, 'note', repeat('x', 200)),
        case when i % 100 = 99 then jsonb_build_object('causationId', md5((i - 1)::text)::uuid, 'correlationId', 'c' || i / 1000)
          else jsonb_build_object('correlationId', 'c' || i / 1000) end,
        pg_current_xact_id(), t, t, t
      from generate_series(${from}::int, ${Math.min(from + page, messages) - 1}::int) i
      cross join lateral (select now() - (${messages}::int - i + 5000) * interval '1 minute' as t) t`
  }
  yield* sql`analyze`
})

const timed = Effect.fnUntraced(
  function*<A, E, R>(name: string, effect: Effect.Effect<A, E, R>, told: (a: A) => string) {
    const times: Array<number> = []
    let last: A | undefined
    for (let i = 0; i < 5; i++) {
      const begin = yield* Clock.currentTimeMillis
      last = yield* effect
      times.push((yield* Clock.currentTimeMillis) - begin)
    }
    const [cold = 0, ...warm] = times
    const best = Math.min(...warm)
    yield* Console.log(
      `${name.padEnd(44)} ${String(cold).padStart(6)} ms, then ${String(best).padStart(6)} ms  ${told(last as A)}`
    )
  }
)

const measure = Effect.gen(function*() {
  const operator = yield* Operator.Operator
  const count = ({ items }: { readonly items: ReadonlyArray<unknown> }) => `${items.length} items`
  const search = (name: string, options: Operator.SearchOptions) =>
    timed(
      name,
      operator.search({ timeLimit: "1 minute", ...options }),
      (page) =>
        `${page.items.length} items, ${page.reached === undefined ? "all looked at" : `down to ${page.reached}`}`
    )
  const { items: [newest] } = yield* operator.search({ limit: 1 })
  const { items: [caused] } = yield* operator.search({ type: "Placed", pattern: "order-%99", limit: 1 })
  const { items: [oldest] } = yield* operator.search({ limit: 1, direction: "forward" })
  const id = newest?.messageId ?? ""
  yield* timed("overview", operator.overview, ({ vitals }) => `${vitals.messages} messages`)
  yield* timed("health", operator.health(), ({ problems }) => `${problems.length} problems`)
  yield* timed("streams, first page", operator.streams(), count)
  yield* timed("streams, in the middle", operator.streams({ cursor: "order-5" }), count)
  yield* timed("streams by a pattern that few match", operator.streams({ pattern: "%-7777_" }), count)
  yield* timed("a stream", operator.search({ stream: "order-77" }), count)
  yield* timed("a message", operator.message(id), (found) => `${found?.places.length} places`)
  yield* timed(
    "trace, of a new message",
    operator.trace(caused?.messageId ?? ""),
    (found) => `${found?.messages.length} messages`
  )
  yield* timed(
    "trace, of the oldest",
    operator.trace(oldest?.messageId ?? ""),
    (found) => `${found?.messages.length} messages`
  )
  yield* search("search: newest", {})
  yield* search("search: a type that many have", { type: "Paid" })
  yield* search("search: a type that none has", { type: "Nothing" })
  yield* search("search: new correlation", { correlationId: `c${Math.floor(messages / 1000) - 1}` })
  yield* search("search: oldest correlation", { correlationId: "c0" })
  yield* search("search: unknown causation, 2 seconds", { causationId: "nobody", timeLimit: "2 seconds" })
  yield* search("search: pattern that few match", { pattern: "%-77777" })
  yield* search("search: a day in the middle", {
    fromTime: newest === undefined ? undefined : dayBefore(newest.addedAt.epochMilliseconds, 300),
    toTime: newest === undefined ? undefined : dayBefore(newest.addedAt.epochMilliseconds, 299)
  })
  yield* timed("aggregated streams", operator.aggregatedStreams(), count)
  yield* timed("subscriptions", operator.subscriptions(), count)
  yield* timed("partitions of one", operator.partitions("behind", { limit: 100 }), count)
  yield* timed("linked", operator.linked("all_orders", 3), count)
  yield* timed("parked", operator.parked("fails"), count)
  yield* timed("parked by errors", operator.parkedErrors("fails"), (all) => `${all.length} kinds`)
})

const dayBefore = (from: number, days: number) => DateTime.makeUnsafe(from - days * 86_400_000)

const program = Effect.gen(function*() {
  yield* Console.log(`filling: ${messages} messages, ${streams} streams`)
  yield* fill
  yield* (yield* All).projector.runOnce
  yield* Effect.forEach([yield* Level, yield* Fails], (each) => each.reset("next"))
  const letters = Arr.makeBy(50, (i) => new Placed({ customer: `${i}` }))
  const { globalPosition } = yield* (yield* Orders).write("order-x", letters)
  yield* (yield* All).projector.runOnce
  const fails = yield* Fails
  const level = yield* Level
  yield* level.drain(() => Effect.void)
  yield* Effect.raceFirst(
    fails.run(({ messageId }) => Effect.fail(`no order for ${messageId}`)),
    fails.waitUntilProcessed(globalPosition, "1 minute")
  )
  yield* measure
})

const Services = Layer.mergeAll(Level.layer, Behind.layer, Fails.layer, Operator.layerOf(Orders)).pipe(
  Layer.provideMerge(All.layer),
  Layer.provideMerge(Orders.layer)
)

const main = Effect.gen(function*() {
  const server = yield* startServer()
  yield* program.pipe(
    Effect.provide(Layer.provideMerge(Services, PgClient.layer({ url: Redacted.make(server.url) }))),
    Effect.provideService(References.MinimumLogLevel, "None")
  )
  if (!process.argv.includes("--stay")) return
  yield* Console.log(`DATABASE_URL='${server.url}'`)
  return yield* Effect.never
})

NodeRuntime.runMain(Effect.scoped(main))
