/** What pages are shown with: the style and the script of the dashboard, and the two libraries that the script uses. */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"

interface Asset {
  readonly body: Uint8Array
  readonly contentType: string
}

/** Files of this package lie where they were written, wherever it was built to. */
const own = (name: string) => readFileSync(new URL(`../../src/dashboard/assets/${name}`, import.meta.url))

const { resolve } = createRequire(import.meta.url)

const script = "text/javascript; charset=utf-8"
const style = "text/css; charset=utf-8"

/** Reads them all. */
export const load = (): { readonly files: ReadonlyMap<string, Asset>; readonly version: string } => {
  const files = new Map<string, Asset>([
    ["dashboard.css", { body: own("dashboard.css"), contentType: style }],
    ["dashboard.js", { body: own("dashboard.js"), contentType: script }],
    ["icon.svg", { body: own("icon.svg"), contentType: "image/svg+xml" }],
    ["uplot.css", { body: readFileSync(resolve("uplot/dist/uPlot.min.css")), contentType: style }],
    ["uplot.js", { body: readFileSync(resolve("uplot/dist/uPlot.iife.min.js")), contentType: script }],
    ["idiomorph.js", { body: readFileSync(resolve("idiomorph/dist/idiomorph.min.js")), contentType: script }]
  ])
  const hash = createHash("sha256")
  for (const { body } of files.values()) hash.update(body)
  return { files, version: hash.digest("base64url").slice(0, 12) }
}
