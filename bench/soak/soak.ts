/**
 * `npm run bench -- soak`: what one PostgreSQL carries. A writer, a projector and two subscriptions work at the same time, at
 * a rate that is held, on a store that has many messages already.
 */
import { PgClient } from "@effect/sql-pg"
import { Data, Effect, Layer, Redacted, References, Schema, type Scope } from "effect"
import { SqlClient } from "effect/sql"
import { type ChildProcess, fork } from "node:child_process"
import * as fs from "node:fs"
import * as path from "node:path"
import process from "node:process"
import { parseArgs } from "node:util"
import { startServer } from "../../test/support/server.ts"
import { Latency } from "../histogram.ts"
import { commitOf, describeMachine, serverSettings } from "../machine.ts"
import { Orders } from "../message.ts"
import { fill } from "../subjects/depecheTable.ts"
import { digits, table } from "../table.ts"
import { type Role, type SoakOptions, type SoakReply, type SoakRequest, streamLength, Usage } from "./protocol.ts"
import { ServerState, stateOf } from "./server.ts"
import { makeStream } from "./stream.ts"

export const usage = `npm run bench -- soak [--rate N] [--minutes N] [--messages N] [--json FILE]
  --rate N       writes in a second; 500
  --minutes N    how long; 10
  --messages N   how many are stored before; 10000000`

const Soak = Schema.Struct({
  machine: Schema.String,
  commit: Schema.NullOr(Schema.String),
  options: Schema.Struct({ rate: Schema.Finite, seconds: Schema.Finite, messages: Schema.Finite }),
  /** Messages that were stored before, and linked, in a second. */
  filled: Schema.Struct({ stored: Schema.Finite, linked: Schema.Finite }),
  /** How long the writer wrote, and how long the worker then took to handle what was left. */
  seconds: Schema.Finite,
  behind: Schema.Finite,
  written: Latency,
  failed: Schema.Int,
  held: Schema.Int,
  handled: Schema.Record(Schema.String, Latency),
  writer: Usage,
  worker: Usage,
  before: ServerState,
  after: ServerState
})

type Soak = typeof Soak.Type

const readOptions = (args: ReadonlyArray<string>): SoakOptions & { readonly json: string | undefined } => {
  const { values } = parseArgs({
    args: [...args],
    options: {
      json: { type: "string" },
      messages: { type: "string", default: "10000000" },
      minutes: { type: "string", default: "10" },
      rate: { type: "string", default: "500" }
    }
  })
  const positive = (name: "messages" | "minutes" | "rate") => {
    const value = Number(values[name])
    if (!(value > 0)) throw new Error(`--${name} must be a number above 0, not ${values[name]}`)
    return value
  }
  const streams = Math.ceil(positive("messages") / streamLength)
  return {
    rate: positive("rate"),
    seconds: 60 * positive("minutes"),
    messages: streams * streamLength,
    json: values.json
  }
}

const say = (text: string) => Effect.sync(() => process.stderr.write(`${text}\n`))

class ProcessError extends Data.TaggedError("ProcessError")<{ readonly message: string }> {}

/** A process that says when it is ready, and what it is asked; it ends with the scope. */
const start = Effect.fnUntraced(function*(role: Role, url: string): Effect.fn.Return<
  (request: SoakRequest) => Effect.Effect<SoakReply, ProcessError>,
  ProcessError,
  Scope.Scope
> {
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => fork(path.join(import.meta.dirname, "process.ts"), [role, url], { execArgv: process.execArgv })),
    stop
  )
  const next = Effect.callback<SoakReply, ProcessError>((resume) => {
    const fail = (reason: string) => resume(Effect.fail(new ProcessError({ message: `${role}: ${reason}` })))
    const onExit = () => fail("its process ended")
    child.once("exit", onExit)
    child.once("message", (reply: SoakReply) => {
      child.off("exit", onExit)
      if (reply._tag === "Failed") fail(reply.reason)
      else resume(Effect.succeed(reply))
    })
  })
  yield* next
  return (request) => Effect.andThen(Effect.sync(() => child.send(request)), next)
})

const stop = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
    if (child.connected) child.disconnect()
  })

const timed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const began = performance.now()
    return Effect.map(effect, () => (performance.now() - began) / 1000)
  })

const soak = Effect.fnUntraced(function*(machine: string, url: string, options: SoakOptions) {
  const sql = yield* SqlClient.SqlClient
  const { messages } = options
  yield* say(`storing ${digits(messages)} messages`)
  const storing = yield* timed(fill(sql, messages / streamLength, streamLength))
  yield* say("linking them")
  const stream = yield* makeStream
  const linking = yield* timed(stream.projector.runOnce)
  yield* sql`vacuum analyze`.unprepared
  yield* sql`checkpoint`.unprepared
  const worker = yield* start("work", url)
  const writer = yield* start("write", url)
  const before = yield* stateOf(sql)
  yield* say(`writing ${options.rate} messages a second, for ${options.seconds} seconds`)
  const written = yield* writer({ _tag: "Begin", options })
  if (written._tag !== "Written") return yield* Effect.die(new Error("the writer has not written"))
  const total = written.latency.count
  const behind = yield* timed(
    Effect.repeat(worker({ _tag: "Tell" }), {
      until: (reply) => reply._tag === "Handled" && Object.values(reply.latencies).every(({ count }) => count >= total)
    }).pipe(Effect.timeout("5 minutes"))
  )
  const handled = yield* worker({ _tag: "Tell" })
  if (handled._tag !== "Handled") return yield* Effect.die(new Error("the worker does not tell"))
  const after = yield* stateOf(sql)
  yield* verify(total)
  const result: Soak = {
    machine,
    commit: commitOf(),
    options: { rate: options.rate, seconds: options.seconds, messages },
    filled: { stored: messages / storing, linked: messages / linking },
    seconds: written.seconds,
    behind,
    written: written.latency,
    failed: written.failed,
    held: written.held,
    handled: handled.latencies,
    writer: written.usage,
    worker: handled.usage,
    before,
    after
  }
  return result
})

