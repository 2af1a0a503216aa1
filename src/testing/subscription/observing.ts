/** Subscriptions: what they tell of themselves, by metrics, spans and the log, and of messages that cannot be decoded. */
import { assert } from "@effect/vitest"
import { Effect, Logger, Metric, References, Schedule } from "effect"
import * as Handlers from "../../Handlers.ts"
import * as MessageStore from "../../MessageStore.ts"
import * as Partitioner from "../../Partitioner.ts"
import { Accounts, ClaimsOption, deposits, failsWith, newStream, Noted, type Part } from "../fixture.ts"
import { during, failing, newSubscription, recorder, subscribe, until } from "./fixture.ts"

/** The same store, read by an application that knows one of its messages only. */
class Notes extends MessageStore.Service<Notes>()("effect-message-store/testing/Notes", {
  name: "contract",
  schema: Noted
}) {}

const metric = Effect.fnUntraced(function*(id: string, subscription: string) {
  const found = (yield* Metric.snapshot).find((each) =>
    each.id === id && each.attributes?.["messaging.consumer.group.name"] === subscription
  )
  return found?.type === "Counter" ? found.state.count : found?.type === "Gauge" ? found.state.value : undefined
})

/** Lines of the log that name a subscription and tell of failures, and a logger that collects them. */
const logged = (subscription: string) => {
  const lines: Array<{ readonly level: string; readonly text: string; readonly annotations: object }> = []
  const logger = Logger.make<unknown, void>(({ fiber, logLevel, message }) => {
    const text = String(Array.isArray(message) ? message[0] : message)
    if (!text.includes(subscription) || logLevel === "Info") return
    lines.push({ level: logLevel, text, annotations: fiber.getRef(References.CurrentLogAnnotations) })
  })
  return { lines, layer: Logger.layer([logger]) }
}

