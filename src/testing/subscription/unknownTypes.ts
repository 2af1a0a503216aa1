/** Subscriptions that meet messages whose types their build does not know, as builds do during a rolling deploy. */
import { assert } from "@effect/vitest"
import { Effect, Schema } from "effect"
import * as Message from "../../Message.ts"
import * as MessageStore from "../../MessageStore.ts"
import type { Options } from "../../Subscription.ts"
import { Accounts, ClaimsOption, deposit, newStream, Noted, type Part } from "../fixture.ts"
import { during, newSubscription, positions, until } from "./fixture.ts"

/** The build before: it knows no deposits. */
class Before extends MessageStore.Service<Before>()("effect-message-store/testing/Before", {
  name: "contract",
  schema: Noted
}) {}

/** A build that knows the type, and takes it for something else. */
class Wrong extends MessageStore.Service<Wrong>()("effect-message-store/testing/Wrong", {
  name: "contract",
  schema: Schema.TaggedStruct("Noted", { ...Message.fields, text: Schema.Number })
}) {}

const note = () => new Noted({ text: "a note" })

const prepared = Effect.fnUntraced(function*(options: Partial<Options> = {}) {
  const name = newSubscription()
  const prefix = newStream()
  const claims = yield* ClaimsOption
  const definition = {
    name: `of_${name}`,
    patterns: `${prefix}-%`,
    partitioner: ({ stream }: { readonly stream: string }) => Number(stream.slice(stream.lastIndexOf("-") + 1))
  }
  const accounts = yield* Accounts
  const stream = yield* accounts.aggregatedStream(definition)
  const given = { name, claims, pollInterval: "20 millis", ...options } as const
  const handled: Array<readonly [partition: number, position: number, by: string]> = []
  const handler = (by: string) => (_: unknown, at: { readonly partition: number; readonly position: number }) =>
    Effect.sync(() => void handled.push([at.partition, at.position, by]))
  const after = yield* stream.subscription(given)
  const before = yield* (yield* (yield* Before).aggregatedStream(definition)).subscription(given)
  return {
    after,
    before,
    runAfter: after.run(handler("after")),
    runBefore: before.run(handler("before")),
    wrong: Effect.flatMap(
      Effect.flatMap(Wrong, (store) => store.aggregatedStream(definition)),
      (its) => its.subscription(given)
    ),
    handled,
    caughtUp: until(Effect.map(after.lag, (lag) => lag === 0)),
    write: Effect.fnUntraced(
      function*(partition: number, ...messages: ReadonlyArray<Noted | ReturnType<typeof deposit>>) {
        for (const message of messages) yield* accounts.write(`${prefix}-${partition}`, message)
        yield* stream.projector.runOnce
      }
    )
  }
})

export const unknownTypes: Part = (it) => {
  const test = (
    name: string,
    body: Effect.Effect<void, unknown, Effect.Services<ReturnType<typeof prepared>> | Wrong>
  ) => it.effect(name, () => Effect.provide(Effect.orDie(body), [Before.layerStorage, Wrong.layerStorage]))

  test(
    "leave them to a build that does, and say so",
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { after, before, caughtUp, handled, runAfter, runBefore, write } = yield* prepared({ delivery })
        yield* write(0, note(), deposit(), note())
        yield* write(1, note(), note())
        const status = Effect.map(before.status, ([first]) => first)
        yield* during(
          runBefore,
          Effect.gen(function*() {
            yield* until(Effect.map(status, (of) => of?.unknownType !== undefined && of.claimedBy === undefined))
            yield* until(Effect.map(before.lag, (lag) => lag === 2))
            const first = yield* status
            assert.include(first, { checkpoint: 0, parked: 0, halted: undefined })
            assert.include(first?.unknownType, { type: "Deposited", position: 1 })
            yield* during(runAfter, caughtUp)
            assert.isUndefined((yield* status)?.unknownType)
            assert.deepStrictEqual(
              handled.filter(([partition]) => partition === 0).map(([, position]) => position),
              positions(3)
            )
            const [, , by] = handled.find(([partition, position]) => partition === 0 && position === 1) ?? []
            assert.strictEqual(by, "after")
          })
        )
        assert.deepStrictEqual(yield* after.parked, [])
      }
    })
  )

  test(
    "park nothing, skip nothing, reorder nothing, while the next build is up as well",
    Effect.gen(function*() {
      for (const delivery of ["atLeastOnce", "transactional"] as const) {
        const { after, caughtUp, handled, runAfter, runBefore, write } = yield* prepared({ delivery, batchSize: 3 })
        const partitions = positions(4)
        for (const partition of partitions) yield* write(partition, note(), note(), note())
        yield* during(
          Effect.all([runBefore, runAfter, runBefore], { concurrency: 3 }),
          Effect.gen(function*() {
            for (let round = 0; round < 5; round++) {
              for (const partition of partitions) yield* write(partition, note(), deposit(), note(), deposit())
              if (round % 2 === 0) yield* Effect.timeout(caughtUp, "20 seconds")
            }
            yield* Effect.timeout(caughtUp, "20 seconds")
          })
        )
        for (const partition of partitions) {
          const its = handled.filter(([each]) => each === partition)
          assert.deepStrictEqual(its.map(([, position]) => position), positions(23))
        }
        assert.deepStrictEqual(yield* after.parked, [])
      }
    })
  )

  test(
    "skip them, or take them for failures, where they are told to",
    Effect.gen(function*() {
      for (const acknowledge of ["message", "batch"] as const) {
        const skipping = yield* prepared({ onUnknownType: "skip", acknowledge })
        yield* skipping.write(0, deposit(), note(), deposit(), deposit(), note(), deposit())
        yield* during(skipping.runBefore, skipping.caughtUp)
        assert.deepStrictEqual(skipping.handled.map(([, position]) => position), [1, 4])
        assert.deepStrictEqual(yield* skipping.before.parked, [])
      }
      const failing = yield* prepared({ onUnknownType: "fail" })
      yield* failing.write(0, deposit(), note())
      yield* during(failing.runBefore, failing.caughtUp)
      assert.deepStrictEqual(failing.handled.map(([, position]) => position), [1])
      assert.include((yield* failing.before.parked)[0]?.error, { tag: "SerializationError" })
    })
  )

  test(
    "take a message that is broken for one whose handler failed, though others know its type",
    Effect.gen(function*() {
      const { caughtUp, wrong, write } = yield* prepared()
      yield* write(0, note(), note())
      const subscription = yield* wrong
      yield* during(subscription.run(() => Effect.void), caughtUp)
      assert.lengthOf(yield* subscription.parked, 2)
    })
  )

  test(
    "try again after a reset",
    Effect.gen(function*() {
      const { before, runBefore, write } = yield* prepared()
      yield* write(0, note(), deposit())
      const unknown = Effect.map(before.status, ([first]) => first?.unknownType)
      yield* during(runBefore, until(Effect.map(unknown, (type) => type !== undefined)))
      yield* before.reset()
      assert.isUndefined(yield* unknown)
      yield* during(runBefore, until(Effect.map(unknown, (type) => type?.position === 1)))
    })
  )
}
