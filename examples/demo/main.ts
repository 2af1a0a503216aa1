/**
 * Writes 20,000 flights into 220 streams, while a worker merges them into one aggregated stream and keeps a table of
 * delays; then reads all back, and checks the table. What is stored already is not written again, what was counted is not
 * counted again: stop it with Ctrl-C and run it again, and it goes on; run it once more, and it finds everything there.
 * To begin afresh, remove the directory of its database.
 *
 *   npm start                   keeps its database in .data/demo
 *   npm start -- directory      keeps it there
 *   npm start -- --dashboard    shows it in the browser meanwhile, until Ctrl-C
 *
 * With DATABASE_URL set, the database is the one it names.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Duration, Effect, Layer, Schedule, Schema, Stream } from "effect"
import { SqlClient } from "effect/sql"
import { relative } from "node:path"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { databaseName, isServer, layerDatabase } from "../database.ts"
import * as Dashboard from "./dashboard.ts"
import * as Delays from "./delays.ts"
import { type Airport, Flights, loadAirports } from "./flights.ts"
import * as Progress from "./progress.ts"
import * as Report from "./report.ts"

const { positionals: [directory], values: { dashboard: hasDashboard } } = parseArgs({
  allowPositionals: true,
  options: { dashboard: { type: "boolean", default: false } }
})

const dataDir = directory ?? relative("", fileURLToPath(new URL("../../.data/demo", import.meta.url)))

const howToBeginAfresh = isServer ? "use an empty database" : `remove ${dataDir}`

/** Messages written together: an interruption loses no more than the chunk under way. */
const chunkSize = 250

/**
 * Makes every stream hold its departures, chunk by chunk, and answers how many had to be appended. `synchronize` compares
 * the ids of what is stored and appends the rest: no flight is stored twice, however many processes do this at once.
 */
const append = Effect.fnUntraced(function*(airports: ReadonlyArray<Airport>, progress: Progress.Progress) {
  const flights = yield* Flights
  let appended = 0
  yield* Effect.forEach(
    airports,
    Effect.fnUntraced(function*({ departures, stream }) {
      for (let stored = 0; stored < departures.length;) {
        const synchronized = yield* flights.synchronize(stream, departures.slice(0, stored + chunkSize))
        appended += synchronized.appended
        const reached = Math.min(synchronized.version, departures.length)
        yield* progress.stored(reached - stored, Math.min(synchronized.appended, reached - stored))
        stored = reached
      }
    }),
    { concurrency: 8, discard: true }
  )
  return appended
})

/** Writes, and shows how the table follows, until it is up to date. Answers how many flights were written and counted. */
const writeAndCount = Effect.fnUntraced(function*(airports: ReadonlyArray<Airport>, total: number, before: number) {
  const progress = yield* Progress.make(total)
  const follow = Effect.flatMap(Delays.readTable, (table) => progress.counted(countOf(table)))
  yield* Effect.forkScoped(Effect.repeat(follow, Schedule.spaced("200 millis")))
  const [writing, appended] = yield* Effect.timed(append(airports, progress))
  const [following] = yield* Effect.timed(Delays.upToDate)
  yield* follow
  return { writing, appended, following, counted: countOf(yield* Delays.readTable) - before }
}, Effect.scoped)

const countOf = (totals: Report.Totals) => [...totals.values()].reduce((sum, { departures }) => sum + departures, 0)

const readTotals = Effect.gen(function*() {
  const flights = yield* Flights
  const reader = yield* flights.reader
  return yield* reader.readWildcard("airport-%").pipe(
    Stream.runFold((): Report.Totals => new Map(), (totals, { message, stream }) => Report.add(totals, stream, message))
  )
}).pipe(Effect.scoped)

/** In bytes. A store's messages are in the table `depeche_msgs_` and its name. */
const databaseSize = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ size: bigint }>`select pg_total_relation_size('depeche_msgs_demo_flights') as size`
  return Number(row?.size)
})

