/** `npm run bench`: this library, the SQL below it, and its peers, measured side by side. */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, type Scope } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import * as fs from "node:fs"
import * as path from "node:path"
import process from "node:process"
import { pathToFileURL } from "node:url"
import { parseArgs } from "node:util"
import { startServer } from "../test/support/server.ts"
import type { Case } from "./Case.ts"
import { cases, casesNamed, selectCases } from "./cases.ts"
import { commitOf, describeMachine, serverSettings } from "./machine.ts"
import { type Measurement, rotate } from "./measure.ts"
import { type RemoteSubject, startSubject, type SubjectError } from "./remote.ts"
import { caseTable, growthTable, isGrowth, rowsOf, withFigures } from "./report.ts"
import { compareRuns, parseRun, type Row, type Run } from "./run.ts"
import { main as soak, usage as soakUsage } from "./soak/soak.ts"
import { type SubjectName, subjects } from "./subjects/index.ts"

const usage = `usage: npm run bench -- [CASE ...] [--only CASE,CASE] [--subjects NAME,NAME] [--rounds N] [--quick]
       [--minutes N] [--against DIR] [--json FILE]
       npm run bench -- compare A.json B.json
       npm run bench -- tables RUN.json
       ${soakUsage}

  CASE         run the cases whose names contain this: ${
  Array.from(new Set(cases.map(({ name }) => name.replace(/^growth-.*/, "growth")))).join(", ")
}
  --only       the same, separated by commas
  --subjects   measure these alone: ${Object.keys(subjects).join(", ")}
  --rounds N   how often each subject is measured; 5, with --quick 2
  --minutes N  begin no case after so many minutes; those that are left out are named
  --quick      a rough picture in less than two minutes
  --against DIR  measure this library as it is in another checkout as well, in the same rounds: what a change costs;
               cases that it does not have are measured without it
  --json FILE  write the results there
  compare      say what differs between two runs that --json has written
  tables       put the tables of such a run into bench/README.md`

interface Options {
  readonly only: ReadonlyArray<string>
  readonly subjects: ReadonlyArray<string>
  readonly quick: boolean
  readonly rounds: number
  /** After which no case begins. */
  readonly minutes: number
  /** Another checkout of this library. */
  readonly against: string | undefined
  readonly json: string | undefined
}

const readOptions = (args: ReadonlyArray<string>): Options => {
  const { positionals, values } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      against: { type: "string" },
      help: { type: "boolean", short: "h" },
      json: { type: "string" },
      minutes: { type: "string" },
      only: { type: "string" },
      quick: { type: "boolean", default: false },
      rounds: { type: "string" },
      subjects: { type: "string" }
    }
  })
  if (values.help === true) {
    console.log(usage)
    process.exit(0)
  }
  const rounds = values.rounds ?? (values.quick ? "2" : "5")
  if (!/^[1-9]\d{0,3}$/.test(rounds)) throw new Error(`--rounds must be a number from 1 on, not ${rounds}`)
  const minutes = values.minutes ?? "Infinity"
  if (!/^([1-9]\d{0,3}|Infinity)$/.test(minutes)) {
    throw new Error(`--minutes must be a number from 1 on, not ${minutes}`)
  }
  const only = [...positionals, ...(values.only?.split(",") ?? [])].filter((word) => word !== "")
  for (const word of only) {
    if (casesNamed(word).length === 0) throw new Error(`there is no case named ${word}`)
  }
  const chosen = values.subjects?.split(",").map((name) => name.trim()) ?? []
  for (const name of chosen) {
    if (!Object.hasOwn(subjects, name)) throw new Error(`there is no subject named ${name}`)
  }
  const against = values.against === undefined ? undefined : path.resolve(values.against)
  if (against !== undefined && !fs.existsSync(path.join(against, "bench/child.ts"))) {
    throw new Error(`--against must be a checkout of this library, not ${against}`)
  }
  return {
    only,
    subjects: chosen,
    quick: values.quick,
    rounds: Number(rounds),
    minutes: Number(minutes),
    against,
    json: values.json
  }
}

