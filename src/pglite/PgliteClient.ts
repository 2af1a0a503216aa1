/**
 * A `SqlClient` (and `PgClient`) on PGlite: PostgreSQL 18 compiled to WebAssembly, inside this process, in memory or in
 * a directory. For tests, demonstrations, command line tools and desktop applications that want no server.
 *
 * **Guarantees**
 *
 * - It is the `PgClient` of `@effect/sql-pg`: statements, types, savepoints, isolation levels, `listen` and the reasons
 *   of `SqlError` are those of a server.
 * - Transactions are isolated from each other: each has the database to itself, from its first statement to its last.
 * - Statements and transactions get the database in the order in which they ask for it.
 * - A transaction whose fiber is interrupted, or whose session ends, is rolled back and frees the database. So is a
 *   statement that is interrupted while it waits: it never runs.
 * - Notifications of a committed transaction are in the queues of all listeners, and only theirs, when its commit returns.
 * - If PGlite fails or is closed, statements fail with a `ConnectionError`, and with the first of them every `listen`.
 *
 * **What it is not**
 *
 * - *Concurrent.* There is one transaction at a time: an open reader, a snapshot for instance, blocks all writers. A
 *   fiber that, inside a transaction, awaits a statement of another session (another fiber's, or one of `sql.reserve`,
 *   `sql.notify` and `sql.listen`, which ignore the transaction) waits forever.
 * - *In the background.* A statement runs on the calling thread and blocks its event loop. Once it runs it can be
 *   neither interrupted nor timed out: `statement_timeout` and `pg_sleep` included.
 * - *Durable against a crash of the machine.* PGlite never calls fsync, and no option makes it. A database in a directory
 *   survives the end of the process, `SIGKILL` included.
 * - *Shared.* A directory belongs to one process. A second one, or a second layer in this one, gets a `ConnectionError`.
 * - *A backend per session.* What belongs to a session in PostgreSQL belongs to all sessions here: `SET`, temporary
 *   tables, `pg_backend_pid()`, and session advisory locks, which hence exclude nobody. Use `SET LOCAL` and
 *   transaction-level advisory locks. `DISCARD ALL` affects all sessions. Startup parameters are ignored.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import type { PGlite, PGliteOptions } from "@electric-sql/pglite"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as DataDirectory from "./dataDirectory.ts"
import * as Sessions from "./sessions.ts"

/** The settings of the client itself; see `PgClient.PgClientConfig`. */
export interface ClientOptions extends
  Pick<
    PgClient.PgClientConfig,
    "transformResultNames" | "transformQueryNames" | "transformJson" | "types" | "spanAttributes"
  >
{
  /**
   * How many sessions may be open, 8 by default. A `listen` and a transaction hold one each; statements beyond wait for a
   * session to become free, so keep it above the number of listeners.
   */
  readonly maxConnections?: number | undefined
}

/** The settings of the client, and of the database that {@link layer} opens. */
export interface PgliteClientOptions extends ClientOptions {
  /**
   * The path of the directory that keeps the database; created with its parents if it is absent. Without it the database
   * is in memory and ends with the layer.
   */
  readonly dataDir?: string | undefined
  /** PGlite extensions, such as `{ pg_trgm }` from "@electric-sql/pglite/contrib/pg_trgm". */
  readonly extensions?: PGliteOptions["extensions"] | undefined
  /**
   * What `PGlite.dumpDataDir` returned: the content of a new database. Faster than creating an empty one (about 0.3
   * instead of 2-5 seconds), which pays in tests. Fails if `dataDir` holds a database already.
   */
  readonly loadDataDir?: PGliteOptions["loadDataDir"] | undefined
}

/**
 * Opens a PGlite database and provides a client of it. The scope of the layer closes the client, then the database.
 *
 * Fails with a `ConnectionError` if the database cannot be opened: the directory is in use, is not writable, or does not
 * hold a database of this PostgreSQL version.
 *
 * @example
 * ```ts
 * import { Effect } from "effect"
 * import { PgliteClient } from "effect-message-store/pglite"
 * import { SqlClient } from "effect/sql/SqlClient"
 *
 * const program = Effect.gen(function*() {
 *   const sql = yield* SqlClient
 *   return yield* sql`select 1 as one`
 * })
 *
 * program.pipe(Effect.provide(PgliteClient.layer()), Effect.runPromise)
 * ```
 */
export const layer = (
  options: PgliteClientOptions = {}
): Layer.Layer<PgClient.PgClient | SqlClient, SqlError> =>
  PgClient.layerFrom(Effect.flatMap(open(options), (database) => makeClient(database, options)))

/**
 * Provides a client of a PGlite that is given, and that its giver closes after the layer. If it is closed before, the next
 * statement fails, and with it every `listen`.
 *
 * Statements sent to `database` directly wait for the client's transactions and the other way round. Notifications do
 * not cross: a `database.listen` hears nothing of what the client notifies, nor the client of what `database` does.
 */
export const layerFrom = (
  database: PGlite,
  options: ClientOptions = {}
): Layer.Layer<PgClient.PgClient | SqlClient, SqlError> => PgClient.layerFrom(makeClient(database, options))

const open = Effect.fnUntraced(function*(
  options: PgliteClientOptions
): Effect.fn.Return<PGlite, SqlError, Scope.Scope> {
  const dataDir = options.dataDir === undefined ? undefined : yield* DataDirectory.acquire(options.dataDir)
  // PostgreSQL tells the reason of a refusal in its log alone
  const log: Array<string> = []
  let opening = true
  return yield* Effect.acquireRelease(
    Effect.tryPromise({
      try: async () => {
        const { PGlite } = await import("@electric-sql/pglite")
        const database = await PGlite.create({
          ...(dataDir !== undefined && { dataDir }),
          ...(options.extensions !== undefined && { extensions: options.extensions }),
          ...(options.loadDataDir !== undefined && { loadDataDir: options.loadDataDir }),
          onStderr: (line) => {
            if (opening) log.push(line)
            return true
          }
        })
        opening = false
        if (dataDir !== undefined) DataDirectory.created(dataDir)
        return database
      },
      catch: (cause) => DataDirectory.openError(dataDir, cause, log.length > 0 ? log.join("\n") : String(cause))
    }),
    (database) => Effect.ignore(Effect.tryPromise(() => database.close()))
  )
})

/** PostgreSQL's own limit of a value. The driver's default, 16 MiB, guards against servers that are not trusted. */
const maxMessageSize = 2 ** 30

const makeClient = (database: PGlite, options: ClientOptions) =>
  PgClient.make({
    transformResultNames: options.transformResultNames,
    transformQueryNames: options.transformQueryNames,
    transformJson: options.transformJson,
    types: options.types,
    spanAttributes: options.spanAttributes,
    maxConnections: options.maxConnections ?? 8,
    maxMessageSize,
    stream: Sessions.make(database),
    host: "pglite",
    username: "postgres",
    database: "postgres"
  })
