/** What the bench makes of its measurements; measuring is not a test's. */
import { assert, describe, it } from "@effect/vitest"
import { type Case, of } from "../bench/Case.ts"
import { casesNamed, selectCases } from "../bench/cases.ts"
import { caseTable, jsonRows, type Result } from "../bench/report.ts"
import { compareRuns, parseRun, type Run } from "../bench/run.ts"

const measured: Case = of("write-9", "nine writes", { kind: "write", fibers: 9, size: 1, streams: "own" }, [
  "@dcb-es",
  "effect-message-store (tags)"
])

const result = (first: ReadonlyArray<number>, second: ReadonlyArray<number>): Result => ({
  measured,
  rates: new Map([["@dcb-es", first], ["effect-message-store (tags)", second]])
})

const run = (...results: ReadonlyArray<Result>): Run => ({
  machine: "a machine",
  commit: null,
  rounds: 3,
  rows: jsonRows(results)
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
    const [baseline, library] = jsonRows([given])
    assert.deepStrictEqual(baseline, {
      case: "write-9",
      subject: "@dcb-es",
      unit: "messages/s",
      median: 100,
      min: 10,
      max: 100,
      ratio: null
    })
    assert.strictEqual(library?.ratio, 2)
    const [, , , , first = "", second = ""] = caseTable(given).split("\n")
    assert.include(first, "2.00 x")
    assert.notInclude(second, " x ")
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
