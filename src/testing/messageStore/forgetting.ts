/** What else keeps personal data, or tells of it: snapshots, what a process remembers, subscriptions, logs, errors and spans. */
import { assert } from "@effect/vitest"
import {
  Array as Arr,
  Cause,
  Deferred,
  Effect,
  Formatter,
  Layer,
  Logger,
  References,
  Schedule,
  Schema,
  Tracer
} from "effect"
import * as Decision from "../../Decision.ts"
import * as Fold from "../../Fold.ts"
import * as KeyEncryption from "../../KeyEncryption.ts"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import * as Personal from "../../Personal.ts"
import type { EncodedSnapshot, Storage } from "../../Storage.ts"
import { ClaimsOption, outsider, type Part, recordingTracer } from "../fixture.ts"
import {
  canary,
  type CustomerEvent,
  Customers,
  emailsOf,
  messagesOf,
  newCustomer,
  onCustomers,
  Registered,
  renamed,
  Returning,
  Visited,
  wrappingKeys
} from "./personalFixture.ts"

/** The emails of a stream, in its order, with snapshots; and how often it was evolved. */
const emails = (every = 2) => {
  const calls = { evolved: 0 }
  const fold = Fold.withSnapshot(
    Fold.make<CustomerEvent>()({
      initial: [] as ReadonlyArray<Personal.Personal<string>>,
      EmailChanged: (sofar, { email }) => {
        calls.evolved++
        return [...sofar, email]
      }
    }),
    { name: "emails", schema: Schema.Array(Personal.schema(Schema.String)), every }
  )
  return { calls, fold }
}

/** What a decision is made on. */
const stateOf = (
  store: Pick<Customers["Service"], "update">,
  stream: string,
  fold: Fold.Fold<ReadonlyArray<Personal.Personal<string>>, CustomerEvent>
) =>
  Effect.gen(function*() {
    let state = fold.initial
    yield* store.update(stream, fold, (given) => {
      state = given
      return []
    })
    return state.map((email) => Personal.getOrElse(email, () => null))
  })

let streams = 0

class Broken extends Schema.TaggedError<Broken>()("Broken", { given: Schema.Unknown, delivery: Schema.Unknown }) {}

