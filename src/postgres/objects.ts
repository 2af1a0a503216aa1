/**
 * The names of a store's database objects, as PostgreSQL and depeche_db know them.
 *
 * They are spliced into SQL, so they are made only here, from a name that `checkName` has accepted.
 */
import { Result } from "effect"
import { createHash } from "node:crypto"
import type { InvalidNameError } from "../errors.ts"
import { checkName } from "../internal/names.ts"

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
  /** What it does for one message, outside of transactions. */
  readonly singleFunction: string
  /** And for the messages of one stream. */
  readonly batchFunction: string
  /** Writes on conditions, and what has tags. */
  readonly decideFunction: string
  /** The tags of messages. */
  readonly tagsTable: string
  /** Where the tags of a type are, and which of its messages have them. */
  readonly taggedTypesTable: string
  /** What folds came to. */
  readonly snapshotsTable: string
  /** Of streams and tags, how often messages were deleted or redacted. */
  readonly editionsTable: string
  /** The number of the declaration of tags that came last: unlike a row, it is the same for every snapshot. */
  readonly declaredSequence: string
  /** The tags of a message, for writers that do not know them. */
  readonly deriveFunction: string
  /** The values at a path of a message. */
  readonly valuesFunction: string
  /** What a call of the function that writes on conditions lacks, if its writer does not know all tags. */
  readonly completeFunction: string
  /** Messages that are to be written later. Their channel has the same name. */
  readonly scheduledTable: string
  /** The data keys of subjects. */
  readonly keysTable: string
  /** The trigger that refuses rows which were not inserted by one of the functions. */
  readonly refuseFunction: string
  readonly settingsTable: string
  readonly migrationsTable: string
}

/**
 * The name of an object of our own. Names of more than 30 characters are shortened, and told apart by a hash: what comes
 * out is longer by one than any that is not shortened.
 */
const own = (what: string, name: string): string =>
  `effect_message_store_${what}_${name.length <= 30 ? name : `${name.slice(0, 22)}_${shortHash(name)}`}`

/** FNV-1a, of 32 bits. */
const shortHash = (text: string): string => {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193)
  return (value >>> 0).toString(16).padStart(8, "0")
}

/** A store, and the settings that were fixed when its objects were made. */
export interface Store extends Objects {
  /** The time zone in which `added_at` is local time. */
  readonly timeZone: string
  /** Prefixes the names of streams in the keys of their locks. */
  readonly lockPrefix: string
  /** Where its tables are. */
  readonly schema: string
  /** What the role may do with snapshots. */
  readonly snapshots: { readonly read: boolean; readonly write: boolean }
  /** Whether row-level security may hide messages from the role. */
  readonly isPartial: boolean
  /** Whether texts are ordered as their bytes are: then an index finds those that begin alike. */
  readonly ordersBytes: boolean
  /** Changes: the run of the server that has answered last. */
  readonly answered: { run: number }
}

export const forStore = (name: string): Result.Result<Objects, InvalidNameError> =>
  Result.map(checkName("store", name), (n) => ({
    name: n,
    table: `depeche_msgs_${n}`,
    sequence: `depeche_msgs_${n}_global_seq`,
    versionConstraint: `depeche_msgs_${n}_version_uq`,
    writeFunction: `depeche_write_message_${n}`,
    channel: `depeche_${n}_messages`,
    appendFunction: own("append", n),
    singleFunction: own("single", n),
    batchFunction: own("batch", n),
    decideFunction: own("decide", n),
    tagsTable: own("tags", n),
    taggedTypesTable: own("tagged", n),
    snapshotsTable: own("snapshots", n),
    editionsTable: own("editions", n),
    declaredSequence: own("declared", n),
    deriveFunction: own("derive", n),
    valuesFunction: own("values", n),
    completeFunction: own("complete", n),
    scheduledTable: own("scheduled", n),
    keysTable: own("keys", n),
    refuseFunction: own("refuse", n),
    settingsTable: own("settings", n),
    migrationsTable: own("migrations", n)
  }))

/** The key under which writers of a stream exclude each other, Python's included: part of the wire contract. */
export const streamLockKey = ({ lockPrefix }: Store, stream: string): string =>
  `left('x'::text operator(pg_catalog.||) md5(${literal(lockPrefix)}::text operator(pg_catalog.||) ${stream}), 17)` +
  "::bit(64)::bigint"

