/**
 * What commands print: tables on a terminal, lines with tabs where the output is read by something else, and JSON for who asks
 * for it. Whatever comes from the database is printed so that a terminal shows it, and does nothing else with it.
 */
import { Console, Effect } from "effect"
import { CliOutput, TerminalCapabilities } from "effect/cli"
import { type TextOptions, toText as jsonText } from "../internal/jsonText.ts"
import { printable } from "../internal/printable.ts"

export type Colour = "red" | "yellow" | "green" | "dim" | "bold"

const codes: Readonly<Record<Colour, number>> = { red: 31, yellow: 33, green: 32, dim: 2, bold: 1 }

/** Text that is printed as it is, but for what a terminal would do with it; in a colour if there are colours. */
export interface Cell {
  readonly text: string
  readonly colour?: Colour | undefined
  /** Numbers stand at the right. */
  readonly right?: boolean | undefined
}

/** Longer text is cut: the type of a message may be as large as the message. */
const longestText = 2000

const textOf = (value: string): string =>
  printable(value.length > longestText ? `${value.slice(0, longestText)}…` : value)

export const cell = (value: string | number | undefined, colour?: Colour): Cell => ({
  text: value === undefined ? "" : typeof value === "number" ? value.toLocaleString("en-US") : textOf(value),
  colour,
  right: typeof value === "number"
})

/** As other programs like numbers. */
const plain = ({ right, text }: Cell): string => right === true ? text.replaceAll(",", "") : text

const painted = (text: string, colour: Colour | undefined, canColor: boolean): string =>
  canColor && colour !== undefined ? `\u001b[${codes[colour]}m${text}\u001b[0m` : text

const isTerminal = Effect.map(TerminalCapabilities.TerminalCapabilities, ({ canAnimate }) => canAnimate)

/** One line. */
export const line = (text: string, colour?: Colour): Effect.Effect<void> =>
  Effect.flatMap(
    TerminalCapabilities.TerminalCapabilities,
    ({ canColor }) => Console.log(painted(text, colour, canColor))
  )

/** A line for whoever sits at the terminal, beside what the command prints. */
export const hint = (text: string): Effect.Effect<void> =>
  Effect.flatMap(
    TerminalCapabilities.TerminalCapabilities,
    ({ canColor }) => Console.error(painted(text, "dim", canColor))
  )

const pad = ({ right, text }: Cell, width: number): string => {
  const space = " ".repeat(Math.max(0, width - CliOutput.displayWidth(text)))
  return right === true ? space + text : text + space
}

/** Columns that line up on a terminal, and are parted by tabs elsewhere; with their names on top. */
export const table = (
  columns: ReadonlyArray<string>,
  rows: ReadonlyArray<ReadonlyArray<Cell>>
): Effect.Effect<void> =>
  Effect.gen(function*() {
    const { canColor } = yield* TerminalCapabilities.TerminalCapabilities
    if (!(yield* isTerminal)) {
      for (const row of [columns.map((text) => ({ text })), ...rows]) yield* Console.log(row.map(plain).join("\t"))
      return
    }
    const heads = columns.map((text, i): Cell => ({
      text: text.toUpperCase(),
      colour: "dim",
      right: rows[0]?.[i]?.right
    }))
    const widths = columns.map((_, i) =>
      Math.max(...[heads, ...rows].map((row) => CliOutput.displayWidth(row[i]?.text ?? "")))
    )
    for (const row of [heads, ...rows]) {
      const text = row.map((each, i) => painted(pad(each, widths[i] ?? 0), each.colour, canColor)).join("  ")
      yield* Console.log(text.trimEnd())
    }
  })

/** JSON in which no character does anything to a terminal. */
export const toText = (value: unknown, options: TextOptions): string =>
  jsonText(value, options).split("\n").map(printable).join("\n")

export const json = (value: unknown): Effect.Effect<void> =>
  Effect.flatMap(isTerminal, (on) => Console.log(toText(value, { indented: on })))
