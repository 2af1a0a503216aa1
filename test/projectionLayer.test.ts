/** The layer that keeps an aggregated stream up to date: on its own, whatever happens, and no longer than it is there. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Logger, Schedule, Scope } from "effect"
import { AggregatedStream, type Projector } from "effect-message-store"
import { TestClock } from "effect/testing"
import { moved, several } from "./support/links.ts"
import { type Moved, Transfers } from "./support/transfers.ts"

/** An aggregated stream with a partitioner that can be changed, the messages that were logged, and what ends its projector. */
const given = Effect.fnUntraced(function*(options?: Projector.LayerOptions) {
  const partitioner = { of: (_amount: number): number => 0 }
  class ByAmount extends AggregatedStream.Service<ByAmount>()("test/ByAmount", {
    store: Transfers,
    name: "by_amount",
    patterns: "%",
    partitioner: ({ message }) => partitioner.of(message.amount)
  }) {}
  const logged: Array<string> = []
  const logger = Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))])
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer((exit) => Scope.close(scope, exit))
  const built = yield* Layer.build(Layer.provideMerge(ByAmount.layer, Transfers.layerMemory))
  const stream = yield* Effect.provide(ByAmount, built)
  yield* Layer.buildWithScope(Layer.provide(ByAmount.layerProjector(options), logger), scope).pipe(
    Effect.provide(built)
  )
  return {
    partitioner,
    logged,
    stream,
    transfers: yield* Effect.provide(Transfers, built),
    end: Scope.close(scope, Exit.void)
  }
})

const untilHeads = (stream: AggregatedStream.AggregatedStream<Moved>, expected: ReadonlyArray<number>) =>
  Effect.repeat(stream.partitions, {
    until: (heads) => JSON.stringify(heads.map(({ position }) => position)) === JSON.stringify(expected)
  })

describe("the layer of a projector", () => {
  it.effect("keeps up with the store, woken by what is committed", () =>
    Effect.gen(function*() {
      const { stream, transfers } = yield* given()
      for (let i = 0; i < 5; i++) {
        yield* transfers.write("s", several(2))
        yield* untilHeads(stream, [2 * i + 1])
      }
    }))

  it.effect("logs why a projection fails, and goes on when that is over", () =>
    Effect.gen(function*() {
      const { logged, partitioner, stream, transfers } = yield* given()
      partitioner.of = (amount) => amount === 13 ? -1 : 0
      yield* transfers.write("s", [moved(1), moved(13), moved(2)])
      yield* Effect.repeat(Effect.yieldNow, { until: () => logged.length > 0 })
      assert.include(logged[0], "the projector of by_amount failed")
      assert.include(logged[0], "PartitionError")
      yield* untilHeads(stream, [0])
      yield* TestClock.adjust("30 seconds")
      yield* Effect.repeat(Effect.yieldNow, { until: () => logged.length > 1 })
      partitioner.of = () => 0
      yield* TestClock.adjust("30 seconds")
      yield* untilHeads(stream, [2])
      yield* transfers.write("s", moved())
      yield* untilHeads(stream, [3])
      assert.lengthOf(logged, 2)
    }))

  it.effect("runs again when its schedule says so, which gets the error, and no more when that is over", () =>
    Effect.gen(function*() {
      const errors: Array<string> = []
      const { logged, partitioner, stream, transfers } = yield* given({
        restart: Schedule.spaced("1 second").pipe(
          Schedule.setInputType<Projector.ProjectionError>(),
          Schedule.tap(({ input }) => Effect.sync(() => errors.push(input._tag))),
          Schedule.upTo({ times: 2 })
        )
      })
      partitioner.of = () => -1
      yield* transfers.write("s", moved(1))
      for (let failures = 1; failures <= 3; failures++) {
        yield* Effect.repeat(Effect.yieldNow, { until: () => logged.length >= failures })
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(errors, ["PartitionError", "PartitionError", "PartitionError"])
      yield* Effect.repeat(Effect.yieldNow, { until: () => logged.length === 4 })
      assert.include(logged[3], "the projector of by_amount has ended: it does not run again")
      partitioner.of = () => 0
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* stream.partitions, [])
      assert.lengthOf(logged, 4)
    }))

  it.effect("ends with its scope", () =>
    Effect.gen(function*() {
      const { end, stream, transfers } = yield* given({ pollInterval: "1 second" })
      yield* transfers.write("s", moved())
      yield* untilHeads(stream, [0])
      yield* end
      yield* transfers.write("s", moved())
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* stream.partitions, [{ partition: 0, position: 0 }])
      assert.include(yield* stream.projector.runOnce, { linked: 1 })
    }))
})
