// `npm run check`: everything about the code that is not a test. Each step tells how long it took; the first that fails
// ends the check with its output.
import { spawnSync } from "node:child_process"
import { delimiter, resolve } from "node:path"
import process from "node:process"

const steps = [
  "tsc",
  "tsc -p src/dashboard/assets",
  "effect-tsgo diagnostics --project tsconfig.json --strict",
  "oxlint",
  "dprint check",
  "npm run build",
  "publint --strict",
  "attw --pack . --profile esm-only",
  "npm run docs"
]

// The packages of tools/ bring another tsc: the one of the root comes first.
const path = [resolve("node_modules/.bin"), resolve("tools/node_modules/.bin"), process.env["PATH"]].join(delimiter)

for (const step of steps) {
  const start = performance.now()
  const { status, stderr, stdout } = spawnSync(step, {
    encoding: "utf8",
    env: { ...process.env, PATH: path },
    shell: true
  })
  const seconds = ((performance.now() - start) / 1000).toFixed(1)
  console.log(`${status === 0 ? "ok    " : "FAILED"} ${seconds.padStart(5)} s  ${step}`)
  if (status === 0) continue
  console.log(`${stdout}${stderr}`)
  process.exit(1)
}
