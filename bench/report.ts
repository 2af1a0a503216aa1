/** What is printed: a Markdown table for each case, and one for how speed holds as the store grows. */
import { type Case, ours, tags } from "./Case.ts"
import { median, ratio } from "./measure.ts"
import type { Run } from "./run.ts"
import { digits, table } from "./table.ts"

export interface Result {
  readonly measured: Case
  /** Of each subject, the rate of each round. The baseline is the first. */
  readonly rates: ReadonlyMap<string, ReadonlyArray<number>>
}

export const caseTable = ({ measured, rates }: Result): string => {
  const baseline = rates.get(measured.subjects[0]) ?? []
  // Where messages have tags, it is what the peers do as well.
  const library = measured.subjects.includes(tags) ? tags : measured.subjects.find((name) => name.startsWith(ours))
  const own = library && rates.get(library)
  const rows = Array.from(rates, ([subject, values]) => {
    return [
      subject,
      digits(median(values)),
      `${digits(Math.min(...values))} - ${digits(Math.max(...values))}`,
      times(ratio(values, baseline)),
      own === undefined || subject === library ? "" : times(ratio(own, values), " x")
    ]
  })
  const heads = ["subject", measured.unit, "min - max", `to ${measured.subjects[0]}`, "this library is at"]
  return `**${measured.name}**: ${measured.title}\n\n${table(heads, rows)}`
}

/** Nothing where nothing was done in a round. */
const times = (value: number, unit = "") => Number.isFinite(value) ? `${value.toFixed(2)}${unit}` : ""

/** Costs of single operations by what is stored, from pairs of cases named `growth-{tail,write}-{messages}-{streams}`. */
export const growthTable = (results: ReadonlyArray<Result>): string => {
  const cells = new Map<string, { tail?: string; write?: string }>()
  for (const { measured: { name }, rates } of results) {
    const [, kind, messages, streams] = name.split("-")
    const key = `${digits(Number(messages))}|${digits(Number(streams))}`
    const values = rates.get(ours) ?? []
    const micros = (rate: number) => digits(1_000_000 / rate)
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
export const jsonRows = (results: ReadonlyArray<Result>): Run["rows"] =>
  results.flatMap(({ measured, rates }) => {
    const baseline = rates.get(measured.subjects[0]) ?? []
    return Array.from(rates, ([subject, values]) => {
      const toBaseline = ratio(values, baseline)
      return {
        case: measured.name,
        subject,
        unit: measured.unit,
        median: median(values),
        min: Math.min(...values),
        max: Math.max(...values),
        ratio: values !== baseline && Number.isFinite(toBaseline) ? toBaseline : null
      }
    })
  })
