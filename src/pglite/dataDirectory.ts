/**
 * The lock on a data directory. PGlite takes none: a second PGlite on the same files reads stale pages and writes over
 * those of the first. PostgreSQL's own `postmaster.pid` does not help: every PGlite takes itself for process 42.
 *
 * The lock is left behind by a process that was killed, and taken over by the next one.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { ConnectionError, SqlError } from "effect/sql/SqlError"
import * as NodeFs from "node:fs"
import * as NodePath from "node:path"
import * as LockFile from "./lockFile.ts"

const lockName = "effect-message-store.lock"

/** The word in the lock of a directory whose database is not complete yet. */
const creating = "creating"

/** A directory that is open in this process. */
interface Open {
  readonly lock: LockFile.Lock
  complete: boolean
}

/** By their real paths. */
const open = new Map<string, Open>()

/**
 * Creates the directory with its parents if it is absent, locks it until the scope closes, and returns its real path.
 */
export const acquire = (directory: string): Effect.Effect<string, SqlError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.try({
      try: () => lockDirectory(directory),
      catch: (cause) => openError(directory, cause, cause instanceof Error ? cause.message : String(cause))
    }),
    (path) => Effect.sync(() => unlockDirectory(path))
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

const lockDirectory = (directory: string): string => {
  if (directory.includes("://")) throw new Error("dataDir is a path, not a URL; leave it out for a database in memory")
  NodeFs.mkdirSync(directory, { recursive: true })
  const path = NodeFs.realpathSync(directory)
  if (open.has(path)) throw new Error("it is already open in this process; share one layer")
  const file = NodePath.join(path, lockName)
  const lock = LockFile.acquire(file)
  if (!("release" in lock)) {
    throw new Error(
      `process ${lock.processId} has it open, and only one can: end that one, or, if it is no user of it, remove ${file}`
    )
  }
  try {
    open.set(path, { lock, complete: hasDatabase(path, lock) })
    return path
  } catch (cause) {
    lock.release()
    throw cause
  }
}

/** Whether the directory has a database. If not, it is empty, and the lock says that one is being created. */
const hasDatabase = (path: string, lock: LockFile.Lock): boolean => {
  const names = NodeFs.readdirSync(path).filter((name) => !name.startsWith(lockName))
  if (lock.left === creating) {
    // Its creator was killed before the database was complete: these files are part of one.
    for (const name of names) NodeFs.rmSync(NodePath.join(path, name), { recursive: true })
    return false
  }
  if (names.length === 0) {
    lock.note(creating)
    return false
  }
  if (names.includes("PG_VERSION")) return true
  throw new Error("it holds other files and no database; choose an empty or a new directory")
}

/** To be called when the database is complete: until then, the lock says that it is being created. */
export const created = (path: string): void => {
  const opened = open.get(path)
  if (opened === undefined || opened.complete) return
  opened.lock.note(undefined)
  opened.complete = true
}

const unlockDirectory = (path: string): void => {
  const opened = open.get(path)
  open.delete(path)
  // A database that is not complete is removed by the next one that opens the directory.
  if (opened?.complete !== true) return
  try {
    opened.lock.release()
  } catch {
    // The lock stays and will name a process that has ended: it is taken over.
  }
}
