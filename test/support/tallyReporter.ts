import type { Reporter, TestModule } from "vitest/node"

const backends = ["memory", "PGlite", "PostgreSQL"]

/**
 * Ends the output with how many tests each backend has and, as the very last line, how many tests passed and failed. What
 * failed outside a test (a file that does not load, a hook, an unhandled error, a run without tests) counts as one.
 */
export class TallyReporter implements Reporter {
  private lines = ["0 passed, 1 failed"] // until a run has ended

  onInit(): void {
    process.once("exit", () => {
      for (const line of this.lines) console.log(line)
    })
  }

  onTestRunEnd(modules: ReadonlyArray<TestModule>, unhandledErrors: ReadonlyArray<unknown>): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()])
    const suites = modules.flatMap((module) => [module, ...module.children.allSuites()])
    const count = (state: string) => tests.filter((test) => test.result().state === state).length
    const passed = count("passed")
    const errors = suites.flatMap((suite) => suite.errors()).length + unhandledErrors.length
    const failed = Math.max(count("failed") + errors, passed === 0 ? 1 : 0)
    const skipped = tests.length - passed - count("failed")
    if (failed > 0) process.exitCode = 1
    this.lines = [
      backends.map((name) => `${name}: ${tests.filter((test) => test.fullName.startsWith(name)).length}`).join(", "),
      `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`
    ]
  }
}
