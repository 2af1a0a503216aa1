/** JSON as people read it, in colours, and cut where it is long. */
import { toText } from "../internal/jsonText.ts"
import { type Content, type Html, html } from "./html.ts"

/** So much of a value is shown, in characters. */
const mostShown = 64 * 1024

const token = /("(?:[^"\\]|\\.)*")(\s*:)?|\b(?:true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g

const colour = (line: string): Content => {
  const parts: Array<Content> = []
  let at = 0
  for (const match of line.matchAll(token)) {
    const [text, string, colon] = match
    parts.push(line.slice(at, match.index))
    parts.push(
      string === undefined
        ? html`<span class="j-value">${text}</span>`
        : colon === undefined
        ? html`<span class="j-string">${string}</span>`
        : [html`<span class="j-name">${string}</span>`, colon]
    )
    at = match.index + text.length
  }
  return [...parts, line.slice(at)]
}

/** Shown where a value is cut. */
export interface Whole {
  readonly href: string
  readonly size: () => string
}

export const json = (label: string, value: unknown, whole?: Whole, most = mostShown): Html => {
  const text = toText(value, { enough: most + 1 })
  const isCut = text.length > most
  const lines = (isCut ? text.slice(0, most) : text).split("\n")
  return html`<pre class="json" tabindex="0" aria-label="${label}">${
    // A line that was cut, perhaps within a string, has no colours.
    lines.map((line, i) =>
      html`<span class="line">${line.length > 10_000 || (isCut && i === lines.length - 1) ? line : colour(line)}</span>`
    )}</pre>${
    isCut &&
    html`<p class="cut">This is the beginning of it. ${
      whole && html`<a href="${whole.href}" download>Download the whole, ${whole.size()}</a>`
    }</p>`
  }`
}
