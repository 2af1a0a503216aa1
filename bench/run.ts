/** A run as `--json` writes it, and what differs between two of them. */
import { Schema } from "effect"
import { digits, table } from "./table.ts"

const Row = Schema.Struct({
  case: Schema.String,
  subject: Schema.String,
  unit: Schema.String,
  /** Of the rounds. */
  median: Schema.Finite,
  min: Schema.Finite,
  max: Schema.Finite,
  /** To the first subject of the case: the median of the ratios within rounds. Null: it is the first, or that has done nothing. */
  ratio: Schema.NullOr(Schema.Finite)
})

export const Run = Schema.Struct({
  /** Where it ran: what the bench prints first. */
  machine: Schema.String,
  /** Of the repository, if it is one. */
  commit: Schema.NullOr(Schema.String),
  rounds: Schema.Int,
  rows: Schema.Array(Row)
})

export type Run = typeof Run.Type

export const parseRun = Schema.decodeUnknownSync(Schema.fromJsonString(Run))

/**
 * The rows that both runs have. Machines differ from day to day, and what is bound by one of them moves with it: the last two
 * columns are ratios to the first subject of the case, within rounds.
 */
export const compareRuns = (a: Run, b: Run): string => {
  const keyOf = (row: Run["rows"][number]) => `${row.case}, ${row.subject}`
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
  const about = ({ commit, machine, rounds }: Run) =>
    `${machine}${commit === null ? "" : `, commit ${commit}`}, ${rounds} rounds`
  const missing = Object.entries({ A: only(a), B: only(b) }).flatMap(([name, keys]) =>
    keys.length === 0 ? [] : [`Only in ${name}: ${keys.join("; ")}`]
  )
  return [`A: ${about(a)}`, `B: ${about(b)}`, "", table(heads, rows), ...missing].join("\n")
}
