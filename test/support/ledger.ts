/** The store of the tests of failover, who works with it, and what has to hold of it whatever was lost. */
import { PgClient } from "@effect/sql-pg"
import { Effect, Latch, Layer, Redacted, Schedule, Schema } from "effect"
import { Decision, Fold, Message, MessageStore, Partitioner } from "effect-message-store"
import { SqlClient, type SqlError } from "effect/sql"
import type { Node } from "./replicas.ts"

export class Noted extends Schema.TaggedClass<Noted>()("Noted", { ...Message.fields, number: Schema.Int }) {}

/** Names the message that was the last one when it was decided on, and how many there were: whoever reads them sees a wrong one. */
const decided = { ...Message.fields, previous: Schema.String, count: Schema.Int }
export class Chained extends Schema.TaggedClass<Chained>()("Chained", decided) {}
export class Seated extends Schema.TaggedClass<Seated>()("Seated", {
  ...decided,
  club: Message.tag("club", Schema.String)
}) {}

export class Ledger extends MessageStore.Service<Ledger>()("test/Ledger", {
  name: "ledger",
  schema: Schema.Union([Noted, Chained, Seated])
}) {}

const State = Schema.Struct({ last: Schema.String, count: Schema.Int })
const initial: typeof State.Type = { last: "", count: 0 }
const next = ({ count }: typeof State.Type, { messageId }: Chained | Seated) => ({ last: messageId, count: count + 1 })

const chain = Fold.withSnapshot(
  Fold.make<Chained>()({ initial, Chained: next }),
  { name: "chain", schema: State, every: 4 }
)
const club = Fold.withSnapshot(
  Fold.make<Seated>()({ initial, Seated: next }),
  { name: "club", schema: State, every: 4 }
)

/** Decides on a stream, and answers what was written. */
export const addToChain = Effect.fnUntraced(function*(stream: string) {
  const ledger = yield* Ledger
  let written: Chained | undefined
  const at = yield* ledger.update(
    stream,
    chain,
    ({ count, last }) => written = new Chained({ previous: last, count: count + 1 })
  )
  return { messageId: written?.messageId ?? "", previous: written?.previous ?? "", at }
})

/** Decides on a tag, and writes to some stream. */
export const addToClub = Effect.fnUntraced(function*(name: string, stream: string) {
  const ledger = yield* Ledger
  let written: Seated | undefined
  const [at] = yield* ledger.decide({ seats: Decision.tagged({ club: name }, club) }, ({ seats: { count, last } }) => ({
    stream,
    messages: written = new Seated({ club: name, previous: last, count: count + 1 })
  }))
  return { messageId: written?.messageId ?? "", previous: written?.previous ?? "", at }
})

/** What those who work need, and why they may fail. */
export type Given = Ledger | SqlClient.SqlClient
export type Failure =
  | Effect.Error<ReturnType<typeof addToChain>>
  | Effect.Error<ReturnType<typeof addToClub>>
  | Effect.Error<ReturnType<typeof note>>

export const client = (url: string) => PgClient.layer({ url: Redacted.make(url), maxConnections: 8 })

/** An application of its own, in this process: what it remembers, no other knows. */
export const application = (url: string) => Layer.fresh(Layer.provideMerge(Ledger.layer, client(url)))

export const ledgered = Effect.flatMap(
  Ledger,
  (ledger) => ledger.aggregatedStream({ name: "ledgered", patterns: "%", partitioner: Partitioner.streamName(4) })
)

/** Until it succeeds, as callers do. What was stored, though its answer was lost, says so. */
const persistently = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.retry(effect, { schedule: Schedule.spaced("20 millis"), while: (error) => error._tag === "SqlError" })

/** Work that is done again and again, unless it is paused. */
export class Load {
  /** The ids of messages that were acknowledged. */
  readonly acknowledged = new Set<string>()
  count = 0
  private readonly open = Latch.makeUnsafe(true)
  private underWay = 0

  /** Does something, for ever; answers the id that was acknowledged. */
  readonly repeat = <E extends { readonly _tag: string }, R>(
    act: (n: number) => Effect.Effect<string, E, R>
  ): Effect.Effect<never, E, R> => {
    let n = 0
    const once = Effect.acquireUseRelease(
      Effect.sync(() => this.underWay++),
      () => persistently(Effect.suspend(() => act(n))),
      () => Effect.sync(() => this.underWay--)
    )
    return Effect.forever(Effect.andThen(
      this.open.await,
      Effect.map(once, (id) => {
        n++
        this.count++
        this.acknowledged.add(id)
      })
    ))
  }

  readonly pause = Effect.sync(() => this.open.closeUnsafe())
  readonly resume = Effect.sync(() => this.open.openUnsafe())

  get isIdle(): boolean {
    return this.underWay === 0
  }
}

/** A message, written until it is stored. */
export const note = Effect.fnUntraced(function*(stream: string, number: number) {
  const ledger = yield* Ledger
  const noted = new Noted({ number })
  yield* persistently(ledger.write(stream, noted)).pipe(Effect.catchTag("DuplicateMessageError", () => Effect.void))
  return noted.messageId
})

