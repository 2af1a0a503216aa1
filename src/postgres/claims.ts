/**
 * Claims: which process may handle a partition.
 *
 * **By session**: depeche_db's advisory lock, held by the session of this process that is outside of the pool; so that
 * TypeScript and Python exclude each other. When that session ends, whatever the reason, the claims are free.
 *
 * **By lease**: a row with a time of expiry, by the clock of the database, renewed three times in that time. For processes
 * that reach it through a pooler which shares sessions out by transaction, such as PgBouncer. It counts as lost before it
 * ends, when it could not be renewed.
 *
 * A claim of either kind respects those of the other, though not at the very same moment: the processes of a subscription
 * should use one of them.
 *
 * Either way each claim gets a token, higher than that of the one before it. Acknowledgements name it: a process that goes
 * on after it has lost a claim is refused as soon as another has made one.
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import { Clock, Context, Deferred, Effect, Latch, Layer, Schedule } from "effect"
import type { Scope } from "effect"
import type { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import type { Claim, ClaimMode, Claims } from "../Storage.ts"
import { perClient } from "./client/perClient.ts"
import { layer as sessionLayer, Session } from "./client/session.ts"
import { type Int8, int8 } from "./client/values.ts"
import { lockKey, type OpenedSubscription } from "./objects.ts"

export type Holder = (
  sql: SqlClient.SqlClient,
  subscription: OpenedSubscription,
  mode: ClaimMode
) => Effect.Effect<Claims, never, Scope.Scope>

interface HeldClaim {
  readonly claim: Claim
  readonly lost: Deferred.Deferred<void>
  /** When its lease was asked for, the last time that it was given. */
  renewedAt: number
}

/** A consumer's claims, each with what tells of its loss. */
class Held {
  private readonly byPartition = new Map<number, HeldClaim>()

  add(partition: number, token: Int8, renewedAt: number): Claim {
    const claim = { partition, token: Number(token) }
    this.byPartition.set(partition, { claim, lost: Deferred.makeUnsafe(), renewedAt })
    return claim
  }

  private get({ partition, token }: Claim): HeldClaim | undefined {
    const held = this.byPartition.get(partition)
    return held?.claim.token === token ? held : undefined
  }

  has(claim: Claim): boolean {
    return this.get(claim) !== undefined
  }

  get claims(): ReadonlyArray<Claim> {
    return Array.from(this.byPartition.values(), ({ claim }) => claim)
  }

  /** Those that were not renewed since then are lost. */
  expire(since: number): void {
    for (const { claim, renewedAt } of this.byPartition.values()) if (renewedAt < since) this.remove(claim, true)
  }

  renew(claim: Claim, at: number): void {
    const held = this.get(claim)
    if (held !== undefined) held.renewedAt = at
  }

  /** Forgets a claim; one that was lost tells so. */
  remove(claim: Claim, isLost: boolean): void {
    const held = this.get(claim)
    if (held === undefined) return
    this.byPartition.delete(claim.partition)
    if (isLost) Deferred.doneUnsafe(held.lost, Effect.void)
  }

  lost(claim: Claim): Effect.Effect<void> {
    const held = this.get(claim)
    return held === undefined ? Effect.void : Deferred.await(held.lost)
  }
}

const unlock = (session: PgConnection.PgConnection, key: bigint) =>
  session.query("select pg_advisory_unlock($1::int8)", [int8(key)])

const want = (sql: SqlClient.SqlClient, subscription: OpenedSubscription): Claims["want"] => (partition) =>
  Effect.asVoid(sql`update ${sql(subscription.claimsTable)} set is_wanted = true
    where partition = ${partition} and not is_wanted and owner <> ''`)

/** The keys of the advisory locks of this database that are held. */
export const lockedKeys = `select l.classid::bigint << 32 | l.objid::bigint from pg_locks l
  where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    and l.database = (select oid from pg_database where datname = current_database())`

export class ClaimHolder extends Context.Service<ClaimHolder, Holder>()("effect-message-store/postgres/ClaimHolder") {}

/** What is locked is remembered by key, since a session gets its own locks again and again. */
export const layer = perClient(() =>
  Layer.effect(
    ClaimHolder,
    Effect.map(Session, (session) => makeHolder(session, globalThis.crypto.randomUUID()))
  ).pipe(Layer.provide(sessionLayer))
)

