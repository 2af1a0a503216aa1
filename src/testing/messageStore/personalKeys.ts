/** The keys of subjects: how they are found, held, added and wrapped. */
import { assert } from "@effect/vitest"
import { Array as Arr, Effect, Layer } from "effect"
import * as KeyEncryption from "../../KeyEncryption.ts"
import type { Storage } from "../../Storage.ts"
import type { Part } from "../fixture.ts"
import {
  Customers,
  emailsOf,
  encryption,
  newCustomer,
  onCustomers,
  renamed,
  storedIn,
  wrappingKeys
} from "./personalFixture.ts"

export const personalKeys: Part = (it, { concurrentTransactions }) => {
  it.effect("are decrypted with keys that are fetched for a page, and held", () => {
    const counts = { get: 0, current: 0, add: 0, unwrap: 0 }
    const counting = Layer.effect(
      KeyEncryption.KeyEncryption,
      Effect.map(KeyEncryption.KeyEncryption, (own) => ({
        ...own,
        unwrap: (wrapped, boundTo) => Effect.andThen(Effect.sync(() => counts.unwrap++), own.unwrap(wrapped, boundTo))
      }))
    ).pipe(Layer.provide(encryption))
    const change = ({ subjectKeys }: Storage["Service"]): Partial<Storage["Service"]> => ({
      subjectKeys: {
        ...subjectKeys,
        get: (ids) => Effect.andThen(Effect.sync(() => counts.get++), subjectKeys.get(ids)),
        current: (names) => Effect.andThen(Effect.sync(() => counts.current++), subjectKeys.current(names)),
        add: (keys) => Effect.andThen(Effect.sync(() => counts.add++), subjectKeys.add(keys))
      }
    })
    const reset = () => Object.assign(counts, { get: 0, current: 0, add: 0, unwrap: 0 })
    return Effect.gen(function*() {
      const stream = newCustomer()
      const subjects = Arr.makeBy(20, newCustomer)
      const messages = Arr.map(Arr.ensure([...subjects, ...subjects]), (subject) => renamed(subject, subject))
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          reset()
          yield* customers.write(stream, messages as never)
          assert.deepStrictEqual(counts, { get: 0, current: 2, add: 1, unwrap: 0 })
          reset()
          yield* emailsOf(customers, stream)
          assert.deepStrictEqual(counts, { get: 0, current: 0, add: 0, unwrap: 0 })
        }), { keys: counting, change })
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          yield* customers.forget(subjects[0])
          reset()
          assert.deepStrictEqual((yield* emailsOf(customers, stream)).slice(0, 2), [null, subjects[1]])
          assert.deepStrictEqual(counts, { get: 1, current: 0, add: 0, unwrap: 19 })
          reset()
          // That somebody is forgotten is held as well.
          yield* emailsOf(customers, stream)
          assert.deepStrictEqual(counts, { get: 0, current: 0, add: 0, unwrap: 0 })
          // A transaction looks, and unwraps nothing anew.
          yield* customers.withTransaction(emailsOf(customers, stream))
          assert.deepStrictEqual(counts, { get: 1, current: 0, add: 0, unwrap: 0 })
        }), { keys: counting, change })
    })
  })

  it.effect("stay readable when their keys are wrapped anew", () =>
    Effect.gen(function*() {
      const customer = newCustomer()
      const given = (...ids: ReadonlyArray<string>) => Layer.orDie(KeyEncryption.layer(wrappingKeys(...ids)))
      const stored = yield* onCustomers(Customers, (customers) =>
        Effect.andThen(customers.write(customer, renamed(customer, "1")), storedIn(customer)))
      yield* onCustomers(Customers, (customers) =>
        Effect.gen(function*() {
          assert.isAtLeast(yield* customers.rewrapKeys, 1)
          assert.strictEqual(yield* customers.rewrapKeys, 0)
          assert.deepStrictEqual(yield* emailsOf(customers, customer), ["1"])
        }), { keys: given("r2", "k1") })
      const emails = onCustomers(Customers, (customers) =>
        emailsOf(customers, customer), { keys: given("r2") })
      assert.deepStrictEqual(yield* emails, ["1"])
      assert.deepStrictEqual(yield* storedIn(customer), stored)
      // For the tests behind this one.
      yield* onCustomers(Customers, (customers) => customers.rewrapKeys, { keys: given("k1", "r2") })
    }))

  it.effect("get one key, though several processes write for somebody for the first time", () =>
    onCustomers(Customers, (one) =>
      onCustomers(Customers, (other) =>
        Effect.gen(function*() {
          const customer = newCustomer()
          const streams = Arr.makeBy(8, (i) => `${customer} ${i}`)
          yield* Effect.forEach(
            streams,
            (stream, i) => (i % 2 === 0 ? one : other).write(stream, renamed(customer, stream)),
            { concurrency: concurrentTransactions ? "unbounded" : 2 }
          )
          for (const stream of streams) assert.deepStrictEqual(yield* emailsOf(one, stream), [stream])
          yield* other.forget(customer)
          const elsewhere = yield* onCustomers(
            Customers,
            (third) => Effect.forEach(streams, (stream) => emailsOf(third, stream))
          )
          assert.deepStrictEqual(elsewhere, Arr.map(streams, () => [null]))
        }))))
}
