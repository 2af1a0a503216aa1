/** How far the work is: a bar on a terminal, and a line for every tenth anywhere else. */
import { Effect, type Scope } from "effect"
import { count } from "./report.ts"

export interface Progress {
  /** So many flights more are known to be stored; how many of them were written now. */
  readonly stored: (flights: number, written: number) => Effect.Effect<void>
  /** Of all flights, those that the table has. */
  readonly counted: (flights: number) => Effect.Effect<void>
}

export const make = (total: number): Effect.Effect<Progress, never, Scope.Scope> => {
  let stored = 0
  let found = 0
  let counted = 0
  let shown = 0
  const out = process.stdout
  const part = () => (stored + counted) / (2 * total)
  const text = () => {
    const percent = `${String(Math.floor(100 * part())).padStart(3)} %`
    const written = `${count(stored - found)}${found === 0 ? ` of ${count(total)}` : ""} written`
    return `${percent}  ${written}${found === 0 ? "" : `, ${count(found)} found`}, ${count(counted)} counted`
  }

  const redraw = () => {
    const width = Math.max(0, Math.min(40, out.columns - 60)) // a line that wraps cannot be drawn over
    const filled = Math.floor(width * part())
    out.write(`\r${"█".repeat(filled)}${"░".repeat(width - filled)} ${text()} `)
  }
  const printTenths = () => {
    const tenths = Math.floor(10 * part())
    if (tenths > shown) out.write(`${text()}\n`)
    shown = tenths
  }
  const show = Effect.sync(() => {
    if (stored === 0) return // nor is it known whether flights are written or found
    if (out.isTTY) redraw()
    else printTenths()
  })

  const progress: Progress = {
    stored: (flights, written) =>
      Effect.andThen(
        Effect.sync(() => {
          stored += flights
          found += flights - written
        }),
        show
      ),
    counted: (flights) => Effect.andThen(Effect.sync(() => counted = flights), show)
  }
  // What comes next, an interruption included, begins on a line of its own.
  return Effect.as(Effect.addFinalizer(() => Effect.sync(() => out.isTTY && stored > 0 && out.write("\n"))), progress)
}