export const forgetting: Part = (it, { concurrentTransactions }) => {
  it.effect("snapshots of folds are encrypted, spare the read, and are void when somebody is forgotten", () =>
    Effect.gen(function*() {
      const [stream, customer] = [newCustomer(), newCustomer()]
      const { calls, fold } = emails()
      const saved: Array<EncodedSnapshot> = []
      const on = <A, E>(
        use: (store: Customers["Service"]) => Effect.Effect<A, E>
      ): Effect.Effect<A, E, Storage> =>
        onCustomers(Customers, use, {
          change: (storage) => ({
            saveSnapshot: (snapshot) =>
              Effect.andThen(Effect.sync(() => saved.push(snapshot)), storage.saveSnapshot(snapshot))
          })
        })
      yield* on((customers) => customers.write(stream, [renamed(customer), renamed(newCustomer(), "other")]))
      const seen = on((customers) => stateOf(customers, stream, fold))
      assert.deepStrictEqual(yield* seen, [canary, "other"])
      assert.deepStrictEqual(yield* seen, [canary, "other"])
      assert.strictEqual(calls.evolved, 2)
      assert.strictEqual(saved.length, 1)
      for (const { state } of saved) {
        assert.match(state, /^~personal:1:/)
        assert.notInclude(state, canary)
      }
      yield* on((customers) => customers.forget(newCustomer()))
      assert.deepStrictEqual(yield* seen, [canary, "other"])
      assert.strictEqual(calls.evolved, 4)
      assert.deepStrictEqual(yield* seen, [canary, "other"])
      assert.strictEqual(calls.evolved, 4)
      yield* on((customers) => customers.forget(customer))
      // Several sources read snapshots with their ends.
      let state: ReadonlyArray<Personal.Personal<string>> = []
      yield* on((customers) =>
        customers.decide({ one: Decision.stream(stream, fold), two: Decision.stream(customer, fold) }, ({ one }) => {
          state = one
          return []
        })
      )
      assert.deepStrictEqual(state.map(({ _tag }) => _tag), ["Forgotten", "Known"])
      assert.deepStrictEqual(yield* seen, [null, "other"])
      assert.strictEqual(calls.evolved, 6)
    }))

  it.effect("a process that has not noticed yet saves nothing of somebody who is forgotten", () =>
    Effect.gen(function*() {
      const [stream, customer] = [newCustomer(), newCustomer()]
      const { calls, fold } = emails()
      yield* onCustomers(Customers, (slow) =>
        Effect.gen(function*() {
          yield* slow.write(stream, renamed(customer, "1"))
          assert.deepStrictEqual(yield* stateOf(slow, stream, fold), ["1"])
          yield* onCustomers(Customers, (customers) => customers.forget(customer))
          // It knows the state, and a snapshot is due.
          yield* slow.update(stream, fold, () => renamed(newCustomer(), "2"))
        }))
      calls.evolved = 0
      const seen = onCustomers(Customers, (customers) => stateOf(customers, stream, fold))
      assert.deepStrictEqual(yield* seen, [null, "2"])
      assert.strictEqual(calls.evolved, 2)
    }))

  it.effect("who forgets somebody remembers nothing of them, and decides on that at once", () =>
    onCustomers(Customers, (customers) =>
      Effect.gen(function*() {
        const [stream, customer] = [newCustomer(), newCustomer()]
        const { fold } = emails(1000)
        yield* customers.write(stream, renamed(customer, "1"))
        assert.deepStrictEqual(yield* stateOf(customers, stream, fold), ["1"])
        // A decision that is made on what is known meanwhile stands.
        const { version } = yield* customers.update(stream, fold, ([email]) =>
          Effect.as(Effect.orDie(customers.forget(customer)), renamed(newCustomer(), email?._tag)))
        assert.strictEqual(version, 2)
        assert.deepStrictEqual(yield* stateOf(customers, stream, fold), [null, "Known"])
        yield* customers.update(stream, fold, ([email]) =>
          renamed(newCustomer(), email?._tag))
        assert.deepStrictEqual(yield* stateOf(customers, stream, fold), [null, "Known", "Forgotten"])
      })))

  it.effect("a partitioner knows nothing personal; handlers do, until it is forgotten, and are told", () =>
    onCustomers(Returning, (customers) =>
      Effect.gen(function*() {
        const [one, two] = [newCustomer(), newCustomer()]
        const partitioned: Array<unknown> = []
        const stream = yield* customers.aggregatedStream({
          name: `personal_${++streams}`,
          patterns: [`${one}%`, `${two}%`, `forgotten ${one}`],
          partitioner: ({ message }) => {
            partitioned.push("email" in message ? message.email._tag : message._tag)
            return 0
          }
        })
        yield* customers.write(one, renamed(one, "1"))
        yield* customers.write(two, renamed(two, "2"))
        yield* stream.projector.runOnce
        const subscription = yield* stream.subscription({
          name: `personal_${streams}`,
          delivery: "transactional",
          claims: yield* ClaimsOption
        })
        const kept = new Map<string, string>()
        const handle = (message: CustomerEvent) =>
          Effect.sync(() => {
            if (message._tag === "EmailChanged") {
              Personal.match(message.email, {
                Known: (email) => kept.set(message.customerId, email),
                Forgotten: () => kept.delete(message.customerId)
              })
            }
            if (message._tag === "SubjectForgotten") kept.delete(message.subject)
          })
        yield* subscription.drain(handle)
        assert.deepStrictEqual(Array.from(kept), [[one, "1"], [two, "2"]])
        yield* customers.forget(one)
        yield* stream.projector.runOnce
        assert.deepInclude(yield* subscription.drain(handle), { handled: 1, parked: 0, left: 0 })
        const { globalPosition: noticed = 0 } = yield* customers.head(`forgotten ${one}`)
        yield* subscription.waitUntilProcessed(noticed, "5 seconds")
        assert.deepStrictEqual(Array.from(kept), [[two, "2"]])
        assert.deepStrictEqual(partitioned, ["Forgotten", "Forgotten", "SubjectForgotten"])
        // Whoever reads again, from the beginning or the end.
        kept.clear()
        yield* subscription.reset()
        yield* subscription.drain(handle)
        assert.deepStrictEqual(Array.from(kept), [[two, "2"]])
      })))

  it.effect("a process without the wrapping key leaves messages to those that have it", () =>
    Effect.gen(function*() {
      const customer = newCustomer()
      const name = `personal_${++streams}`
      const subscribe = Effect.fnUntraced(function*(customers: Customers["Service"]) {
        const stream = yield* customers.aggregatedStream({
          name,
          patterns: `${customer}%`,
          partitioner: () => 0
        })
        yield* stream.projector.runOnce
        return yield* stream.subscription({ name, pollInterval: "1 day", claims: yield* ClaimsOption })
      })
      yield* onCustomers(Customers, (customers) =>
        Effect.andThen(customers.write(customer, renamed(customer, "1")), subscribe(customers)))
      const warned = yield* Deferred.make<void>()
      const logger = Logger.make(({ message }) => {
        if (String(message).includes("cannot be decrypted yet")) {
          Deferred.doneUnsafe(warned, Effect.void)
        }
      })
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          const subscription = yield* subscribe(customers)
          const running = subscription.run(() =>
            Effect.die("it was handled")
          )
          yield* Effect.raceFirst(running, Deferred.await(warned))
          assert.deepStrictEqual(yield* subscription.parked, [])
        }).pipe(Effect.provide(Logger.layer([logger]))), { keys: Layer.orDie(KeyEncryption.layer(wrappingKeys("k2"))) })
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          const subscription = yield* subscribe(customers)
          assert.deepInclude(yield* subscription.drain(() => Effect.void), { handled: 1, parked: 0 })
        }))
    }))

  it.effect("logs, spans, errors and dead letters say nothing personal, nor does anything that is stored", () =>
    Effect.gen(function*() {
      const told: Array<string> = []
      const tell = (what: unknown) => told.push(Formatter.format(what), JSON.stringify(what, replacer), String(what))
      const logger = Logger.make((log) => {
        tell(log.message)
        tell(log.fiber.getRef(References.CurrentLogAnnotations))
        told.push(Cause.pretty(log.cause))
      })
      const { spans, tracer } = recordingTracer()
      const customer = newCustomer()
      const name = `personal_${++streams}`
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          const failed = <A, E>(effect: Effect.Effect<A, E>) =>
            Effect.map(Effect.flip(effect), (error) => {
              tell(error)
              tell(Cause.pretty(Cause.fail(error)))
            })
          const { fold } = emails()
          const message = new Registered({ customerId: customer, email: Personal.known(canary) })
          const at = yield* customers.write(customer, [message, renamed(customer)])
          yield* failed(customers.write(customer, message))
          yield* failed(customers.write(customer, renamed(customer), { expectedVersion: 7 }))
          yield* failed(customers.write(customer, renamed("")))
          yield* failed(customers.write(customer, new Visited({ customerId: customer, page: () => canary })))
          yield* failed(
            customers.write(customer, { ...message, address: { country: "", street: Personal.known("") } } as never)
          )
          yield* failed(
            customers.update(customer, fold, (state) => Effect.fail(new Broken({ given: state, delivery: at })))
          )
          const stream = yield* customers.aggregatedStream({ name, patterns: customer, partitioner: () => 0 })
          yield* stream.projector.runOnce
          const subscription = yield* stream.subscription({
            name,
            retry: Schedule.recurs(1),
            claims: yield* ClaimsOption
          })
          yield* subscription.drain((given, delivery) =>
            given._tag === "EmailChanged"
              ? Effect.die(new Broken({ given, delivery }))
              : Effect.fail({ given, delivery })
          )
          const parked = yield* subscription.parked
          assert.strictEqual(parked.length, 2)
          parked.forEach(tell)
          const again = yield* messagesOf(customers, customer)
          again.forEach(tell)
          yield* Effect.logError("seen", again, Cause.fail(again))
          const [first] = parked
          assert.isTrue(
            first?.message?._tag === "Registered" && Personal.getOrElse(first.message.email, () => "") === canary
          )
        }).pipe(
          Effect.withSpan("test"),
          Effect.provide(Logger.layer([logger])),
          Effect.provideService(Tracer.Tracer, tracer)
        ))
      assert.isAbove(spans.length, 5)
      for (const span of spans) {
        tell(span.attributes)
        tell(span.events)
        tell(span.status)
      }
      assert.isAbove(told.length, 50)
      assert.deepStrictEqual(told.filter((text) => text.includes(canary)), [])
    }))

  it.effect("what is written in a transaction that is open is forgotten with the rest", (context) =>
    Effect.gen(function*() {
      if (!concurrentTransactions) return context.skip()
      const outside = yield* outsider
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          for (const isFirst of [true, false]) {
            const customer = newCustomer()
            if (!isFirst) yield* customers.write(customer, renamed(customer, "before"))
            let isCommitted = false
            const forgotten = yield* Deferred.make<boolean, MessageStore.ForgetError>()
            yield* customers.withTransaction(Effect.gen(function*() {
              yield* customers.write(customer, renamed(customer, "in it"))
              const forgets = Effect.andThen(customers.forget(customer), Effect.sync(() => isCommitted))
              yield* outside(Effect.forkDetach(Deferred.into(forgets, forgotten), { startImmediately: true }))
              yield* customers.write(customer, renamed(customer, "too"))
              yield* customers.head(customer)
              isCommitted = true
            }))
            assert.isTrue(yield* Deferred.await(forgotten))
            assert.deepStrictEqual(Arr.dedupe(yield* emailsOf(customers, customer)), [null])
          }
        }))
    }))

  it.effect("a type that only this build knows can have personal fields", () =>
    Effect.gen(function*() {
      class Later extends Schema.TaggedClass<Later>()("Later", {
        ...Message.fields,
        customerId: Schema.String,
        phone: Message.personal(Schema.String, { subject: "customerId" })
      }) {}
      class Newer extends MessageStore.Service<Newer>()("effect-message-store/testing/Newer", {
        name: "contract",
        schema: Later
      }) {}
      const customer = newCustomer()
      const name = `personal_${++streams}`
      yield* onCustomers(Newer, (newer) =>
        newer.write(customer, new Later({ customerId: customer, phone: Personal.known("1") })))
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          const stream = yield* customers.aggregatedStream({
            name,
            patterns: customer,
            partitioner: { _tag: "Constant", partition: 0 }
          })
          yield* stream.projector.runOnce
          const subscription = yield* stream.subscription({
            name,
            onUnknownType: "skip",
            claims: yield* ClaimsOption
          })
          assert.deepInclude(
            yield* subscription.drain(() =>
              Effect.void
            ),
            { parked: 0, left: 0 }
          )
        }))
    }))
}

/** What JSON has no form for. */
const replacer = (_: string, value: unknown): unknown => typeof value === "bigint" ? String(value) : value
