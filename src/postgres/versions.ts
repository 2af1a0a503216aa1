/**
 * The versions of a projection on PostgreSQL: a row for each in a table, which of them is promoted, and views.
 *
 * **Promotion** is one transaction, of whatever process:
 *
 * 1. The table of versions is locked: promotions, rollbacks, and the making and dropping of versions of this projection
 *    come one after the other. Readers and workers do not touch that lock.
 * 2. The checkpoints of the version that is promoted now are locked (SHARE): transactions of its handlers that have
 *    acknowledged are waited for, others wait at their acknowledgement. So what readers have seen of it is what its
 *    checkpoints say, and stays so until the end.
 * 3. The new version has to have acknowledged as much in each partition. Every few seconds it is waited for, half a second at
 *    most: it goes on, since its workers lock other tables, and so is level however much is written. If it does not come to
 *    that, nothing has happened.
 * 4. The views are made to show its tables, and its row says that it is promoted. Readers that are under way are waited for
 *    (their locks of the views), those that come wait for this.
 *
 * Each lock is waited for two seconds at most: then the transaction fails, retryably, and readers and workers go on.
 *
 * What a process that is killed leaves is what PostgreSQL rolls back: before the commit the old version is promoted and
 * its views show it, after the commit the new one. Nothing is in between, since views, rows and locks are the transaction's.
 *
 * **Readers** at READ COMMITTED see, in each statement, the version that is promoted when the statement gets its lock of
 * the view; its snapshot is taken behind that. A transaction that has read a view keeps its lock, and keeps the promotion
 * waiting: it does not see two versions. At REPEATABLE READ a snapshot may be older than the promotion, and the view, read
 * for the first time after it, would show the new version as it was then: such readers ask `promoted`, which tells what
 * was promoted in their snapshot.
 */
import { Clock, Duration, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidNameError, SetupError } from "../errors.ts"
import type { PartitionHead } from "../Storage.ts"
import {
  Promotion,
  type PromotionOptions,
  type StoredVersion,
  subscriptionOf,
  tableOf,
  type VersionStorage
} from "../storage/versions.ts"
import { withTransaction } from "./client/transaction.ts"
import { milliseconds, toTime } from "./client/values.ts"
import * as Objects from "./objects.ts"
import { dropSubscription } from "./subscriptions.ts"
import { hideViews, qualified, showVersion } from "./views.ts"

/** How long the promoted version is held up, at most, until a new one is level with it. */
const levelMilliseconds = 500

/** How far a version may be behind, in messages, for that to be tried. */
const nearlyLevel = 1000

interface VersionRow {
  readonly version: number
  readonly stream: string
  readonly place: string
  readonly tables: ReadonlyArray<string>
  readonly is_promoted: boolean
  readonly is_held: boolean
  readonly created_at: number
  readonly promoted_at: number | null
  readonly used_at: number
}

interface Subscribed extends Objects.SubscriptionObjects {
  readonly version: number
}

/** dependent_objects_still_exist */
const isDependedOn = (error: { readonly _tag: string }): error is SqlError =>
  error._tag === "SqlError" && causeOf(error as SqlError)["code"] === "2BP01"

/** undefined_table */
const isGone = (error: SqlError): boolean => causeOf(error)["code"] === "42P01"

const said = (error: SqlError): string => String(causeOf(error)["detail"] ?? error.message)

const causeOf = ({ reason: { cause } }: SqlError): Readonly<Record<string, unknown>> => Object(cause)

