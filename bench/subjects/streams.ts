/** Aggregated streams and subscriptions of this library. */
import { Deferred, Effect } from "effect"
import { type AggregatedStream, type MessageStore, Partitioner, type Subscription } from "effect-message-store"
import type { SqlClient } from "effect/sql"
import { type Measurement, timed } from "../measure.ts"
import { makeMessage, type Order } from "../message.ts"
import { spent } from "../processor.ts"
import type { CatchUpWork, LinkWork, StreamWork, SubscribeWork } from "../work.ts"
import { makeArchives } from "./imports.ts"
import { addQuantities, createQuantities, makeProjections } from "./projections.ts"
import { makeScheduled } from "./scheduled.ts"
import { makeStart } from "./start.ts"
import { countStatements } from "./statements.ts"
import { storedStream } from "./Subject.ts"

const partitioners: Readonly<Record<LinkWork["partitioner"], Partitioner.Partitioner<Order>>> = {
  constant: Partitioner.constant(),
  streamName: Partitioner.streamName(16),
  field: Partitioner.field(["address", "country"], 16),
  depeche: Partitioner.depeche,
  function: ({ version }) => version % 16
}

/** Of the number in the name of its stream. */
const ownPartition: Partitioner.Partitioner<Order> = ({ stream }) => Number(stream.match(/\d+/)?.[0])

export const makeStreams = (
  store: MessageStore.MessageStore<Order>,
  sql: SqlClient.SqlClient,
  upserts: "subscription" | "projection",
  copies: "messages" | "archives"
) => {
  const streams = new Map<string, AggregatedStream.AggregatedStream<Order>>()
  const projections = makeProjections(sql)
  const writeScheduled = makeScheduled(store, sql)
  const start = makeStart(sql)
  const archives = makeArchives(store, sql, copies)
  let subscriptions = 0

  const streamOf = Effect.fnUntraced(function*(name: string, partitioner: Partitioner.Partitioner<Order>) {
    const known = streams.get(name)
    if (known !== undefined) return known
    const stream = yield* store.aggregatedStream({ name, patterns: "stored%", partitioner })
    streams.set(name, stream)
    return stream
  })

  const link = Effect.fnUntraced(function*({ partitioner }: LinkWork) {
    const stream = yield* streamOf(`link_${partitioner.toLowerCase()}`, partitioners[partitioner])
    const measurement = yield* timed(Effect.map(stream.rebuild, ({ linked }) => linked))
    yield* verify(stream.name, measurement.units)
    return measurement
  })

  /** Each message has one place, and places have no gaps. */
  const verify = Effect.fnUntraced(function*(name: string, linked: number) {
    const [row] = yield* sql<{ readonly links: number; readonly wrong: number }>`
      select sum(count)::int as links, count(*) filter (where first <> 0 or last + 1 <> count)::int as wrong from (
        select count(*) as count, min(position) as first, max(position) as last
        from ${sql(`depeche_stream_${name}`)} group by partition
      ) partitions`
    if (row?.links !== linked || row.wrong !== 0) return yield* Effect.die(new Error(`wrong links in ${name}`))
  })

  const linkOne = Effect.gen(function*() {
    const stream = yield* streamOf("link_one", Partitioner.streamName(16))
    yield* stream.projector.runOnce
    yield* store.write(storedStream(1 + Math.floor(Math.random() * 1000)), makeMessage())
    return yield* timed(Effect.map(stream.projector.runOnce, ({ linked }) => linked))
  })

  const handle = (subscription: Subscription.Subscription<Order>, work: SubscribeWork) =>
    Effect.gen(function*() {
      const finished = yield* Deferred.make<void>()
      let handled = 0
      const count = (by: number) => {
        handled += by
        return handled >= work.messages ? Effect.asVoid(Deferred.succeed(finished, undefined)) : Effect.void
      }
      const run = work.handler === "each"
        ? subscription.run(() => count(1))
        : subscription.runBatches((deliveries) => {
          if (work.handler === "batch") return count(deliveries.length)
          return Effect.andThen(addQuantities(sql, "quantities", deliveries), count(deliveries.length))
        })
      yield* Effect.raceFirst(run, Deferred.await(finished))
      return handled
    })

  const subscribe = Effect.fnUntraced(function*(work: SubscribeWork) {
    const { partitions } = work
    const stream = yield* streamOf(
      `partitions_${partitions}`,
      partitions === "streams" ? ownPartition : Partitioner.streamName(partitions)
    )
    yield* stream.projector.runOnce
    if (upserts === "projection") return yield* projections.handle(stream, work.messages)
    yield* createQuantities(sql, "quantities")
    const subscription = yield* stream.subscription({
      name: `subscribed_${++subscriptions}`,
      delivery: work.delivery,
      acknowledge: work.acknowledge,
      batchSize: 500
    })
    const [measurement, processor] = yield* spent(sql, timed(handle(subscription, work)))
    return { ...measurement, processor }
  })

  const catchUp = Effect.fnUntraced(function*(work: CatchUpWork) {
    const stream = yield* streamOf("catch_up", Partitioner.streamName(16))
    yield* stream.projector.runOnce
    return yield* projections.catchUp(stream, work)
  })

  const statements = Effect.fnUntraced(function*(work: SubscribeWork) {
    let messages = 0
    const calls = yield* countStatements(
      sql,
      Effect.tap(subscribe(work), ({ units }) =>
        Effect.sync(() => {
          messages = units
        }))
    )
    return { units: calls, seconds: messages }
  })

  /** Milliseconds from the call of `write` to the handler, at 100 writes a second: a percentile of 300. */
  const latency = (percentile: number) =>
    Effect.scoped(Effect.gen(function*() {
      const stream = yield* streamOf("partitions_16", Partitioner.streamName(16))
      yield* stream.projector.runOnce
      const subscription = yield* stream.subscription({ name: `subscribed_${++subscriptions}`, start: "next" })
      const written = new Map<string, number>()
      const latencies: Array<number> = []
      yield* Effect.forkScoped(stream.projector.run())
      yield* Effect.forkScoped(subscription.run(({ messageId }) =>
        Effect.sync(() => {
          const at = written.get(messageId)
          if (at !== undefined) latencies.push(performance.now() - at)
        })
      ))
      const write = Effect.suspend(() => {
        const message = makeMessage()
        written.set(message.messageId, performance.now())
        return store.write(storedStream(1 + Math.floor(Math.random() * 1000)), message)
      })
      for (let i = 0; i < 400; i++) {
        if (i === 100) latencies.length = 0 // until here it warms up
        yield* Effect.forkScoped(write)
        yield* Effect.sleep("10 millis")
      }
      yield* Effect.sleep("200 millis")
      const sorted = latencies.toSorted((a, b) => a - b)
      return { units: sorted[Math.floor(sorted.length * percentile / 100)] ?? NaN, seconds: 1 }
    }))

  return (work: StreamWork): Effect.Effect<Measurement, unknown> => {
    switch (work.kind) {
      case "link":
        return link(work)
      case "linkOne":
        return linkOne
      case "subscribe":
        return subscribe(work)
      case "catchUp":
        return catchUp(work)
      case "scheduled":
        return writeScheduled(work)
      case "import":
      case "export":
        return archives[work.kind]
      case "statements":
        return statements(work.work)
      case "start":
        return start(work)
      case "latency":
        return latency(work.percentile)
    }
  }
}
