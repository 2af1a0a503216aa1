/** The dead letters of a subscription, and the partitions that it has halted. */
import { Effect, Predicate, Result } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type * as Statement from "effect/sql/Statement"
import { differing } from "../internal/alike.ts"
import type {
  EncodedParkedMessage,
  Failure,
  ParkedEntry,
  PartitionHead,
  Requeue,
  SubscriptionStorage
} from "../Storage.ts"
import { isOfRun } from "./claims.ts"
import { withTransaction } from "./client/transaction.ts"
import { int8, milliseconds, toTime } from "./client/values.ts"
import { toStored } from "./messages.ts"
import { type Store, type SubscriptionObjects, timeAdded } from "./objects.ts"
import { readable, type Row } from "./pages.ts"
import { isPaused } from "./paused.ts"

interface ParkedRow extends Row {
  /** None if the store does not have the message any more. */
  readonly stream: string | null
  readonly partition: number
  readonly position: number
  readonly parked_id: string
  readonly error: string
  readonly attempts: number
  readonly key: string | null
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

const isFailure = (row: string) => `${row}.error operator(pg_catalog.~~) '{"tag":%'::text`

/** SQL for the tag of the error of a parked message, as {@link toFailure} has it. */
export const errorTag = (row: string): string =>
  `case when ${isFailure(row)} then ${row}.error::json operator(pg_catalog.->>) 'tag'::text else 'Error'::text end`

/** SQL for its message, which is the same for errors that are alike. */
export const errorMessage = (row: string): string =>
  `pg_catalog.regexp_replace(
    case when ${isFailure(row)} then ${row}.error::json operator(pg_catalog.->>) 'message'::text else ${row}.error end,
    '${differing}'::text, '#'::text, 'g'::text
  )`

type SubscribedParked =
  | "park"
  | "parkBehind"
  | "parked"
  | "parkedKeys"
  | "isFirstParked"
  | "unpark"
  | "halt"
  | "requeue"
  | "requeued"

export const make = (
  sql: SqlClient,
  store: Store,
  subscription: SubscriptionObjects,
  wakeWorkers: Effect.Effect<void, SqlError>
): Pick<SubscriptionStorage, SubscribedParked> => {
  const parked = sql(subscription.parkedTable)
  const halted = sql(subscription.haltedTable)

  const transaction = withTransaction(sql)

  const insert = (
    { attempts, error, key, messageId, partition, position }: ParkedEntry,
    since?: string | null
  ) =>
    sql`insert into ${parked} (partition, position, message_id, error, attempts, key, requeued_at)
      values (${partition}, ${position}, ${messageId}::uuid, ${JSON.stringify(error)}, ${attempts}, ${
      key ?? null
    }::text,
        ${since ?? null}::text::timestamptz)
      on conflict (partition, position) do update
      set error = excluded.error, attempts = excluded.attempts, key = excluded.key, parked_at = now(), requeued_at = null
      returning 1 as done`

  /** Those that stand behind it are not requeued any more either. */
  const update = ({ attempts, error, partition, position }: ParkedEntry) =>
    sql`with failed as (
        update ${parked}
        set error = ${JSON.stringify(error)}, attempts = ${attempts}, parked_at = now(), requeued_at = null
        where partition = ${partition} and position = ${position} returning partition, position, key
      ), behind as (
        update ${parked} p set requeued_at = null from failed f
        where p.partition = f.partition and p.key = f.key and p.position > f.position and p.requeued_at is not null
      ) select 1 as done from failed`

  /** Nothing with its key is parked before it. */
  const isFirst = sql`(p.key is null or not exists (
    select from ${parked} e where e.partition = p.partition and e.key = p.key and e.position < p.position
  ))`

  const among = (places: ReadonlyArray<PartitionHead>) =>
    sql`(p.partition, p.position) in (select * from unnest(
      ${places.map(({ partition }) => partition)}::int[], ${places.map(({ position }) => position)}::int[]
    ))`

  /** With those that have their keys. */
  const withTheirKeys = (found: Statement.Fragment) =>
    sql`(${found} or (p.partition, p.key) in (select p.partition, p.key from ${parked} p where p.key is not null and ${found}))`

  const isLike = ({ message, tag }: Pick<Failure, "tag" | "message">) =>
    sql`${sql.literal(errorTag("p"))} operator(pg_catalog.=) ${tag}::text
      and ${sql.literal(errorMessage("p"))} operator(pg_catalog.=) ${message}::text`

  const requeuedBy = ({ keys = [], messageIds = [], places = [] }: Requeue) =>
    withTheirKeys(sql`(${among(places)} or p.message_id = any(${messageIds}::uuid[])
      or (p.partition, p.key) in (select * from unnest(
        ${keys.map(({ partition }) => partition)}::int[], ${keys.map(({ key }) => key)}::text[]
      )))`)

  const find = (which: Statement.Fragment) =>
    Effect.map(
      sql<ParkedRow>`
        select p.partition, p.position, p.message_id as parked_id, p.error::text as error, p.attempts, p.key,
          ${sql.literal(milliseconds("p.parked_at"))} as parked_at,
          ${sql.literal(milliseconds("p.requeued_at"))} as requeued_at, m.message_id, m.stream, m.version,
          m.global_position, ${sql.literal(milliseconds(timeAdded(store, "m")))} as added_at, ${
        sql.literal(readable(sql))
      },
          m.metadata::text as metadata
        from ${parked} p left join ${sql(store.table)} m using (message_id) ${which}`,
      (rows) =>
        rows.map(({ parked_at, parked_id, requeued_at, ...row }): EncodedParkedMessage => {
          const { attempts, error, key, partition, position, stream: origin } = row
          return {
            partition,
            position,
            messageId: parked_id,
            error: toFailure(error),
            attempts,
            key: key ?? undefined,
            parkedAt: toTime(parked_at),
            requeuedAt: requeued_at === null ? undefined : toTime(requeued_at),
            stored: origin === null ? undefined : toStored([row], () => origin)[0]
          }
        })
    )

  return {
    park: (entry, { onlyIfParked = false } = {}) =>
      Effect.map(onlyIfParked ? update(entry) : insert(entry), (rows) => rows.length > 0),

    // At READ COMMITTED each statement sees what was committed before it, and so the count what the lock has waited for.
    parkBehind: (entry, limit) =>
      transaction(Effect.gen(function*() {
        const { key, partition } = entry
        const [first] = yield* sql<{ readonly requeued_at: string | null }>`
          select requeued_at::text from ${parked} where partition = ${partition} and key = ${key}
          order by position limit 1 for update`
        if (first === undefined) return "Free"
        const [{ count } = { count: 0 }] = yield* sql<{ readonly count: number }>`
          select count(*)::int as count from ${parked} where partition = ${partition} and key = ${key}`
        if (count >= limit) {
          if (first.requeued_at !== null) return "Requeued"
          // Others may be taken away too.
          const all = yield* sql`select 1 as done from ${parked} where partition = ${partition} and key = ${key}
            order by position for update`
          if (all.length >= limit) return "Full"
        }
        yield* insert(entry, first.requeued_at)
        return "Parked"
      })),

    parkedKeys: (partition) =>
      Effect.map(
        sql<{ readonly key: string }>`
          select distinct key from ${parked} where partition = ${partition} and key is not null`,
        (rows) => rows.map(({ key }) => key)
      ),

    isFirstParked: ({ partition, position }) =>
      Effect.map(
        sql`select 1 as done from ${parked} p
          where p.partition = ${partition} and p.position = ${position} and ${isFirst}`,
        (rows) => rows.length > 0
      ),

    unpark: ({ partition, position }, { ifFirst = false } = {}) =>
      transaction(Effect.gen(function*() {
        const [taken] = yield* sql<{ readonly key: string | null }>`
          delete from ${parked} p where p.partition = ${partition} and p.position = ${position}
            and (not ${ifFirst}::boolean or ${isFirst}) returning p.key`
        if (taken === undefined) return false
        if (taken.key === null) return true
        // A statement of its own sees a halt for whose transaction the first one has waited.
        const freed = yield* sql`delete from ${halted} where partition = ${partition} and key = ${taken.key}::text
          returning 1 as done`
        if (freed.length > 0) yield* wakeWorkers
        return true
      })),

    parked: ({ after, error, limit, places, withTheirKeys: isWith = false }) =>
      find(
        sql`where ${error === undefined ? sql`true` : isLike(error)} and (${places === undefined} or ${
          isWith ? withTheirKeys(among(places ?? [])) : among(places ?? [])
        })
        and (p.partition, p.position) > (${after?.partition ?? -1}::int, ${after?.position ?? -1}::int)
        order by p.partition, p.position limit ${limit ?? null}::int`
      ),

    // Locked first: what is parked behind these meanwhile is seen by the statement that follows, or sees what it did.
    requeue: (which) =>
      transaction(Effect.gen(function*() {
        const meant = which === undefined ? sql`true` : requeuedBy(which)
        yield* sql`select from ${parked} p where ${meant} order by p.partition, p.position for update`
        const rows = yield* sql<{ readonly partition: number; readonly key: string | null }>`
          update ${parked} p set requeued_at = now() where p.requeued_at is null and ${meant}
          returning p.partition, p.key`
        if (rows.length === 0) return 0
        yield* sql`delete from ${halted} h where (h.partition, h.key) in (select * from unnest(
          ${rows.map(({ partition }) => partition)}::int[], ${rows.map(({ key }) => key ?? "")}::text[]))`
        yield* wakeWorkers
        return rows.length
      })),

    requeued: (partition) =>
      Effect.map(
        find(sql`where p.partition = ${partition} and p.requeued_at is not null and ${isFirst}
          and not ${sql.literal(isPaused(subscription, "p.partition"))}
          order by p.position limit 1`),
        ([first]) => first
      ),

    // Locks the claim's row, as an acknowledgement does.
    halt: (claim, { attempts, error, key, messageId, position }, unknownType) =>
      Effect.map(
        sql`with claim as materialized (
            select from ${sql(subscription.claimsTable)}
            where partition = ${claim.partition} and token = ${int8(claim.token)}::int8${
          isOfRun(sql, claim)
        } for key share
          )
          insert into ${sql(subscription.haltedTable)} as h
            (partition, position, message_id, error, attempts, unknown_type, key)
          select ${claim.partition}::int, ${position}::int, ${messageId}::uuid, ${JSON.stringify(error)}::text::jsonb,
            ${attempts}::int, ${unknownType ?? null}::text, ${key ?? null}::text
          from claim
          on conflict (partition) do update set position = excluded.position, message_id = excluded.message_id,
            error = excluded.error, attempts = excluded.attempts, unknown_type = excluded.unknown_type, key = excluded.key,
            halted_at = case when h.message_id = excluded.message_id and h.unknown_type = excluded.unknown_type
              then h.halted_at else now() end
          returning 1 as done`,
        (rows) => rows.length > 0
      )
  }
}
