/** What is made of the rates of rounds: rows, and Markdown tables of them. */
import { type Case, ours, tags } from "./Case.ts"
import { type Measurement, median, ratio } from "./measure.ts"
import type { ProcessorTime } from "./processor.ts"
import { describeRun, type Row, type Run } from "./run.ts"
import { digits, table } from "./table.ts"

export interface Result {
  readonly measured: Case
  /** Of each subject, what each round came to. The baseline is the first. */
  readonly rounds: ReadonlyMap<string, ReadonlyArray<Measurement>>
}

export const rowsOf = ({ measured, rounds }: Result): ReadonlyArray<Row> => {
  const rates = new Map(Array.from(rounds, ([subject, values]) => [subject, values.map(rateOf)]))
  const baseline = rates.get(measured.subjects[0]) ?? []
  // Where messages have tags, it is what the peers do as well.
  const library = measured.subjects.includes(tags) ? tags : measured.subjects.find((name) => name.startsWith(ours))
  const own = library && rates.get(library)
  return Array.from(rounds, ([subject, values]) => {
    const ofSubject = values.map(rateOf)
    return {
      case: measured.name,
      title: measured.title,
      subject,
      unit: measured.unit,
      median: median(ofSubject),
      min: Math.min(...ofSubject),
      max: Math.max(...ofSubject),
      ratio: subject === measured.subjects[0] ? null : finite(ratio(ofSubject, baseline)),
      library: own === undefined || subject === library ? null : finite(ratio(own, ofSubject)),
      client: microseconds(values, "client"),
      server: microseconds(values, "server")
    }
  })
}

const rateOf = ({ seconds, units }: Measurement): number => units / seconds

/** Of the processor, for each unit; null where it was not told. */
const microseconds = (values: ReadonlyArray<Measurement>, of: keyof ProcessorTime): number | null =>
  finite(median(values.map(({ processor, units }) => (processor?.[of] ?? NaN) * 1e6 / units)))

/** Nothing where nothing was done in a round. */
const finite = (value: number): number | null => Number.isFinite(value) ? value : null

/** The rows of one case: the first is that of the subject that the others are compared with. */
export const caseTable = (rows: ReadonlyArray<Row>): string => {
  const [first] = rows
  if (first === undefined) return ""
  const hasProcessor = rows.some(({ client }) => typeof client === "number")
  const cells = rows.map((row) => [
    row.subject,
    digits(row.median),
    `${digits(row.min)} - ${digits(row.max)}`,
    row === first ? "1.00" : times(row.ratio),
    times(row.library, " x"),
    ...hasProcessor ? [micros(row.client), micros(row.server)] : []
  ])
  const heads = [
    "subject",
    first.unit,
    "min - max",
    `to ${first.subject}`,
    "this library is at",
    ...hasProcessor ? ["client µs", "server µs"] : []
  ]
  return `**${first.case}**: ${first.title ?? first.case}\n\n${table(heads, cells)}`
}

const times = (value: number | null | undefined, unit = "") => typeof value === "number" ? value.toFixed(2) + unit : ""

const micros = (value: number | null | undefined) => typeof value === "number" ? digits(value) : ""

/** Costs of single operations by what is stored, from pairs of cases named `growth-{tail,write}-{messages}-{streams}`. */
export const growthTable = (rows: ReadonlyArray<Row>): string => {
  const cells = new Map<string, { tail?: string; write?: string }>()
  for (const { case: name, max, median: middle, min, subject } of rows) {
    if (subject !== ours) continue
    const [, kind, messages, streams] = name.split("-")
    const key = `${digits(Number(messages))}|${digits(Number(streams))}`
    const ofCall = (rate: number) => digits(1_000_000 / rate)
    const cell = `${ofCall(middle)} (${ofCall(max)} - ${ofCall(min)})`
    cells.set(key, { ...cells.get(key), [kind === "tail" ? "tail" : "write"]: cell })
  }
  const lines = Array.from(cells, ([key, { tail = "", write = "" }]) => [...key.split("|"), write, tail])
  return `**growth**: microseconds of a call, one at a time, median (min - max)\n\n${
    table(["messages stored", "streams", "one write", "last 10 messages of a stream"], lines)
  }`
}

export const isGrowth = (row: Row): boolean => row.case.startsWith("growth-")

/** All tables of a run, with the line that says what they are of. */
export const figures = (run: Run): string => {
  const byCase = Map.groupBy(run.rows.filter((row) => !isGrowth(row)), (row) => row.case)
  const growth = run.rows.filter(isGrowth)
  return [
    describeRun(run),
    ...Array.from(byCase.values(), caseTable),
    ...growth.length > 0 ? [growthTable(growth)] : []
  ].join("\n\n")
}

const begin = "<!-- What stands from here to the end of the tables is written by `npm run bench -- tables FILE`. -->"
const end = "<!-- The end of the tables. -->"

/** A document in which the tables are those of a run. */
export const withFigures = (document: string, run: Run): string => {
  const [from, to] = [document.indexOf(begin), document.indexOf(end)]
  if (from < 0 || to < from) throw new Error(`the document has no place for tables: ${begin} … ${end}`)
  return `${document.slice(0, from + begin.length)}\n\n${figures(run)}\n\n${document.slice(to)}`
}
