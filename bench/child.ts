/** The process of one subject: does what the bench asks for. `child.ts SUBJECT DATABASE_URL` */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Cause, Effect, Queue, Redacted, References } from "effect"
import { SqlClient } from "effect/sql"
import process from "node:process"
import { type Case, inRun, type Load } from "./Case.ts"
import { cases } from "./cases.ts"
import { anyCustomer, matchesOf } from "./matches.ts"
import { measure, type Measurement } from "./measure.ts"
import { added, spent } from "./processor.ts"
import type { Reply, Request } from "./protocol.ts"
import { type SubjectName, subjectNamed } from "./subjects/index.ts"
import { type Question, rangeOf, storedStream, type Subject } from "./subjects/Subject.ts"
import { hot, makeOwn } from "./tagged.ts"
import type { DecideWork, ReadWork, RetagWork, StreamWork, UpdateWork, WriteWork } from "./work.ts"

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

/** These take their time, or are no rates. */
const onceARound: ReadonlySet<StreamWork["kind"]> = new Set([
  "latency",
  "statements",
  "start",
  "catchUp",
  "scheduled",
  "import"
])

const makeHandler = (subject: Subject, sql: SqlClient.SqlClient) => {
  let current: Case | undefined
  let loaded: Load | undefined
  let expected = 0 // messages
  let round = 0
  let rate = 0 // operations per second, by the last measurement

  const prepare = Effect.fnUntraced(function*(caseName: string, quick: boolean) {
    const found = cases.find(({ name }) => name === caseName)
    current = found && inRun(found, quick)
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

  const anyStored = () => storedStream(1 + Math.floor(Math.random() * (loaded?.streams ?? 1)))
  const storedMessages = () => loaded === undefined ? 0 : loaded.streams * loaded.length

  const makeWrite = (work: WriteWork, fiber: number): Effect.Effect<unknown, unknown> => {
    switch (work.kind) {
      case "write": {
        const stream = work.streams === "one"
          ? `hot${round}-1`
          : work.streams === "own"
          ? `own${round}x${fiber}-1`
          : anyStored()
        return demand(subject.write)(stream, work.size)
      }
      case "writeExpecting":
        return demand(subject.writeExpecting)(`hot${round}-1`)
      case "appendIf":
        return demand(subject.appendIf)(questionOf(work, fiber))
      case "decide": {
        const decided = demand(subject.decide)(questionOf(work, fiber))
        const { boundary } = work
        return boundary === "own" || boundary === "hot" || boundary === "shared"
          ? decided
          : Effect.tap(decided, (found) => verify(found, matchesOf(boundary, storedMessages())))
      }
    }
  }

  const questionOf = ({ boundary }: DecideWork, fiber: number): Question => {
    const own = makeOwn(boundary === "hot" || boundary === "shared" ? `${hot}${round}` : undefined)
    const { customer, order } = own
    const stream = `own${round}x${fiber}-1`
    switch (boundary) {
      case "own":
      case "hot":
        return { stream, own, asked: [{ order }, { customer }], types: ["OrderPlaced"] }
      case "shared":
        return { stream, own, asked: [{ customer }], types: ["OrderPlaced"] }
      default:
        return {
          stream,
          own,
          asked: [{ customer: anyCustomer(boundary, storedMessages()) }],
          types: ["OrderPlaced", "OrderShipped"]
        }
    }
  }

  const runWrites = Effect.fnUntraced(function*(work: WriteWork, milliseconds: number) {
    const { fibers } = work
    const size = work.kind === "write" ? work.size : 1
    // Twice as many as the last measurement makes expect; to begin with, enough to find out. And some for each, where few of
    // many get through.
    const count = rate === 0 ? 20 + 1000 / size : 2 * rate * milliseconds / 1000
    const supplies = rangeOf(fibers, () => ({ taken: 0, writes: new Array<Effect.Effect<unknown, unknown>>() }))
    // In the order in which they will be run, so that ids rise as they do in life.
    for (let i = 0; i <= Math.max(count / fibers, fibers > 1 ? 10 : 0); i++) {
      for (const [fiber, { writes }] of supplies.entries()) writes.push(makeWrite(work, fiber))
    }
    globalThis.gc?.()
    const next = (fiber: number) => {
      const supply = demand(supplies[fiber])
      const write = supply.writes[supply.taken++]
      return write && Effect.as(write, size)
    }
    const { measurement, total } = yield* measure({ fibers, milliseconds, next, sql })
    expected += total
    rate = measurement.units / size / measurement.seconds
    return measurement
  })

  /** A read that verifies how many messages it found, and answers what it counts for. */
  const read = (work: ReadWork): Effect.Effect<number, unknown> => {
    const { length, streams } = demand(loaded)
    const verified = (found: Effect.Effect<number, unknown>, wanted: number) =>
      Effect.tap(found, (number) => verify(number, wanted))
    switch (work.kind) {
      case "read":
        return verified(demand(subject.read)(anyStored()), length)
      case "readAll":
        return verified(demand(subject.readAll)("stored"), length * streams)
      case "readTail":
        return Effect.as(verified(demand(subject.readTail)(anyStored(), work.size), Math.min(work.size, length)), 1)
      case "readTagged":
        return verified(
          Effect.suspend(() => demand(subject.readTagged)(anyCustomer(work.matches, length * streams))),
          matchesOf(work.matches, length * streams)
        )
    }
  }

  /** As often as the time allows; what has to be made ready before each is not measured. */
  const runStream = Effect.fnUntraced(function*(work: StreamWork | UpdateWork | RetagWork, milliseconds: number) {
    globalThis.gc?.()
    if (work.kind === "update" || work.kind === "retag") {
      const measurement = yield* work.kind === "retag"
        ? demand(subject.retag)
        : demand(subject.update)(work, demand(loaded).streams)
      expected = (yield* audit(subject, sql)).messages
      return measurement
    }
    let total: Measurement = { units: 0, seconds: 0 }
    for (let times = 1; total.seconds * 1000 < milliseconds; times++) {
      const { processor, seconds, units } = yield* demand(subject.stream)(work)
      total = {
        units: total.units + units,
        seconds: total.seconds + seconds,
        processor: processor && added(processor, total.processor)
      }
      if (onceARound.has(work.kind) || (work.kind === "linkOne" && times === 200)) break
    }
    expected = (yield* audit(subject, sql)).messages // some of them write
    return total
  })

  const run = Effect.fnUntraced(function*({ work }: Case, milliseconds: number) {
    round++
    if (subject.alone !== undefined && (work.kind === "write" || work.kind === "read")) {
      const [measurement, processor] = yield* spent(sql, subject.alone(work, milliseconds, loaded))
      expected = (yield* audit(subject, sql)).messages
      return { ...measurement, processor }
    }
    switch (work.kind) {
      case "write":
      case "writeExpecting":
      case "appendIf":
      case "decide":
        return yield* runWrites(work, milliseconds)
      case "read":
      case "readAll":
      case "readTail":
      case "readTagged": {
        globalThis.gc?.()
        const { measurement } = yield* measure({ fibers: work.fibers, milliseconds, next: () => read(work), sql })
        return measurement
      }
      default:
        return yield* runStream(work, milliseconds)
    }
  })

  const check = Effect.gen(function*() {
    const { broken, messages } = yield* audit(subject, sql)
    yield* verify(messages, expected)
    yield* verify(broken, 0)
  })

  return (request: Request): Effect.Effect<Reply, unknown> => {
    switch (request._tag) {
      case "Prepare":
        return Effect.as(prepare(request.caseName, request.quick), { _tag: "Done" })
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

/**
 * How many messages are stored, and what is wrong with them: streams whose versions are not dense, and tags on which fibers
 * have decided at the same time, one of them on less than there was.
 */
const audit = Effect.fnUntraced(function*({ table: { decided, name, streams } }: Subject, sql: SqlClient.SqlClient) {
  /** How many groups of messages have numbers that are not those from the first one on. */
  const notDense = (group: string, number: string, first: number, where = "true") =>
    Effect.map(
      sql<{ readonly groups: number }>`
        select count(*)::int as groups from (
          select count(distinct ${sql.literal(number)}) as count, count(*) as "all", min(${
        sql.literal(number)
      }) as first,
            max(${sql.literal(number)}) as last
          from ${sql.literal(name)} where ${sql.literal(where)} group by ${sql.literal(group)}
        ) groups where "all" <> count or first <> ${first} or last - first + 1 <> count`,
      ([row]) => row?.groups ?? 0
    )
  const [row] = yield* sql<{ readonly messages: number }>`select count(*)::int as messages from ${sql.literal(name)}`
  const torn = streams === undefined ? 0 : yield* notDense(streams.name, streams.version, streams.first)
  const wrong = decided === undefined
    ? 0
    : yield* notDense(decided.customer, decided.number, 1, `${decided.customer} like '${hot}%'`)
  return { messages: row?.messages ?? 0, broken: torn + wrong }
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