/** Each message that was written was handled once, and counts in the table that transactions add up into. */
const verify = Effect.fnUntraced(function*(written: number) {
  const sql = yield* SqlClient.SqlClient
  const [row] = yield* sql<{ readonly is_right: boolean }>`
    select (select sum(quantity) from quantities) = (
      select sum((message ->> 'quantity')::int) from (
        select message from ${sql("depeche_msgs_bench")} order by global_position desc limit ${written}
      ) written
    ) as is_right`
  if (row?.is_right !== true) return yield* Effect.die(new Error("not every message counts once"))
})

const latencyRow = (name: string, { count, max, p50, p99, p999 }: Latency) => [
  name,
  digits(count),
  ...[p50, p99, p999, max].map(digits)
]

const megabytes = (bytes: number) => digits(bytes / 1e6)

const report = (result: Soak): string => {
  const { after, before, handled, seconds, worker, written, writer } = result
  const cores = (cpu: number | null) => cpu === null ? "" : (cpu / seconds).toFixed(2)
  const serverCpu = after.cpu === null || before.cpu === null ? null : after.cpu - before.cpu
  const rate = written.count / seconds
  const earlier = new Map(before.tables.map((each) => [each.table, each]))
  const memory = ({ memory: { begin, end, most } }: typeof Usage.Type) => [begin, most, end].map(digits).join(" - ")
  return [
    `**soak**: ${digits(result.options.messages)} messages stored; ${
      digits(rate)
    } written, linked, and handled twice in a second, for ${digits(seconds)} s`,
    "",
    table(
      ["milliseconds", "messages", "p50", "p99", "p99.9", "max"],
      [
        latencyRow("write", written),
        ...Object.entries(handled).map(([name, latency]) => latencyRow(`to the handler of ${name}`, latency))
      ]
    ),
    "",
    table(
      ["process", "cores", "messages/s by core", "MiB: begin - most - end"],
      [
        ["PostgreSQL", cores(serverCpu), serverCpu === null ? "" : digits(written.count / serverCpu), ""],
        ["writer", cores(writer.cpu), digits(written.count / writer.cpu), memory(writer)],
        ["worker", cores(worker.cpu), digits(written.count / worker.cpu), memory(worker)]
      ]
    ),
    "",
    table(
      ["table", "MB before", "MB after", "rows", "dead rows", "vacuums", "analyzes"],
      // Of the others, there is nothing to tell.
      after.tables.filter(({ bytes, dead }) => bytes > 1e6 || dead > 0).map((now) => {
        const then = earlier.get(now.table)
        return [
          now.table,
          megabytes(then?.bytes ?? 0),
          megabytes(now.bytes),
          digits(now.live),
          digits(now.dead),
          digits(now.vacuums - (then?.vacuums ?? 0)),
          digits(now.analyzes - (then?.analyzes ?? 0))
        ]
      })
    ),
    "",
    [
      `${digits((after.transactions - before.transactions) / written.count)} transactions`,
      `${digits((after.wal - before.wal) / written.count)} bytes of WAL a message`,
      `${digits(after.checkpoints - before.checkpoints)} checkpoints`,
      `${result.failed} writes failed, ${result.held} waited for others`,
      `the last message was handled ${digits(result.behind)} s after the last write`,
      `before, ${digits(result.filled.stored)} messages were stored in a second, and ${
        digits(result.filled.linked)
      } linked`
    ].join("; ")
  ].join("\n")
}

/** The program for these arguments. */
export const main = (args: ReadonlyArray<string>) => {
  const { json, ...options } = readOptions(args)
  return Effect.gen(function*() {
    const server = yield* startServer({ durable: true, settings: serverSettings })
    const machine = describeMachine(server.name)
    console.log(`${machine}\n`)
    const database = `soak_${Date.now()}`
    const run = Effect.gen(function*() {
      const url = new URL(server.url)
      url.pathname = `/${database}`
      const result = yield* soak(machine, url.href, options).pipe(
        Effect.provide(Layer.provideMerge(Orders.layer, PgClient.layer({ url: Redacted.make(url.href) })))
      )
      console.log(report(result))
      if (json !== undefined) fs.writeFileSync(json, `${JSON.stringify(result, null, 2)}\n`)
    })
    const administer = (statement: string) =>
      Effect.flatMap(SqlClient.SqlClient, (sql) => sql.unsafe(statement).unprepared).pipe(
        Effect.provide(PgClient.layer({ url: Redacted.make(server.url), maxConnections: 1 }))
      )
    yield* administer(`create database ${database}`)
    yield* Effect.ensuring(Effect.scoped(run), Effect.ignore(administer(`drop database ${database} with (force)`)))
  }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Warn"))
}
