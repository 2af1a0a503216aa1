/**
 * What a subscription remembers, in depeche_db's table of checkpoints and in two of ours: the claims' tokens, and the
 * messages that were parked.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError, StreamRebuiltError } from "../errors.ts"
import type {
  Advance,
  EncodedParkedMessage,
  PartitionHead,
  PartitionStatus,
  PendingPartition,
  SubscriptionStorage
} from "../Storage.ts"
import * as Claims from "./claims.ts"
import { withTransaction } from "./client/transaction.ts"
import { int8, milliseconds, toTime } from "./client/values.ts"
import { type Row, toStored } from "./messages.ts"
import {
  lockKey,
  type OpenedSubscription,
  type Store,
  type StreamObjects,
  type SubscriptionObjects,
  timeAdded
} from "./objects.ts"

interface ParkedRow extends Row {
  /** None if the store does not have the message any more. */
  readonly stream: string | null
  readonly partition: number
  readonly position: number
  readonly parked_id: string
  readonly error: string
  readonly attempts: number
  readonly parked_at: number
}

/** Two subscriptions of one name would share their checkpoints: it belongs to the stream that had it first. */
export const claimName = Effect.fnUntraced(function*(
  sql: SqlClient,
  stream: string,
  { claimsTable, name }: SubscriptionObjects
): Effect.fn.Return<void, InvalidNameError | SqlError> {
  const [row] = yield* sql<{ readonly owner: string }>`
    insert into ${sql(claimsTable)} as c (partition, token, owner) values (-1, 0, ${stream})
    on conflict (partition) do update set owner = c.owner returning owner`
  if (row?.owner !== stream) {
    return yield* new InvalidNameError({ identifier: name, reason: `is taken by a subscription to "${row?.owner}"` })
  }
})

