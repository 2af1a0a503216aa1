/**
 * Claims by lease: a row with a time of expiry, by the clock of the database, renewed three times in that time. For
 * processes that reach it through a pooler which shares sessions out by transaction, such as PgBouncer. It counts as lost
 * before it ends, when it could not be renewed.
 */
import { Deferred, Effect, Schedule } from "effect"
import type { Scope } from "effect"
import type { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import * as Moment from "../internal/moment.ts"
import type { Claim, Claims } from "../Storage.ts"
import type * as Gathered from "./client/gathered.ts"
import { connectionOf, type Session } from "./client/session.ts"
import { int8 } from "./client/values.ts"
import { lockKey, type OpenedSubscription, serverRun } from "./objects.ts"
import { confirmation, isPaused } from "./paused.ts"

/** The keys of the advisory locks of this database that are held. */
export const lockedKeys = `select l.classid::bigint << 32 | l.objid::bigint as key from pg_locks l
  where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    and l.database = (select oid from pg_database where datname = current_database())`

/** How many leases are taken, or released, in one statement. */
const maximumClaims = 64

/** A partition that is to be claimed. */
interface Wanted {
  readonly partition: number
  readonly key: bigint
  readonly ask: boolean
  /** The token of a lease of this consumer's that has ended, and may not be released; 0: none. */
  readonly unreleased: number
}

interface Taken {
  readonly token: number
  readonly run: number
}

interface Lease {
  readonly claim: Claim
  readonly run: number
  readonly lost: Deferred.Deferred<void>
  /** When it was asked for, the last time that it was given. */
  renewedAt: Moment.Moment
}

export const make = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  session: Session["Service"],
  gather: Gathered.Gather,
  subscription: OpenedSubscription,
  milliseconds: number,
  owner: string
): Effect.fn.Return<Claims, never, Scope.Scope> {
  const table = subscription.claimsTable
  const paused = isPaused(subscription, "c.partition")
  const leases = new Set<Lease>()
  /** Tokens of leases that ended while the database could not be told: nobody has to wait for their expiry here. */
  const unreleased = new Map<number, number>()
  const lose = (lease: Lease) => {
    leases.delete(lease)
    Deferred.doneUnsafe(lease.lost, Effect.void)
  }
  const expiry = "clock_timestamp() + $1::float8 * interval '1 millisecond'"
  const connection = yield* connectionOf(session, () => {})

  type Rows = ReadonlyArray<Readonly<Record<string, unknown>>>
  // Outside of the pool, where handlers may have all connections for as long as they like.
  const queryNow = (text: string, values: ReadonlyArray<unknown>): Effect.Effect<Rows | undefined, SqlError> =>
    Effect.suspend((): Effect.Effect<Rows | undefined, SqlError> => {
      if (!session.isAvailable) return sql.unsafe<Readonly<Record<string, unknown>>>(text, values)
      const opened = connection.current()
      return opened === undefined
        ? Effect.undefined
        : Effect.map(opened.query(text, values), ({ rows }) => rows)
    })
  /** Waits until the session is open. */
  const query = (text: string, values: ReadonlyArray<unknown>): Effect.Effect<Rows, SqlError> =>
    Effect.flatMap(queryNow(text, values), (rows) =>
      rows === undefined
        ? Effect.andThen(Effect.interruptible(connection.connected), query(text, values))
        : Effect.succeed(rows))

  // Rows are locked in the order of partitions, by whoever locks several: nobody waits for whom he holds up. Who takes or
  // releases cannot be interrupted meanwhile: nothing is waited for while the session is lost.
  const takeAll = (wanted: ReadonlyArray<Wanted>): Effect.Effect<ReadonlyArray<Taken | undefined>, SqlError> =>
    Effect.map(
      queryNow(
        `with locked as materialized (${lockedKeys}), wanted as materialized (
          select * from unnest($2::int[], $4::int8[], $5::boolean[], $6::int8[]) w(partition, key, ask, unreleased)
        ), claimed as (
          insert into ${table} as c (partition, token, held_by, owner, expires_at, claimed_at)
          select w.partition, 1, 1, $3::text, ${expiry}, clock_timestamp() from wanted w
          where w.key not in (select key from locked) order by w.partition
          on conflict (partition) do update
          set token = c.token + 1, held_by = c.token + 1, owner = excluded.owner, expires_at = excluded.expires_at,
            claimed_at = excluded.claimed_at, lock_key = null, is_wanted = false
          where c.expires_at is null or c.expires_at < clock_timestamp() or (
            c.owner = $3::text and exists (
              select from wanted w where w.partition = excluded.partition and w.unreleased = c.held_by
            )
          )
          returning partition, token
        ), asked as (
          update ${table} c set is_wanted = true from wanted w
          where w.ask and not exists (select from claimed k where k.partition = w.partition)
            and c.partition = w.partition and c.held_by is not null and not c.is_wanted
        ) select partition, token, ${serverRun} as run from claimed`,
        [
          milliseconds,
          wanted.map(({ partition }) => partition),
          owner,
          wanted.map(({ key }) => int8(key)),
          wanted.map(({ ask }) => ask),
          wanted.map(({ unreleased: token }) => int8(token))
        ]
      ),
      (rows = []) => {
        const taken = new Map(
          rows.map((row) => [row["partition"], { token: Number(row["token"]), run: Number(row["run"]) }])
        )
        return wanted.map(({ partition }) => taken.get(partition))
      }
    )

  /** Whether the database was told; else they expire. */
  const releaseAll = (released: ReadonlyArray<Lease>): Effect.Effect<ReadonlyArray<boolean>, SqlError> =>
    Effect.map(
      queryNow(
        // Each has its row, and conflicts with that: see claims.ts.
        `insert into ${table} as c (partition, token)
          select m.partition, m.token from unnest($1::int[], $2::int8[]) m(partition, token) order by m.partition
          on conflict (partition) do update set held_by = null, owner = null, expires_at = null, claimed_at = null
          where c.held_by = excluded.token`,
        [released.map(({ claim }) => claim.partition), released.map(({ claim }) => int8(claim.token))]
      ),
      (rows) => released.map(() => rows !== undefined)
    )

  const gathered = { statements: 1, maximum: maximumClaims, isPatient: true }
  const takeGathered = gather({ ...gathered, put: takeAll })
  const releaseGathered = gather({ ...gathered, put: releaseAll })

  const take = Effect.fnUntraced(function*(partition: number, ask: boolean) {
    const key = lockKey(subscription, partition)
    const at = yield* Moment.now
    const taken = yield* takeGathered({ partition, key, ask, unreleased: unreleased.get(partition) ?? 0 })
    if (taken === undefined) return undefined
    unreleased.delete(partition)
    const { run, token } = taken
    const lost = Deferred.makeUnsafe<void>()
    const confirm = Effect.map(
      query(
        `select ${paused} as is_paused from ${table} c
        where partition = $1::int and token = $2::int8 and ${serverRun} = $3::int8 and expires_at > clock_timestamp()`,
        [partition, int8(token), int8(run)]
      ),
      confirmation
    )
    const lease: Lease = {
      claim: { partition, token, run, lost: Deferred.await(lost), confirm },
      run,
      lost,
      renewedAt: at
    }
    leases.add(lease)
    return lease
  })

  const release = (lease: Lease | undefined) =>
    Effect.suspend(() => {
      if (lease === undefined) return Effect.void
      leases.delete(lease)
      const { partition, token } = lease.claim
      unreleased.set(partition, token)
      return Effect.map(releaseGathered(lease), (isTold) => isTold && unreleased.delete(partition))
    }).pipe(Effect.ignore({ log: "Debug" }))

  const renew = Effect.gen(function*() {
    const at = yield* Moment.now
    const held = Array.from(leases)
    if (held.length === 0) return
    const renewed = yield* query(
      `with mine as materialized (
        select c.partition from ${table} c join unnest($2::int[], $3::int8[], $4::int8[]) m(partition, token, run)
          on m.partition = c.partition and m.token = c.token and m.run = ${serverRun}
        where c.expires_at >= clock_timestamp() order by c.partition for no key update of c
      ) update ${table} c set expires_at = ${expiry} from mine where c.partition = mine.partition returning c.partition`,
      [
        milliseconds,
        held.map(({ claim }) => claim.partition),
        held.map(({ claim }) => int8(claim.token)),
        held.map(({ run }) => int8(run))
      ]
    )
    const kept = new Set(renewed.map((row) => row["partition"]))
    for (const lease of held) {
      if (kept.has(lease.claim.partition)) lease.renewedAt = at
      else lose(lease)
    }
  })
  yield* Effect.forkScoped(Effect.repeat(
    Effect.retry(renew, Schedule.spaced(milliseconds / 20)),
    Schedule.spaced(milliseconds / 3)
  ))

  // What could not be renewed in time is lost, though the statement may still be on its way.
  const expire = Effect.map(Moment.now, (now) => {
    for (const lease of leases) if (Moment.elapsed(lease.renewedAt, now) > milliseconds * 2 / 3) lose(lease)
  })
  yield* Effect.forkScoped(Effect.repeat(expire, Schedule.spaced(milliseconds / 12)))

  return {
    claim: Effect.fnUntraced(function*(partition, { ask = false } = {}) {
      if (session.isAvailable) yield* connection.connected
      const lease = yield* Effect.acquireRelease(take(partition, ask), release)
      return lease?.claim
    }),
    othersCannotAsk: false
  }
})
