/** Subscriptions: what they tell those who operate them, of handlers, halted partitions and owners. */
import { assert } from "@effect/vitest"
import { Duration, Effect, Logger, Metric, References, Schedule, Stream, Tracer } from "effect"
import * as Decision from "../../Decision.ts"
import { balance, deposit, deposits, failsWith, metricsOf, newStream, type Part, recordingTracer } from "../fixture.ts"
import { type Account, during, type Handled, recorder, subscribe, until } from "./fixture.ts"

export const telling: Part = (it) => {
  it.effect("counts what no projector has linked yet as behind, and nothing when all is handled", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe()
      const subscription = yield* make()
      assert.strictEqual(yield* subscription.lag, 0)
      yield* accounts.write(origin(0), deposits(3)) // and the projector is down
      assert.strictEqual(yield* subscription.lag, 3)
      yield* stream.projector.runOnce
      yield* accounts.write(origin(1), deposits(2))
      assert.strictEqual(yield* subscription.lag, 5)
      yield* write(1, 1)
      const handled = until(Effect.map(subscription.lag, (lag) => lag === 0))
      yield* during(subscription.run(() => Effect.void), handled)
      yield* accounts.write(newStream(), deposits(1)) // of no stream that is merged
      assert.strictEqual(yield* subscription.lag, 0)
    }))

  it.effect("tells how old the oldest message is that is not handled, linked or not", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream, write } = yield* subscribe({ onFailure: "haltPartition" })
      const subscription = yield* make()
      const ages = Effect.map(subscription.status, (all) =>
        all.map((status) => status.age && Duration.toMillis(status.age)))
      const age = Effect.map(subscription.age, Duration.toMillis)
      assert.strictEqual(yield* age, 0)
      yield* accounts.write(origin(0), deposits(2)) // and the projector is down
      yield* Effect.sleep("50 millis")
      assert.isAtLeast(yield* age, 40) // timers and clocks differ by some
      yield* stream.projector.runOnce
      assert.isAtLeast((yield* ages)[0] ?? 0, 40)
      yield* Effect.sleep("100 millis")
      yield* write(1, 1)
      const [first = 0, second = Infinity] = yield* ages
      assert.isAtLeast(first, 130)
      assert.isBelow(second, first)
      const oldest = yield* age
      assert.isAtLeast(oldest, first)
      assert.isBelow(oldest, 60_000)
      const halts = (message: Account, { partition }: Handled) =>
        partition === 0 && message._tag === "Deposited" && message.amount === 2n ? Effect.fail("no") : Effect.void
      yield* during(
        subscription.run(halts),
        until(Effect.map(subscription.lag, (lag) =>
          lag === 1))
      )
      const [halted, handled] = yield* ages
      assert.isAtLeast(halted ?? 0, first) // the second, which was written with the first
      assert.isUndefined(handled)
      yield* during(subscription.run(() => Effect.void), until(Effect.map(subscription.lag, (lag) => lag === 0)))
      assert.strictEqual(yield* age, 0)
    }))

  it.effect("has gauges of lag, age, halted and paused partitions", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ onFailure: "haltPartition", pollInterval: "20 millis" })
      yield* write(0, 2)
      yield* write(1, 3)
      const subscription = yield* make()
      const gauge = (id: string) =>
        Effect.map(Metric.snapshot, (all) => {
          const found = all.find((each) =>
            each.id === `effect_message_store.${id}` &&
            each.attributes?.["messaging.consumer.group.name"] === subscription.name
          )
          return found?.type === "Gauge" ? found.state.value : undefined
        })
      const reaches = (id: string, value: number) => until(Effect.map(gauge(id), (is) => is === value))
      yield* subscription.pause({ partition: 1 })
      yield* Effect.sleep("5 millis")
      yield* during(
        subscription.run(() => Effect.fail("no")),
        Effect.gen(function*() {
          yield* reaches("halted.partitions", 1)
          yield* reaches("paused.partitions", 1)
          yield* reaches("lag", 5)
          assert.isAtLeast(Number(yield* gauge("age")), 0.005)
        })
      )
      yield* subscription.resume({ partition: 1 })
      yield* during(
        subscription.run(() => Effect.void),
        Effect.gen(function*() {
          for (const id of ["halted.partitions", "paused.partitions", "lag", "age"]) yield* reaches(id, 0)
        })
      )
    }))

  it.effect("has a gauge of the age that counts what no projector has linked", () =>
    Effect.gen(function*() {
      const { accounts, make, origin } = yield* subscribe({ pollInterval: "20 millis" })
      yield* accounts.write(origin(0), deposits(1)) // and the projector is down
      const subscription = yield* make()
      const age = Effect.map(Metric.snapshot, (all) =>
        all.find((each) =>
          each.id === "effect_message_store.age" && each.type === "Gauge" && each.state.value > 0
        ))
      yield* during(
        subscription.run(() => Effect.void),
        until(Effect.map(age, (found) => found !== undefined))
      ).pipe(Effect.provideService(Metric.MetricRegistry, new Map()))
    }))

  it.effect("counts the calls of handlers, and measures how long they take, by the errors they end with", () =>
    Effect.gen(function*() {
      const { make, stream, write } = yield* subscribe({ retry: Schedule.recurs(1) })
      yield* write(0, 3)
      const subscription = yield* make()
      const { spans, tracer } = recordingTracer()
      const told = yield* Effect.andThen(
        Effect.andThen(
          subscription.drain((_, { position }) => position === 1 ? Effect.die(new TypeError("no")) : Effect.void),
          Effect.andThen(
            subscription.reset(),
            during(
              subscription.runBatches(() => Effect.void),
              until(Effect.map(subscription.lag, (lag) => lag === 0))
            )
          )
        ),
        metricsOf("handle")
      ).pipe(Effect.provideService(Tracer.Tracer, tracer), Effect.provideService(Metric.MetricRegistry, new Map()))
      // Two messages, then three at once; and the one that failed, twice.
      assert.deepStrictEqual(told, {
        "messaging.client.consumed.messages": 5,
        "messaging.client.consumed.messages TypeError": 2,
        "messaging.process.duration": 3,
        "messaging.process.duration TypeError": 2
      })
      const handled = spans.filter(({ name }) => name === `handle ${stream.name}`)
      assert.deepStrictEqual(
        handled.map(({ attributes }) => attributes.get("error.type")),
        [undefined, "TypeError", "TypeError", undefined, undefined]
      )
      assert.strictEqual(handled.at(-1)?.attributes.get("messaging.batch.message_count"), 3)
      assert.isFalse(handled.at(-1)?.attributes.has("messaging.message.id"))
    }))

  it.effect("names subscription and message in the spans and the log lines of handlers", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { make, origin, stream, write } = yield* subscribe({ delivery, pollInterval: "20 millis" })
        yield* write(0, 2)
        const subscription = yield* make()
        const record = recorder()
        const { spans, tracer } = recordingTracer()
        const lines: Array<object> = []
        const logger = Logger.make<unknown, void>(({ fiber, message }) => {
          if (String(message).includes("from inside")) lines.push(fiber.getRef(References.CurrentLogAnnotations))
        })
        yield* during(
          subscription.run((message, delivered) =>
            Effect.andThen(Effect.logInfo("from inside"), record.handler(message, delivered))
          ).pipe(Effect.provideService(Tracer.Tracer, tracer), Effect.provide(Logger.layer([logger]))),
          Effect.gen(function*() {
            yield* record.take(2)
            yield* until(Effect.map(subscription.lag, (lag) => lag === 0))
            yield* Effect.sleep("100 millis") // some polls
          })
        )
        assert.deepStrictEqual(spans.map(({ name }) => name), [`handle ${stream.name}`, `handle ${stream.name}`])
        for (const [position, span] of spans.entries()) {
          const messageId = record.handled[position]?.messageId
          assert.strictEqual(span.kind, "consumer")
          assert.deepStrictEqual(Object.fromEntries(span.attributes), {
            "messaging.system": "effect_message_store",
            "messaging.operation.name": "handle",
            "messaging.operation.type": "process",
            "messaging.destination.name": stream.name,
            "messaging.destination.partition.id": "0",
            "messaging.consumer.group.name": subscription.name,
            "messaging.message.id": messageId,
            "messaging.effect_message_store.stream": origin(0),
            "messaging.effect_message_store.message.type": "Deposited",
            "messaging.effect_message_store.message.position": position,
            "messaging.effect_message_store.message.attempt": 1
          })
          assert.include(lines[position], {
            subscription: subscription.name,
            messageId,
            stream: origin(0),
            type: "Deposited",
            partition: 0,
            position,
            attempt: 1
          })
        }
      }
    }))

  it.effect("has its handlers' writes say which message they answer, unless they say so themselves", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { accounts, make, origin, stream } = yield* subscribe({ delivery })
        yield* accounts.write(origin(0), deposits(1), { metadata: { correlationId: "c", causationId: "a command" } })
        yield* accounts.write(origin(0), deposits(1))
        yield* stream.projector.runOnce
        const subscription = yield* make()
        const target = newStream()
        const handled: Array<Handled> = []
        const given = { causationId: "mine", correlationId: undefined, more: 1 }
        const handler = Effect.fnUntraced(function*(_: unknown, delivered: Handled) {
          handled.push(delivered)
          yield* accounts.write(target, deposit())
          yield* accounts.update(target, balance, () => Effect.succeed([deposit()]))
          yield* accounts.decide(
            { sum: Decision.stream(target, balance) },
            () => Effect.succeed([{ stream: target, messages: deposit() }])
          )
          yield* accounts.write(target, deposit(), { metadata: given })
        })
        yield* during(subscription.run(handler), until(Effect.map(subscription.lag, (lag) => lag === 0)))
        const written = yield* Stream.runCollect(accounts.read(target))
        const said = written.map(({ metadata: { traceparent: _, ...metadata } }) => metadata)
        const [first, second] = handled
        const [of, next] = [
          { correlationId: "c", causationId: first?.messageId },
          { correlationId: second?.messageId, causationId: second?.messageId }
        ]
        const own = { causationId: "mine", more: 1 }
        assert.deepStrictEqual(said, [of, of, of, own, next, next, next, own] as typeof said)
      }
      // Elsewhere, and of several at once, nothing is said.
      const { accounts, make, write } = yield* subscribe()
      const target = newStream()
      yield* write(0, 2)
      const subscription = yield* make()
      const batch = subscription.runBatches(() => accounts.write(target, deposit()))
      yield* during(batch, until(Effect.map(subscription.lag, (lag) => lag === 0)))
      yield* write(0, 1)
      yield* during(batch, until(Effect.map(subscription.lag, (lag) => lag === 0)))
      yield* accounts.write(target, deposit())
      const said = yield* Stream.runCollect(accounts.read(target))
      assert.deepStrictEqual(said.map(({ metadata }) => metadata.causationId === undefined), [true, false, true])
    }))

  it.effect("says that it runs, and who has a partition", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ owner: "blue" })
      yield* write(0, 1)
      const subscription = yield* make()
      const record = recorder()
      const lines: Array<string> = []
      const logger = Logger.make<unknown, void>(({ message }) => void lines.push(String(message)))
      yield* during(
        Effect.provide(subscription.run(record.handler), Logger.layer([logger])),
        Effect.gen(function*() {
          yield* record.take(1)
          assert.match((yield* subscription.status)[0]?.claimedBy ?? "", /\S+ blue$/)
        })
      )
      assert.include(lines.join("\n"), `subscription ${subscription.name} is running`)
    }))

  it.effect("shows where a partition is halted, and why, until it goes on", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe({ onFailure: "haltPartition" })
      yield* write(0, 3)
      const subscription = yield* make()
      const halted = Effect.map(subscription.status, ([status]) => status?.halted)
      assert.isUndefined(yield* halted)
      yield* during(
        subscription.run((_, { position }) => position === 1 ? Effect.fail("no") : Effect.void),
        until(Effect.map(halted, (halt) => halt !== undefined))
      )
      assert.deepInclude(yield* halted, { position: 1, attempts: 1, error: { tag: "string", message: "no" } })
      yield* during(subscription.run(() => Effect.void), until(Effect.map(subscription.lag, (lag) => lag === 0)))
      assert.isUndefined(yield* halted)
    }))

  it.effect("says to who waits for a message that the stream was rebuilt, until it is reset", () =>
    Effect.gen(function*() {
      const { make, stream, write } = yield* subscribe()
      const { globalPosition } = yield* write(0, 3)
      const subscription = yield* make()
      const waited = subscription.waitUntilProcessed(globalPosition, "10 seconds")
      yield* during(subscription.run(() => Effect.void), waited)
      yield* stream.rebuild
      // Its checkpoint would say that it is processed, of whatever message is there now.
      yield* failsWith(waited, { _tag: "StreamRebuiltError", subscription: subscription.name })
      yield* subscription.reset()
      yield* failsWith(subscription.waitUntilProcessed(globalPosition, "10 millis"), { _tag: "NotProcessedError" })
      yield* during(subscription.run(() => Effect.void), waited)
    }))

  it.effect("says what waitUntilProcessed has waited for", () =>
    Effect.gen(function*() {
      const { make, write } = yield* subscribe()
      const { globalPosition } = yield* write(0, 1)
      const subscription = yield* make()
      for (const [position, isLinked] of [[globalPosition, true], [globalPosition + 1_000_000, false]] as const) {
        const error = yield* Effect.flip(subscription.waitUntilProcessed(position, "10 millis"))
        assert.deepInclude(error, {
          _tag: "NotProcessedError",
          subscription: subscription.name,
          globalPosition: position,
          isLinked
        })
        assert.include(error.message, subscription.name)
      }
      for (const position of [-1, 1.5, NaN]) {
        const error = yield* Effect.flip(subscription.waitUntilProcessed(position, "10 seconds"))
        assert.deepInclude(error, { _tag: "InvalidArgumentError", argument: "globalPosition" })
      }
      for (const timeout of [-1, "soon" as never]) {
        const error = yield* Effect.flip(subscription.waitUntilProcessed(globalPosition, timeout))
        assert.deepInclude(error, { _tag: "InvalidArgumentError", argument: "timeout" })
      }
    }))
}
