/** JSON as people read it, in colours, and cut where it is long. */
import { type Content, type Html, html } from "./html.ts"

/** So much of a value is shown, in characters. */
const mostShown = 64 * 1024

/** The whole, for who takes it home. */
export const toText = (value: unknown): string => JSON.stringify(value, undefined, 2) ?? "null"

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
  readonly size: string
}

export const json = (label: string, value: unknown): Html => jsonText(label, toText(value))

/** The same of what `toText` has made already: a message may be large. */
export const jsonText = (label: string, text: string, whole?: Whole): Html => {
  const isCut = text.length > mostShown
  const shown = isCut ? text.slice(0, mostShown) : text
  return html`<pre class="json" tabindex="0" aria-label="${label}">${
    // A line that was cut in the middle of a string is not coloured any more.
    shown.split("\n").map((line) =>
      html`<span class="line">${line.length > 10_000 ? line : colour(line)}</span>`
    )}</pre>${
    isCut &&
    html`<p class="cut">This is the beginning of it. ${
      whole && html`<a href="${whole.href}" download>Download the whole, ${whole.size}</a>`
    }</p>`
  }`
}
