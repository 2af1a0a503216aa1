// Installs what package-lock.json asks for and node_modules does not hold: here, and in the folders named as arguments,
// which have packages of their own. Runs before npm scripts, so that a fresh clone needs no other command; silent and
// quick when there is nothing to do.
// Plain JavaScript for any node: the one the project pins is among the dependencies.
import { spawn } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { delimiter, join } from "node:path"
import process from "node:process"

/** @param {string} lockfile @returns {Record<string, { version?: string, optional?: boolean }>} */
const packagesOf = (lockfile) => existsSync(lockfile) ? JSON.parse(readFileSync(lockfile, "utf8")).packages : {}

/** @param {string} folder */
const missing = (folder) => {
  const installed = packagesOf(join(folder, "node_modules/.package-lock.json"))
  return Object.entries(packagesOf(join(folder, "package-lock.json"))).filter(([path, { optional, version }]) =>
    path !== "" && !optional && installed[path]?.version !== version
  ).length
}

/** @param {string} folder @returns {Promise<string | undefined>} what npm said, where it failed */
const install = (folder) =>
  new Promise((resolve) => {
    // Without the node of node_modules, which is about to be replaced.
    const path = (process.env["PATH"] ?? "").split(delimiter).filter((dir) => !dir.includes("node_modules"))
    const npm = spawn("npm", ["ci", "--loglevel=error", "--no-audit", "--no-fund"], {
      cwd: folder,
      env: { ...process.env, PATH: path.join(delimiter) },
      shell: process.platform === "win32",
      stdio: ["ignore", "pipe", "pipe"]
    })
    let output = ""
    for (const stream of [npm.stdout, npm.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        output += text
      })
    }
    npm.once("error", (error) => {
      output += error.message
    })
    npm.once("close", (code) => resolve(code === 0 ? undefined : output))
  })

const wanted = [".", ...process.argv.slice(2)]
  .map((folder) => ({ folder, packages: missing(folder) }))
  .filter(({ packages }) => packages > 0)

if (wanted.length > 0) {
  const start = performance.now()
  const seconds = () => Math.round((performance.now() - start) / 1000)
  const parts = wanted.map(({ folder, packages }) => `${packages} packages${folder === "." ? "" : ` for ${folder}`}`)
  const title = `installing ${parts.join(", ")} (npm ci)`
  const out = process.stdout
  out.write(`${title} ...`)
  const progress = setInterval(() => out.write(out.isTTY ? `\r${title} ... ${seconds()} s` : "."), 1000)
  const failures = (await Promise.all(wanted.map(({ folder }) => install(folder)))).filter((text) => text !== undefined)
  clearInterval(progress)
  const isDone = failures.length === 0
  out.write(isDone ? `${out.isTTY ? `\r${title} ...` : ""} done in ${seconds()} s\n` : " failed\n")
  for (const output of failures) console.error(output)
  if (!isDone) process.exit(1)
}
