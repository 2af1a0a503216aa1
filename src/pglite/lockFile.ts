/**
 * A lock between processes, as a file that names its owner: `process id`, `token`, and a word of the owner's.
 *
 * Every step is atomic in the file system: the file appears with its content by a hard link, and its owner changes it by a
 * rename. To take over a lock whose owner has ended, a process takes a second lock, which is named by the token of the
 * first, and then finds the first unchanged. Only the holder of the second lock may replace the first, so of many
 * processes that try at once, one succeeds. (A process that ends during a takeover leaves the second lock behind; it is
 * taken over in the same way.)
 *
 * Processes that do not see each other's ids (containers that share a volume) and worker threads of one process are not
 * told apart.
 */
import { randomUUID } from "node:crypto"
import * as NodeFs from "node:fs"

/** A lock that this process has. */
export interface Lock {
  /** The word that was left in the lock by an owner that ended; none if it is a new one. */
  readonly left: string | undefined
  /** Changes the word. */
  readonly note: (word: string | undefined) => void
  readonly release: () => void
}

/** The process that has the lock. */
interface Owner {
  readonly processId: string
}

/** Takes the lock; it keeps the word that an earlier owner left. */
export const acquire = (file: string): Lock | Owner => {
  const token = randomUUID()
  const content = (word: string | undefined) => `${[process.pid, token, word].join(" ").trimEnd()}\n`
  const owned = (left: string | undefined): Lock => {
    let written = content(left)
    return {
      left,
      note: (word) => replace(file, written = content(word)),
      release: () => {
        if (read(file) === written) NodeFs.rmSync(file) // else somebody removed it by hand, and another one took it
      }
    }
  }
  while (true) {
    if (create(file, content(undefined))) return owned(undefined)
    const found = read(file)
    if (found === undefined) continue
    const { processId, token: endedToken, word } = parse(found)
    if (isRunning(Number(processId))) return { processId }
    const takeover = acquire(`${file}.${endedToken}`)
    if (!("release" in takeover)) return takeover
    try {
      if (read(file) !== found) continue
      replace(file, content(word))
      return owned(word)
    } finally {
      takeover.release()
    }
  }
}

const parse = (content: string) => {
  const [, processId = "", token, word] = /^(\d+)(?: ([0-9a-f-]{36}))?(?: (\w+))?\s*$/.exec(content) ?? []
  return { processId, token: token ?? `of-${processId}`, word }
}

/** Whether the file did not exist, and does now, with this content. */
const create = (file: string, content: string): boolean =>
  withDraft(file, content, (draft) => {
    try {
      NodeFs.linkSync(draft, file)
      return true
    } catch (cause) {
      if (hasCode(cause, "EEXIST")) return false
      throw cause
    }
  })

const replace = (file: string, content: string): void =>
  withDraft(file, content, (draft) => NodeFs.renameSync(draft, file))

const withDraft = <A>(file: string, content: string, use: (draft: string) => A): A => {
  const draft = `${file}.${randomUUID()}`
  NodeFs.writeFileSync(draft, content, { flag: "wx" })
  try {
    return use(draft)
  } finally {
    NodeFs.rmSync(draft, { force: true })
  }
}

const read = (file: string): string | undefined => {
  try {
    return NodeFs.readFileSync(file, "utf8")
  } catch (cause) {
    if (hasCode(cause, "ENOENT")) return undefined
    throw cause
  }
}

/** Our own id was that of an earlier process: what this one has open, is known to its caller. */
const isRunning = (processId: number): boolean => {
  if (!Number.isInteger(processId) || processId <= 0 || processId === process.pid) return false
  try {
    process.kill(processId, 0)
    return true
  } catch (cause) {
    return hasCode(cause, "EPERM")
  }
}

const hasCode = (cause: unknown, code: string): boolean =>
  cause instanceof Error && "code" in cause && cause.code === code
