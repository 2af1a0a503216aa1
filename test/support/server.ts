/**
 * A PostgreSQL server that lives as long as its scope, for tests, benchmarks and the demo: the one `DATABASE_URL` names,
 * else a container, else the binaries npm installed. And fresh databases on it.
 */
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted, Schedule, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs/promises"
import * as path from "node:path"
import { container, hasContainers } from "../servers/container.ts"
import { embedded } from "../servers/embedded.ts"

export interface Server {
  /** What a line about this server should say: `18.4 (embedded)`. */
  readonly name: string
  /** A superuser's connection URL. */
  readonly url: string
}

export interface ServerOptions {
  /** Survive a crash, as production does. Off by default: tests only want to be fast. */
  readonly durable?: boolean
  /** Settings such as `{ shared_buffers: "1GB" }`. A server named by `DATABASE_URL` keeps its own. */
  readonly settings?: Readonly<Record<string, string>>
}

const settingsOf = (options: ServerOptions | undefined): ReadonlyArray<string> =>
  Object.entries({
    max_connections: "200",
    ...options?.durable === true
      ? {}
      : { fsync: "off", synchronous_commit: "off", full_page_writes: "off", deadlock_timeout: "100ms" },
    ...options?.settings
  }).flatMap(([name, value]) => ["-c", `${name}=${value}`])

/** Starts a server, or finds the one of `DATABASE_URL`. A server that cannot start is a defect. */
export const startServer = Effect.fnUntraced(function*(
  options?: ServerOptions
): Effect.fn.Return<Server, never, Scope.Scope> {
  const { kind, url } = yield* findServer(settingsOf(options))
  const [row] = yield* administer(url, (sql) => sql<{ readonly server_version: string }>`show server_version`)
  return { name: `${row?.server_version.split(" ")[0]} (${kind})`, url }
})

export interface OwnServer extends Server {
  /** `fast` ends sessions and writes all to disk; `immediate` ends as a crash does. Returns when it serves again. */
  readonly restart: (mode: "fast" | "immediate") => Effect.Effect<void>
}

/** Starts a server that a test may do anything to, from the binaries npm installed. */
export const startOwnServer = Effect.fnUntraced(function*(
  options?: ServerOptions
): Effect.fn.Return<OwnServer, never, Scope.Scope> {
  const { directory, url } = yield* embedded(settingsOf(options))
  const pidFile = path.join(directory, "data", "postmaster.pid")
  const running = Effect.tryPromise(async () => Number((await fs.readFile(pidFile, "utf8")).split("\n")[0]))
  return {
    name: "embedded",
    url,
    restart: Effect.fnUntraced(function*(mode) {
      const before = yield* Effect.orDie(running)
      yield* Effect.promise(() => fs.writeFile(path.join(directory, "restart"), ""))
      yield* Effect.sync(() => process.kill(before, mode === "fast" ? "SIGINT" : "SIGQUIT"))
      yield* Effect.repeat(Effect.orElseSucceed(running, () => before), {
        until: (pid) => pid !== before,
        schedule: Schedule.spaced("10 millis")
      })
      yield* administer(url, (sql) => sql`select 1`).pipe(
        Effect.sandbox,
        Effect.retry(Schedule.spaced("10 millis")),
        Effect.orDie
      )
    })
  }
})

/** A client on a new, empty database, which is dropped when the layer is released. */
export const layerDatabase = (
  url: string,
  options?: Pick<PgClient.PgPoolConfig, "maxConnections" | "multiplex" | "startupParameters">
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.unwrap(Effect.gen(function*() {
    const database = `esm_${randomUUID().replaceAll("-", "")}`
    yield* Effect.acquireRelease(
      administer(url, (sql) => sql`create database ${sql(database)}`),
      () => administer(url, (sql) => sql`drop database ${sql(database)} with (force)`)
    )
    return PgClient.layer({ url: Redacted.make(url), database, maxConnections: 10, ...options })
  }))

/** Runs one statement on a connection of its own, closed before the result is out. */
const administer = <A>(url: string, statement: (sql: SqlClient.SqlClient) => Effect.Effect<A, SqlError.SqlError>) =>
  Effect.flatMap(SqlClient.SqlClient, statement).pipe(
    Effect.provide(PgClient.layer({ url: Redacted.make(url), maxConnections: 1 })),
    Effect.orDie
  )

interface FoundServer {
  readonly kind: "DATABASE_URL" | "container" | "embedded"
  readonly url: string
}

const findServer = Effect.fnUntraced(function*(
  settings: ReadonlyArray<string>
): Effect.fn.Return<FoundServer, never, Scope.Scope> {
  const url = process.env["DATABASE_URL"]
  if (url) return { kind: "DATABASE_URL", url }
  if (yield* hasContainers) return { kind: "container", url: yield* container(settings) }
  return { kind: "embedded", url: (yield* embedded(settings)).url }
})