const counts = <K extends string>(node: Node, query: string) =>
  Effect.map(
    node.ask(Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe<Readonly<Record<K, number>>>(query))),
    ([row]) => row
  )

/** How many messages are linked. */
export const links = (node: Node) =>
  Effect.map(
    counts<"links">(node, "select count(*)::int as links from depeche_stream_ledgered"),
    (row) => row?.links ?? 0
  )

/** How many messages are not linked, and how many that are linked a subscription has not acknowledged. */
export const left = (node: Node, subscriptions: ReadonlyArray<string>) =>
  Effect.map(
    counts<"unlinked" | "unacknowledged">(
      node,
      `select (select count(*) from depeche_msgs_ledger)::int - (select count(*) from depeche_stream_ledgered)::int as unlinked,
      (${
        subscriptions.map((name) =>
          `select coalesce(sum(h.max_position - coalesce(c.position, -1)), 0) from depeche_stream_ledgered_maxpos h
        left join depeche_subscriptions_${name} c on c.partition = h.partition`
        ).map((one) => `(${one})`).join(" + ")
      })::int as unacknowledged`
    ),
    (row) => (row?.unlinked ?? 1) + (row?.unacknowledged ?? 1)
  )

/** What is wrong in a database where nothing is under way, and all is handled: nothing, if all of it agrees. */
export const wrong = (node: Node, subscriptions: ReadonlyArray<string>) =>
  counts<string>(
    node,
    `with m as (select * from depeche_msgs_ledger), l as (select * from depeche_stream_ledgered),
    chained as (
      select m.stream as chain, m.version as place, m.message_id, m.message,
        lag(m.message_id::text, 1, '') over (partition by m.stream order by m.version) as before,
        row_number() over (partition by m.stream order by m.version) as number
      from m where m.message ->> '_tag' = 'Chained'
      union all
      select m.message ->> 'club', m.version, m.message_id, m.message,
        lag(m.message_id::text, 1, '') over (partition by m.message ->> 'club' order by m.global_position),
        row_number() over (partition by m.message ->> 'club' order by m.global_position)
      from m where m.message ->> '_tag' = 'Seated'
    )
    select
      (select count(*)::int from (select 1 from m group by stream having count(*) <> max(version)) x) as gaps,
      (select count(*)::int from chained
        where message ->> 'previous' <> before or (message ->> 'count')::int <> number) as decided_wrongly,
      (select count(*)::int from m where not exists (select from l where l.message_id = m.message_id)) as not_linked,
      (select count(*)::int from l where not exists (
        select from m where (m.message_id, m.global_position, m.stream, m.version)
          = (l.message_id, l.origin_stream_global_position, l.origin_stream, l.origin_stream_version))) as linked_wrongly,
      (select count(*)::int from (
        select partition from l group by partition having count(*) <> max(position) + 1) x) as holes,
      (select count(*)::int from (select l.origin_stream_version < lag(l.origin_stream_version) over (
        partition by l.origin_stream order by l.position) as wrong from l) x where wrong) as disorder,
      (select count(*)::int from l join depeche_stream_ledgered_maxpos h using (partition)
        group by h.partition, h.max_position having max(l.position) <> h.max_position limit 1) as heads,
      (select count(*)::int from m full join effect_message_store_tags_ledger t
        on t.global_position = m.global_position and t.tag = 'club:' || (m.message ->> 'club')
        where t.tag is null and m.message ->> '_tag' = 'Seated' or m.message_id is null) as tagged_wrongly,
      (select count(*)::int from effect_message_store_snapshots_ledger s where not exists (
        select from chained c where c.message_id::text = s.state::json ->> 'last'
          and c.number = (s.state::json ->> 'count')::int)) as snapshots,
      ${
      subscriptions.map((name) =>
        `(select count(*)::int from (
          select l.message_id, count(e.message_id) as times from l left join effects e
            on e.subscription = '${name}' and (e.partition, e.position, e.message_id) = (l.partition, l.position, l.message_id)
          group by l.message_id having count(e.message_id) <> 1) x) as not_once_${name},
        (select count(*)::int from effects e where e.subscription = '${name}' and not exists (
          select from l where l.message_id = e.message_id)) as foreign_${name},
        (select count(*)::int from depeche_stream_ledgered_maxpos h left join depeche_subscriptions_${name} c
          on c.partition = h.partition where c.position is distinct from h.max_position) as checkpoints_${name}`
      ).join(",\n")
    }`
  ).pipe(Effect.map((row) =>
    Object.fromEntries(Object.entries(row ?? {}).filter(([, count]) => count !== 0 && count !== null))
  ))

/** Of these ids those that are not stored. */
export const missing = (
  node: Node,
  ids: ReadonlySet<string>
): Effect.Effect<ReadonlyArray<string>, SqlError.SqlError> =>
  Effect.map(
    node.ask(Effect.flatMap(
      SqlClient.SqlClient,
      (sql) =>
        sql<{ readonly id: string }>`select a.id from unnest(${Array.from(ids)}::text[]) a(id)
          where not exists (select from depeche_msgs_ledger m where m.message_id = a.id::uuid)`
    )),
    (rows) => rows.map(({ id }) => id)
  )
