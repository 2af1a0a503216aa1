/**
 * HTML, made by `html` alone: whatever is put into it is escaped here, for the place where it stands. There is no other way to
 * send markup to a browser, so that nothing which a message holds becomes part of a page.
 */
import { printable } from "../internal/printable.ts"

/** Markup that is safe to send. Nothing that was parsed from JSON is one. */
export class Html {
  readonly #markup: string
  private constructor(markup: string) {
    this.#markup = markup
  }
  /** @internal */
  static ofMarkup(markup: string): Html {
    return new Html(markup)
  }
  toString(): string {
    return this.#markup
  }
}

/** What can be put into HTML; `undefined` and `false` leave nothing. */
export type Content = Html | string | number | false | undefined | ReadonlyArray<Content>

const entities: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  "\"": "&quot;",
  "'": "&#39;"
}

const escape = (text: string): string => text.replace(/[&<>"']/g, (character) => entities[character] ?? "")

/** Where a value stands: between tags, inside of a quoted attribute, or among the attributes of a tag. */
type Place = "text" | "attribute" | "tag"

const placesOf = (strings: ReadonlyArray<string>): ReadonlyArray<Place> => {
  const places: Array<Place> = []
  let place: Place = "text"
  for (const part of strings) {
    for (const character of part) {
      if (place === "text") place = character === "<" ? "tag" : "text"
      else if (place === "attribute") place = character === "\"" ? "tag" : "attribute"
      else if (character === "\"") place = "attribute"
      else if (character === ">") place = "text"
    }
    places.push(place)
  }
  return places
}

const cache = new WeakMap<TemplateStringsArray, ReadonlyArray<Place>>()

const render = (value: Content, place: Place): string => {
  if (value === undefined || value === false) return ""
  if (Array.isArray(value)) return value.map((each: Content) => render(each, place)).join("")
  if (value instanceof Html) {
    if (place === "attribute") throw new TypeError("markup has no place in an attribute")
    return value.toString()
  }
  if (place === "tag") throw new TypeError("attributes are made by `attributes`, or quoted")
  // What would turn the direction of a line, or break it, is shown as what it is.
  return escape(place === "text" ? printable(String(value)) : String(value))
}

/** Markup in which every value is escaped. An attribute has to be quoted by `"`. */
export const html = (strings: TemplateStringsArray, ...values: ReadonlyArray<Content>): Html => {
  const places = cache.get(strings) ?? placesOf(strings)
  cache.set(strings, places)
  return Html.ofMarkup(
    strings.reduce((markup, part, i) => markup + render(values[i - 1], places[i - 1] ?? "text") + part)
  )
}

/** Attributes of a tag; those that are `undefined` or `false` are left out, and of `true` the name stands alone. */
export const attributes = (all: Readonly<Record<string, string | number | boolean | undefined>>): Html =>
  Html.ofMarkup(
    Object.entries(all)
      .flatMap(([name, value]) =>
        value === undefined || value === false
          ? []
          : [value === true ? ` ${name}` : ` ${name}="${escape(String(value))}"`]
      )
      .join("")
  )

/** Text of several lines, each as it may be shown. */
export const lines = (text: string): ReadonlyArray<Content> =>
  text.split("\n").flatMap((line, i) => i === 0 ? [line] : [Html.ofMarkup("\n"), line])

/** All of them, with something between each two. */
export const joined = (all: ReadonlyArray<Content>, between: Content): ReadonlyArray<Content> =>
  all.flatMap((each, i) => i === 0 ? [each] : [between, each])

export const none: Html = Html.ofMarkup("")
