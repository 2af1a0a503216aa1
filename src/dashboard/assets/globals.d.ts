/** What the two libraries are called where their scripts have run. */
import type { Idiomorph as Morph } from "idiomorph"
import type Plot from "uplot"

declare global {
  const uPlot: typeof Plot
  type uPlot = Plot
  const Idiomorph: typeof Morph
}
