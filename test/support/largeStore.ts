/** A large store to look at: messages by SQL, everything else by the library. Free of vitest. */
import { Array as Arr, DateTime, Effect, References, Schedule, Schema } from "effect"
import { AggregatedStream, Message, MessageStore, Partitioner, Projection } from "effect-message-store"
import { SqlClient } from "effect/sql"
import { until } from "./processes.ts"

export class Placed extends Schema.TaggedClass<Placed>()("Placed", { ...Message.fields, note: Schema.Json }) {}

export class Large extends MessageStore.Service<Large>()("test/Large", { name: "large", schema: Placed }) {}

export class AllOrders extends AggregatedStream.Service<AllOrders>()("test/LargeOrders", {
  store: Large,
  name: "all_orders",
  patterns: "order-%",
  partitioner: Partitioner.streamName(16)
}) {}

export class Vips extends AggregatedStream.Service<Vips>()("test/LargeVips", {
  store: Large,
  name: "vips",
  patterns: "vip-%",
  partitioner: Partitioner.constant()
}) {}

export const parkedMessages = 50

const script = "<script>hacked = 1</script><img src=x onerror='hacked = 1'>"

/** Names of streams as nobody should choose them. */
export const hostileNames: ReadonlyArray<string> = [
  `order-${script}`,
  "order-__proto__",
  "order-\u202eright to left\n\u0007",
  `order-${"long".repeat(62)}x`
]

/** What was prepared: the ids of messages. */
export interface Prepared {
  readonly cause: string
  readonly effect: string
  readonly first: string
  /** Of a message of 8 MiB. */
  readonly large: string
}

const namesOf = ["invoices", "mails", "reports"] as const

/** Streams `order-0`, … with their messages, from the first to the last version, one after the other. */
const fill = Effect.fnUntraced(function*(messages: number, streams: number) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`
    insert into depeche_msgs_large (message_id, global_position, stream, version, message, metadata, occurred_at, tx)
    select id, nextval('depeche_msgs_large_global_seq'), 'order-' || n % ${streams}, 1 + n / ${streams},
      ('{"_tag":"Placed","messageId":"' || id || '","occurredAt":"2026-01-01T00:00:00.000Z","note":"no ' || n || '"}')::json,
      case when n % 10 = 0 then jsonb_build_object('correlationId', 'c-' || n / 100) end, '2026-01-01', pg_current_xact_id()
    from generate_series(0, ${messages - 1}) n,
      lateral (select ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as id) as named`
})

const silent = Effect.provideService(References.MinimumLogLevel, "None")

/**
 * `invoices` has handled all but what it has parked, `mails` is paused, `reports` was never run. Two versions of a projection,
 * and messages that wait to be written.
 */
export const prepare = Effect.fnUntraced(function*(messages: number, streams: number) {
  const large = yield* Large
  const placed = (note: Schema.Json) => new Placed({ note })
  const eightMebibytes = placed(script + "x".repeat(8 * 1024 * 1024 - 400))
  yield* large.write("order-large", eightMebibytes)
  yield* fill(messages, streams)
  yield* large.write("vip-1", Arr.makeBy(20, (i) => placed(`vip ${i}`)))
  const [cause, effect] = [placed("a cause"), placed("an effect")]
  yield* large.write("order-cause", cause)
  yield* large.write("order-effect", effect, {
    metadata: { causationId: cause.messageId, correlationId: cause.messageId }
  })
  const hostile: Schema.Json = JSON.parse(
    `{"__proto__":{"hacked":1},${JSON.stringify(script)}:${JSON.stringify(script)}}`
  )
  yield* Effect.forEach(hostileNames, (name) => large.write(name, placed({ hostile, text: `\u202e${script}` })))
  const orders = yield* AllOrders
  yield* orders.projector.runOnce
  const { globalPosition } = yield* large.head("order-effect")
  const [invoices, mails] = yield* Effect.forEach(namesOf, (name) =>
    orders.subscription({
      name,
      retry: Schedule.recurs(0),
      start: name === "reports" ? "beginning" : { globalPosition: (globalPosition ?? 0) - 1000 }
    }))
  let left = parkedMessages
  yield* invoices?.drain((_, { stream }) =>
    left > 0 && left-- > 0
      ? Effect.fail({ _tag: left < 10 ? script : "NoPaper", message: `for ${stream}` })
      : Effect.void
  ) ?? Effect.void
  yield* mails?.pause({ reason: "the post is on strike", by: "Ada" }) ?? Effect.void
  const vips = yield* Vips
  yield* vips.projector.runOnce
  for (const version of [1, 2]) {
    const projection = yield* vips.projection({
      name: "totals",
      version,
      model: Projection.tables(
        ["counts"],
        ({ counts }) => Effect.flatMap(SqlClient.SqlClient, (sql) => sql`create table ${sql(counts)} (messages int)`)
      ),
      promotion: "manual"
    })
    const isLevel = until(`version ${version} is level`, Effect.map(projection.subscription.lag, (lag) => lag === 0))
    yield* Effect.raceFirst(projection.run(() => Effect.void), isLevel)
    if (version === 1) yield* projection.promote()
  }
  yield* large.schedule("order-late", placed("late"), { at: DateTime.makeUnsafe("2999-01-01"), key: "late" })
  const prepared: Prepared = {
    large: eightMebibytes.messageId,
    cause: cause.messageId,
    effect: effect.messageId,
    first: "01900000-0000-7000-8000-000000000000"
  }
  return prepared
}, silent)
