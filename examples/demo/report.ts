/** Departures and delays per stream, and how they are shown. */
import { Duration } from "effect"
import type { FlightDeparted } from "./flights.ts"

export interface Total {
  readonly departures: number
  /** The sum of all delays, in minutes. */
  readonly delay: number
}

/** By stream name. */
export type Totals = Map<string, Total>

export const add = (totals: Totals, stream: string, { delay }: FlightDeparted): Totals => {
  const before = totals.get(stream) ?? { departures: 0, delay: 0 }
  return totals.set(stream, { departures: before.departures + 1, delay: before.delay + delay })
}

/** The streams whose totals are not the same in both. */
export const differences = (a: Totals, b: Totals): ReadonlyArray<string> =>
  [...new Set([...a.keys(), ...b.keys()])].filter((stream) =>
    a.get(stream)?.departures !== b.get(stream)?.departures || a.get(stream)?.delay !== b.get(stream)?.delay
  )

export const busiest = (totals: Totals, limit: number): string =>
  table([
    ["airport", "departures", "mean delay"],
    ...[...totals]
      .toSorted(([, a], [, b]) => b.departures - a.departures)
      .slice(0, limit)
      .map(([stream, total]) => [
        stream.replace("airport-", ""),
        count(total.departures),
        `${(total.delay / total.departures).toFixed(1)} min`
      ])
  ])

/** The first column to the left, the others to the right. */
const table = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const width = (column: number) => Math.max(...rows.map((row) => row[column]?.length ?? 0))
  return rows.map((row) =>
    row.map((cell, column) => column === 0 ? cell.padEnd(width(0)) : cell.padStart(width(column) + 3)).join("")
  ).join("\n")
}

/** `20,000 messages in 5.0 s: 4,000 per second` */
export const speed = (messages: number, duration: Duration.Duration): string => {
  const seconds = Duration.toSeconds(duration)
  return `${count(messages)} messages in ${seconds.toFixed(1)} s: ${count(Math.round(messages / seconds))} per second`
}

export const count = (n: number): string => n.toLocaleString("en-US")

export const bytes = (n: number): string => {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
  const unit = n < 1 ? 0 : Math.min(Math.floor(Math.log2(n) / 10), units.length - 1)
  return `${(n / 2 ** (10 * unit)).toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`
}