export const make = (
  sql: SqlClient,
  streamName: string,
  stream: Objects.StreamObjects,
  projection: Objects.ProjectionObjects
): VersionStorage => {
  const { name } = projection
  const table = sql(projection.versionsTable)
  const heads = sql(stream.maximumTable)
  const transaction = withTransaction(sql)

  const rows = sql<VersionRow>`select version, stream, place, tables, is_promoted is not null as is_promoted, is_held,
    ${sql.literal(milliseconds("created_at"))} as created_at, ${
    sql.literal(milliseconds("promoted_at"))
  } as promoted_at,
    ${sql.literal(milliseconds("used_at"))} as used_at
    from ${table} order by version`

  const locked = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    transaction(Effect.andThen(
      Effect.andThen(
        sql`set local lock_timeout = '2s'`,
        sql`lock table ${table} in share row exclusive mode`
      ),
      effect
    ))

  const subscriptionObjects = (version: number): Effect.Effect<Subscribed> =>
    Effect.orDie(Effect.map( // the name was checked, and is short enough for any version
      Effect.fromResult(Objects.forSubscription(subscriptionOf(name, version))),
      (objects) => ({ ...objects, version })
    ))

  /** Those whose tables exist: a process may have been killed before it had made them. */
  const subscribed = Effect.fnUntraced(function*(versions: ReadonlyArray<number>) {
    const objects = yield* Effect.forEach(versions, subscriptionObjects)
    const found = yield* sql<{ readonly name: string }>`select given.name from unnest(
      ${objects.map((each) => each.name)}::text[], ${objects.map((each) => each.table)}::text[]
    ) given(name, relation) where to_regclass(given.relation) is not null`
    return objects.filter((each) => found.some((row) => row.name === each.name))
  })

  const behind = Effect.fnUntraced(function*(version: Subscribed, goal: ReadonlyArray<PartitionHead>) {
    const [row] = yield* sql<{ readonly behind: number }>`
      select coalesce(sum(greatest(g.position - coalesce(c.position, -1), 0)), 0)::float8 as behind
      from unnest(
        ${goal.map(({ partition }) => partition)}::int[], ${goal.map(({ position }) => position)}::int[]
      ) g(partition, position)
      left join ${sql(version.table)} c
        on c.partition = g.partition and c.subscription_name::text = ${version.name}::text`
    return row?.behind ?? 0
  })

  const ends = sql<PartitionHead>`select partition, max_position as position from ${heads}`

  /** What a version has to have acknowledged: undefined if the old one has checkpoints of other positions. */
  const checkpointsOf = Effect.fnUntraced(function*(old: Subscribed, version: Subscribed) {
    const [same] = yield* sql<{ readonly same: boolean }>`select exists (
      select from ${sql(old.originTable)} a join ${sql(version.originTable)} b on a.numbering = b.numbering
    ) as same`
    if (same?.same !== true) return undefined
    return yield* sql<PartitionHead>`select partition, position from ${sql(old.table)}
      where subscription_name::text = ${old.name}::text and partition >= 0`
  })

  /** By how many messages a version is behind what it has to have acknowledged; it is waited for if that is little. */
  const waitUntilLevel = Effect.fnUntraced(function*(
    version: Subscribed,
    old: Subscribed | undefined,
    { holdUp, lag }: Pick<PromotionOptions, "holdUp" | "lag">
  ) {
    if (lag !== undefined) {
      const by = yield* behind(version, yield* ends)
      return by <= lag ? 0 : by
    }
    const goal = (old && (yield* checkpointsOf(old, version))) ?? (yield* ends)
    const first = yield* behind(version, goal)
    if (first > (holdUp ? nearlyLevel : 0)) return first
    if (old !== undefined) yield* sql`lock table ${sql(old.table)} in share mode`
    const fixed = (old && (yield* checkpointsOf(old, version))) ?? goal
    const until = (yield* Clock.currentTimeMillis) + (holdUp ? levelMilliseconds : 0)
    while (true) {
      const by = yield* behind(version, fixed)
      if (by === 0 || (yield* Clock.currentTimeMillis) >= until) return by
      yield* Effect.sleep("10 millis")
    }
  })

  const drop = Effect.fnUntraced(function*({ place, tables, version }: VersionRow) {
    for (const each of tables) yield* sql`drop table if exists ${qualified(sql, place, tableOf(each, version))}`
    yield* dropSubscription(sql, yield* subscriptionObjects(version))
    yield* sql`delete from ${table} where version = ${version}`
  })

  /** The name of one that is there. */
  const relationIn = (place: string, names: ReadonlyArray<string>) =>
    Effect.map(
      sql<{ readonly name: string }>`select c.relname::text as name
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname::text = ${place}::text and c.relname::text = any(${names}::text[])`,
      ([found]) => found?.name
    )

  const setupError = (reason: string) => Effect.fail(new SetupError({ identifier: name, reason }))

  return {
    register: Effect.fnUntraced(function*<E, R>(
      version: number,
      tables: ReadonlyArray<string>,
      create: Effect.Effect<unknown, E, R>
    ): Effect.fn.Return<void, E | InvalidNameError | SetupError | SqlError, R> {
      const isMade = Effect.flatMap(rows, (found): Effect.Effect<boolean, InvalidNameError | SetupError> => {
        const other = found.find((row) => row.stream !== streamName)
        if (other !== undefined) {
          const reason = `is taken by a projection of "${other.stream}"`
          return Effect.fail(new InvalidNameError({ identifier: name, reason }))
        }
        const made = found.find((row) => row.version === version)
        if (made === undefined) return Effect.succeed(false)
        return made.tables.toSorted().join() === tables.toSorted().join() ? Effect.succeed(true) : setupError(
          `has a version ${version} with other tables (${
            made.tables.join(", ")
          }): give what has changed a higher version`
        )
      })
      if (yield* isMade) return
      yield* locked(Effect.gen(function*() {
        if (yield* isMade) return
        const objects = yield* subscriptionObjects(version)
        const physical = tables.map((each) => tableOf(each, version))
        const [taken] = yield* sql<{ readonly name: string }>`select given.name from pg_catalog.unnest(
          ${[objects.table, ...physical]}::text[]) given(name) where to_regclass(given.name) is not null`
        if (taken !== undefined) {
          const reason = `is there already, and a table of version ${version} of "${name}" is to have that name`
          return yield* new InvalidNameError({ identifier: taken.name, reason })
        }
        yield* create
        const places = yield* sql<{ readonly name: string; readonly place: string | null }>`
          select given.name, n.nspname::text as place from pg_catalog.unnest(${physical}::text[]) given(name)
          left join pg_class c on c.oid = to_regclass(given.name)::oid and c.relkind::text in ('r', 'p')
          left join pg_namespace n on n.oid = c.relnamespace`
        const place = places[0]?.place ?? null
        const missing = places.find((each) => each.place === null || each.place !== place)
        if (place === null || missing !== undefined) {
          return yield* setupError(`has not made the table ${missing?.name}, or not where its other tables are`)
        }
        const [other] = yield* sql<{ readonly name: string }>`select c.relname::text as name
          from pg_class c join pg_namespace n on n.oid = c.relnamespace
          where n.nspname::text = ${place}::text and c.relname::text = any(${tables}::text[]) and not (
            c.relkind::text = 'v' and exists (select from ${table} v where c.relname::text = any(v.tables))
          )`
        if (other !== undefined) {
          const reason = `is there already, and readers of "${name}" are to have a view of that name`
          return yield* new InvalidNameError({ identifier: other.name, reason })
        }
        yield* sql`insert into ${table} (version, stream, place, tables)
          values (${version}, ${streamName}, ${place}, ${tables}::text[])`
      }))
    }),

    versions: Effect.gen(function*() {
      const found = yield* rows
      const objects = yield* subscribed(found.map(({ version }) => version))
      const counts = yield* Effect.forEach(objects, (each) => {
        const checkpoints = sql`select partition, position from ${sql(each.table)}
          where subscription_name::text = ${each.name}::text and partition >= 0`
        return Effect.map(
          sql<{ readonly handled: number; readonly halted: number }>`with checkpoints as materialized (${checkpoints})
            select (select coalesce(sum(position::int8 + 1), 0)::float8 from checkpoints) as handled,
              (
                select count(*)::int from ${sql(each.haltedTable)} s left join checkpoints c using (partition)
                where s.unknown_type is null and s.position > coalesce(c.position, -1)
              ) as halted`,
          ([row]) => [each.version, row] as const
        )
      })
      const counted = new Map(counts)
      return found.map((row): StoredVersion => ({
        version: row.version,
        isPromoted: row.is_promoted,
        promotedAt: row.promoted_at === null ? undefined : toTime(row.promoted_at),
        isHeld: row.is_held,
        createdAt: toTime(row.created_at),
        usedAt: toTime(row.used_at),
        handled: counted.get(row.version)?.handled ?? 0,
        halted: counted.get(row.version)?.halted ?? 0
      }))
    }).pipe(Effect.retry({ while: isGone, times: 3 })), // a version was dropped after its row had been read

    promoted: Effect.map(
      sql<{ readonly version: number }>`select version from ${table} where is_promoted`,
      ([row]) => row?.version
    ),

    use: (version) =>
      Effect.map(
        sql`update ${table} set used_at = now() where version = ${version} returning 1 as done`,
        (found) => found.length > 0
      ),

    promote: (version, { byHand, holdUp, lag }) =>
      transaction(Effect.gen(function*() {
        yield* sql`set transaction isolation level read committed` // what others acknowledge meanwhile has to be seen
        yield* sql`set local lock_timeout = '2s'`
        yield* sql`lock table ${table} in share row exclusive mode`
        const found = yield* rows
        const next = found.find((row) => row.version === version)
        if (next === undefined) return Promotion.Missing()
        if (next.is_promoted) return Promotion.Promoted()
        const old = found.find((row) => row.is_promoted)
        if (!byHand && (next.is_held || (old !== undefined && old.version > version))) {
          return Promotion.Held()
        }
        const objects = yield* subscribed(old === undefined ? [version] : [version, old.version])
        const nextObjects = objects.find((each) => each.version === version)
        if (nextObjects === undefined) return Promotion.Missing()
        const by = yield* waitUntilLevel(nextObjects, objects.find((each) => each.version === old?.version), {
          holdUp,
          lag
        })
        if (by > 0) return Promotion.Behind({ by })
        const shown = old?.place === next.place ? old.tables : []
        const taken = yield* relationIn(next.place, next.tables.filter((each) => !shown.includes(each)))
        if (taken !== undefined) {
          return yield* setupError(
            `cannot show version ${version}: readers are to have a view "${taken}", and there is something else of that name`
          )
        }
        yield* showVersion(sql, next.place, version, next.tables)
        if (old !== undefined) {
          const isShown = (each: string) => old.place === next.place && next.tables.includes(each)
          yield* hideViews(sql, old.place, old.tables.filter((each) => !isShown(each)))
        }
        yield* sql`update ${table} set is_promoted = null, used_at = clock_timestamp(), is_held = version > ${version}
          where is_promoted`
        yield* sql`update ${table} set is_promoted = true, is_held = false, promoted_at = clock_timestamp(),
          used_at = clock_timestamp() where version = ${version}`
        return Promotion.Promoted()
      })).pipe(Effect.catchIf(isDependedOn, (error) => {
        const reason =
          `cannot show version ${version}: its columns are not those of the view, or that has none any more, and ` +
          `other objects depend on it (${
            said(error)
          }). Drop them, or make the view's columns the first ones of the table`
        return setupError(reason)
      })),

    drop: (version) =>
      locked(Effect.gen(function*() {
        const found = (yield* rows).find((row) => row.version === version && !row.is_promoted)
        if (found === undefined) return false
        yield* drop(found)
        return true
      })),

    dropUnused: (keep) =>
      locked(Effect.gen(function*() {
        const dropped: Array<number> = []
        const [clock] = yield* sql<{ readonly now: number }>`select ${
          sql.literal(milliseconds("clock_timestamp()"))
        } as now`
        for (const row of yield* rows) {
          if (row.is_promoted || row.used_at + Duration.toMillis(keep) > (clock?.now ?? 0)) continue
          yield* drop(row)
          dropped.push(row.version)
        }
        return dropped
      })),

    dropAll: locked(Effect.gen(function*() {
      for (const row of yield* rows) {
        if (row.is_promoted) yield* hideViews(sql, row.place, row.tables)
        yield* drop(row)
      }
      yield* sql`drop table ${table}, ${sql(projection.migrationsTable)}`
    })),

    checkpoint: (version, partition) =>
      Effect.flatMap(subscriptionObjects(version), (each) =>
        Effect.map(
          sql<{ readonly position: number }>`select position from ${sql(each.table)}
            where subscription_name::text = ${each.name}::text and partition = ${partition}`,
          ([row]) => row?.position ?? -1
        )),

    state: undefined
  }
}
