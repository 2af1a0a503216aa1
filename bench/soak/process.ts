/** A process of the soak: writes at a held rate, or links and handles what is written. `process.ts ROLE DATABASE_URL` */
import { NodeRuntime } from "@effect/platform-node"
import { PgClient } from "@effect/sql-pg"
import { Cause, Effect, Fiber, FiberSet, Layer, Queue, Redacted, References } from "effect"
import type { AggregatedStream } from "effect-message-store"
import { SqlClient } from "effect/sql"
import process from "node:process"
import { Histogram } from "../histogram.ts"
import { makeMessage, type Order, Orders } from "../message.ts"
import { addQuantities, createQuantities } from "../subjects/projections.ts"
import { storedStream } from "../subjects/Subject.ts"
import { type SoakOptions, type SoakReply, type SoakRequest, streamLength } from "./protocol.ts"
import { makeStream } from "./stream.ts"

const [role, url = ""] = process.argv.slice(2)

const reply = (message: SoakReply) => process.send?.(message)

/** What the parent asks for, until it is gone. */
const receive = Effect.gen(function*() {
  const requests = yield* Queue.unbounded<SoakRequest, Cause.Done>()
  process.on("message", (request: SoakRequest) => Queue.offerUnsafe(requests, request))
  process.on("disconnect", () => Queue.endUnsafe(requests))
  return requests
})

const mebibytes = () => process.memoryUsage.rss() / 2 ** 20

/** Watches the memory of this process from now on. */
const watch = Effect.gen(function*() {
  const cpu = process.cpuUsage()
  const begin = mebibytes()
  let most = begin
  yield* Effect.forkScoped(Effect.forever(Effect.delay(
    Effect.sync(() => {
      most = Math.max(most, mebibytes())
    }),
    "1 second"
  )))
  return () => {
    const { system, user } = process.cpuUsage(cpu)
    const end = mebibytes()
    return { cpu: (user + system) / 1e6, memory: { begin, most: Math.max(most, end), end } }
  }
})

/** How many writes may be under way. */
const maximumWrites = 2000

/**
 * Writes at the rate, whatever becomes of the writes before: how long one takes counts from when it was due, so that one which
 * has to wait for its turn is no faster for that.
 */
const write = Effect.fnUntraced(function*({ messages, rate, seconds }: SoakOptions) {
  const orders = yield* Orders
  const usage = yield* watch
  const latency = new Histogram()
  const writes = yield* FiberSet.make<void>()
  const streams = messages / streamLength
  let [failed, held] = [0, 0]
  const start = performance.now()
  const total = rate * seconds
  for (let made = 0; made < total;) {
    const now = performance.now()
    for (; made < total && made * 1000 / rate <= now - start; made++) {
      if ((yield* FiberSet.size(writes)) >= maximumWrites) {
        held++
        break
      }
      const due = start + made * 1000 / rate
      const written = orders.write(storedStream(1 + Math.floor(Math.random() * streams)), makeMessage())
      yield* FiberSet.run(
        writes,
        Effect.match(written, {
          onSuccess: () => latency.add(performance.now() - due),
          onFailure: () => {
            failed++
          }
        })
      )
    }
    yield* Effect.sleep("2 millis")
  }
  yield* FiberSet.awaitEmpty(writes)
  reply({
    _tag: "Written",
    seconds: (performance.now() - start) / 1000,
    latency: latency.latency,
    failed,
    held,
    usage: usage()
  })
})

/** Two subscriptions: one at least once, whose handler does nothing; one whose transactions add up into a table. */
const work = Effect.fnUntraced(function*(
  stream: AggregatedStream.AggregatedStream<Order>,
  requests: Queue.Dequeue<SoakRequest, Cause.Done>
) {
  const sql = yield* SqlClient.SqlClient
  yield* createQuantities(sql, "quantities")
  const counted = yield* stream.subscription({ name: "counted", start: "next" })
  const summed = yield* stream.subscription({ name: "summed", start: "next", delivery: "transactional" })
  const latencies = { counted: new Histogram(), summed: new Histogram() }
  const usage = yield* watch
  const took = (histogram: Histogram, { message: { occurredAt } }: { readonly message: Order }) =>
    histogram.add(Math.max(0, Date.now() - occurredAt.epochMilliseconds))
  const running = Effect.all([
    stream.projector.run(),
    counted.run((message) => Effect.sync(() => took(latencies.counted, { message }))),
    summed.runBatches((deliveries) =>
      Effect.tap(
        addQuantities(sql, "quantities", deliveries),
        () => Effect.sync(() => deliveries.forEach((delivery) => took(latencies.summed, delivery)))
      )
    )
  ], { concurrency: "unbounded" })
  const worker = yield* Effect.forkScoped(running)
  reply({ _tag: "Ready" })
  const answers = Effect.forever(Effect.map(Queue.take(requests), () =>
    reply({
      _tag: "Handled",
      latencies: { counted: latencies.counted.latency, summed: latencies.summed.latency },
      usage: usage()
    })))
  yield* Effect.raceFirst(Fiber.join(worker), answers)
})

const program = Effect.gen(function*() {
  const requests = yield* receive
  if (role === "work") return yield* work(yield* makeStream, requests)
  reply({ _tag: "Ready" })
  const request = yield* Queue.take(requests)
  if (request._tag === "Begin") yield* write(request.options)
  yield* Queue.take(requests) // until the parent has gone
})

NodeRuntime.runMain(
  program.pipe(
    Effect.scoped,
    Effect.provide(Orders.layer.pipe(
      Layer.provideMerge(
        PgClient.layer({
          url: Redacted.make(url),
          maxConnections: role === "work" ? 20 : 10,
          applicationName: `soak ${role}`
        })
      )
    )),
    Effect.provideService(References.MinimumLogLevel, "Warn"),
    Effect.catchIf(Cause.isDone, () => Effect.void),
    Effect.catchCause((cause) => Effect.sync(() => reply({ _tag: "Failed", reason: Cause.pretty(cause) })))
  ),
  { disableErrorReporting: true }
)
