/** The process of one subject: does what the bench asks for. `child.ts SUBJECT DATABASE_URL` */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Cause, Effect, Queue, Redacted, References } from "effect"
import { SqlClient } from "effect/sql"
import process from "node:process"
import { type Case, cases, type Load } from "./cases.ts"
import { measure, type Measurement } from "./measure.ts"
import type { Reply, Request } from "./protocol.ts"
import { type SubjectName, subjectNamed } from "./subjects/index.ts"
import { rangeOf, storedStream, type Subject } from "./subjects/Subject.ts"
import type { ReadWork, StreamWork, WriteWork } from "./work.ts"

const [subjectName, url = ""] = process.argv.slice(2)

/** Of ours and the floor; more makes neither faster. */
const maxConnections = 10

const program = Effect.gen(function*() {
  const requests = yield* receive
  const sql = yield* SqlClient.SqlClient
  const subject = yield* subjectNamed(subjectName as SubjectName).make({ url, sql })
  const handle = makeHandler(subject, sql)
  reply({ _tag: "Done" })
  while (true) {
    const answer = yield* Effect.catchCause(
      handle(yield* Queue.take(requests)),
      (cause) => Effect.succeed<Reply>({ _tag: "Failed", reason: Cause.pretty(cause) })
    )
    reply(answer)
  }
})

const reply = (message: Reply) => process.send?.(message)

/** What the parent asks for, until it is gone. */
const receive = Effect.gen(function*() {
  const requests = yield* Queue.unbounded<Request, Cause.Done>()
  process.on("message", (request: Request) => Queue.offerUnsafe(requests, request))
  process.on("disconnect", () => Queue.endUnsafe(requests))
  return requests
})

