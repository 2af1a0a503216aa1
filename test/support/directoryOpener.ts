/**
 * A process that opens data directories: `directoryOpener.ts ROOT`. Says that it is ready; then, for each line it reads,
 * tries to open that directory below ROOT, answers with `had` or `refused`, and keeps what it has until its input ends.
 */
import { Effect, Scope } from "effect"
import { createInterface } from "node:readline"
import * as DataDirectory from "../../src/pglite/dataDirectory.ts"

const [root = "."] = process.argv.slice(2)
const scope = Scope.makeUnsafe()

console.log("ready")
createInterface(process.stdin).on("line", (name) => {
  const opened = Effect.runSyncExit(Scope.provide(DataDirectory.acquire(`${root}/${name}`), scope))
  console.log(opened._tag === "Success" ? "had" : "refused")
})
