import { assert, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"

it("compiles what must compile, and nothing else", () => {
  const tsc = spawnSync(process.execPath, ["node_modules/typescript/bin/tsc", "-p", "test/types"], { encoding: "utf8" })
  assert.strictEqual(tsc.stdout + tsc.stderr, "")
  assert.strictEqual(tsc.status, 0)
})