class WrongTotals extends Schema.TaggedError<WrongTotals>()("WrongTotals", {
  what: Schema.String,
  streams: Schema.Array(Schema.String)
}) {
  override get message() {
    const some = this.streams.slice(0, 3).join(", ")
    return `${this.what}: ${this.streams.length} of the streams differ (${some}, …)`
  }
}

const demo = Effect.gen(function*() {
  const airports = yield* loadAirports
  const input: Report.Totals = new Map()
  for (const { departures, stream } of airports) for (const flight of departures) Report.add(input, stream, flight)
  const total = airports.reduce((sum, { departures }) => sum + departures.length, 0)
  yield* Console.log(`input     ${Report.count(total)} flights from ${airports.length} airports`)
  const before = countOf(yield* Delays.readTable)
  if (before > 0) {
    yield* Console.log(
      `goes on   an earlier run has counted ${Report.count(before)}; to begin afresh, ${howToBeginAfresh}`
    )
  }
  yield* Console.log("")

  const { appended, counted, following, writing } = yield* writeAndCount(airports, total, before)
  yield* Console.log(`appended ${appended}, found ${total - appended}`)
  const late = Duration.format(Duration.millis(Math.round(Duration.toMillis(following))))
  yield* Console.log(`counted ${counted}; up to date ${late} after the last write\n`)
  const [reading, totals] = yield* Effect.timed(readTotals)
  const read = countOf(totals)

  yield* Console.log(`${Report.busiest(totals, 10)}\n`)
  yield* Console.log(`written   ${appended === 0 ? "nothing" : Report.speed(appended, writing)}`)
  yield* Console.log(`read      ${Report.speed(read, reading)}`)
  yield* Console.log(`streams   ${Report.count(totals.size)}`)
  yield* Console.log(`size      ${Report.bytes(yield* databaseSize)}, with indexes`)

  const streams = Report.differences(input, totals)
  if (streams.length > 0) return yield* new WrongTotals({ what: "what was read is not the input", streams })
  yield* Console.log(`verified  departures and delays of every airport are those of the input`)
  const miscounted = Report.differences(totals, yield* Delays.readTable)
  if (miscounted.length > 0) {
    return yield* new WrongTotals({ what: "the table is not what was read", streams: miscounted })
  }
  yield* Console.log(`verified  the table of delays has each of them once`)
}).pipe(Effect.onInterrupt(() => Console.log("interrupted: run again to go on")))

/** How to look at what was written. */
const howToLook = `look      npm run dashboard -- ${isServer ? "--store demo_flights" : `--url ${dataDir}`}`

/** The demo, with the dashboard beside it: what is written is there to be looked at until Ctrl-C. */
const shown = Effect.provide(
  Dashboard.show((line) => Console.log(line)).pipe(
    Effect.andThen(demo),
    Effect.andThen(Console.log("look      at the dashboard, until Ctrl-C")),
    Effect.andThen(Effect.never)
  ),
  Dashboard.layerDashboard
)

const Services = Delays.layerWorker.pipe(
  Layer.provideMerge(Flights.layer),
  Layer.provideMerge(layerDatabase({ dataDir }))
)

/** One line: what failed, and the reason at the bottom of it. */
const explain = (error: Error): string => {
  let reason = error
  while (reason.cause instanceof Error) reason = reason.cause
  return error.message.includes(reason.message) ? error.message : `${error.message}: ${reason.message}`
}

Console.log(`database  ${databaseName(dataDir)}`).pipe(
  Effect.andThen(Effect.provide(hasDashboard ? shown : Effect.andThen(demo, Console.log(howToLook)), Services)),
  Effect.catch((error) => Effect.andThen(Console.error(explain(error)), Effect.sync(() => process.exitCode = 1))),
  NodeRuntime.runMain // exits with 130 after Ctrl-C
)
