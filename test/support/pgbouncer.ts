/** PgBouncer in front of the run's server, sharing its sessions out by transaction, unless it is told otherwise. */
import { PgClient } from "@effect/sql-pg"
import { Effect, Layer, Redacted, type Scope } from "effect"
import type { SqlClient, SqlError } from "effect/sql"
import { spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs/promises"
import * as net from "node:net"
import * as os from "node:os"
import * as path from "node:path"
import process from "node:process"
import { inject } from "vitest"
import { databaseLayer } from "./database.ts"

/** Debian's package puts it where only root's PATH leads to. */
const program = ["pgbouncer", "/usr/sbin/pgbouncer"].find((name) => spawnSync(name, ["--version"]).status === 0)

export const isInstalled = program !== undefined

/** How it shares sessions out. */
interface Pooling {
  readonly mode?: "session" | "transaction"
  /** Whether the next statement of a client meets another session, also where nothing else happens (default). */
  readonly inTurn?: boolean
  /** Whether the client opens its sockets itself: then nobody looks for a pooler. */
  readonly ownSockets?: boolean
}

/** Starts it, for the server at this URL; answers where it listens. Ends with the scope. */
const start = Effect.fnUntraced(function*(
  server: URL,
  pooling: Pooling
): Effect.fn.Return<string, never, Scope.Scope> {
  const directory = yield* Effect.acquireRelease(
    Effect.promise(() => fs.mkdtemp(path.join(os.tmpdir(), "pgbouncer-"))),
    (made) => Effect.promise(() => fs.rm(made, { recursive: true }))
  )
  const host = server.searchParams.get("host") ?? server.hostname
  const user = server.searchParams.get("user") ?? server.username
  const settings = [
    "[databases]",
    `* = host=${host} port=${server.port || 5432} user=${user}${server.password && ` password=${server.password}`}`,
    "[pgbouncer]",
    "listen_addr =",
    `unix_socket_dir = ${directory}`,
    "auth_type = any",
    `pool_mode = ${pooling.mode ?? "transaction"}`,
    "default_pool_size = 12",
    "min_pool_size = 3",
    `server_round_robin = ${pooling.inTurn === false ? 0 : 1}`,
    "ignore_startup_parameters = extra_float_digits"
  ]
  const file = path.join(directory, "pgbouncer.ini")
  // PgBouncer refuses to run as root, like PostgreSQL: there it runs as nobody.
  const nobody = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined
  yield* Effect.promise(async () => {
    await fs.writeFile(file, settings.join("\n"))
    if (nobody !== undefined) await fs.chown(directory, nobody.uid, nobody.gid)
  })
  yield* Effect.acquireRelease(
    Effect.callback<ReturnType<typeof spawn>>((resume) => {
      const child = spawn(program ?? "", [file], { ...nobody, stdio: ["ignore", "ignore", "pipe"] })
      let log = ""
      child.stderr.setEncoding("utf8").on("data", (text: string) => {
        log += text
        if (log.includes("process up")) resume(Effect.succeed(child))
      })
      child.once("exit", (code) => resume(Effect.die(new Error(`PgBouncer did not start (${code}):\n${log}`))))
    }),
    (child) =>
      Effect.callback<void>((resume) => {
        child.removeAllListeners("exit").once("exit", () => resume(Effect.void))
        child.kill("SIGQUIT")
      })
  )
  return directory
})

/** A client on a new, empty database, through PgBouncer, which cannot keep prepared statements. */
export const bounced = (pooling: Pooling): Layer.Layer<PgClient.PgClient | SqlClient.SqlClient, SqlError.SqlError> =>
  Layer.unwrap(
    Effect.gen(function*() {
      const { config } = yield* PgClient.PgClient
      const directory = yield* start(new URL(inject("postgresUrl")), pooling)
      return PgClient.layer({
        url: Redacted.make(
          `postgresql:///${config.database}?user=postgres&host=${encodeURIComponent(directory)}&port=6432`
        ),
        prepare: false,
        maxConnections: 10,
        ...pooling.ownSockets === true
          ? { stream: () => net.connect(path.join(directory, ".s.PGSQL.6432")) }
          : {}
      })
    })
  ).pipe(Layer.provide(databaseLayer({ maxConnections: 1 })))

export const bouncedLayer = bounced({})