const makeHandler = (subject: Subject, sql: SqlClient.SqlClient) => {
  let current: Case | undefined
  let loaded: Load | undefined
  let expected = 0 // messages
  let round = 0
  let rate = 0 // operations per second, by the last measurement

  const prepare = Effect.fnUntraced(function*(caseName: string) {
    current = cases.find(({ name }) => name === caseName)
    const load = current?.load
    round = 0
    rate = 0
    if (load === undefined || load.streams !== loaded?.streams || load.length !== loaded.length) {
      yield* subject.clear
      if (load !== undefined) {
        yield* subject.load(load.streams, load.length)
        yield* sql`vacuum analyze`.unprepared
      }
      loaded = load
    }
    expected = (yield* audit(subject, sql)).messages
  })

  const anyStored = ({ load }: Case) => storedStream(1 + Math.floor(Math.random() * (load?.streams ?? 1)))

  const runWrites = Effect.fnUntraced(function*(of: Case, work: WriteWork, milliseconds: number) {
    const { fibers } = work
    const size = work.kind === "write" ? work.size : 1
    const streamOf = (fiber: number) =>
      work.kind === "writeExpecting" || work.streams === "one"
        ? `hot${round}-1`
        : work.streams === "own"
        ? `own${round}x${fiber}-1`
        : anyStored(of)
    const make = (fiber: number) =>
      work.kind === "write"
        ? demand(subject.write)(streamOf(fiber), size)
        : demand(subject.writeExpecting)(streamOf(fiber))
    // Twice as many as the last measurement makes expect; to begin with, enough to find out.
    const count = rate === 0 ? 20 + 1000 / size : 2 * rate * milliseconds / 1000
    const supplies = rangeOf(fibers, () => ({ taken: 0, writes: new Array<Effect.Effect<void, unknown>>() }))
    // In the order in which they will be run, so that ids rise as they do in life.
    for (let i = 0; i <= count / fibers; i++) {
      for (const [fiber, { writes }] of supplies.entries()) writes.push(make(fiber))
    }
    globalThis.gc?.()
    const next = (fiber: number) => {
      const supply = demand(supplies[fiber])
      const write = supply.writes[supply.taken++]
      return write && Effect.as(write, size)
    }
    const { measurement, total } = yield* measure({ fibers, milliseconds, next })
    expected += total
    rate = measurement.units / size / measurement.seconds
    return measurement
  })

  /** A read that verifies how many messages it found, and answers what it counts for. */
  const read = (of: Case, work: ReadWork): Effect.Effect<number, unknown> => {
    const { length, streams } = demand(of.load)
    const verified = (found: Effect.Effect<number, unknown>, wanted: number) =>
      Effect.tap(found, (number) => verify(number, wanted))
    switch (work.kind) {
      case "read":
        return verified(demand(subject.read)(anyStored(of)), length)
      case "readAll":
        return verified(demand(subject.readAll)("stored"), length * streams)
      case "readTail":
        return Effect.as(verified(demand(subject.readTail)(anyStored(of), work.size), Math.min(work.size, length)), 1)
    }
  }

  /** As often as the time allows; what has to be made ready before each is not measured. */
  const runStream = Effect.fnUntraced(function*(work: StreamWork, milliseconds: number) {
    globalThis.gc?.()
    let total: Measurement = { units: 0, seconds: 0 }
    for (let times = 1; total.seconds * 1000 < milliseconds; times++) {
      const { seconds, units } = yield* demand(subject.stream)(work)
      total = { units: total.units + units, seconds: total.seconds + seconds }
      if (work.kind === "latency" || work.kind === "statements" || (work.kind === "linkOne" && times === 200)) break
    }
    expected = (yield* audit(subject, sql)).messages // some of them write
    return total
  })

  const run = Effect.fnUntraced(function*(of: Case, milliseconds: number) {
    round++
    const { work } = of
    if (work.kind === "write" || work.kind === "writeExpecting") return yield* runWrites(of, work, milliseconds)
    if (work.kind === "read" || work.kind === "readTail" || work.kind === "readAll") {
      globalThis.gc?.()
      const { measurement } = yield* measure({ fibers: work.fibers, milliseconds, next: () => read(of, work) })
      return measurement
    }
    return yield* runStream(work, milliseconds)
  })

  const check = Effect.gen(function*() {
    const { broken, messages } = yield* audit(subject, sql)
    yield* verify(messages, expected)
    yield* verify(broken, 0)
  })

  return (request: Request): Effect.Effect<Reply, unknown> => {
    switch (request._tag) {
      case "Prepare":
        return Effect.as(prepare(request.caseName), { _tag: "Done" })
      case "Analyze":
        return Effect.as(sql`analyze`.unprepared, { _tag: "Done" })
      case "Check":
        return Effect.as(check, { _tag: "Done" })
      case "Measure":
        return Effect.map(run(demand(current), request.milliseconds), (measurement) => ({
          _tag: "Measured",
          measurement
        }))
    }
  }
}

/** How many messages are stored, and how many streams have versions that are not dense. */
const audit = Effect.fnUntraced(function*({ table }: Subject, sql: SqlClient.SqlClient) {
  const version = sql.literal(table.version)
  const [row] = yield* sql<{ readonly messages: number; readonly broken: number }>`
    select coalesce(sum(count), 0)::int as messages,
      count(*) filter (where first <> ${table.firstVersion} or last - first + 1 <> count)::int as broken
    from (
      select count(*) as count, min(${version}) as first, max(${version}) as last
      from ${sql.literal(table.name)} group by ${sql.literal(table.stream)}
    ) streams`
  return row ?? { messages: 0, broken: 0 }
})

const verify = (found: number, wanted: number) =>
  found === wanted ? Effect.void : Effect.die(new Error(`wrong: ${found} where ${wanted} were expected`))

const demand = <A>(value: A | undefined): A => {
  if (value === undefined) throw new Error("the subject does not do what the case asks of it")
  return value
}

NodeRuntime.runMain(
  program.pipe(
    Effect.scoped,
    Effect.provide(PgClient.layer({ url: Redacted.make(url), maxConnections })),
    Effect.provideService(References.MinimumLogLevel, "Warn"), // what a worker says when it starts is no result
    Effect.catchIf(Cause.isDone, () => Effect.void), // the parent has gone
    Effect.catchCause((cause) => Effect.sync(() => reply({ _tag: "Failed", reason: Cause.pretty(cause) })))
  ),
  { disableErrorReporting: true }
)