/** The key that who writes a tag has alone, and who asks about it shares: as in the function that decides. */
export const tagLockKey = ({ schema, tagsTable }: Store, tag: string): string =>
  `hashtextextended(${literal(`${schema}.${tagsTable}:`)}::text operator(pg_catalog.||) ${tag}, 0::bigint)`

/** The key that who tags stored messages has alone, and who deletes messages with tags shares. */
export const taggingLockKey = ({ taggedTypesTable }: Objects): string =>
  `${literal(taggedTypesTable)}::text::regclass::oid::int8`

/**
 * SQL for what tells one run of a server from every other: when it began, in microseconds. It is another one after each failover,
 * by which commits that this process has seen may be lost, and versions, positions and fencing tokens given once more. It is part of
 * what migrations make: `<run>`.
 */
export const serverRun =
  "(pg_catalog.date_part('epoch'::text, pg_catalog.pg_postmaster_start_time()) operator(pg_catalog.*) 1000000::float8)::int8"

/**
 * The edition of the stream or tag that a lock has this key of: counted from the run of the server, so that whatever is remembered
 * of another run is of another edition. The functions of migrations 5 and 6 compare it.
 */
export const editionOf = ({ editionsTable }: Store, key: string): string =>
  `(${serverRun} + coalesce((select e.edition from ${editionsTable} e where e.key = ${key}), 0))`

/** The exact time at which a message was added; of messages that Python wrote, the local time is known. */
export const timeAdded = ({ timeZone }: Store, row: string): string =>
  `coalesce(${row}.recorded_at, ${row}.added_at at time zone ${literal(timeZone)})`

/** A text as a literal of SQL. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`

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
  Result.map(checkName("aggregated stream", name), (n) => ({
    table: `depeche_stream_${n}`,
    maximumTable: `depeche_stream_${n}_maxpos`,
    positionConstraint: `depeche_stream_${n}_uq`,
    globalPositionIndex: `ix_depeche_stream_${n}_origin_stream_global_position`.slice(0, 63),
    triggerFunction: `depeche_stream_new_msg_${n}`,
    channel: `depeche_${n}_messages`,
    projectionTable: own("projection", n),
    roundFunction: own("round", n),
    projectFunction: own("project", n),
    scanFunction: own("scan", n),
    linkFunction: own("link", n),
    waitingFunction: own("waiting", n),
    timeFunction: own("time", n),
    occurredFunction: own("occurred", n),
    beginFunction: own("begin", n),
    migrationsTable: own("streamed", n)
  }))

export interface SubscriptionObjects {
  readonly name: string
  /** depeche_db's table of checkpoints. */
  readonly table: string
  readonly claimsTable: string
  readonly parkedTable: string
  readonly haltedTable: string
  readonly pausedTable: string
  /** The stream that the subscription belongs to, and the numbering of its positions. */
  readonly originTable: string
  readonly locksTable: string
  readonly migrationsTable: string
}

/** A subscription, and the settings that were fixed when its objects were made. */
export interface OpenedSubscription extends SubscriptionObjects {
  /** Prefixes the keys of its partitions' locks. */
  readonly lockPrefix: string
}

export const forSubscription = (name: string): Result.Result<SubscriptionObjects, InvalidNameError> =>
  Result.map(checkName("subscription", name), (n) => ({
    name: n,
    table: `depeche_subscriptions_${n}`,
    claimsTable: own("claims", n),
    parkedTable: own("parked", n),
    haltedTable: own("halted", n),
    pausedTable: own("paused", n),
    originTable: own("origin", n),
    locksTable: own("locks", n),
    migrationsTable: own("subscribed", n)
  }))

/** depeche_db's key of the lock of a partition, or of the initialisation: part of the wire contract. */
export const lockKey = ({ lockPrefix, name }: OpenedSubscription, partition: number | "init"): bigint =>
  createHash("sha1").update(`${lockPrefix}${name}.subscription-${name}-${partition}`).digest().readBigInt64LE()

export interface ProjectionObjects {
  readonly name: string
  /** Its versions, and which of them is promoted. */
  readonly versionsTable: string
  readonly migrationsTable: string
}

export const forProjection = (name: string): Result.Result<ProjectionObjects, InvalidNameError> =>
  Result.map(checkName("projection", name), (n) => ({
    name: n,
    versionsTable: own("versions", n),
    migrationsTable: own("projected", n)
  }))
