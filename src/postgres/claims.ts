/**
 * Claims: which process may handle a partition.
 *
 * **By session**: depeche_db's advisory lock, held by the session of this process that is outside of the pool; so that
 * TypeScript and Python exclude each other. When that session ends, whatever the reason, the claims are free. Behind a pooler by
 * transaction there is no such session: whoever claims is told so (`client/pooled.ts`).
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
import { SqlClient, type Statement } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { hostname } from "node:os"
import process from "node:process"
import { SetupError } from "../errors.ts"
import type { Claim, ClaimMode, Claims, ClaimToken } from "../Storage.ts"
import * as Gathered from "./client/gathered.ts"
import { perClient } from "./client/perClient.ts"
import * as Pooled from "./client/pooled.ts"
import { connectionOf, layer as sessionLayer, Session } from "./client/session.ts"
import { int8 } from "./client/values.ts"
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
    Effect.gen(function*() {
      const session = yield* Session
      const client = yield* SqlClient.SqlClient
      const gather = yield* Gathered.make(client)
      const pooled = Pooled.make(client)
      // By key: the session of a process would get its own locks again and again.
      const locked = new Set<bigint>()
      let hasWarned = false
      return ClaimHolder.of(Effect.fnUntraced(function*(sql, subscription, mode, label) {
        const owner = `${hostname()}:${process.pid}${label === undefined ? "" : ` ${label}`}`
        if (mode._tag === "Session" && session.isAvailable) {
          return yield* bySession(session, pooled, gather, locked, subscription, owner)
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
          gather,
          subscription,
          mode._tag === "Lease" ? mode.milliseconds : defaultLease,
          owner
        )
      }))
    })
  ).pipe(Layer.provide(sessionLayer))
)

/** That a claim was made in this run of the server; begins with `and`. */
export const isOfRun = (sql: SqlClient.SqlClient, { run }: ClaimToken): Statement.Fragment =>
  run === undefined ? sql`` : sql` and ${sql.literal(serverRun)} = ${int8(run)}::int8`

/** How often locks behind a pooler are looked for: each statement may meet another of its sessions. */
const maximumTries = 50

/** Gives locks back that this session may have; behind a pooler, in whichever of its sessions they are, if that is met. */
const unlock = Effect.fnUntraced(function*(
  pooled: Pooled.Pooled,
  session: PgConnection.PgConnection,
  keys: ReadonlyArray<bigint>
): Effect.fn.Return<void, SqlError> {
  let left = keys.map(int8)
  for (let tries = 0; left.length > 0 && tries < (pooled.has(session) ? maximumTries : 1); tries++) {
    if (tries > 0) yield* Effect.sleep(tries) // what others do there has its own rhythm
    const { rows } = yield* session.query(
      "select k.key::text as key from unnest($1::int8[]) k(key) where not pg_advisory_unlock(k.key)",
      [left]
    )
    left = rows.map(({ key }) => String(key))
  }
})

/** How many claims are made, or released, in one statement. */
const maximumClaims = 64

/** A partition that is to be claimed. */
interface Wanted {
  readonly key: bigint
  readonly partition: number
  readonly ask: boolean
}

interface Taken {
  readonly token: number
  readonly run: number
  readonly connection: PgConnection.PgConnection
}

interface Lock {
  readonly key: bigint
  readonly connection: PgConnection.PgConnection
  readonly claim: Claim
}

