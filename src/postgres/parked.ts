/** The dead letters of a subscription, and the partitions that it has halted. */
import { Effect, Predicate, Result } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { EncodedParkedMessage, Failure, ParkedEntry, SubscriptionStorage } from "../Storage.ts"
import { int8, milliseconds, toTime } from "./client/values.ts"
import { readable, type Row, toStored } from "./messages.ts"
import { type Store, type SubscriptionObjects, timeAdded } from "./objects.ts"

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
  subscription: SubscriptionObjects
): Pick<SubscriptionStorage, "park" | "parked" | "unpark" | "halt"> => {
  const parked = sql(subscription.parkedTable)

  const insert = ({ attempts, error, messageId, partition, position }: ParkedEntry) =>
    sql`insert into ${parked} (partition, position, message_id, error, attempts)
      values (${partition}, ${position}, ${messageId}::uuid, ${JSON.stringify(error)}, ${attempts})
      on conflict (partition, position) do update
      set error = excluded.error, attempts = excluded.attempts, parked_at = now() returning 1 as done`

  const update = ({ attempts, error, partition, position }: ParkedEntry) =>
    sql`update ${parked}
      set error = ${JSON.stringify(error)}, attempts = ${attempts}, parked_at = now()
      where partition = ${partition} and position = ${position} returning 1 as done`

  return {
    park: (entry, { onlyIfParked = false } = {}) =>
      Effect.map(onlyIfParked ? update(entry) : insert(entry), (rows) => rows.length > 0),

    unpark: ({ partition, position }) =>
      Effect.map(
        sql`delete from ${parked} where partition = ${partition} and position = ${position} returning 1 as done`,
        (rows) => rows.length > 0
      ),

    parked: (places) =>
      Effect.map(
        sql<ParkedRow>`
          select p.partition, p.position, p.message_id as parked_id, p.error::text as error, p.attempts,
            ${sql.literal(milliseconds("p.parked_at"))} as parked_at, m.message_id, m.stream, m.version,
            m.global_position, ${sql.literal(milliseconds(timeAdded(store, "m")))} as added_at, ${
          sql.literal(readable(sql))
        },
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
              error: toFailure(error),
              attempts,
              parkedAt: toTime(parked_at),
              stored: origin === null ? undefined : toStored([row], () => origin)[0]
            }
          })
      ),

    // Locks the claim's row, as an acknowledgement does.
    halt: ({ partition, token }, { attempts, error, messageId, position }) =>
      Effect.map(
        sql`with claim as materialized (
            select from ${sql(subscription.claimsTable)}
            where partition = ${partition} and token = ${int8(token)}::int8 for key share
          )
          insert into ${sql(subscription.haltedTable)} (partition, position, message_id, error, attempts)
          select ${partition}::int, ${position}::int, ${messageId}::uuid, ${JSON.stringify(error)}::text::jsonb,
            ${attempts}::int
          from claim
          on conflict (partition) do update set position = excluded.position, message_id = excluded.message_id,
            error = excluded.error, attempts = excluded.attempts, halted_at = now() returning 1 as done`,
        (rows) => rows.length > 0
      )
  }
}
