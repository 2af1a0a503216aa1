/**
 * One session outside of the pool, for LISTEN and session advisory locks. It is opened when it is first needed, and opened
 * again when it is lost: at once, then with a backoff of up to 5 seconds while it does not last.
 */
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import { Clock, Context, Deferred, Effect, Fiber, FiberSet, Latch, Layer, Schedule } from "effect"
import type { Scope } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { perClient } from "./perClient.ts"

type Connection = PgConnection.PgConnection

/**
 * Uses the connection of the session. It is interrupted when the connection is lost; if it fails, the connection counts
 * as lost.
 */
export interface Tenant {
  (connection: Connection): Effect.Effect<never, SqlError, Scope.Scope>
}

export class Session extends Context.Service<Session, {
  /** False with a client that is no `PgClient`: then there is never a connection. */
  readonly isAvailable: boolean
  /** Runs the tenant on the connection, and on each that follows it, until the scope closes. */
  readonly use: (tenant: Tenant) => Effect.Effect<void, never, Scope.Scope>
}>()("effect-message-store/postgres/Session") {}

/** Notices a connection that is broken without an error. */
const keepAlive = Effect.fnUntraced(function*(connection: Connection) {
  while (true) {
    yield* Effect.sleep("15 seconds")
    yield* Effect.timeoutOrElse(connection.query("select 1"), {
      duration: "15 seconds",
      orElse: () => Effect.interrupt
    })
  }
})

/** A connection that lasted for this long, in milliseconds, was usable: a standby refuses LISTEN at once. */
const lasting = 1000

/** Jitter adds a fifth at most. */
const reconnects = Schedule.jittered(
  Schedule.min([Schedule.exponential("20 millis"), Schedule.spaced("4 seconds")])
)

export const layer = perClient(() =>
  Layer.effect(
    Session,
    Effect.gen(function*() {
      const sql = yield* SqlClient.SqlClient
      const layerScope = yield* Effect.scope
      const { config } = sql as { readonly config?: PgClientConfig }
      if (config === undefined) return Session.of({ isAvailable: false, use: () => Effect.void })

      const tenants = new Map<Tenant, Fiber.Fiber<void> | undefined>()
      let start: ((tenant: Tenant) => void) | undefined
      let isSupervised = false
      let isLost = false
      let connectedAt = Infinity

      /** Not before it lasts: what refuses LISTEN takes a connection all the same. */
      const isBack = Effect.gen(function*() {
        yield* Effect.sleep(lasting)
        isLost = false
        yield* Effect.logInfo("The database session of listeners and locks is back")
      })

      const connected = Effect.gen(function*() {
        // An optional peer: loaded by those who use it.
        const { make } = yield* Effect.promise(() => import("@effect/sql-pg/PgConnection"))
        const connection = yield* Effect.flatMap(make(config), ({ pin }) => pin)
        connectedAt = yield* Clock.currentTimeMillis
        if (isLost) yield* Effect.forkScoped(isBack)
        const lost = yield* Deferred.make<never, SqlError>()
        const run = yield* FiberSet.makeRuntime<never, void, never>()
        start = (tenant) => {
          const untilLost = Effect.catchCause(
            Effect.scoped(tenant(connection)),
            (cause) => Effect.asVoid(Deferred.failCause(lost, cause))
          )
          tenants.set(tenant, run(untilLost))
        }
        for (const tenant of tenants.keys()) start(tenant)
        return yield* Effect.raceFirst(Deferred.await(lost), keepAlive(connection))
      }).pipe(
        Effect.scoped,
        Effect.ensuring(Effect.sync(() => {
          start = undefined
        }))
      )

      const supervised = connected.pipe(
        Effect.sandbox,
        Effect.catch(Effect.fnUntraced(function*(cause) {
          const level = isLost ? "Debug" : "Warn" // once for each outage
          isLost = true
          yield* Effect.logWithLevel(level)(
            "The database session of listeners and locks was lost; it is opened again",
            cause
          )
          const lasted = (yield* Clock.currentTimeMillis) - connectedAt
          connectedAt = Infinity
          if (lasted < lasting) return yield* Effect.fail(cause)
        })),
        Effect.retry(reconnects),
        Effect.forever // the backoff begins again
      )

      return Session.of({
        isAvailable: true,
        use: (tenant) =>
          Effect.gen(function*() {
            yield* Effect.acquireRelease(
              Effect.sync(() => tenants.set(tenant, undefined)),
              () =>
                Effect.suspend(() => {
                  const fiber = tenants.get(tenant)
                  tenants.delete(tenant)
                  return fiber === undefined ? Effect.void : Fiber.interrupt(fiber)
                })
            )
            if (start !== undefined) start(tenant)
            else if (!isSupervised) {
              isSupervised = true
              yield* Effect.forkIn(supervised, layerScope)
            }
          })
      })
    })
  )
)

/** The session's connection, while there is one, for those who share it with others; `prepare` comes before it is used. */
export const connectionOf = Effect.fnUntraced(function*(
  session: Session["Service"],
  onLost: () => void,
  prepare: (connection: Connection) => Effect.Effect<void> = () => Effect.void
) {
  const open = Latch.makeUnsafe(false)
  let connection: Connection | undefined
  yield* session.use((opened) =>
    Effect.andThen(
      prepare(opened),
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
      )
    ).pipe(Effect.andThen(Effect.never))
  )
  return { connected: open.await, current: () => connection }
})