const bySession = Effect.fnUntraced(function*(
  session: Session["Service"],
  pooled: Pooled.Pooled,
  gather: Gathered.Gather,
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
  }, pooled.look)
  const isOneSession = Effect.suspend(() =>
    pooled.has(connection.current())
      ? Effect.fail(
        new SetupError({
          identifier: subscription.name,
          reason:
            "claims partitions by locks of a session, and reaches the database through a pooler that gives each transaction " +
            "another session, in which locks would be left behind: use leases in all processes of the subscription, " +
            "`claims: { lease: \"30 seconds\" }`, or connect past the pooler (docs/scale.md, Poolers)"
        })
      )
      : Effect.void
  )

  // Rows are locked in the order of partitions, by whoever locks several: nobody waits for whom he holds up.
  const takeAll = Effect.fnUntraced(function*(
    wanted: ReadonlyArray<Wanted>
  ): Effect.fn.Return<ReadonlyArray<Taken | undefined>, SqlError> {
    const opened = connection.current()
    if (opened === undefined) return []
    const result = yield* Effect.onExit(
      opened.query(
        `with wanted as materialized (
          select w.*, pg_try_advisory_lock(w.key) as is_taken from unnest($1::int8[], $2::int[], $4::boolean[]) w(key, partition, ask)
        ), claimed as (
          insert into ${table} as c (partition, token, held_by, owner, lock_key, claimed_at)
          select w.partition, 1, 1, $3::text, w.key, clock_timestamp() from wanted w where w.is_taken order by w.partition
          on conflict (partition) do update
          set token = c.token + 1, held_by = c.token + 1, owner = excluded.owner, lock_key = excluded.lock_key,
            claimed_at = excluded.claimed_at, expires_at = null, is_wanted = false
          where c.expires_at is null or c.expires_at < clock_timestamp()
          returning partition, token
        ), asked as (
          update ${table} c set is_wanted = true from wanted w
          where w.ask and not w.is_taken and c.partition = w.partition and c.held_by is not null and not c.is_wanted
        ) select w.partition, w.is_taken, c.token, ${serverRun} as run, ${Pooled.inSession} from wanted w left join claimed c on c.partition = w.partition`,
        [
          wanted.map(({ key }) => int8(key)),
          wanted.map(({ partition }) => partition),
          owner,
          wanted.map(({ ask }) => ask)
        ]
      ),
      (exit) => {
        const rows = exit._tag === "Success" ? exit.value.rows : []
        pooled.note(opened, rows)
        const refused = new Set(rows.filter((row) => row["is_taken"] === false).map((row) => row["partition"]))
        const claimed = new Set(rows.filter((row) => row["token"] !== null).map((row) => row["partition"]))
        const stands = connection.current() === opened && !pooled.has(opened)
        // What fails after it got the lock (a time limit, say) has it still, and so has what met a lease.
        const kept = wanted.filter(({ partition }) => !refused.has(partition) && !(stands && claimed.has(partition)))
        return Effect.ignore(unlock(pooled, opened, kept.map(({ key }) => key)))
      }
    )
    if (pooled.has(opened)) return []
    const rows = new Map(result.rows.map((row) => [row["partition"], row]))
    return wanted.map(({ partition }) => {
      const { run, token = null } = rows.get(partition) ?? {}
      return token === null ? undefined : { token: Number(token), run: Number(run), connection: opened }
    })
  })

  const releaseAll = (released: ReadonlyArray<Lock>): Effect.Effect<ReadonlyArray<void>, SqlError> => {
    const opened = connection.current()
    const held = released.filter((lock) => lock.connection === opened)
    return Effect.as(
      opened === undefined || held.length === 0
        ? Effect.void
        : Effect.flatMap(
          opened.query(
            // Each has its row, and conflicts with that: so it is found in the index, whatever the planner took the table for.
            `with mine as materialized (
            select * from unnest($1::int8[], $2::int[], $3::int8[]) m(key, partition, token)
          ), released as (
            insert into ${table} as c (partition, token) select m.partition, m.token from mine m order by m.partition
            on conflict (partition) do update set held_by = null, owner = null, claimed_at = null
            where c.held_by = excluded.token
          ) select m.key::text as key, pg_advisory_unlock(m.key) as is_free, ${Pooled.inSession} from mine m`,
            [
              held.map(({ key }) => int8(key)),
              held.map(({ claim }) => claim.partition),
              held.map(({ claim }) => int8(claim.token))
            ]
          ),
          ({ rows }) => {
            pooled.note(opened, rows)
            const left = rows.filter((row) => row["is_free"] !== true).map(({ key }) => BigInt(String(key)))
            return pooled.has(opened) ? unlock(pooled, opened, left) : Effect.void
          }
        ),
      released.map(() => undefined)
    )
  }

  const gathered = { statements: 1, maximum: maximumClaims, isPatient: true }
  const takeGathered = gather({ ...gathered, put: takeAll })
  const releaseGathered = gather({ ...gathered, put: releaseAll })

  const take = Effect.fnUntraced(function*(partition: number, key: bigint, ask: boolean) {
    if (locked.has(key)) return undefined
    locked.add(key)
    const taken = yield* Effect.onExit(
      takeGathered({ key, partition, ask }),
      (exit) =>
        Effect.sync(() => {
          if (exit._tag === "Failure" || exit.value === undefined) locked.delete(key)
        })
    )
    if (taken === undefined) return undefined
    const { connection: opened, run, token } = taken
    if (connection.current() !== opened) {
      locked.delete(key)
      return undefined
    }
    const lost = Deferred.makeUnsafe<void>()
    const lock: Lock = {
      key,
      connection: opened,
      claim: {
        partition,
        token,
        run,
        lost: Deferred.await(lost),
        // On the session of the lock: if it answers, it has the lock.
        confirm: Effect.suspend(() =>
          locks.has(lock)
            ? Effect.map(
              opened.query(
                `select ${paused} as is_paused, ${Pooled.inSession} from ${table} c where partition = $1::int and token = $2::int8`,
                [partition, int8(token)]
              ),
              ({ rows }) => {
                pooled.note(opened, rows)
                return locks.has(lock) && !pooled.has(opened) ? confirmation(rows) : "Fenced"
              }
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
        : releaseGathered(lock).pipe(
          Effect.ignore({ log: "Debug" }), // a session that cannot unlock is lost, and its locks with it
          Effect.andThen(Effect.sync(() => forget(lock)))
        )
    )

  return {
    claim: Effect.fnUntraced(function*(partition, { ask = false } = {}) {
      const key = lockKey(subscription, partition)
      yield* connection.connected
      yield* isOneSession
      const lock = yield* Effect.acquireRelease(take(partition, key, ask), release)
      if (lock === undefined) yield* isOneSession
      return lock?.claim
    }),
    othersCannotAsk: true
  }
})
