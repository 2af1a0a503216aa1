/**
 * Whether the statements of a connection run in one session of the server. Behind a pooler that shares sessions out by transaction
 * they do not, and a session's lock stays in one that other clients have next.
 */
import type { PgClientConfig } from "@effect/sql-pg/PgClient"
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"

type Connection = PgConnection.PgConnection

export interface Pooled {
  /** Looks at a connection that is new, before it takes a lock. */
  readonly look: (connection: Connection) => Effect.Effect<void>
  /** Notes in which session a statement ran, which it answers: see `inSession`. */
  readonly note: (connection: Connection, rows: ReadonlyArray<Readonly<Record<string, unknown>>>) => void
  /** Whether its statements have been found to run in several sessions. */
  readonly has: (connection: Connection | undefined) => boolean
}

/** A column: in which session a statement runs. */
export const inSession = "pg_catalog.pg_backend_pid() as session"

const sessionOf = (connection: Connection) =>
  Effect.map(connection.query(`select ${inSession}`), ({ rows }) => rows[0]?.["session"])

/** Two would do, if nobody else were there. */
const rounds = 4

export const make = (sql: SqlClient): Pooled => {
  const sessions = new WeakMap<Connection, unknown>()
  const looked = new WeakSet<Connection>()
  const pooled = new WeakSet<Connection>()
  const { config } = sql as { readonly config?: PgClientConfig }

  const look = Effect.fnUntraced(function*(connection: Connection) {
    const session = yield* sessionOf(connection)
    sessions.set(connection, session)
    // A server tells the number of the session when it is opened; a pooler tells another, its own.
    if (config === undefined || config.stream !== undefined || session === connection.processId) return
    // One that pools by transaction answers another client from this session, or this one from another: whether it takes the session
    // that was used last, or all of them in turn, however many there are. One that pools by session does neither.
    const { make: open } = yield* Effect.promise(() => import("@effect/sql-pg/PgConnection"))
    const other = yield* Effect.flatMap(open(config), ({ pin }) => pin)
    for (let round = 1; round <= rounds && !pooled.has(connection); round++) {
      for (let i = 0; i < round; i++) if ((yield* sessionOf(other)) === session) pooled.add(connection)
      if ((yield* sessionOf(connection)) !== session) pooled.add(connection)
    }
  }, Effect.scoped)

  return {
    // What fails, or waits until the pooler has a session, tells nothing: claims will.
    look: (connection) =>
      looked.has(connection)
        ? Effect.void
        : look(connection).pipe(
          Effect.timeoutOption("5 seconds"),
          Effect.ignore,
          Effect.ensuring(Effect.sync(() => looked.add(connection)))
        ),
    note: (connection, [row]) => {
      const session = row?.["session"]
      if (session === undefined) return
      if (!sessions.has(connection)) sessions.set(connection, session)
      else if (sessions.get(connection) !== session) pooled.add(connection)
    },
    has: (connection) => connection !== undefined && pooled.has(connection)
  }
}