const makeHolder = (session: Session["Service"], owner: string): Holder => {
  const locked = new Set<bigint>()
  let hasWarned = false

  const bySession = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, subscription: OpenedSubscription) {
    const held = new Held()
    const keys = new Map<number, bigint>()
    const forget = (claim: Claim, isLost: boolean) => {
      locked.delete(keys.get(claim.partition) ?? 0n)
      held.remove(claim, isLost)
    }
    const connection = yield* connectionOf(session, () => {
      for (const each of held.claims) forget(each, true)
    })

    const claim: Claims["claim"] = Effect.fnUntraced(function*(partition) {
      const key = keys.get(partition) ?? (yield* lockKey(subscription, partition))
      keys.set(partition, key)
      yield* connection.connected
      return yield* Effect.uninterruptible(take(partition, key))
    })

    const take = Effect.fnUntraced(function*(partition: number, key: bigint) {
      const opened = connection.current()
      if (opened === undefined || locked.has(key)) return undefined
      locked.add(key)
      const result = yield* Effect.onExit(
        opened.query(
          `with lock as materialized (select pg_try_advisory_lock($1::int8) as is_taken), claimed as (
            insert into ${subscription.claimsTable} as c (partition, token, owner, lock_key)
            select $2::int, 1, $3::text, $1::int8 from lock where is_taken
            on conflict (partition) do update
            set token = c.token + 1, owner = excluded.owner, lock_key = excluded.lock_key, expires_at = null,
              is_wanted = false
            where c.expires_at is null or c.expires_at < clock_timestamp()
            returning token
          ) select is_taken, token from lock left join claimed on true`,
          [int8(key), partition, owner]
        ),
        (exit) => {
          const [row] = exit._tag === "Success" ? exit.value.rows : []
          if (row !== undefined && row["token"] !== null && connection.current() === opened) return Effect.void
          // What fails after it got the lock (a time limit, say) has it still, and so has what met a lease.
          return Effect.andThen(
            row?.["is_taken"] === false ? Effect.void : Effect.ignore(unlock(opened, key)),
            Effect.sync(() => locked.delete(key))
          )
        }
      )
      const token = (result.rows[0]?.["token"] ?? null) as Int8 | null
      return token === null || connection.current() !== opened ? undefined : held.add(partition, token, 0)
    })

    const release: Claims["release"] = (each) =>
      Effect.suspend(() => {
        const opened = connection.current()
        const key = keys.get(each.partition)
        if (opened === undefined || key === undefined || !held.has(each)) return Effect.void
        return opened.query(
          `with released as (
            update ${subscription.claimsTable} set owner = '' where partition = $2::int and token = $3::int8
          ) select pg_advisory_unlock($1::int8)`,
          [int8(key), each.partition, int8(each.token)]
        ).pipe(
          Effect.ignore({ log: "Debug" }), // a session that cannot unlock is lost, and its locks with it
          Effect.andThen(Effect.sync(() => forget(each, false))),
          Effect.uninterruptible
        )
      })

    // On the session of the lock: if it answers, it has the lock.
    const confirm: Claims["confirm"] = (each) =>
      Effect.suspend(() => {
        const opened = connection.current()
        return opened === undefined || !held.has(each) ? Effect.succeed(false) : Effect.map(
          opened.query(
            `select from ${subscription.claimsTable} where partition = $1::int and token = $2::int8`,
            [each.partition, int8(each.token)]
          ),
          ({ rows }) => rows.length > 0 && held.has(each)
        )
      })

    yield* Effect.addFinalizer(() => Effect.forEach(held.claims, release, { discard: true }))
    return { claim, release, want: want(sql, subscription), confirm, lost: (each) => held.lost(each) } satisfies Claims
  })

  return Effect.fnUntraced(function*(sql, subscription, mode) {
    if (mode._tag === "Lease") return yield* byLease(sql, session, subscription, mode.milliseconds, owner)
    if (session.isAvailable) return yield* bySession(sql, subscription)
    if (!hasWarned) {
      hasWarned = true
      yield* Effect.logWarning(
        `subscription ${subscription.name}: this SQL client cannot open a session for locks: partitions are claimed by ` +
          `leases of ${defaultLease / 1000} seconds`
      )
    }
    return yield* byLease(sql, session, subscription, defaultLease, owner)
  })
}

