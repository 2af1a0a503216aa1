/** Markdown tables, and the numbers in them. */

/** Four digits are enough of small numbers. */
export const digits = (value: number): string =>
  (value < 100 ? Number(value.toPrecision(3)) : Math.round(value)).toLocaleString("en")

export const table = (heads: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = heads.map((head, i) => Math.max(head.length, ...rows.map((row) => row[i]?.length ?? 0)))
  const isText = (column: number) => rows.every((row) => !/^\d/.test(row[column] ?? ""))
  const line = (cells: ReadonlyArray<string>) =>
    `| ${cells.map((cell, i) => isText(i) ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)).join(" | ")} |`
  const rule = `| ${
    widths.map((width, i) => isText(i) ? "-".repeat(width) : `${"-".repeat(width - 1)}:`).join(" | ")
  } |`
  return [line(heads), rule, ...rows.map(line)].join("\n")
}
