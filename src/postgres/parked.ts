/** The dead letters of a subscription, and the partitions that it has halted. */
import { Effect, Predicate, Result } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import type { EncodedParkedMessage, Failure, ParkedEntry, PartitionHead, SubscriptionStorage } from "../Storage.ts"
import { int8, milliseconds, toTime } from "./client/values.ts"
import { readable, type Row, toStored } from "./messages.ts"
import { type Store, type SubscriptionObjects, timeAdded } from "./objects.ts"
import { isPaused } from "./paused.ts"

interface ParkedRow extends Row {
  /** None if the store does not have the message any more. */
  readonly stream: string | null
  readonly partition: number
  readonly position: number
  readonly parked_id: string
  readonly error: string
  readonly attempts: number
  readonly parked_at: number
  readonly requeued_at: number | null
}

/** What 0.1 has parked is any text. */
export const toFailure = (text: string): Failure => {
  const parsed = Result.try((): unknown => JSON.parse(text))
  return Result.isSuccess(parsed) && Predicate.hasProperty(parsed.success, "tag")
    ? parsed.success as object as Failure
    : { tag: "Error", message: text }
}

export const make = (
  sql: SqlClient,
  store: Store,
  subscription: SubscriptionObjects,
  wakeWorkers: Effect.Effect<void, SqlError>
): Pick<SubscriptionStorage, "park" | "parked" | "unpark" | "halt" | "requeue" | "requeued"> => {
  const parked = sql(subscription.parkedTable)

  const insert = ({ attempts, error, messageId, partition, position }: ParkedEntry) =>
    sql`insert into ${parked} (partition, position, message_id, error, attempts)
      values (${partition}, ${position}, ${messageId}::uuid, ${JSON.stringify(error)}, ${attempts})
      on conflict (partition, position) do update
      set error = excluded.error, attempts = excluded.attempts, parked_at = now(), requeued_at = null returning 1 as done`

  const update = ({ attempts, error, partition, position }: ParkedEntry) =>
    sql`update ${parked}
      set error = ${JSON.stringify(error)}, attempts = ${attempts}, parked_at = now(), requeued_at = null
      where partition = ${partition} and position = ${position} returning 1 as done`

  const among = (places: ReadonlyArray<PartitionHead>) =>
    sql`(p.partition, p.position) in (select * from unnest(
      ${places.map(({ partition }) => partition)}::int[], ${places.map(({ position }) => position)}::int[]
    ))`

  const find = (which: Statement.Fragment) =>
    Effect.map(
      sql<ParkedRow>`
        select p.partition, p.position, p.message_id as parked_id, p.error::text as error, p.attempts,
          ${sql.literal(milliseconds("p.parked_at"))} as parked_at,
          ${sql.literal(milliseconds("p.requeued_at"))} as requeued_at, m.message_id, m.stream, m.version,
          m.global_position, ${sql.literal(milliseconds(timeAdded(store, "m")))} as added_at, ${
        sql.literal(readable(sql))
      },
          m.metadata::text as metadata
        from ${parked} p left join ${sql(store.table)} m using (message_id) ${which}`,
      (rows) =>
        rows.map(({ parked_at, parked_id, requeued_at, ...row }): EncodedParkedMessage => {
          const { attempts, error, partition, position, stream: origin } = row
          return {
            partition,
            position,
            messageId: parked_id,
            error: toFailure(error),
            attempts,
            parkedAt: toTime(parked_at),
            requeuedAt: requeued_at === null ? undefined : toTime(requeued_at),
            stored: origin === null ? undefined : toStored([row], () => origin)[0]
          }
        })
    )

  return {
    park: (entry, { onlyIfParked = false } = {}) =>
      Effect.map(onlyIfParked ? update(entry) : insert(entry), (rows) => rows.length > 0),

    unpark: ({ partition, position }) =>
      Effect.map(
        sql`delete from ${parked} where partition = ${partition} and position = ${position} returning 1 as done`,
        (rows) => rows.length > 0
      ),

    parked: ({ after, limit, places }) =>
      find(sql`where (${places === undefined} or ${among(places ?? [])})
        and (p.partition, p.position) > (${after?.partition ?? -1}::int, ${after?.position ?? -1}::int)
        order by p.partition, p.position limit ${limit ?? null}::int`),

    requeue: (which) =>
      Effect.flatMap(
        sql`update ${parked} p set requeued_at = now() where p.requeued_at is null and (
            ${which === undefined} or ${among(which?.places ?? [])}
            or p.message_id = any(${which?.messageIds ?? []}::uuid[])
          ) returning 1 as done`,
        (rows) => rows.length > 0 ? Effect.as(wakeWorkers, rows.length) : Effect.succeed(0)
      ),

    requeued: (partition) =>
      Effect.map(
        find(sql`where p.partition = ${partition} and p.requeued_at is not null
          and not ${sql.literal(isPaused(subscription, "p.partition"))}
          order by p.position limit 1`),
        ([first]) => first
      ),

    // Locks the claim's row, as an acknowledgement does.
    halt: ({ partition, token }, { attempts, error, messageId, position }, unknownType) =>
      Effect.map(
        sql`with claim as materialized (
            select from ${sql(subscription.claimsTable)}
            where partition = ${partition} and token = ${int8(token)}::int8 for key share
          )
          insert into ${sql(subscription.haltedTable)} as h
            (partition, position, message_id, error, attempts, unknown_type)
          select ${partition}::int, ${position}::int, ${messageId}::uuid, ${JSON.stringify(error)}::text::jsonb,
            ${attempts}::int, ${unknownType ?? null}::text
          from claim
          on conflict (partition) do update set position = excluded.position, message_id = excluded.message_id,
            error = excluded.error, attempts = excluded.attempts, unknown_type = excluded.unknown_type,
            halted_at = case when h.message_id = excluded.message_id and h.unknown_type = excluded.unknown_type
              then h.halted_at else now() end
          returning 1 as done`,
        (rows) => rows.length > 0
      )
  }
}
