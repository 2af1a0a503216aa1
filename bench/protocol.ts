/** What the bench and its subjects' processes say to each other. */
import type { Measurement } from "./measure.ts"

export type Request =
  /** Make the store ready for a case; in a quick run, with less in it. */
  | { readonly _tag: "Prepare"; readonly caseName: string; readonly quick: boolean }
  | { readonly _tag: "Measure"; readonly milliseconds: number }
  /** Bring the planner's statistics up to date. */
  | { readonly _tag: "Analyze" }
  /** Compare what is stored with what was written. */
  | { readonly _tag: "Check" }

export type Reply =
  | { readonly _tag: "Done" }
  | { readonly _tag: "Measured"; readonly measurement: Measurement }
  | { readonly _tag: "Failed"; readonly reason: string }
