/** What a store tells of its operations, by metrics and spans. */
import { assert } from "@effect/vitest"
import { DateTime, Effect, Metric, Tracer } from "effect"
import * as Decision from "../../Decision.ts"
import {
  Accounts,
  balance,
  deposit,
  deposits,
  failsWith,
  metricsOf,
  newStream,
  type Part,
  recordingTracer
} from "../fixture.ts"

const measured = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.provideService(effect, Metric.MetricRegistry, new Map())

const [sent, took] = ["messaging.client.sent.messages", "messaging.client.operation.duration"]

export const measuring: Part = (it) => {
  it.effect("counts the messages of each operation, and measures how long it takes", () =>
    measured(Effect.gen(function*() {
      const accounts = yield* Accounts
      const [stream, other] = [newStream(), newStream()]
      yield* accounts.write(stream, deposits(2))
      yield* failsWith(accounts.write(stream, deposit(), { expectedVersion: 7 }), {
        _tag: "OptimisticConcurrencyError"
      })
      yield* failsWith(accounts.write("", deposit()), { _tag: "InvalidArgumentError" }) // and nothing was sent
      assert.deepStrictEqual(yield* metricsOf("write"), {
        [sent]: 2,
        [`${sent} OptimisticConcurrencyError`]: 1,
        [took]: 1,
        [`${took} OptimisticConcurrencyError`]: 1,
        [`${took} InvalidArgumentError`]: 1
      })
      yield* accounts.writeAll([{ stream, messages: deposits(2) }, { stream: other, messages: deposit() }])
      assert.deepStrictEqual(yield* metricsOf("writeAll"), { [sent]: 3, [took]: 1 })
      const all = deposits(3)
      const synchronized = newStream()
      yield* accounts.synchronize(synchronized, all.slice(0, 2))
      yield* accounts.synchronize(synchronized, all)
      yield* accounts.synchronize(synchronized, all)
      assert.deepStrictEqual(yield* metricsOf("synchronize"), { [sent]: 3, [took]: 3 })
      yield* accounts.update(stream, balance, () => deposits(2))
      yield* Effect.flip(accounts.update(stream, balance, () => Effect.fail("no")))
      assert.deepStrictEqual(yield* metricsOf("update"), { [sent]: 2, [took]: 1, [`${took} _OTHER`]: 1 })
      yield* accounts.decide(
        { sum: Decision.stream(stream, balance) },
        () => ({ stream: other, messages: deposits(2) })
      )
      yield* accounts.decide({ sum: Decision.stream(stream, balance) }, () => [])
      assert.deepStrictEqual(yield* metricsOf("decide"), { [sent]: 2, [took]: 2 })
      const key = yield* accounts.schedule(newStream(), deposit(), { at: DateTime.makeUnsafe("2999-01-01") })
      assert.deepStrictEqual(yield* metricsOf("schedule"), { [took]: 1 })
      yield* accounts.cancel(key)
      yield* accounts.delete(other)
      assert.deepStrictEqual(yield* metricsOf("cancel"), { [took]: 1 })
      assert.deepStrictEqual(yield* metricsOf("delete"), { [took]: 1 })
    })))

  it.effect("has spans with the names and attributes of the conventions, in which a single message is named", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const { spans, tracer } = recordingTracer()
      const only = deposit()
      yield* Effect.gen(function*() {
        yield* accounts.write(stream, only)
        yield* Effect.flip(accounts.write(stream, deposits(2), { expectedVersion: 7 }))
        yield* accounts.update(stream, balance, () => deposit())
        yield* accounts.delete(stream)
      }).pipe(Effect.provideService(Tracer.Tracer, tracer))
      // Drivers have spans of their own.
      const own = spans.filter(({ attributes, name }) =>
        attributes.has("messaging.system") && !name.startsWith("append")
      )
      assert.deepStrictEqual(own.map(({ kind, name }) => [kind, name]), [
        ["producer", "write contract"],
        ["producer", "write contract"],
        ["producer", "update contract"],
        ["client", "delete contract"]
      ])
      const common = { "messaging.system": "effect_message_store", "messaging.destination.name": "contract" }
      const written = {
        ...common,
        "messaging.operation.name": "write",
        "messaging.operation.type": "send",
        "messaging.effect_message_store.stream": stream
      }
      const [first, second, third, fourth] = own.map(({ attributes }) => Object.fromEntries(attributes))
      assert.deepStrictEqual(first, { ...written, "messaging.message.id": only.messageId })
      assert.deepStrictEqual(second, {
        ...written,
        "messaging.batch.message_count": 2,
        "error.type": "OptimisticConcurrencyError"
      })
      assert.include(third, { "messaging.operation.name": "update", "messaging.effect_message_store.stream": stream })
      assert.deepStrictEqual(fourth, { ...common, "messaging.operation.name": "delete" })
    }))
}
