// Installs the dependencies when node_modules does not hold what package-lock.json asks for. Runs before every npm
// script, so that a fresh clone needs no other command; silent and quick when there is nothing to do.
// Plain JavaScript for any node: the one the project pins is among the dependencies.
import { spawnSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { delimiter } from "node:path"
import process from "node:process"

/** @param {string} lockfile @returns {Record<string, { version?: string, optional?: boolean }>} */
const packagesOf = (lockfile) => existsSync(lockfile) ? JSON.parse(readFileSync(lockfile, "utf8")).packages : {}

const installed = packagesOf("node_modules/.package-lock.json")
const complete = Object.entries(packagesOf("package-lock.json")).every(([path, { optional, version }]) =>
  path === "" || optional || installed[path]?.version === version
)

if (!complete) {
  process.stdout.write("installing dependencies (npm ci) ... ")
  const start = performance.now()
  // Without the node of node_modules, which is about to be replaced.
  const path = (process.env["PATH"] ?? "").split(delimiter).filter((dir) => !dir.includes("node_modules"))
  const { error, status, stderr, stdout } = spawnSync("npm", ["ci"], {
    encoding: "utf8",
    env: { ...process.env, PATH: path.join(delimiter) },
    shell: process.platform === "win32"
  })
  if (status !== 0) {
    console.log("failed")
    console.error(error ?? stdout + stderr)
    process.exit(1)
  }
  console.log(`done in ${Math.round((performance.now() - start) / 1000)} s`)
}
