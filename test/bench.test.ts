/** What the bench makes of its measurements; measuring is not a test's. */
import { assert, describe, it } from "@effect/vitest"
import * as fs from "node:fs"
import * as path from "node:path"
import { type Case, of } from "../bench/Case.ts"
import { casesNamed, selectCases } from "../bench/cases.ts"
import type { Measurement } from "../bench/measure.ts"
import { caseTable, rowsOf, withFigures } from "../bench/report.ts"
import { compareRuns, parseRun, type Row, type Run } from "../bench/run.ts"

const bench = path.join(import.meta.dirname, "../bench")
const readme = fs.readFileSync(path.join(bench, "README.md"), "utf8")

const measured: Case = of("write-9", "nine writes", { kind: "write", fibers: 9, size: 1, streams: "own" }, [
  "@dcb-es",
  "effect-message-store (tags)"
])

/** The rows of what these rates of rounds come to, each round of a second. */
const result = (first: ReadonlyArray<number>, second: ReadonlyArray<number>): ReadonlyArray<Row> => {
  const roundsOf = (rates: ReadonlyArray<number>): ReadonlyArray<Measurement> =>
    rates.map((units) => ({ units, seconds: 1, processor: { client: units / 1e6, server: undefined } }))
  return rowsOf({
    measured,
    rounds: new Map([["@dcb-es", roundsOf(first)], ["effect-message-store (tags)", roundsOf(second)]])
  })
}

const run = (...results: ReadonlyArray<ReadonlyArray<Row>>): Run => ({
  machine: "a machine",
  commit: null,
  rounds: 3,
  rows: results.flat()
})

describe("the bench", () => {
  it("selects a group by one word; a quick run of it has less to load", () => {
    const names = casesNamed("decide").map(({ name }) => name)
    assert.includeMembers(names, ["decide-write-1", "decide-append-64", "decide-hot-8", "decide-update-same"])
    assert.isTrue(names.every((name) => name.startsWith("decide-")))
    assert.deepStrictEqual(casesNamed("write-1").map(({ name }) => name), ["write-1"])
    const select = (quick: boolean) => selectCases({ only: ["decide-read-100000"], subjects: ["@dcb-es"], quick })[0]
    assert.deepStrictEqual(select(false)?.load, { streams: 1000, length: 1000 })
    assert.deepStrictEqual(select(true)?.load, { streams: 1000, length: 100 })
    assert.include(select(true)?.title, "10,000 matches among 100,000 messages")
    assert.deepStrictEqual(select(true)?.subjects, ["@dcb-es"])
  })

  it("measures a projection beside the subscription that does the same; a million messages only if asked for", () => {
    const one = (name: string, quick = false) => selectCases({ only: [name], subjects: [], quick })[0]
    const beside = one("projection")
    assert.deepStrictEqual(beside?.work, one("subscribe-upsert-16")?.work)
    assert.deepStrictEqual(beside?.load, one("subscribe-upsert-16")?.load)
    assert.deepStrictEqual(beside?.subjects, ["effect-message-store", "effect-message-store (projection)"])
    const names = (quick: boolean) => selectCases({ only: [], subjects: [], quick }).map(({ name }) => name)
    assert.includeMembers(names(false), ["projection", "scheduled"])
    assert.isFalse([...names(false), ...names(true)].some((name) => name.startsWith("catch-up")))
    assert.deepStrictEqual(casesNamed("catch-up").map(({ name, unit }) => [name, unit]), [
      ["catch-up-1000000", "messages/s"],
      ["catch-up-memory", "MiB"]
    ])
  })

  it("does less in a quick run, and says so", () => {
    for (const [name, all, fewer] of [["catch-up-1000000", 1_000_000, 100_000], ["scheduled", 10_000, 2000]] as const) {
      for (const [quick, messages] of [[false, all], [true, fewer]] as const) {
        const [selected] = selectCases({ only: [name], subjects: [], quick })
        assert.deepInclude(selected?.work, { messages })
        assert.include(selected?.title, messages.toLocaleString("en"))
        if (selected?.load !== undefined) assert.strictEqual(selected.load.streams * selected.load.length, messages)
      }
    }
  })

  it("takes ratios within rounds, to the first subject, and of the library whatever variant it is", () => {
    const given = result([100, 10, 100], [200, 30, 100])
    const [baseline, library] = given
    assert.deepStrictEqual(baseline, {
      case: "write-9",
      title: "nine writes",
      subject: "@dcb-es",
      unit: "messages/s",
      median: 100,
      min: 10,
      max: 100,
      ratio: null,
      library: 2,
      client: 1,
      server: null
    })
    assert.deepInclude(library, { ratio: 2, library: null })
    const [, , , , first = "", second = ""] = caseTable(given).split("\n")
    assert.include(first, "2.00 x")
    assert.notInclude(second, " x ")
  })

  it("puts the tables of a run where a document has a place for them, and leaves the rest of it", () => {
    const given: Run = { ...run(result([100, 10, 100], [200, 30, 100])), date: "2026-01-01", minutes: 3 }
    const begin = readme.slice(readme.indexOf("<!-- What stands"), readme.indexOf("-->") + 3)
    const document = `before\n\n${begin}\n\nold\n\n<!-- The end of the tables. -->\n\nafter\n`
    const written = withFigures(document, given)
    assert.match(
      written,
      /^before\n\n<!--.*-->\n\n2026-01-01, a machine, 3 rounds, 3 minutes in all\n\n\*\*write-9\*\*/
    )
    assert.match(written, /\| client µs \|/)
    assert.match(written, /\n\n<!-- The end of the tables. -->\n\nafter\n$/)
    assert.notInclude(written, "old")
    assert.strictEqual(withFigures(written, given), written)
    assert.throws(() => withFigures("no place", given), "no place for tables")
  })

  it("shows in its README the last run that is kept", () => {
    assert.strictEqual(
      withFigures(readme, parseRun(fs.readFileSync(path.join(bench, "last-run.json"), "utf8"))),
      readme
    )
  })

  it("writes runs that it reads again, also where the first subject has done nothing", () => {
    const given = run(result([0, 0, 0], [1, 2, 3]))
    assert.deepStrictEqual(parseRun(JSON.stringify(given)), given)
    assert.strictEqual(given.rows[1]?.ratio, null)
    assert.notMatch(caseTable(result([0, 0, 0], [1, 2, 3])), /NaN|Infinity/)
    assert.throws(() => parseRun("[]"), /machine|object/i)
  })

  it("compares the rows that two runs have in common, and names the others", () => {
    const text = compareRuns(
      run(result([100, 100, 100], [100, 110, 120])),
      { ...run(result([50, 50, 50], [130, 140, 150])), commit: "abc" }
    )
    const cells = text.split("\n").map((line) => line.split("|").map((cell) => cell.trim()))
    assert.deepInclude(cells, ["", "write-9", "@dcb-es", "messages/s", "100", "50", "0.50", "apart", "", "", ""])
    assert.deepInclude(cells, [
      "",
      "write-9",
      "effect-message-store (tags)",
      "messages/s",
      "110",
      "140",
      "1.27",
      "apart",
      "1.10",
      "2.80",
      ""
    ])
    assert.include(text, "B: a machine, commit abc, 3 rounds")
    const fewer = { ...run(), rows: run(result([1], [1])).rows.slice(0, 1) }
    assert.include(compareRuns(run(result([1], [1])), fewer), "Only in A: write-9, effect-message-store (tags)")
  })
})
