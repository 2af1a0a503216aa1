/** How far the work is: a bar on a terminal, and a line for every tenth anywhere else. */
import { Effect, type Scope } from "effect"
import { count } from "./report.ts"

export interface Progress {
  readonly advance: (steps: number) => Effect.Effect<void>
}

export const make = (total: number): Effect.Effect<Progress, never, Scope.Scope> => {
  let done = 0
  const out = process.stdout
  const text = () => `${String(Math.floor(100 * done / total)).padStart(3)} %  ${count(done)} of ${count(total)}`

  const redraw = () => {
    const width = Math.max(0, Math.min(40, out.columns - 30)) // a line that wraps cannot be drawn over
    const filled = Math.floor(width * done / total)
    out.write(`\r${"█".repeat(filled)}${"░".repeat(width - filled)} ${text()}`)
  }
  const printTenths = (before: number) => {
    if (Math.floor(10 * done / total) > Math.floor(10 * before / total)) out.write(`${text()}\n`)
  }

  const progress: Progress = {
    advance: (steps) =>
      Effect.sync(() => {
        done += steps
        if (out.isTTY) redraw()
        else printTenths(done - steps)
      })
  }
  // What comes next, an interruption included, begins on a line of its own.
  return Effect.as(Effect.addFinalizer(() => Effect.sync(() => out.isTTY && done > 0 && out.write("\n"))), progress)
}