export const observing: Part = (it) => {
  it.effect("counts what was handled, has failed, was parked and was skipped", () =>
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        for (const onFailure of ["park", "skip"] as const) {
          const { make, write } = yield* subscribe({ delivery, onFailure, retry: Schedule.recurs(1), batchSize: 3 })
          yield* write(0, 7)
          const subscription = yield* make()
          const record = recorder()
          const idle = until(Effect.map(subscription.lag, (lag) => lag === 0))
          yield* during(subscription.run(failing(({ position }) => position === 4, record)), idle)
          const count = (id: string) => metric(`effect_message_store.${id}`, subscription.name)
          assert.strictEqual(yield* count("handled.messages"), 6, `${delivery} ${onFailure}`)
          assert.strictEqual(yield* count("failed.attempts"), 2)
          assert.strictEqual(yield* count("parked.messages"), onFailure === "park" ? 1 : 0)
          assert.strictEqual(yield* count("skipped.messages"), onFailure === "skip" ? 1 : 0)
          if (onFailure === "skip") continue
          yield* subscription.replay(failing(() => true, record))
          yield* subscription.replay(record.handler)
          assert.strictEqual(yield* count("handled.messages"), 7)
          assert.strictEqual(yield* count("failed.attempts"), 3)
        }
      }
    }))

  it.effect("links a handler's span to the one that wrote the message", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream } = yield* subscribe()
      const writing = yield* Effect.withSpan(
        Effect.andThen(accounts.write(origin(0), deposits(2)), Effect.currentSpan),
        "the writing one"
      )
      yield* stream.projector.runOnce
      const subscription = yield* make()
      const record = recorder()
      const links: Array<{ readonly trace: string; readonly traceparent: string }> = []
      const handler = Handlers.around(record.handler, (handling, { metadata }) =>
        Effect.andThen(
          Effect.map(Effect.currentSpan, (span) => {
            for (const link of span.links) {
              links.push({ trace: link.span.traceId, traceparent: `00-${link.span.traceId}-${link.span.spanId}-01` })
            }
            assert.strictEqual(links.at(-1)?.traceparent, metadata.traceparent)
          }),
          handling
        ))
      yield* during(subscription.run(handler), record.take(2))
      assert.deepStrictEqual(links.map(({ trace }) => trace), [writing.traceId, writing.traceId])
      const fails = Handlers.around(handler, () => Effect.fail("parked, to be replayed"))
      yield* subscription.reset()
      yield* during(subscription.run(fails), until(Effect.map(subscription.lag, (lag) => lag === 0)))
      yield* subscription.replay(handler)
      assert.lengthOf(links, 4)
    }))

  it.effect("handles messages whose trace context and correlation are none", () =>
    Effect.gen(function*() {
      const { accounts, make, origin, stream } = yield* subscribe()
      const anything = { toString: 1, valueOf: 1 }
      for (const traceparent of [anything, [], 1, `00-${"0".repeat(32)}-${"a".repeat(16)}-01`]) {
        const metadata = { traceparent, correlationId: anything } as never
        yield* accounts.write(origin(0), deposits(1), { metadata })
      }
      yield* stream.projector.runOnce
      const subscription = yield* make()
      const record = recorder()
      const handler = Handlers.around(record.handler, (handling) =>
        Effect.andThen(Effect.map(Effect.currentSpan, ({ links }) => assert.lengthOf(links, 0)), handling))
      yield* during(subscription.run(handler), record.take(4))
    }))

  it.effect("logs each failure, and what was done with the message", () =>
    Effect.gen(function*() {
      for (const onFailure of ["park", "skip", "haltPartition", "stop"] as const) {
        const { make, origin, write } = yield* subscribe({ onFailure, retry: Schedule.recurs(1) })
        yield* write(3, 1)
        const subscription = yield* make()
        const { layer, lines } = logged(subscription.name)
        const isTold = until(Effect.sync(() => lines.length === 3))
        yield* subscription.run(() => Effect.fail("no")).pipe(
          Effect.raceFirst(isTold),
          Effect.ignore,
          Effect.provide(layer)
        )
        assert.deepStrictEqual(lines.map(({ level }) => level), ["Warn", "Warn", "Error"])
        const annotations = {
          subscription: subscription.name,
          stream: origin(3),
          partition: 3,
          position: 0,
          attempt: 2,
          type: "Deposited"
        }
        assert.include(lines[2]?.annotations, annotations)
        assert.isString(lines[2]?.annotations && Reflect.get(lines[2].annotations, "messageId"))
      }
    }))

  it.effect("treats a message that cannot be decoded as one whose handler failed", () =>
    Effect.gen(function*() {
      const claims = yield* ClaimsOption
      const accounts = yield* Accounts
      const notes = yield* Notes
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const run = Effect.fnUntraced(function*(onFailure: "park" | "skip" | "haltPartition" | "stop") {
          const name = newSubscription()
          const origin = newStream()
          yield* accounts.write(origin, new Noted({ text: "first" }))
          yield* accounts.write(origin, deposits(1))
          yield* accounts.write(origin, new Noted({ text: "last" }))
          const stream = yield* notes.aggregatedStream({
            name: `of_${name}`,
            patterns: origin,
            partitioner: Partitioner.constant()
          })
          yield* stream.projector.runOnce
          const subscription = yield* stream.subscription({ name, delivery, onFailure, claims, onUnknownType: "fail" })
          const { layer, lines } = logged(name)
          const handled: Array<number> = []
          const handler = Handlers.make<Noted>()({
            Noted: (_, { position }) => Effect.sync(() => handled.push(position))
          })
          const running = Effect.provide(subscription.run(handler), layer)
          return { handled, lines, running, subscription }
        })

        for (const onFailure of ["park", "skip"] as const) {
          const { handled, lines, running, subscription } = yield* run(onFailure)
          yield* during(running, until(Effect.map(subscription.lag, (lag) => lag === 0)))
          assert.deepStrictEqual(handled, [0, 2])
          assert.deepStrictEqual(lines.map(({ level }) => level), ["Error"])
          const parked = yield* subscription.parked
          assert.lengthOf(parked, onFailure === "park" ? 1 : 0)
          if (onFailure === "skip") continue
          assert.include(parked[0], { position: 1, attempts: 1, version: 2 })
          assert.isTrue(parked[0] !== undefined && parked[0].message === undefined)
          assert.include(parked[0]?.error, { tag: "SerializationError" })
          assert.deepStrictEqual(yield* subscription.replay(() => Effect.void), { handled: 0, failed: 1 })
        }

        const halting = yield* run("haltPartition")
        yield* during(halting.running, until(Effect.sync(() => halting.lines.length === 1)))
        const stopping = yield* run("stop")
        yield* failsWith(stopping.running, { _tag: "HandlerError", position: 1, attempts: 1 })
        for (const { handled, subscription } of [halting, stopping]) {
          assert.deepStrictEqual(handled, [0])
          assert.strictEqual(yield* subscription.lag, 2)
        }
      }
    }).pipe(Effect.provide(Notes.layerStorage)))
}
