/**
 * The state of a subscription: in depeche_db's table of checkpoints, and in tables of ours for claims (`claims.ts`),
 * parked messages, halted partitions, and the stream that it belongs to.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError, StreamRebuiltError } from "../errors.ts"
import type { PartitionHead, PendingPartition, SubscriptionStorage } from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import * as Advancing from "./advancing.ts"
import type { ClaimHolder } from "./claims.ts"
import type { Gather } from "./client/gathered.ts"
import { withTransaction } from "./client/transaction.ts"
import { int8 } from "./client/values.ts"
import {
  lockKey,
  type OpenedSubscription,
  type Store,
  type StreamObjects,
  type SubscriptionObjects
} from "./objects.ts"
import * as Parked from "./parked.ts"
import * as Paused from "./paused.ts"
import * as Status from "./status.ts"
import { readBehind, readPartition } from "./streams.ts"

/** Pages of more messages are read alone: it is their messages that take time, not their statements. */
const maximumSmall = 16

/** Two subscriptions of one name would share their checkpoints: it belongs to the stream that had it first. */
export const claimName = Effect.fnUntraced(function*(
  sql: SqlClient,
  stream: string,
  { name, originTable }: SubscriptionObjects
): Effect.fn.Return<void, InvalidNameError | SqlError> {
  // Who may only read, may look at one that is there.
  const [known] = yield* sql<{ readonly stream: string }>`select stream from ${sql(originTable)}`
  const [row = known] = known !== undefined ? [] : yield* sql<{ readonly stream: string }>`
    insert into ${sql(originTable)} as o (stream) values (${stream})
    on conflict (is_only) do update set stream = o.stream returning stream`
  if (row?.stream !== stream) {
    return yield* new InvalidNameError({ identifier: name, reason: `is taken by a subscription to "${row?.stream}"` })
  }
})

interface PendingRow {
  readonly is_current: boolean
  /** Null if nothing is pending. */
  readonly partition: number | null
  readonly position: number
  readonly checkpoint: number
  readonly is_halted: boolean
  readonly unknown_type: string | null
  readonly is_paused: boolean
  readonly has_requeued: boolean
}