/** The session's connection, while there is one. */
const connectionOf = Effect.fnUntraced(function*(session: Session["Service"], onLost: () => void) {
  const open = Latch.makeUnsafe(false)
  let connection: PgConnection.PgConnection | undefined
  yield* session.use((opened) =>
    Effect.acquireRelease(
      Effect.sync(() => {
        connection = opened
        open.openUnsafe()
      }),
      () =>
        Effect.sync(() => {
          connection = undefined
          open.closeUnsafe()
          onLost()
        })
    ).pipe(Effect.andThen(Effect.never))
  )
  return { connected: open.await, current: () => connection }
})

/** Of those who asked for a session, and have a client that cannot open one. */
const defaultLease = 30_000

const byLease = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  session: Session["Service"],
  subscription: OpenedSubscription,
  milliseconds: number,
  owner: string
) {
  const table = subscription.claimsTable
  const held = new Held()
  const expiry = "clock_timestamp() + $1::float8 * interval '1 millisecond'"
  const connection = yield* connectionOf(session, () => {})

  // Outside of the pool, where handlers may have all connections for as long as they like.
  const query = (text: string, values: ReadonlyArray<unknown>) =>
    Effect.suspend((): Effect.Effect<ReadonlyArray<Readonly<Record<string, unknown>>>, SqlError> => {
      if (!session.isAvailable) return sql.unsafe<Readonly<Record<string, unknown>>>(text, values)
      const opened = connection.current()
      return opened === undefined
        ? Effect.andThen(Effect.interruptible(connection.connected), query(text, values))
        : Effect.map(opened.query(text, values), ({ rows }) => rows)
    })

  const claim: Claims["claim"] = Effect.fnUntraced(function*(partition) {
    const key = yield* lockKey(subscription, partition)
    if (session.isAvailable) yield* connection.connected
    const at = yield* Clock.currentTimeMillis
    const taking = query(
      `insert into ${table} as c (partition, token, owner, expires_at)
      select $2::int, 1, $3::text, ${expiry} where $4::int8 not in (${lockedKeys})
      on conflict (partition) do update
      set token = c.token + 1, owner = excluded.owner, expires_at = excluded.expires_at, lock_key = null,
        is_wanted = false
      where c.expires_at is null or c.expires_at < clock_timestamp()
      returning token`,
      [milliseconds, partition, owner, int8(key)]
    )
    return yield* Effect.uninterruptible(Effect.map(
      taking,
      ([row]) => row && held.add(partition, row["token"] as Int8, at)
    ))
  })

  const renew = Effect.gen(function*() {
    const at = yield* Clock.currentTimeMillis
    const { claims } = held
    if (claims.length === 0) return
    const renewed = yield* query(
      `update ${table} c set expires_at = ${expiry} from unnest($2::int[], $3::int8[]) mine(partition, token)
      where c.partition = mine.partition and c.token = mine.token and c.expires_at >= clock_timestamp()
      returning c.partition`,
      [milliseconds, claims.map(({ partition }) => partition), claims.map(({ token }) => int8(token))]
    )
    const kept = new Set(renewed.map((row) => row["partition"]))
    for (const each of claims) {
      if (kept.has(each.partition)) held.renew(each, at)
      else held.remove(each, true)
    }
  })
  yield* Effect.forkScoped(Effect.repeat(
    Effect.retry(renew, Schedule.spaced(milliseconds / 20)),
    Schedule.spaced(milliseconds / 3)
  ))
  // What could not be renewed in time is lost, though the statement may still be on its way.
  const expire = Effect.map(Clock.currentTimeMillis, (now) => {
    held.expire(now - milliseconds * 2 / 3)
  })
  yield* Effect.forkScoped(Effect.repeat(expire, Schedule.spaced(milliseconds / 12)))

  const release: Claims["release"] = (each) =>
    Effect.suspend(() => {
      held.remove(each, false)
      return session.isAvailable && connection.current() === undefined
        ? Effect.void // it expires
        : query(
          `update ${table} set owner = '', expires_at = null where partition = $1::int and token = $2::int8`,
          [each.partition, int8(each.token)]
        )
    }).pipe(Effect.ignore({ log: "Debug" }), Effect.uninterruptible)
  yield* Effect.addFinalizer(() => Effect.forEach(held.claims, release, { discard: true }))

  const confirm: Claims["confirm"] = (each) =>
    Effect.map(
      query(
        `select from ${table} where partition = $1::int and token = $2::int8 and expires_at > clock_timestamp()`,
        [each.partition, int8(each.token)]
      ),
      (rows) => rows.length > 0
    )

  return { claim, release, want: want(sql, subscription), confirm, lost: (each) => held.lost(each) } satisfies Claims
})
