/** Where it runs, and what. */
import { spawnSync } from "node:child_process"
import * as os from "node:os"
import process from "node:process"

/** As in production, on a machine of some size. */
export const serverSettings = { shared_buffers: "1GB", max_wal_size: "8GB" }

export const describeMachine = (server: string): string =>
  `PostgreSQL ${server}, node ${process.version}, ${os.availableParallelism()} x ${os.cpus()[0]?.model.trim()}, ${
    Math.round(os.totalmem() / 2 ** 30)
  } GiB`

/** Of this checkout; with a plus sign if it has changes that are not committed. */
export const commitOf = (): string | null => {
  const git = spawnSync("git", ["describe", "--always", "--dirty=+", "--exclude=*"], {
    cwd: import.meta.dirname,
    encoding: "utf8"
  })
  return git.status === 0 ? git.stdout.trim() : null
}
