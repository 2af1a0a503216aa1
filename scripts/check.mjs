// `npm run check`: everything about the code that is not a test. Each step tells how long it took; the first that fails
// ends the check with its output. The site, which needs nothing of the rest, is built beside it.
import { spawn } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { delimiter, join, resolve } from "node:path"
import process from "node:process"

const { name, version } = JSON.parse(readFileSync("package.json", "utf8"))
const folder = mkdtempSync(join(tmpdir(), "check-"))
const packed = join(folder, `${name}-${version}.tgz`)
process.once("exit", () => rmSync(folder, { recursive: true }))

const lanes = [
  [
    "tsc",
    "tsc -p src/dashboard/assets",
    "effect-tsgo diagnostics --project tsconfig.json --strict",
    "oxlint",
    "dprint check",
    `npm pack --silent --pack-destination ${folder}`, // builds it
    `publint --strict ${packed}`,
    `attw ${packed} --profile esm-only`
  ],
  ["npm run docs"]
]

// The packages of tools/ bring another tsc: the one of the root comes first.
const path = [resolve("node_modules/.bin"), resolve("tools/node_modules/.bin"), process.env["PATH"]].join(delimiter)

/** @param {string} step @returns {Promise<{ failed: boolean, output: string }>} */
const run = (step) =>
  new Promise((done) => {
    const child = spawn(step, { env: { ...process.env, PATH: path }, shell: true, stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text) => {
        output += text
      })
    }
    child.once("close", (code) => done({ failed: code !== 0, output }))
  })

await Promise.all(lanes.map(async (steps) => {
  for (const step of steps) {
    const start = performance.now()
    const { failed, output } = await run(step)
    if (process.exitCode === 1) return // another step has failed
    const seconds = ((performance.now() - start) / 1000).toFixed(1)
    console.log(`${failed ? "FAILED" : "ok    "} ${seconds.padStart(5)} s  ${step.replaceAll(folder, "$TMPDIR")}`)
    if (!failed) continue
    console.log(output)
    process.exitCode = 1
    return
  }
}))
