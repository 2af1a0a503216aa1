/**
 * JSON as text, as `JSON.stringify` writes it; which fails with values of some thousand levels, though PostgreSQL stores deeper
 * ones.
 */
import { Duration, Predicate } from "effect"

/** What is deeper is indented no further: then the text is not many times as large as the value. */
const deepest = 20

/** An array, or an object, that is being written. */
interface Opened {
  readonly of: object
  readonly names: ReadonlyArray<string> | undefined
  readonly size: number
  at: number
}

export interface TextOptions {
  /** Whether it is written by lines. Default `true`. */
  readonly indented?: boolean | undefined
  /** Ends with the beginning, of so many characters at least. Default: the whole is written. */
  readonly enough?: number | undefined
}

/** Times in ISO 8601, durations in milliseconds. */
const plain = (value: unknown): unknown =>
  Duration.isDuration(value)
    ? Duration.toMillis(value)
    : Predicate.hasProperty(value, "toJSON") && typeof value.toJSON === "function"
    ? value.toJSON()
    : value

/** Without recursion, whatever the depth. */
export const toText = (value: unknown, { enough = Infinity, indented = true }: TextOptions = {}): string => {
  const parts: Array<string> = []
  const opened: Array<Opened> = []
  let length = 0
  const put = (text: string) => {
    parts.push(text)
    length += text.length
  }
  const putLine = () => {
    if (indented) put(`\n${"  ".repeat(Math.min(opened.length, deepest))}`)
  }
  const begin = (given: unknown) => {
    const each = plain(given)
    if (typeof each !== "object" || each === null) return put(JSON.stringify(each) ?? "null")
    const names = Array.isArray(each)
      ? undefined
      : Object.keys(each).filter((name) => Reflect.get(each, name) !== undefined)
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
    if (name !== undefined) put(`${JSON.stringify(name)}:${indented ? " " : ""}`)
    begin(Reflect.get(of, name ?? at))
    last.at++
  }
  return parts.join("")
}