export const make = (
  sql: SqlClient,
  store: Store,
  stream: StreamObjects,
  subscription: OpenedSubscription,
  claims: Claims.Holder
): SubscriptionStorage => {
  const { name } = subscription
  const transaction = withTransaction(sql)
  const checkpoints = sql(subscription.table)
  const claimed = sql(subscription.claimsTable)
  const parked = sql(subscription.parkedTable)
  const heads = sql(stream.maximumTable)
  const projection = sql(stream.projectionTable)

  return {
    initialise: (positions) =>
      transaction(Effect.gen(function*() {
        const key = yield* lockKey(subscription, "init")
        yield* sql`select pg_advisory_xact_lock(${int8(key)}::int8)`
        const [done] = yield* sql`select 1 as done from ${checkpoints}
          where subscription_name = ${name} and partition = -1`
        // What depeche_db began is of the positions that there are.
        yield* sql`update ${claimed} c set token = p.numbering from ${projection} p
          where c.partition = -1 and (c.token = 0 or ${done === undefined})`
        if (done !== undefined) return
        const starts = (yield* positions).filter(({ position }) => position >= 0)
        yield* sql`insert into ${checkpoints} (subscription_name, partition, position)
          select ${name}, start.* from unnest(
            ${starts.map(({ partition }) => partition)}::int[], ${starts.map(({ position }) => position)}::int[]
          ) start
          on conflict do nothing`
        yield* sql`insert into ${checkpoints} (subscription_name, partition, position) values (${name}, -1, -1)
          on conflict do nothing`
      })),

    claims: (mode) => claims(sql, subscription, mode),

    pending: Effect.filterOrFail(
      sql<PendingPartition>`select h.partition, h.max_position as position, coalesce(c.position, -1) as checkpoint
        from ${heads} h
        left join ${checkpoints} c on c.subscription_name = ${name} and c.partition = h.partition
        where h.max_position > coalesce(c.position, -1)
        union all select -1, 0, 0 from ${claimed} c, ${projection} p
        where c.partition = -1 and c.token not in (0, p.numbering)`,
      (rows) => rows.every(({ partition }) => partition !== -1),
      () => new StreamRebuiltError({ subscription: name })
    ),

    checkpoint: (partition) =>
      Effect.map(
        sql<{ readonly position: number }>`select position from ${checkpoints}
          where subscription_name = ${name} and partition = ${partition}`,
        ([row]) => row?.position ?? -1
      ),

    // A checkpoint that does not exist is at -1.
    advance: ({ partition, token }, from, to) =>
      Effect.map(
        sql<{ readonly is_wanted: boolean }>`
          with claim as (
            select is_wanted from ${claimed}
            where partition = ${partition} and token = ${int8(token)}::int8 and ${to}::int > ${from}::int
          ), advanced as (
            insert into ${checkpoints} as c (subscription_name, partition, position)
            select ${name}, ${partition}::int, ${to}::int from claim
            where ${from}::int = -1 or exists (
              select from ${checkpoints} where subscription_name = ${name} and partition = ${partition}
            )
            on conflict (subscription_name, partition) do update set position = excluded.position
            where c.position = ${from}
            returning 1
          )
          select is_wanted from claim, advanced`,
        ([row]): Advance => row === undefined ? "Fenced" : row.is_wanted ? "Wanted" : "Advanced"
      ),

    park: ({ attempts, error, messageId, partition, position }) =>
      Effect.asVoid(sql`insert into ${parked} (partition, position, message_id, error, attempts)
        values (${partition}, ${position}, ${messageId}::uuid, ${error}, ${attempts})
        on conflict (partition, position) do update
        set error = excluded.error, attempts = excluded.attempts, parked_at = now()`),

    repark: ({ attempts, error, partition, position }) =>
      Effect.map(
        sql`update ${parked} set error = ${error}, attempts = ${attempts}, parked_at = now()
          where partition = ${partition} and position = ${position} returning 1 as updated`,
        (rows) => rows.length > 0
      ),

    parked: (places) =>
      Effect.map(
        sql<ParkedRow>`
          select p.partition, p.position, p.message_id as parked_id, p.error, p.attempts,
            ${sql.literal(milliseconds("p.parked_at"))} as parked_at, m.message_id, m.stream, m.version,
            m.global_position, ${sql.literal(milliseconds(timeAdded(store, "m")))} as added_at, m.message,
            m.metadata::text as metadata
          from ${parked} p left join ${sql(store.table)} m using (message_id)
          where ${places === undefined} or (p.partition, p.position) in (select * from unnest(
            ${places?.map(({ partition }) => partition) ?? []}::int[],
            ${places?.map(({ position }) => position) ?? []}::int[]
          ))
          order by p.partition, p.position`,
        (rows) =>
          rows.map(({ parked_at, parked_id, ...row }): EncodedParkedMessage => {
            const { attempts, error, partition, position, stream: origin } = row
            return {
              partition,
              position,
              messageId: parked_id,
              error,
              attempts,
              parkedAt: toTime(parked_at),
              stored: origin === null ? undefined : toStored([row], () => origin)[0]
            }
          })
      ),

    unpark: (partition, position) =>
      Effect.map(
        sql`delete from ${parked} where partition = ${partition} and position = ${position} returning 1 as deleted`,
        (rows) => rows.length > 0
      ),

    status: Effect.map(
      sql<PartitionStatus & { readonly claimed_by: string | null }>`
        select h.partition, h.max_position as position, coalesce(c.position, -1) as checkpoint, o.owner as claimed_by,
          (select count(*) from ${parked} p where p.partition = h.partition)::int as parked
        from ${heads} h
        left join ${checkpoints} c on c.subscription_name = ${name} and c.partition = h.partition
        left join ${claimed} o on o.partition = h.partition and o.owner <> '' and (
          o.expires_at > clock_timestamp() or o.lock_key in (${sql.literal(Claims.lockedKeys)})
        )
        order by h.partition`,
      (rows) => rows.map(({ claimed_by, ...row }) => ({ ...row, claimedBy: claimed_by ?? undefined }))
    ),

    place: (globalPosition) =>
      Effect.map(
        sql<PartitionHead>`select partition, position from ${sql(stream.table)}
          where origin_stream_global_position = ${int8(globalPosition)}::int8`,
        ([row]) => row
      ),

    reset: transaction(Effect.gen(function*() {
      yield* sql`delete from ${checkpoints} where subscription_name = ${name}`
      yield* sql`delete from ${parked}`
    })),

    drop: Effect.asVoid(
      sql`drop table if exists ${checkpoints}, ${claimed}, ${parked}, ${sql(subscription.locksTable)},
        ${sql(subscription.migrationsTable)}`
    )
  }
}
