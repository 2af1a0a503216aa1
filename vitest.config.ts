import * as path from "node:path"
import { defineConfig } from "vitest/config"
import { LongestFirst } from "./test/support/sequencer.ts"
import { TallyReporter } from "./test/support/tallyReporter.ts"

export default defineConfig({
  resolve: { conditions: ["@effect-message-store/source"] },
  ssr: { resolve: { conditions: ["@effect-message-store/source"] } },
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/globalSetup.ts"],
    reporters: ["default", new TallyReporter()],
    allowOnly: false,
    silent: "passed-only", // what the workers under test log is of interest where a test fails
    // With two, a seventh of the time of two processors was nobody's: tests wait for locks, leases and processes.
    maxWorkers: 3,
    isolate: false, // modules are loaded, and PGlite is made, once by each worker
    sequence: { sequencer: LongestFirst },
    env: { NODE_COMPILE_CACHE: path.resolve(import.meta.dirname, "node_modules/.cache/node") }, // for the processes that tests start, too
    testTimeout: 120_000,
    hookTimeout: 180_000,
    coverage: {
      provider: "v8",
      include: ["src/**/*.ts"]
    }
  }
})
