/** What is printed: a Markdown table for each case, and one for how speed holds as the store grows. */
import { type Case, ours } from "./Case.ts"
import { median, ratio } from "./measure.ts"

export interface Result {
  readonly measured: Case
  /** Of each subject, the rate of each round. The baseline is the first. */
  readonly rates: ReadonlyMap<string, ReadonlyArray<number>>
}

export const caseTable = ({ measured, rates }: Result): string => {
  const baseline = rates.get(measured.subjects[0]) ?? []
  const library = measured.subjects.find((name) => name.startsWith(ours)) ?? ours
  const own = rates.get(library)
  const rows = Array.from(rates, ([subject, values]) => {
    return [
      subject,
      whole(median(values)),
      `${whole(Math.min(...values))} - ${whole(Math.max(...values))}`,
      ratio(values, baseline).toFixed(2),
      own === undefined || subject === library ? "" : `${ratio(own, values).toFixed(2)} x`
    ]
  })
  const heads = ["subject", measured.unit, "min - max", `to ${measured.subjects[0]}`, "this library is at"]
  return `**${measured.name}**: ${measured.title}\n\n${table(heads, rows)}`
}

/** Costs of single operations by what is stored, from pairs of cases named `growth-{tail,write}-{messages}-{streams}`. */
export const growthTable = (results: ReadonlyArray<Result>): string => {
  const cells = new Map<string, { tail?: string; write?: string }>()
  for (const { measured: { name }, rates } of results) {
    const [, kind, messages, streams] = name.split("-")
    const key = `${whole(Number(messages))}|${whole(Number(streams))}`
    const values = rates.get(ours) ?? []
    const micros = (rate: number) => whole(1_000_000 / rate)
    const cell = `${micros(median(values))} (${micros(Math.max(...values))} - ${micros(Math.min(...values))})`
    cells.set(key, { ...cells.get(key), [kind === "tail" ? "tail" : "write"]: cell })
  }
  const rows = Array.from(cells, ([key, { tail = "", write = "" }]) => [...key.split("|"), write, tail])
  return `**growth**: microseconds of a call, one at a time, median (min - max)\n\n${
    table(["messages stored", "streams", "one write", "last 10 messages of a stream"], rows)
  }`
}

export const isGrowth = ({ measured }: Result): boolean => measured.name.startsWith("growth-")

/** The rows of `--json`. */
export const jsonRows = (results: ReadonlyArray<Result>) =>
  results.flatMap(({ measured, rates }) =>
    Array.from(rates, ([subject, values]) => ({
      case: measured.name,
      subject,
      median: median(values),
      min: Math.min(...values),
      max: Math.max(...values),
      unit: measured.unit
    }))
  )

/** Four digits are enough of small numbers. */
const whole = (value: number): string =>
  (value < 100 ? Number(value.toPrecision(3)) : Math.round(value)).toLocaleString("en")

const table = (heads: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const isText = (column: number) => rows.every((row) => !/^\d/.test(row[column] ?? ""))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${cells.map((cell, i) => isText(i) ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)).join(" | ")} |`
  const rule = `| ${
    widths.map((width, i) => isText(i) ? "-".repeat(width) : `${"-".repeat(width - 1)}:`).join(" | ")
  } |`
  return [line(heads), rule, ...rows.map(line)].join("\n")
}