export const make = (
  sql: SqlClient,
  store: Store,
  stream: StreamObjects,
  subscription: OpenedSubscription & { readonly isStarted: boolean },
  claims: ClaimHolder["Service"],
  wakeup: Wakeup["Service"],
  gather: Gather
): SubscriptionStorage => {
  const { name } = subscription
  const transaction = withTransaction(sql)
  const checkpoints = sql(subscription.table)
  const claimed = sql(subscription.claimsTable)
  const parked = sql(subscription.parkedTable)
  const halted = sql(subscription.haltedTable)
  const origin = sql(subscription.originTable)
  const heads = sql(stream.maximumTable)
  const projection = sql(stream.projectionTable)
  const paused = sql(subscription.pausedTable)
  const status = Status.make(sql, store, stream, subscription)

  const first = Status.firstBehind(sql, store, stream)

  /**
   * Whether the checkpoints are of the present positions. Each of the two tables has one row: the limit tells the planner, which
   * without statistics takes them for thousands each, and would have the statement compiled (`jit`), for a second.
   */
  const current = sql`(
    select o.numbering is null or o.numbering = n.numbering as is_current from ${origin} o, ${projection} n limit 1
  ) s`

  /** After the commit, with a payload that depeche_db's listeners understand: a link that is there, of whichever partition. */
  const wakeWorkers = Effect.flatMap(
    sql<PartitionHead & { readonly message_id: string }>`
      select h.partition, l.position, l.message_id from ${heads} h cross join lateral (
        select l.position, l.message_id from ${sql(stream.table)} l where l.partition = h.partition
        order by l.position desc limit 1
      ) l limit 1`,
    (latest) =>
      wakeup.signal(
        stream.channel,
        latest.map((payload) => ({ key: String(payload.partition), payload: { ...payload } }))
      )
  )

  const gathered = { statements: 2, maximum: 64, isPatient: true }
  const advance = gather({ ...gathered, put: Advancing.make(sql, subscription) })
  // Asked once, and with the snapshot that the page is read with.
  const isOpen = sql.literal(`not ${Paused.isPaused(subscription, "q.partition")}`)
  const checkpointOf = sql`select p.position from ${checkpoints} p
    where p.subscription_name::text = ${name}::text and p.partition = a.partition`
  const readAlone = readPartition(sql, store, stream, isOpen)
  const readSmall = gather({ ...gathered, put: readBehind(sql, store, stream, checkpointOf, isOpen) })

  /** Whether it was, when it was opened; asked about once, and not behind a reset. */
  let { isStarted } = subscription

  const initialise: SubscriptionStorage["initialise"] = (positions) =>
    transaction(Effect.gen(function*() {
      const key = lockKey(subscription, "init")
      yield* sql`select pg_advisory_xact_lock(${int8(key)}::int8)`
      // depeche_db's mark that the start is stored.
      const [done] = yield* sql`select 1 as done from ${checkpoints}
        where subscription_name::text = ${name}::text and partition = -1`
      // A subscription that depeche_db began has checkpoints of the present positions.
      yield* sql`update ${origin} set numbering = p.numbering from ${projection} p
        where ${origin}.numbering is null or ${done === undefined}`
      if (done !== undefined) return
      const starts = (yield* positions).filter(({ position }) => position >= 0)
      yield* sql`insert into ${checkpoints} (subscription_name, partition, position)
        select ${name}, start.* from unnest(
          ${starts.map(({ partition }) => partition)}::int[], ${starts.map(({ position }) => position)}::int[]
        ) start
        on conflict do nothing`
      yield* sql`insert into ${checkpoints} (subscription_name, partition, position) values (${name}, -1, -1)
        on conflict do nothing`
    }))

  return {
    ...Parked.make(sql, store, subscription, wakeWorkers),
    ...Paused.make(sql, subscription, wakeWorkers),

    read: (query) => {
      const { fromPosition, limit, partition } = query
      return limit > maximumSmall ? readAlone(query) : readSmall({ partition, limit, checkpoint: fromPosition - 1 })
    },

    begin: ({ limit, partition }) =>
      readSmall({ partition, limit: limit > maximumSmall ? 0 : limit, checkpoint: undefined }),

    initialise: (positions) =>
      Effect.suspend(() => {
        if (!isStarted) return initialise(positions)
        isStarted = false
        return Effect.void
      }),

    claims: (mode, label) => claims(sql, subscription, mode, label),

    pending: Effect.flatMap(
      sql<PendingRow>`select s.is_current, p.* from ${current} left join (
          select h.partition, h.max_position as position, coalesce(c.position, -1) as checkpoint,
            coalesce(s.position > coalesce(c.position, -1), false) and s.unknown_type is null as is_halted,
            case when s.position > coalesce(c.position, -1) then s.unknown_type end as unknown_type,
            a.is_paused or z.partition is not null as is_paused, r.partition is not null as has_requeued
          from (select exists (select from ${paused} where partition is null) as is_paused) a cross join ${heads} h
          left join ${checkpoints} c on c.subscription_name::text = ${name}::text and c.partition = h.partition
          left join ${halted} s on s.partition = h.partition
          left join ${paused} z on z.partition = h.partition
          left join (select distinct partition from ${parked} where requeued_at is not null) r
            on r.partition = h.partition
          where h.max_position > coalesce(c.position, -1) or a.is_paused or z.partition is not null
            or r.partition is not null
        ) p on s.is_current`,
      (rows): Effect.Effect<ReadonlyArray<PendingPartition>, StreamRebuiltError> =>
        rows.some((row) => !row.is_current)
          ? Effect.fail(new StreamRebuiltError({ subscription: name }))
          : Effect.succeed(rows.flatMap((row) =>
            row.partition === null ? [] : [{
              partition: row.partition,
              position: row.position,
              checkpoint: row.checkpoint,
              isHalted: row.is_halted,
              unknownType: row.unknown_type ?? undefined,
              isPaused: row.is_paused,
              hasRequeued: row.has_requeued
            }]
          ))
    ),

    checkpoint: (partition) =>
      Effect.map(
        sql<{ readonly position: number }>`select position from ${checkpoints}
          where subscription_name::text = ${name}::text and partition = ${partition}`,
        ([row]) => row?.position ?? -1
      ),

    endOfGone: ({ partition, position }) =>
      Effect.map(
        sql<Pick<PartitionHead, "position">>`select h.max_position as position from ${heads} h
          where h.partition = ${partition} and h.max_position > ${position} and not exists (
            select from ${sql(stream.table)} l join ${sql(store.table)} m using (message_id)
            where l.partition = ${partition} and l.position > ${position}
          )`,
        ([row]) => row?.position
      ),

    advance: (claim, from, to) => advance({ claim, from, to }),

    age: Effect.map(
      sql<{ readonly age: number | null }>`select max(first.age) as age
        from ${heads} h
        left join ${checkpoints} c on c.subscription_name::text = ${name}::text and c.partition = h.partition
        cross join ${first}
        where h.max_position > coalesce(c.position, -1)`,
      ([row]) => row?.age ?? undefined
    ),

    status: status(),

    place: (globalPosition) =>
      Effect.flatMap(
        sql<{ readonly is_current: boolean; readonly partition: number | null; readonly position: number }>`
          select s.is_current, l.partition, l.position from ${current}
          left join ${sql(stream.table)} l on l.origin_stream_global_position = ${int8(globalPosition)}::int8`,
        ([row]) =>
          row?.is_current === false
            ? Effect.fail(new StreamRebuiltError({ subscription: name }))
            : Effect.succeed(
              row === undefined || row.partition === null
                ? undefined
                : { partition: row.partition, position: row.position }
            )
      ),

    reset: transaction(Effect.gen(function*() {
      isStarted = false
      // FOR UPDATE waits for acknowledgements that are under way; in one order, so that two resets do not meet half-way.
      // Partitions that nobody has claimed yet get a row too: who claims them meanwhile waits for the commit.
      // Claims that are made together lock rows in the order of partitions, and so does this, those that are new among them.
      yield* sql`insert into ${claimed} as c (partition, token)
        select partition, 0 from (select partition from ${heads} union select partition from ${claimed}) p order by partition
        on conflict (partition) do update set token = c.token`
      yield* sql`select partition from ${claimed} order by partition for update`
      yield* sql`update ${claimed} set token = token + 1`
      // At REPEATABLE READ, a checkpoint that was stored since the snapshot is not deleted: this fails at it (40001).
      yield* sql`insert into ${checkpoints} (subscription_name, partition, position)
        select ${name}, partition, -1 from ${claimed} order by partition on conflict do nothing`
      yield* sql`select partition from ${checkpoints} where subscription_name::text = ${name}::text
        order by partition for update`
      yield* sql`delete from ${checkpoints} where subscription_name::text = ${name}::text`
      yield* sql`delete from ${parked}`
      yield* sql`delete from ${halted}`
      yield* wakeWorkers
    })),

    drop: dropSubscription(sql, subscription)
  }
}

/** Removes a subscription with all that belongs to it. */
export const dropSubscription = (
  sql: SqlClient,
  subscription: SubscriptionObjects
): Effect.Effect<void, SqlError> =>
  Effect.asVoid(
    sql`drop table if exists ${sql(subscription.table)}, ${sql(subscription.claimsTable)},
      ${sql(subscription.parkedTable)}, ${sql(subscription.haltedTable)}, ${sql(subscription.pausedTable)},
      ${sql(subscription.originTable)}, ${sql(subscription.locksTable)}, ${sql(subscription.migrationsTable)}`
  )
