/**
 * Claims: who may handle a partition.
 *
 * **By session**: depeche_db's advisory lock, held by the session of this process that is outside of the pool; so that
 * TypeScript and Python exclude each other. When that session ends, whatever the reason, the claims are free.
 *
 * **By lease**: a row with a time of expiry, renewed three times in that time, by the clock of the database. For those
 * who reach it through a pooler that shares sessions out by transaction, such as PgBouncer.
 *
 * Either way each claim gets a token, higher than that of the one before it. Acknowledgements name it: whoever goes on
 * after he has lost a claim is refused as soon as another has made one.
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import { Context, Deferred, Effect, Latch, Layer, Schedule } from "effect"
import type { Scope } from "effect"
import type { SqlClient } from "effect/sql"
import type { Claim, ClaimMode, Claims } from "../Storage.ts"
import { lockKey, type SubscriptionObjects } from "./objects.ts"
import { perClient } from "./perClient.ts"
import { layer as sessionLayer, Session } from "./session.ts"

export type Holder = (
  sql: SqlClient.SqlClient,
  subscription: SubscriptionObjects,
  mode: ClaimMode
) => Effect.Effect<Claims, never, Scope.Scope>

/** A consumer's claims, each with what tells of its loss. */
class Held {
  private readonly byPartition = new Map<number, { readonly claim: Claim; readonly lost: Deferred.Deferred<void> }>()

  add(partition: number, token: bigint): Claim {
    const claim = { partition, token: Number(token) }
    this.byPartition.set(partition, { claim, lost: Deferred.makeUnsafe() })
    return claim
  }

  has(partition: number): boolean {
    return this.byPartition.has(partition)
  }

  get claims(): ReadonlyArray<Claim> {
    return Array.from(this.byPartition.values(), ({ claim }) => claim)
  }

  /** Forgets a claim; one that was lost tells so. */
  remove({ partition, token }: Claim, isLost: boolean): void {
    const held = this.byPartition.get(partition)
    if (held?.claim.token !== token) return
    this.byPartition.delete(partition)
    if (isLost) Deferred.doneUnsafe(held.lost, Effect.void)
  }

  lost({ partition, token }: Claim): Effect.Effect<void> {
    const held = this.byPartition.get(partition)
    return held?.claim.token === token ? Deferred.await(held.lost) : Effect.void
  }
}

const unlock = (session: PgConnection.PgConnection, key: bigint) =>
  session.query("select pg_advisory_unlock($1::int8)", [key])

const want = (sql: SqlClient.SqlClient, subscription: SubscriptionObjects): Claims["want"] => (partition) =>
  Effect.asVoid(sql`update ${sql(subscription.claimsTable)} set is_wanted = true
    where partition = ${partition} and not is_wanted and owner <> ''`)

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

  const bySession = Effect.fnUntraced(function*(sql: SqlClient.SqlClient, subscription: SubscriptionObjects) {
    const held = new Held()
    const connected = Latch.makeUnsafe(false)
    let connection: PgConnection.PgConnection | undefined
    const keys = new Map<number, bigint>()

    const forget = (claim: Claim, isLost: boolean) => {
      locked.delete(keys.get(claim.partition) ?? 0n)
      held.remove(claim, isLost)
    }
    yield* session.use((opened) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          connection = opened
          connected.openUnsafe()
        }),
        () =>
          Effect.sync(() => {
            connection = undefined
            connected.closeUnsafe()
            for (const each of held.claims) forget(each, true)
          })
      ).pipe(Effect.andThen(Effect.never))
    )

    const claim: Claims["claim"] = Effect.fnUntraced(function*(partition) {
      const key = keys.get(partition) ?? (yield* lockKey(subscription, partition))
      keys.set(partition, key)
      yield* connected.await
      return yield* Effect.uninterruptible(take(partition, key))
    })

    const take = Effect.fnUntraced(function*(partition: number, key: bigint) {
      const opened = connection
      if (opened === undefined || locked.has(key)) return undefined
      locked.add(key)
      const result = yield* Effect.onExit(
        opened.query(
          `with lock as materialized (select pg_try_advisory_lock($1::int8) as is_taken)
          insert into ${subscription.claimsTable} as c (partition, token, owner, lock_key)
          select $2::int, 1, $3::text, $1::int8 from lock where is_taken
          on conflict (partition) do update
          set token = c.token + 1, owner = excluded.owner, lock_key = excluded.lock_key, expires_at = null,
            is_wanted = false
          returning token`,
          [key, partition, owner]
        ),
        (exit) => {
          if (exit._tag === "Success" && exit.value.rows.length > 0 && connection === opened) return Effect.void
          // What fails after it got the lock (a time limit, say) has it still.
          return Effect.andThen(
            exit._tag === "Success" ? Effect.void : Effect.ignore(unlock(opened, key)),
            Effect.sync(() => locked.delete(key))
          )
        }
      )
      const [row] = result.rows
      return row === undefined || connection !== opened ? undefined : held.add(partition, row["token"] as bigint)
    })

    const release: Claims["release"] = (each) =>
      Effect.suspend(() => {
        const key = keys.get(each.partition)
        if (connection === undefined || key === undefined || !held.has(each.partition)) return Effect.void
        return connection.query(
          `with released as (
            update ${subscription.claimsTable} set owner = '' where partition = $2::int and token = $3::int8
          ) select pg_advisory_unlock($1::int8)`,
          [key, each.partition, BigInt(each.token)]
        ).pipe(
          Effect.ignore({ log: "Debug" }), // a session that cannot unlock is lost, and its locks with it
          Effect.andThen(Effect.sync(() => forget(each, false))),
          Effect.uninterruptible
        )
      })

    yield* Effect.addFinalizer(() => Effect.forEach(held.claims, release, { discard: true }))
    return { claim, release, want: want(sql, subscription), lost: (each) => held.lost(each) } satisfies Claims
  })

  return (sql, subscription, mode) =>
    mode._tag === "Session" && session.isAvailable
      ? bySession(sql, subscription)
      : byLease(sql, subscription, mode._tag === "Lease" ? mode.milliseconds : defaultLease, owner)
}

