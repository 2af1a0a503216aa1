/** A run as `--json` writes it, and what differs between two of them. */
import { Schema } from "effect"
import { digits, table } from "./table.ts"

const RowSchema = Schema.Struct({
  case: Schema.String,
  title: Schema.optionalKey(Schema.String),
  subject: Schema.String,
  unit: Schema.String,
  /** Of the rounds. */
  median: Schema.Finite,
  min: Schema.Finite,
  max: Schema.Finite,
  /** To the first subject of the case: the median of the ratios within rounds. Null: it is the first, or that has done nothing. */
  ratio: Schema.NullOr(Schema.Finite),
  /** This library's rate to that of the subject, as well. Null: it is the library. */
  library: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  /** Microseconds of the processor that each unit takes, of the subject's process, and of those of the server. */
  client: Schema.optionalKey(Schema.NullOr(Schema.Finite)),
  server: Schema.optionalKey(Schema.NullOr(Schema.Finite))
})

export type Row = typeof RowSchema.Type

export const Run = Schema.Struct({
  /** The day on which it began. */
  date: Schema.optionalKey(Schema.String),
  /** What it took. */
  minutes: Schema.optionalKey(Schema.Finite),
  /** Where it ran: what the bench prints first. */
  machine: Schema.String,
  /** Of the repository, if it is one. */
  commit: Schema.NullOr(Schema.String),
  rounds: Schema.Int,
  rows: Schema.Array(RowSchema)
})

export type Run = typeof Run.Type

export const parseRun = Schema.decodeUnknownSync(Schema.fromJsonString(Run))

/** Where, when, and of what a run was. */
export const describeRun = ({ commit, date, machine, minutes, rounds }: Run): string =>
  [
    ...date === undefined ? [] : [date],
    machine,
    ...commit === null ? [] : [`commit ${commit}`],
    `${rounds} rounds`,
    ...minutes === undefined ? [] : [`${minutes} minutes in all`]
  ].join(", ")

/**
 * The rows that both runs have. Machines differ from day to day, and what is bound by one of them moves with it: the last two
 * columns are ratios to the first subject of the case, within rounds.
 */
export const compareRuns = (a: Run, b: Run): string => {
  const keyOf = (row: Row) => `${row.case}, ${row.subject}`
  const before = new Map(a.rows.map((row) => [keyOf(row), row]))
  const both = b.rows.flatMap((now) => {
    const earlier = before.get(keyOf(now))
    return earlier === undefined ? [] : [{ earlier, now }]
  })
  const known = new Set(both.map(({ now }) => keyOf(now)))
  const only = (run: Run) => run.rows.map(keyOf).filter((key) => !known.has(key))
  const rows = both.map(({ earlier, now }) => [
    now.case,
    now.subject,
    now.unit,
    digits(earlier.median),
    digits(now.median),
    earlier.median === 0 ? "" : (now.median / earlier.median).toFixed(2),
    now.min > earlier.max || now.max < earlier.min ? "apart" : "overlap",
    earlier.ratio?.toFixed(2) ?? "",
    now.ratio?.toFixed(2) ?? ""
  ])
  const heads = ["case", "subject", "unit", "A", "B", "B to A", "min - max", "A to the first", "B to the first"]
  const missing = Object.entries({ A: only(a), B: only(b) }).flatMap(([name, keys]) =>
    keys.length === 0 ? [] : [`Only in ${name}: ${keys.join("; ")}`]
  )
  return [`A: ${describeRun(a)}`, `B: ${describeRun(b)}`, "", table(heads, rows), ...missing].join("\n")
}
