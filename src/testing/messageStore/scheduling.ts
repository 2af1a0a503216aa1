/** Messages that are written at a time. */
import { assert } from "@effect/vitest"
import { Clock, DateTime, Deferred, Effect, Fiber, Stream } from "effect"
import type * as MessageStore from "../../MessageStore.ts"
import * as Personal from "../../Personal.ts"
import { Storage } from "../../Storage.ts"
import { Accounts, deposit, deposits, failsWith, newStream, Noted, outsider, type Part } from "../fixture.ts"
import { until } from "../subscription/fixture.ts"
import { canary, Customers, newCustomer, onCustomers, renamed } from "./personalFixture.ts"
import { courses, newValue, Subscribed } from "./tags.ts"

type Accounting = Accounts["Service"]

const from = (milliseconds: number) =>
  Effect.map(Clock.currentTimeMillis, (now) => DateTime.makeUnsafe(now + milliseconds))

const past = from(-60_000)
const future = from(3_600_000)

const stored = (accounts: Accounting, stream: string) => Stream.runCollect(accounts.read(stream))
const ids = (accounts: Accounting, stream: string) =>
  Effect.map(stored(accounts, stream), (all) => all.map(({ messageId }) => messageId))

export const scheduling: Part = (it, { concurrentTransactions }) => {
  it.effect("writes a message at its time, as it was scheduled, and not before", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const [late, early] = [deposit(1), deposit(2)]
      const metadata = { correlationId: "c", causationId: "d", of: { many: [1] } }
      yield* accounts.schedule(stream, late, { at: yield* future })
      yield* accounts.schedule(stream, early, { at: yield* past, metadata })
      assert.deepStrictEqual(yield* ids(accounts, stream), [])
      assert.strictEqual(yield* accounts.scheduler.runOnce, 1)
      const [written, ...rest] = yield* stored(accounts, stream)
      assert.deepStrictEqual(rest, [])
      assert.deepInclude(written, { messageId: early.messageId, message: early, version: 1 })
      assert.deepInclude(written?.metadata, metadata)
      assert.strictEqual(yield* accounts.scheduler.runOnce, 0)
      assert.isTrue(yield* accounts.cancel(late.messageId))
    }))

  it.effect("writes the messages of a stream in the order of their times, whatever version it has", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const at = (yield* past).epochMilliseconds
      const [first, second, third, fourth] = [deposit(), deposit(), deposit(), deposit()]
      yield* accounts.write(stream, deposits(2))
      for (const [message, time] of [[third, at + 2], [first, at], [fourth, at + 2], [second, at + 1]] as const) {
        yield* accounts.schedule(stream, message, { at: DateTime.makeUnsafe(time) })
      }
      assert.strictEqual(yield* accounts.scheduler.runOnce, 4)
      assert.deepStrictEqual(
        (yield* ids(accounts, stream)).slice(2),
        [first, second, third, fourth].map(({ messageId }) => messageId)
      )
    }))

  it.effect("replaces the message of a key, and cancels it", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const key = `${stream} é "'`
      const [first, second] = [deposit(1), deposit(2)]
      assert.strictEqual(yield* accounts.schedule(stream, first, { at: yield* past, key }), key)
      assert.strictEqual(yield* accounts.schedule(`${stream}-other`, second, { at: yield* future, key }), key)
      assert.strictEqual(yield* accounts.scheduler.runOnce, 0)
      assert.strictEqual(yield* accounts.schedule(stream, second, { at: yield* past, key }), key)
      assert.strictEqual(yield* accounts.scheduler.runOnce, 1)
      assert.deepStrictEqual(yield* ids(accounts, stream), [second.messageId])
      assert.isFalse(yield* accounts.cancel(key))
      yield* accounts.schedule(stream, first, { at: yield* past, key })
      assert.isTrue(yield* accounts.cancel(key))
      assert.isFalse(yield* accounts.cancel(key))
      assert.strictEqual(yield* accounts.schedule(stream, first, { at: yield* future }), first.messageId)
      assert.isTrue(yield* accounts.cancel(first.messageId))
      assert.strictEqual(yield* accounts.scheduler.runOnce, 0)
    }))

  it.effect("schedules and cancels with the transaction that is open", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const [kept, undone] = [deposit(1), deposit(2)]
      yield* accounts.schedule(stream, kept, { at: yield* past, key: `${stream} kept` })
      yield* Effect.flip(accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.schedule(stream, undone, { at: yield* past })
        assert.isTrue(yield* accounts.cancel(`${stream} kept`))
        assert.isFalse(yield* accounts.cancel(`${stream} kept`))
        return yield* Effect.fail("rolled back")
      })))
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(stream, deposit())
        yield* accounts.schedule(stream, deposit(), { at: yield* past })
      }))
      assert.strictEqual(yield* accounts.scheduler.runOnce, 2)
      assert.strictEqual((yield* ids(accounts, stream))[1], kept.messageId)
      for (const call of [accounts.scheduler.runOnce, accounts.scheduler.run()]) {
        yield* failsWith(accounts.withTransaction(call), { _tag: "InvalidArgumentError", argument: "scheduler" })
      }
    }))

  it.effect("is held up by no stream, and no key, that others have in hand", (context) =>
    Effect.gen(function*() {
      if (!concurrentTransactions) return context.skip()
      const accounts = yield* Accounts
      const outside = yield* outsider
      const [busy, free] = [newStream(), newStream()]
      const [first, second, third] = [deposit(1), deposit(2), deposit(3)]
      const at = yield* past
      for (const message of [first, second]) yield* accounts.schedule(busy, message, { at })
      yield* accounts.schedule(free, third, { at, key: free })
      const cancelled = deposit(4)
      yield* accounts.schedule(free, cancelled, { at })
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(busy, deposit())
        assert.isTrue(yield* accounts.cancel(cancelled.messageId))
        yield* accounts.schedule(newStream(), deposit(), { at: yield* future, key: busy })
        assert.strictEqual(yield* outside(accounts.scheduler.runOnce), 1)
        assert.deepStrictEqual(yield* outside(ids(accounts, free)), [third.messageId])
      }))
      assert.strictEqual(yield* accounts.scheduler.runOnce, 2)
      assert.deepStrictEqual((yield* ids(accounts, busy)).slice(1), [first.messageId, second.messageId])
      assert.deepStrictEqual(yield* ids(accounts, free), [third.messageId])
      assert.isTrue(yield* accounts.cancel(busy))
    }))

  it.effect("writes no message twice, whoever has written it", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const [first, second] = [deposit(1), deposit(2)]
      yield* accounts.write(stream, first)
      const at = yield* past
      yield* accounts.schedule(stream, first, { at })
      yield* accounts.schedule(stream, second, { at })
      yield* accounts.schedule(stream, second, { at, key: `${stream} again` })
      assert.strictEqual(yield* accounts.scheduler.runOnce, 1)
      assert.deepStrictEqual(yield* ids(accounts, stream), [first.messageId, second.messageId])
      assert.isFalse(yield* accounts.cancel(first.messageId))
      assert.isFalse(yield* accounts.cancel(`${stream} again`))
    }))

  it.effect("writes thousands that are due at once, each once, by several schedulers", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const at = yield* past
      const messages = deposits(1200)
      yield* accounts.withTransaction(
        Effect.forEach(messages, (message, i) => accounts.schedule(`${prefix}-${i % 7}`, message, { at }))
      )
      const moved = yield* Effect.all(Array.from({ length: 3 }, () => accounts.scheduler.runOnce), {
        concurrency: "unbounded"
      })
      assert.strictEqual(moved.reduce((sum, each) => sum + each, 0), 1200)
      for (let i = 0; i < 7; i++) {
        assert.deepStrictEqual(
          yield* ids(accounts, `${prefix}-${i}`),
          messages.filter((_, index) => index % 7 === i).map(({ messageId }) => messageId)
        )
      }
    }))

  it.effect("moves messages soon after they are due, while a scheduler runs", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const running = yield* Effect.forkScoped(accounts.scheduler.run({ pollInterval: "1 day" }))
      const first = yield* from(600)
      yield* accounts.schedule(stream, deposit(), { at: first })
      yield* Effect.sleep("50 millis") // it waits for the first, and has to be woken for the second
      const second = yield* from(300)
      yield* accounts.schedule(`${stream}-2`, deposit(), { at: second })
      for (const [name, at] of [[stream, first], [`${stream}-2`, second]] as const) {
        yield* until(Effect.map(accounts.head(name), ({ version }) => version === 1))
        const [written] = yield* stored(accounts, name)
        const late = Number(written?.addedAt.epochMilliseconds) - at.epochMilliseconds
        assert.isAtLeast(late, 0)
        assert.isBelow(late, 3000) // on a machine that does other things, too
      }
      yield* Fiber.interrupt(running)
    }))

  it.effect("lists what is scheduled, in the order in which it leaves, as a transaction sees it", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const outside = yield* outsider
      const stream = newStream()
      const [first, second, third] = [deposit(1), deposit(2), deposit(3)]
      const [soon, later] = [yield* from(60_000), yield* from(120_000)]
      const listed = (options?: MessageStore.ScheduledOptions) =>
        Stream.runCollect(Stream.filter(accounts.scheduled(options), (each) => each.stream === stream))
      yield* accounts.schedule(stream, third, { at: later, key: "third", metadata: { correlationId: "c" } })
      yield* accounts.schedule(stream, first, { at: soon })
      yield* accounts.schedule(stream, second, { at: soon })
      const all = yield* listed()
      assert.deepStrictEqual(
        all.map(({ order: _, metadata: { traceparent: __, ...metadata }, ...each }) => ({ ...each, metadata })),
        [
          {
            key: first.messageId,
            at: soon,
            stream,
            messageId: first.messageId,
            message: first,
            metadata: {},
            refused: undefined
          },
          {
            key: second.messageId,
            at: soon,
            stream,
            messageId: second.messageId,
            message: second,
            metadata: {},
            refused: undefined
          },
          {
            key: "third",
            at: later,
            stream,
            messageId: third.messageId,
            message: third,
            metadata: { correlationId: "c" },
            refused: undefined
          }
        ]
      )
      assert.deepStrictEqual(yield* listed({ after: all[0] }), all.slice(1))
      assert.deepStrictEqual(yield* listed({ refused: true }), [])
      const keys = Effect.map(listed(), (found) => found.map(({ key }) => key))
      yield* Effect.flip(accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.cancel("third")
        yield* accounts.schedule(stream, first, { at: soon }) // behind the second now
        yield* accounts.schedule(stream, deposit(), { at: later, key: "fourth" })
        assert.deepStrictEqual(yield* keys, [second.messageId, first.messageId, "fourth"])
        if (concurrentTransactions) {
          assert.deepStrictEqual(yield* outside(Effect.orDie(keys)), [first.messageId, second.messageId, "third"])
        }
        return yield* Effect.fail("rolled back")
      })))
      assert.deepStrictEqual(yield* listed(), all)
      for (const { key } of all) assert.isTrue(yield* accounts.cancel(key))
      assert.deepStrictEqual(yield* listed(), [])
    }))

  it.effect("lists many in pages, and those that this build cannot decode", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const storage = yield* Storage
      const at = yield* future
      const prefix = newStream()
      const messages = deposits(130)
      yield* accounts.withTransaction(
        Effect.forEach(messages, (message, i) =>
          accounts.schedule(`${prefix}-${i}`, message, { at, key: `${prefix} ${i}` }))
      )
      const all = yield* Stream.runCollect(accounts.scheduled())
      assert.deepStrictEqual(
        all.map(({ message }) =>
          message
        ),
        messages
      )
      const read = (options?: MessageStore.ScheduledOptions) => Stream.runCollect(accounts.scheduled(options))
      assert.deepStrictEqual(yield* read({ limit: 101 }), all.slice(0, 101))
      assert.deepStrictEqual(yield* read({ limit: 0 }), [])
      assert.deepStrictEqual(yield* read({ after: all[19], limit: 105 }), all.slice(20, 125))
      assert.deepStrictEqual(yield* read({ after: all[129] }), [])
      yield* accounts.withTransaction(Effect.forEach(messages, (_, i) => accounts.cancel(`${prefix} ${i}`)))
      const message = { messageId: deposit().messageId, occurredAt: at, data: `{"_tag":"Other"}`, tagged: undefined }
      yield* storage.schedule({ key: prefix, at, stream: prefix, message, metadata: "{}", knownTags: undefined })
      const [only, ...rest] = yield* read()
      assert.deepInclude(only, { key: prefix, at, messageId: message.messageId, message: undefined, metadata: {} })
      assert.deepStrictEqual(rest, [])
      assert.isTrue(yield* accounts.cancel(prefix))
      const refused = { _tag: "InvalidArgumentError" }
      yield* failsWith(read({ limit: -1 }), { ...refused, argument: "limit" })
      yield* failsWith(read({ after: { at, order: 0.5 } }), { ...refused, argument: "after" })
      yield* failsWith(read({ after: { at: DateTime.makeUnsafe(-8.64e15), order: 1 } }), {
        ...refused,
        argument: "after"
      })
    }))

  it.effect("lists personal fields until they are forgotten", () =>
    onCustomers(Customers, (customers) =>
      Effect.gen(function*() {
        const customer = newCustomer()
        const at = DateTime.addDuration(yield* DateTime.now, "1 hour")
        yield* customers.schedule(customer, renamed(customer, canary), { at, key: customer })
        const email = Effect.map(Stream.runCollect(customers.scheduled()), (all) => {
          const message = all.find(({ key }) => key === customer)?.message
          return message?._tag === "EmailChanged" ? Personal.getOrElse(message.email, () => null) : undefined
        })
        const page = yield* (yield* Storage).scheduled({ isRefused: false, after: undefined, limit: 1000 })
        assert.notInclude(JSON.stringify(page), canary)
        assert.strictEqual(yield* email, canary)
        yield* customers.forget(customer)
        assert.strictEqual(yield* email, null)
        assert.isTrue(yield* customers.cancel(customer))
      })))

  it.effect("keeps the tags of a message", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const [course, student] = [newValue(), newValue()]
      const message = new Subscribed({ course, student })
      yield* store.schedule(newStream(), message, { at: yield* past })
      assert.strictEqual(yield* store.scheduler.runOnce, 1)
      const found = yield* Stream.runCollect(store.readTagged({ course, student }))
      assert.deepStrictEqual(found.map(({ messageId }) => messageId), [message.messageId])
    }))

  it.effect("refuses what cannot be scheduled, before anything is", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const at = yield* past
      const refused = { _tag: "InvalidArgumentError" }
      const schedule = (options: Partial<MessageStore.ScheduleOptions>, name = stream, message = deposit()) =>
        accounts.schedule(name, message, { at, ...options })
      yield* failsWith(schedule({ key: "" }), { ...refused, argument: "key" })
      yield* failsWith(schedule({ key: "a".repeat(256) }), { ...refused, argument: "key" })
      yield* failsWith(schedule({ key: "\0" }), { ...refused, argument: "key" })
      yield* failsWith(schedule({ at: DateTime.makeUnsafe(-8.64e15) }), { ...refused, argument: "at" })
      yield* failsWith(schedule({}, ""), { ...refused, argument: "stream" })
      yield* failsWith(accounts.cancel(""), { ...refused, argument: "key" })
      for (const pollInterval of [0, "-1 seconds", Number.NaN, "soon" as never] as const) {
        yield* failsWith(accounts.scheduler.run({ pollInterval }), { ...refused, argument: "pollInterval" })
      }
      yield* failsWith(accounts.schedule(stream, new Noted({ text: "\0" }), { at }), { _tag: "SerializationError" })
      yield* failsWith(schedule({ metadata: { text: "\0" } }), { _tag: "SerializationError" })
      assert.strictEqual(yield* accounts.scheduler.runOnce, 0)
      assert.deepStrictEqual(yield* ids(accounts, stream), [])
    }))

  it.effect("is not interrupted half way", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const at = yield* past
      const messages = deposits(300)
      for (const message of messages) yield* accounts.schedule(stream, message, { at })
      for (let i = 0; i < 20; i++) {
        const started = yield* Deferred.make<void>()
        const running = yield* Effect.forkScoped(
          Effect.andThen(Deferred.succeed(started, undefined), accounts.scheduler.runOnce)
        )
        yield* Deferred.await(started)
        yield* Effect.sleep(i)
        yield* Fiber.interrupt(running)
      }
      yield* accounts.scheduler.runOnce
      assert.deepStrictEqual(yield* ids(accounts, stream), messages.map(({ messageId }) => messageId))
    }))
}