/** Of those who asked for a session, and have a client that cannot open one. */
const defaultLease = 30_000

const byLease = Effect.fnUntraced(function*(
  sql: SqlClient.SqlClient,
  subscription: SubscriptionObjects,
  milliseconds: number,
  owner: string
) {
  const table = sql(subscription.claimsTable)
  const held = new Held()
  const expiry = sql`clock_timestamp() + ${milliseconds}::float8 * interval '1 millisecond'`

  const claim: Claims["claim"] = (partition) =>
    Effect.map(
      sql<{ readonly token: bigint }>`insert into ${table} as c (partition, token, owner, expires_at)
        values (${partition}, 1, ${owner}, ${expiry})
        on conflict (partition) do update
        set token = c.token + 1, owner = excluded.owner, expires_at = excluded.expires_at, lock_key = null,
          is_wanted = false
        where c.expires_at is null or c.expires_at < clock_timestamp()
        returning token`,
      ([row]) => row && held.add(partition, row.token)
    ).pipe(Effect.uninterruptible)

  const renew = Effect.gen(function*() {
    const claims = held.claims
    if (claims.length === 0) return
    const renewed = yield* sql<{ readonly partition: number }>`update ${table} c set expires_at = ${expiry}
      from unnest(${claims.map((each) => each.partition)}::int[], ${claims.map((each) => BigInt(each.token))}::int8[])
        mine(partition, token)
      where c.partition = mine.partition and c.token = mine.token and c.expires_at >= clock_timestamp()
      returning c.partition`
    const kept = new Set(renewed.map((row) => row.partition))
    for (const each of claims) if (!kept.has(each.partition)) held.remove(each, true)
  })
  // Whoever cannot renew in time has lost what he held.
  const keeping = Effect.repeat(
    Effect.timeoutOrElse(Effect.retry(renew, Schedule.spaced(milliseconds / 20)), {
      duration: milliseconds / 3,
      orElse: () =>
        Effect.sync(() => {
          for (const each of held.claims) held.remove(each, true)
        })
    }),
    Schedule.spaced(milliseconds / 3)
  )
  yield* Effect.forkScoped(keeping)

  const release: Claims["release"] = (each) =>
    sql`update ${table} set owner = '', expires_at = null where partition = ${each.partition}
      and token = ${BigInt(each.token)}`.pipe(
      Effect.ignore({ log: "Debug" }), // it expires
      Effect.andThen(Effect.sync(() => held.remove(each, false))),
      Effect.uninterruptible
    )
  yield* Effect.addFinalizer(() => Effect.forEach(held.claims, release, { discard: true }))

  return { claim, release, want: want(sql, subscription), lost: (each) => held.lost(each) } satisfies Claims
})