const progress = (text: string) =>
  Effect.sync(() => {
    if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${text}`)
  })

const program = Effect.fnUntraced(function*(options: Options) {
  const selected = selectCases(options)
  const begun = Date.now()
  yield* progress("starting PostgreSQL")
  const server = yield* startServer({
    durable: true,
    settings: {
      ...serverSettings,
      // Counting costs a little: only where statements are what is measured.
      ...selected.some(({ work }) =>
          work.kind === "statements" || (work.kind === "start" && work.measures === "statements")
        )
        ? { shared_preload_libraries: "pg_stat_statements" }
        : {}
    }
  })
  yield* progress("")
  const machine = describeMachine(server.name)
  console.log(`${machine}; ${options.rounds} rounds of ${milliseconds(options) / 1000} s\n`)
  const started = new Map<string, RemoteSubject>()
  const start = Effect.fnUntraced(function*(name: SubjectName, checkout?: string) {
    const key = `${checkout} ${name}`
    const subject = started.get(key) ?? (yield* startSubject(name, server.url, checkout))
    started.set(key, subject)
    return subject
  })

  const known = options.against === undefined ? [] : yield* casesOf(options.against)
  const rows: Array<Row> = []
  const leftOut: Array<string> = []
  for (const measured of selected) {
    if (Date.now() - begun > options.minutes * 60_000) {
      leftOut.push(measured.name)
      continue
    }
    const ofCase = rowsOf(yield* runCase(measured, options, known, start))
    rows.push(...ofCase)
    if (options.json !== undefined) {
      const date = new Date(begun).toISOString().slice(0, 10)
      const minutes = Math.round((Date.now() - begun) / 60_000)
      const run: Run = { date, minutes, machine, commit: commitOf(), rounds: options.rounds, rows }
      fs.writeFileSync(options.json, `${JSON.stringify(run, null, 2)}\n`)
    }
    yield* progress("")
    if (!ofCase.some(isGrowth)) console.log(`${caseTable(ofCase)}\n`)
  }
  const growth = rows.filter(isGrowth)
  if (growth.length > 0) console.log(`${growthTable(growth)}\n`)
  if (leftOut.length > 0) console.log(`Left out after ${options.minutes} minutes: ${leftOut.join(", ")}`)
})

/** The cases of another checkout, which may not have all of ours. */
const casesOf = (checkout: string) =>
  Effect.promise(async () => {
    const module: { readonly cases: ReadonlyArray<Case> } = await import(
      pathToFileURL(path.join(checkout, "bench/cases.ts")).href
    )
    return module.cases
  })

/** How much is done before anything is measured, unless it takes too many seconds. */
const warmUnits = 20_000
const longestWarmUp = 10

const milliseconds = ({ quick }: Options) => quick ? 200 : 1200

const runCase = Effect.fnUntraced(function*(
  measured: Case,
  options: Options,
  known: ReadonlyArray<Case>,
  start: (name: SubjectName, checkout?: string) => Effect.Effect<RemoteSubject, SubjectError | SqlError, Scope.Scope>
) {
  const say = (text: string) => progress(`${measured.name}: ${text}`)
  const contestants: Array<RemoteSubject> = []
  const others = known.find(({ name }) => name === measured.name)?.subjects.filter((name) =>
    name.startsWith("effect-message-store")
  )
  const names = measured.subjects.flatMap((name): ReadonlyArray<readonly [SubjectName, checkout?: string]> =>
    options.against !== undefined && others?.includes(name) ? [[name], [name, options.against]] : [[name]]
  )
  for (const [name, checkout] of names) {
    yield* say(`${name} gets ready`)
    const subject = yield* start(name, checkout)
    contestants.push(subject)
    yield* subject.prepare(measured.name, options.quick)
    yield* warmUp(subject, options)
    yield* subject.analyze
  }
  const rounds = new Map(contestants.map(({ name }): [string, Array<Measurement>] => [name, []]))
  for (let round = 0; round < options.rounds; round++) {
    for (const subject of rotate(contestants, round)) {
      yield* say(`round ${round + 1} of ${options.rounds}, ${subject.name}`)
      rounds.get(subject.name)?.push(yield* subject.measure(milliseconds(options)))
    }
  }
  for (const subject of contestants) {
    yield* say(`checking what ${subject.name} stored`)
    yield* subject.check
  }
  return { measured, rounds }
})

/**
 * As long as a round is, at least, and until a process has done what one that runs for days has done long ago: what it has not
 * done often, the engine of JavaScript has not optimised. The first time, so few writes are ready that a measurement ends early.
 */
const warmUp = Effect.fnUntraced(function*(subject: RemoteSubject, options: Options) {
  const least = milliseconds(options) / 1000
  const most = options.quick ? least : longestWarmUp
  for (let [seconds, units] = [0, 0]; seconds < least || (units < warmUnits && seconds < most);) {
    const measured = yield* subject.measure(milliseconds(options))
    seconds += measured.seconds
    units += measured.units
  }
})

const readRun = (file: string): Run => parseRun(fs.readFileSync(file, "utf8"))

/** Compares two runs, or puts the tables of one into their document, or says what is to be run. */
const main = () => {
  const [word, ...files] = process.argv.slice(2)
  try {
    if (word === "soak") return soak(files)
    if (word === "compare") {
      const [a, b, ...more] = files
      if (a === undefined || b === undefined || more.length > 0) throw new Error("compare takes two files")
      console.log(compareRuns(readRun(a), readRun(b)))
      process.exit(0)
    }
    if (word === "tables") {
      const [file, ...more] = files
      if (file === undefined || more.length > 0) throw new Error("tables takes one file")
      const document = path.join(import.meta.dirname, "README.md")
      fs.writeFileSync(document, withFigures(fs.readFileSync(document, "utf8"), readRun(file)))
      process.exit(0)
    }
    return program(readOptions(process.argv.slice(2)))
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n\n${usage}`)
    process.exit(2)
  }
}

NodeRuntime.runMain(Effect.scoped(main()))
