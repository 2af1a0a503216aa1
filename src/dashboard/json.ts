/** JSON as people read it, in colours, and cut where it is long. */
import { type Content, type Html, html } from "./html.ts"

/** So much of a value is shown, in characters. */
const mostShown = 64 * 1024

/** What is deeper is indented no further: then the text is not many times as large as the message. */
const deepest = 20

/** An array, or an object, that is being written. */
interface Opened {
  readonly of: object
  readonly names: ReadonlyArray<string> | undefined
  readonly size: number
  at: number
}

/**
 * Its JSON, by lines; or the beginning of it, of so many characters at least. As `JSON.stringify` writes it, which fails with
 * values of some thousand levels: PostgreSQL stores more.
 */
export const toText = (value: unknown, enough = Infinity): string => {
  const parts: Array<string> = []
  const opened: Array<Opened> = []
  let length = 0
  const put = (text: string) => {
    parts.push(text)
    length += text.length
  }
  const putLine = () => put(`\n${"  ".repeat(Math.min(opened.length, deepest))}`)
  const begin = (each: unknown) => {
    if (typeof each !== "object" || each === null) return put(JSON.stringify(each) ?? "null")
    const names = Array.isArray(each) ? undefined : Object.keys(each)
    const size = Array.isArray(each) ? each.length : names?.length ?? 0
    if (size === 0) return put(names === undefined ? "[]" : "{}")
    put(names === undefined ? "[" : "{")
    opened.push({ of: each, names, size, at: 0 })
  }
  begin(value)
  const hasEnough = () => length >= enough
  for (let last = opened.at(-1); last !== undefined && !hasEnough(); last = opened.at(-1)) {
    const { at, names, of, size } = last
    if (at === size) {
      opened.pop()
      putLine()
      put(names === undefined ? "]" : "}")
      continue
    }
    if (at > 0) put(",")
    putLine()
    const name = names?.[at]
    if (name !== undefined) put(`${JSON.stringify(name)}: `)
    begin(Reflect.get(of, name ?? at))
    last.at++
  }
  return parts.join("")
}

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
  const text = toText(value, most + 1)
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
