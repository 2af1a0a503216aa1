/** The system's Chromium, driven from outside. */
import { Effect, type Scope } from "effect"
import { spawnSync } from "node:child_process"
import process from "node:process"
import { type Browser, chromium } from "playwright-core"

const program = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"].find((name) =>
  spawnSync(name, ["--version"]).status === 0
)

const path = program === undefined
  ? undefined
  : spawnSync("sh", ["-c", `command -v ${program}`], { encoding: "utf8" }).stdout.trim()

export const hasBrowser = path !== undefined

/** Starts it without a window. Ends with the scope. */
export const startBrowser: Effect.Effect<Browser, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(() =>
    chromium.launch({
      executablePath: path ?? "",
      // Its sandbox does not work for root.
      chromiumSandbox: process.getuid?.() !== 0
    })
  ),
  (browser) => Effect.promise(() => browser.close())
)
