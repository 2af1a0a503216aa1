/**
 * Claims: which process may handle a partition.
 *
 * **By session**: depeche_db's advisory lock, held by the session of this process that is outside of the pool; so that
 * TypeScript and Python exclude each other. When that session ends, whatever the reason, the claims are free.
 *
 * **By lease** (`leases.ts`): a row with a time of expiry, for processes that reach the database through a pooler.
 *
 * A claim of either kind respects those of the other, though not at the very same moment: the processes of a subscription
 * should use one of them.
 *
 * Either way each claim gets a fencing token, higher than that of the one before it, and acknowledgements name it: a
 * process that goes on after it has lost a claim is refused as soon as another has made one. A reset raises the tokens
 * of all claims, and so fences every holder; the partitions stay theirs (`held_by`) until they notice.
 *
 * A server that takes the place of another may lack claims, and give their tokens once more. So a claim stands in the run of the
 * server that it was made in, and nowhere else.
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import { Context, Deferred, Effect, Layer } from "effect"
import type { Scope } from "effect"
import type { SqlClient, Statement } from "effect/sql"
import { hostname } from "node:os"
import process from "node:process"
import type { Claim, ClaimMode, Claims, ClaimToken } from "../Storage.ts"
import { perClient } from "./client/perClient.ts"
import { connectionOf, layer as sessionLayer, Session } from "./client/session.ts"
import { type Int8, int8 } from "./client/values.ts"
import * as Leases from "./leases.ts"
import { lockKey, type OpenedSubscription, serverRun } from "./objects.ts"
import { confirmation, isPaused } from "./paused.ts"

/** Makes the claims of a consumer, on the session that the consumers of a client share. */
export class ClaimHolder extends Context.Service<
  ClaimHolder,
  (
    sql: SqlClient.SqlClient,
    subscription: OpenedSubscription,
    mode: ClaimMode,
    label: string | undefined
  ) => Effect.Effect<Claims, never, Scope.Scope>
>()("effect-message-store/postgres/ClaimHolder") {}

/** The lease, in milliseconds, of consumers that asked for a session whose client cannot open one. */
const defaultLease = 30_000

export const layer = perClient(() =>
  Layer.effect(
    ClaimHolder,
    Effect.map(Session, (session) => {
      // By key: the session of a process would get its own locks again and again.
      const locked = new Set<bigint>()
      let hasWarned = false
      return Effect.fnUntraced(function*(sql, subscription, mode, label) {
        const owner = `${hostname()}:${process.pid}${label === undefined ? "" : ` ${label}`}`
        if (mode._tag === "Session" && session.isAvailable) {
          return yield* bySession(session, locked, subscription, owner)
        }
        if (mode._tag === "Session" && !hasWarned) {
          hasWarned = true
          yield* Effect.logWarning(
            `subscription ${subscription.name}: this SQL client cannot open a session for locks: partitions are claimed ` +
              `by leases of ${defaultLease / 1000} seconds`
          )
        }
        return yield* Leases.make(
          sql,
          session,
          subscription,
          mode._tag === "Lease" ? mode.milliseconds : defaultLease,
          owner
        )
      })
    })
  ).pipe(Layer.provide(sessionLayer))
)

/** That a claim was made in this run of the server; begins with `and`. */
export const isOfRun = (sql: SqlClient.SqlClient, { run }: ClaimToken): Statement.Fragment =>
  run === undefined ? sql`` : sql` and ${sql.literal(serverRun)} = ${int8(run)}::int8`

const unlock = (session: PgConnection.PgConnection, key: bigint) =>
  session.query("select pg_advisory_unlock($1::int8)", [int8(key)])

interface Lock {
  readonly key: bigint
  readonly connection: PgConnection.PgConnection
  readonly claim: Claim
}

const bySession = Effect.fnUntraced(function*(
  session: Session["Service"],
  locked: Set<bigint>,
  subscription: OpenedSubscription,
  owner: string
): Effect.fn.Return<Claims, never, Scope.Scope> {
  const table = subscription.claimsTable
  const paused = isPaused(subscription, "c.partition")
  const locks = new Map<Lock, Deferred.Deferred<void>>()
  const forget = (lock: Lock) => locks.delete(lock) && locked.delete(lock.key)
  const connection = yield* connectionOf(session, () => {
    for (const [lock, lost] of locks) {
      forget(lock)
      Deferred.doneUnsafe(lost, Effect.void)
    }
  })

  const take = Effect.fnUntraced(function*(partition: number, key: bigint, ask: boolean) {
    const opened = connection.current()
    if (opened === undefined || locked.has(key)) return undefined
    locked.add(key)
    const result = yield* Effect.onExit(
      opened.query(
        `with lock as materialized (select pg_try_advisory_lock($1::int8) as is_taken), claimed as (
          insert into ${table} as c (partition, token, held_by, owner, lock_key, claimed_at)
          select $2::int, 1, 1, $3::text, $1::int8, clock_timestamp() from lock where is_taken
          on conflict (partition) do update
          set token = c.token + 1, held_by = c.token + 1, owner = excluded.owner, lock_key = excluded.lock_key,
            claimed_at = excluded.claimed_at, expires_at = null, is_wanted = false
          where c.expires_at is null or c.expires_at < clock_timestamp()
          returning token
        ), asked as (
          update ${table} c set is_wanted = true from lock
          where $4::boolean and not lock.is_taken and c.partition = $2::int and c.held_by is not null and not c.is_wanted
        ) select is_taken, token, ${serverRun} as run from lock left join claimed on true`,
        [int8(key), partition, owner, ask]
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
    if (token === null || connection.current() !== opened) return undefined
    const lost = Deferred.makeUnsafe<void>()
    const lock: Lock = {
      key,
      connection: opened,
      claim: {
        partition,
        token: Number(token),
        run: Number(result.rows[0]?.["run"]),
        lost: Deferred.await(lost),
        // On the session of the lock: if it answers, it has the lock.
        confirm: Effect.suspend(() =>
          locks.has(lock)
            ? Effect.map(
              opened.query(
                `select ${paused} as is_paused from ${table} c where partition = $1::int and token = $2::int8`,
                [partition, int8(Number(token))]
              ),
              ({ rows }) => locks.has(lock) ? confirmation(rows) : "Fenced"
            )
            : Effect.succeed("Fenced")
        )
      }
    }
    locks.set(lock, lost)
    return lock
  })

  const release = (lock: Lock | undefined) =>
    Effect.suspend(() =>
      lock === undefined || !locks.has(lock)
        ? Effect.void
        : lock.connection.query(
          `with released as (
            update ${table} set held_by = null, owner = null, claimed_at = null where partition = $2::int and held_by = $3::int8
          ) select pg_advisory_unlock($1::int8)`,
          [int8(lock.key), lock.claim.partition, int8(lock.claim.token)]
        ).pipe(
          Effect.ignore({ log: "Debug" }), // a session that cannot unlock is lost, and its locks with it
          Effect.andThen(Effect.sync(() => forget(lock)))
        )
    )

  return {
    claim: Effect.fnUntraced(function*(partition, { ask = false } = {}) {
      const key = yield* lockKey(subscription, partition)
      yield* connection.connected
      const lock = yield* Effect.acquireRelease(take(partition, key, ask), release)
      return lock?.claim
    }),
    othersCannotAsk: true
  }
})
