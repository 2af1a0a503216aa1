/**
 * The names of a store's database objects, as PostgreSQL and depeche_db know them.
 *
 * They are spliced into SQL, so they are made only here, from a name that `checkName` has accepted.
 */
import { Effect, Result } from "effect"
import type { InvalidNameError } from "../errors.ts"
import { checkName } from "../internal/checks.ts"

export interface Objects {
  readonly name: string
  readonly table: string
  readonly sequence: string
  readonly versionConstraint: string
  /** depeche_db's own function, which Python processes call. */
  readonly writeFunction: string
  /** depeche_db's channel of new messages. */
  readonly channel: string
  readonly appendFunction: string
  /** The trigger that refuses rows which were not inserted by one of the functions. */
  readonly refuseFunction: string
  readonly settingsTable: string
  readonly migrationsTable: string
}

/** A store, and the settings that were fixed when its objects were made. */
export interface Store extends Objects {
  /** The time zone in which `added_at` is local time. */
  readonly timeZone: string
  /** Prefixes the names of streams in the keys of their locks. */
  readonly lockPrefix: string
}

export const forStore = (name: string): Result.Result<Objects, InvalidNameError> =>
  Result.map(checkName(name), (n) => ({
    name: n,
    table: `depeche_msgs_${n}`,
    sequence: `depeche_msgs_${n}_global_seq`,
    versionConstraint: `depeche_msgs_${n}_version_uq`,
    writeFunction: `depeche_write_message_${n}`,
    channel: `depeche_${n}_messages`,
    appendFunction: `effect_message_store_append_${n}`,
    refuseFunction: `effect_message_store_refuse_${n}`,
    settingsTable: `effect_message_store_settings_${n}`,
    migrationsTable: `effect_message_store_migrations_${n}`
  }))

/** The key under which writers of a stream exclude each other, Python's included: part of the wire contract. */
export const streamLockKey = ({ lockPrefix }: Store, stream: string): string =>
  `left('x'::text operator(pg_catalog.||) md5(${literal(lockPrefix)}::text operator(pg_catalog.||) ${stream}), 17)` +
  "::bit(64)::bigint"

/** The exact time at which a message was added; of messages that Python wrote, the local time is known. */
export const timeAdded = ({ timeZone }: Store, row: string): string =>
  `coalesce(${row}.recorded_at, ${row}.added_at at time zone ${literal(timeZone)})`

const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`

export interface StreamObjects {
  readonly table: string
  readonly maximumTable: string
  readonly positionConstraint: string
  readonly globalPositionIndex: string
  /** depeche_db's own trigger function. */
  readonly triggerFunction: string
  /** depeche_db's channel of newly linked messages. */
  readonly channel: string
  /** How far the projector has come. */
  readonly projectionTable: string
  readonly roundFunction: string
  readonly projectFunction: string
  readonly scanFunction: string
  readonly linkFunction: string
  readonly waitingFunction: string
  /** The time that a text says, and the time of a message. */
  readonly timeFunction: string
  readonly occurredFunction: string
  /** Of version 0.1. */
  readonly beginFunction: string
  readonly migrationsTable: string
}

export const forStream = (name: string): Result.Result<StreamObjects, InvalidNameError> =>
  Result.map(checkName(name), (n) => ({
    table: `depeche_stream_${n}`,
    maximumTable: `depeche_stream_${n}_maxpos`,
    positionConstraint: `depeche_stream_${n}_uq`,
    globalPositionIndex: `ix_depeche_stream_${n}_origin_stream_global_position`.slice(0, 63),
    triggerFunction: `depeche_stream_new_msg_${n}`,
    channel: `depeche_${n}_messages`,
    projectionTable: `effect_message_store_projection_${n}`,
    roundFunction: `effect_message_store_round_${n}`,
    projectFunction: `effect_message_store_project_${n}`,
    scanFunction: `effect_message_store_scan_${n}`,
    linkFunction: `effect_message_store_link_${n}`,
    waitingFunction: `effect_message_store_waiting_${n}`,
    timeFunction: `effect_message_store_time_${n}`,
    occurredFunction: `effect_message_store_occurred_${n}`,
    beginFunction: `effect_message_store_begin_${n}`,
    migrationsTable: `effect_message_store_streamed_${n}`
  }))

export interface SubscriptionObjects {
  readonly name: string
  /** depeche_db's table of checkpoints. */
  readonly table: string
  readonly claimsTable: string
  readonly parkedTable: string
  readonly locksTable: string
  readonly migrationsTable: string
}

/** A subscription, and the settings that were fixed when its objects were made. */
export interface OpenedSubscription extends SubscriptionObjects {
  /** Prefixes the keys of its partitions' locks. */
  readonly lockPrefix: string
}

export const forSubscription = (name: string): Result.Result<SubscriptionObjects, InvalidNameError> =>
  Result.map(checkName(name), (n) => ({
    name: n,
    table: `depeche_subscriptions_${n}`,
    claimsTable: `effect_message_store_claims_${n}`,
    parkedTable: `effect_message_store_parked_${n}`,
    locksTable: `effect_message_store_locks_${n}`,
    migrationsTable: `effect_message_store_subscribed_${n}`
  }))

/** depeche_db's key of the lock of a partition, or of the initialisation: part of the wire contract. */
export const lockKey = (
  { lockPrefix, name }: OpenedSubscription,
  partition: number | "init"
): Effect.Effect<bigint> =>
  Effect.map(
    Effect.promise(() =>
      globalThis.crypto.subtle.digest(
        "SHA-1",
        new TextEncoder().encode(`${lockPrefix}${name}.subscription-${name}-${partition}`)
      )
    ),
    (hash) => new DataView(hash).getBigInt64(0, true)
  )
