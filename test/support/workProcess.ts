/** A worker or a writer in a process of its own, until it gets SIGTERM. `workProcess.ts CONFIG` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { PgClient } from "@effect/sql-pg"
import { Array as Arr, Cause, Effect, Exit, Layer, Redacted, References, Schedule } from "effect"
import { SqlClient } from "effect/sql"
import * as fs from "node:fs"
import * as net from "node:net"
import process from "node:process"
import {
  Done,
  type ProcessConfig,
  record,
  stream,
  type Told,
  Work,
  type WorkerConfig,
  type WriterConfig
} from "./work.ts"

let sent = 0
const socketWrite = net.Socket.prototype.write
net.Socket.prototype.write = function(this: net.Socket, ...args: Parameters<typeof socketWrite>) {
  sent++
  return Reflect.apply(socketWrite, this, args)
} as typeof socketWrite

const tell = (told: Told) => Effect.sync(() => void process.send?.(told))

/** Blocks the whole process, as a long garbage collection does: nothing that happens meanwhile is noticed. */
const block = (file: string) => {
  const cell = new Int32Array(new SharedArrayBuffer(4))
  while (!fs.existsSync(file)) Atomics.wait(cell, 0, 0, 5)
}

const work = Effect.fnUntraced(function*(config: WorkerConfig) {
  const sql = yield* SqlClient.SqlClient
  const worked = yield* stream(config.partitions)
  const running: Array<Effect.Effect<never, unknown>> = []
  for (const { lease, pauseMilliseconds = 0, refuses, stall, ...options } of config.subscriptions) {
    const subscription = yield* worked.subscription({
      ...options,
      ...lease === undefined ? {} : { claims: { lease } },
      ...refuses === undefined ? {} : { retry: Schedule.recurs(0) }
    })
    const done = record(sql, options.name, config.name)
    const handle = (message: Done, delivery: Parameters<typeof done>[1]): Effect.Effect<unknown, unknown> =>
      refuses === undefined || message.number % refuses.every > 0 || fs.existsSync(refuses.until)
        ? done(message, delivery)
        : Effect.die("refused")
    let hasStalled = stall === undefined
    running.push(
      subscription.run((message, delivery) =>
        Effect.tap(Effect.delay(handle(message, delivery), pauseMilliseconds), () => {
          if (hasStalled || delivery.position !== stall?.position) return Effect.void
          hasStalled = true
          return Effect.andThen(tell({ _tag: "Stalled" }), Effect.sync(() => block(stall.file)))
        })
      )
    )
  }
  if (config.projects) running.push(worked.projector.run())
  yield* tell({ _tag: "Ready" })
  return yield* Effect.all(running, { concurrency: "unbounded" })
})

const write = Effect.fnUntraced(function*(config: WriterConfig) {
  const store = yield* Work
  yield* tell({ _tag: "Ready" })
  for (let batch = 0; batch < config.batches; batch++) {
    const messages = Arr.makeBy(config.batchSize, (number) => new Done({ number }))
    // Until it is stored; a repetition of what was stored, though its answer was lost, says so.
    yield* store.write(`${config.name}-${batch % config.streams}`, messages).pipe(
      Effect.catchTag("DuplicateMessageError", () => Effect.void),
      Effect.retry({ schedule: Schedule.spaced("50 millis"), while: (error) => error._tag === "SqlError" })
    )
    yield* Effect.sleep(config.pauseMilliseconds)
  }
})

process.on("disconnect", () => process.exit(1)) // whoever started it is gone
process.on("message", () => {
  const { system, user } = process.cpuUsage()
  process.send?.({ _tag: "Usage", processor: system + user, sent } satisfies Told)
})

const config = JSON.parse(process.argv[2] ?? "") as ProcessConfig
const { database, name, url } = config
const clientLayer = PgClient.layer({ url: Redacted.make(url), database, applicationName: name, maxConnections: 10 })

NodeRuntime.runMain(
  // That a subscription is running is no news here: what is printed tells of failures.
  Effect.provide(
    config._tag === "Worker" ? work(config) : write(config),
    Layer.provideMerge(Work.layer, clientLayer)
  ).pipe(Effect.provideService(References.MinimumLogLevel, "Warn")),
  {
    teardown: (exit, onExit) => {
      onExit(Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause) ? 0 : 1)
      process.exit(0) // a writer that is done
    }
  }
)
