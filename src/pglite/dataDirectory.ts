/**
 * The lock on a data directory. PGlite takes none: a second PGlite on the same files reads stale pages and writes over
 * those of the first. PostgreSQL's own `postmaster.pid` is no help, since every PGlite believes to be process 42.
 *
 * The lock is a file with a process id, as PostgreSQL does it: it is left behind by a process that was killed and taken
 * over by the next one. Processes that do not see each other's ids (containers that share a volume) and worker threads
 * of one process are not told apart.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import * as NodeFs from "node:fs"
import * as NodePath from "node:path"

const lockName = "effect-message-store.lock"

/** Stands behind the process id in the lock of a directory whose database is not complete yet. */
const creating = "creating"

/** The directories that are open in this process, by their real path. */
const open = new Set<string>()

/**
 * Creates the directory with its parents if it is absent, locks it until the scope closes, and returns its real path.
 */
export const acquire = (directory: string): Effect.Effect<string, SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => lock(directory),
      catch: (cause) => openError(directory, cause, cause instanceof Error ? cause.message : String(cause))
    }),
    (path) => Effect.sync(() => unlock(path))
  )

/** Why a database could not be opened. */
export const openError = (directory: string | undefined, cause: unknown, message: string): SqlError =>
  new SqlError({
    reason: new ConnectionError({
      cause,
      message: `PgliteClient: cannot open ${directory ?? "a database in memory"}: ${message}`,
      operation: "connect"
    })
  })

const lock = (directory: string): string => {
  if (directory.includes("://")) throw new Error("dataDir is a path, not a URL; leave it out for a database in memory")
  NodeFs.mkdirSync(directory, { recursive: true })
  const path = NodeFs.realpathSync(directory)
  if (open.has(path)) throw new Error("it is already open in this process; share one layer")
  const file = NodePath.join(path, lockName)
  const [owner, state] = NodeFs.existsSync(file) ? NodeFs.readFileSync(file, "utf8").trim().split(" ") : []
  if (isRunning(Number(owner))) {
    throw new Error(`process ${owner} has it open; if that is no user of it, remove ${file}`)
  }
  let names = NodeFs.readdirSync(path).filter((name) => name !== lockName)
  if (state === creating) {
    // Its first user was killed before there was a database: what lies here is the half of one.
    for (const name of names) NodeFs.rmSync(NodePath.join(path, name), { recursive: true })
    names = []
  }
  if (names.length > 0 && !names.includes("PG_VERSION")) {
    throw new Error("it holds other files and no database; choose an empty or a new directory")
  }
  NodeFs.rmSync(file, { force: true })
  NodeFs.writeFileSync(file, names.length === 0 ? `${process.pid} ${creating}\n` : `${process.pid}\n`, { flag: "wx" })
  open.add(path)
  return path
}

/** To be called when the database is complete: until then, the lock says that it is being created. */
export const created = (path: string): void => NodeFs.writeFileSync(NodePath.join(path, lockName), `${process.pid}\n`)

const unlock = (path: string): void => {
  open.delete(path)
  try {
    const file = NodePath.join(path, lockName)
    // What was not completed is for the next user to clear away.
    if (!NodeFs.readFileSync(file, "utf8").includes(creating)) NodeFs.rmSync(file)
  } catch {
    // a lock that stays names a process that has ended: the next user takes it over
  }
}

/** Our own id, if we do not have the directory open, was that of an earlier process. */
const isRunning = (pid: number): boolean => {
  if (!Number.isInteger(pid) || pid <= 0 || pid === process.pid) return false
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    return cause instanceof Error && "code" in cause && cause.code === "EPERM"
  }
}
