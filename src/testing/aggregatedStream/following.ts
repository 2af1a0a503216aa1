/** Aggregated streams that are followed. */
import { assert } from "@effect/vitest"
import { Effect, Fiber, Layer, Queue, Stream } from "effect"
import type { AggregatedMessage } from "../../Message.ts"
import * as Partitioner from "../../Partitioner.ts"
import { type AggregatedStorage, Storage } from "../../Storage.ts"
import { Accounts, type Deposited, deposits, failsWith, newStream, type Noted, type Part } from "../fixture.ts"
import { newName } from "./aggregating.ts"

type Followed = AggregatedMessage<Deposited | Noted>

/** A stream of origin streams that begin with `prefix`, each in a partition of its own. */
const followed = Effect.gen(function*() {
  const accounts = yield* Accounts
  const prefix = newStream()
  const stream = yield* accounts.aggregatedStream({
    name: newName(),
    patterns: `${prefix}-%`,
    partitioner: (stored) => Number(stored.stream.slice(stored.stream.lastIndexOf("-") + 1))
  })
  return {
    stream,
    write: (partition: number, count: number) =>
      Effect.andThen(accounts.write(`${prefix}-${partition}`, deposits(count)), stream.projector.runOnce)
  }
})

/** Takes what comes; the positions of a partition. */
const taking = Effect.fnUntraced(function*<E>(messages: Stream.Stream<Followed, E>) {
  const queue = yield* Queue.unbounded<Followed>()
  const fiber = yield* Effect.forkScoped(Stream.runForEach(messages, (message) => Queue.offer(queue, message)), {
    startImmediately: true
  })
  const take = (count: number) =>
    Effect.map(Effect.timeout(Queue.takeN(queue, count), "20 seconds"), (taken) => ({
      of: (partition: number) =>
        taken.filter((message) => message.partition === partition).map(({ position }) => position),
      taken
    }))
  return { take, left: Queue.size(queue), stop: Fiber.interrupt(fiber) }
})

const range = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)

export const following: Part = (it) => {
  it.effect("is told which messages are at places of a backend's partitions", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const storage = yield* Storage
      const [prefix, name] = [newStream(), newName()]
      const definition = { name, patterns: `${prefix}-%`, partitioner: Partitioner.constant(3) } as const
      const { projector } = yield* accounts.aggregatedStream(definition)
      const messages = deposits(3)
      yield* accounts.write(`${prefix}-1`, messages)
      yield* projector.runOnce
      const stream = yield* storage.aggregatedStream({ ...definition, patterns: [definition.patterns] })
      const found = yield* stream.messageIds([[3, 0], [3, 2], [3, 3], [4, 0]].map(([partition = 0, position = 0]) => ({
        partition,
        position
      })))
      assert.deepStrictEqual(
        found.toSorted((a, b) => a.position - b.position),
        [0, 2].map((position) => ({ partition: 3, position, messageId: messages[position]?.messageId ?? "" }))
      )
      assert.deepStrictEqual(yield* stream.messageIds([]), [])
    }))

  it.effect("gives all messages of all partitions, and those that come, each partition in its order", () =>
    Effect.gen(function*() {
      const { stream, write } = yield* followed
      yield* write(0, 250)
      yield* write(1, 3)
      const { left, take } = yield* taking(stream.follow({ from: "beginning", pollInterval: "1 day" }))
      const first = yield* take(253)
      assert.deepStrictEqual(first.of(0), range(0, 250))
      assert.deepStrictEqual(first.of(1), range(0, 3))
      // The large partition does not keep the small one waiting.
      assert.isBelow(first.taken.findIndex(({ partition }) => partition === 1), 250)
      for (const [partition, count] of [[1, 2], [2, 3], [0, 1]] as const) yield* write(partition, count)
      const second = yield* take(6)
      assert.deepStrictEqual([second.of(0), second.of(1), second.of(2)], [[250], [3, 4], [0, 1, 2]])
      assert.strictEqual(yield* left, 0)
      const stored = yield* Stream.runCollect(stream.read(2))
      assert.deepStrictEqual(second.taken.filter(({ partition }) => partition === 2), stored)
    }))

  it.effect("begins with what is linked from now on", () =>
    Effect.gen(function*() {
      const { stream, write } = yield* followed
      yield* write(0, 5)
      const began = yield* taking(Stream.merge(
        stream.follow({ pollInterval: "20 millis" }),
        // It has begun when the first of these has come.
        Stream.filter(stream.follow({ from: "beginning" }), ({ position }) => position < 5)
      ))
      yield* began.take(5)
      yield* Effect.sleep("100 millis")
      yield* write(0, 2)
      yield* write(3, 2)
      const { of } = yield* began.take(4 + 2) // those of the new partition come twice
      assert.deepStrictEqual(of(0), [5, 6])
      assert.deepStrictEqual(of(3).toSorted(), [0, 0, 1, 1])
    }))

  it.effect("goes on from positions, and misses nothing between one follower and the next", () =>
    Effect.gen(function*() {
      const { stream, write } = yield* followed
      yield* write(0, 4)
      yield* write(1, 4)
      const seen: Array<Followed> = []
      const next = new Map<number, number>()
      for (let i = 0; i < 7; i++) {
        // A browser that reconnects after three events.
        const some = yield* Stream.runCollect(Stream.take(stream.follow({ from: next }), 3))
        for (const message of some) next.set(message.partition, message.position + 1)
        seen.push(...some)
        if (i < 6) yield* write(i % 3, 3)
      }
      for (const partition of [0, 1, 2]) {
        const positions = seen.filter((message) => message.partition === partition).map(({ position }) => position)
        assert.deepStrictEqual(positions, range(0, positions.length))
      }
      assert.lengthOf(seen, 21)
    }))

  it.effect("gives the partitions that are asked for, alone", () =>
    Effect.gen(function*() {
      const { stream, write } = yield* followed
      for (const partition of [0, 1, 2]) yield* write(partition, 2)
      const one = yield* taking(stream.follow({ partitions: 1, from: "beginning" }))
      const two = yield* taking(stream.follow({ partitions: [0, 3], from: "beginning" }))
      assert.deepStrictEqual((yield* one.take(2)).of(1), [0, 1])
      assert.deepStrictEqual((yield* two.take(2)).of(0), [0, 1])
      yield* write(3, 1)
      yield* write(1, 1)
      assert.deepStrictEqual((yield* two.take(1)).of(3), [0])
      assert.deepStrictEqual((yield* one.take(1)).of(1), [2])
      assert.strictEqual((yield* one.left) + (yield* two.left), 0)
    }))

  it.effect("reads no further than it is asked to", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      let pages = 0
      const counting = (stream: AggregatedStorage): AggregatedStorage => ({
        ...stream,
        readPartition: (query) => Effect.suspend(() => (pages++, stream.readPartition(query)))
      })
      const layer = Layer.provide(
        Accounts.layerStorage,
        Layer.succeed(Storage, {
          ...storage,
          aggregatedStream: (definition) => Effect.map(storage.aggregatedStream(definition), counting)
        })
      )
      yield* Effect.gen(function*() {
        const { stream, write } = yield* followed
        yield* write(0, 1000)
        const gate = yield* Queue.unbounded<void>()
        const reader = yield* taking(
          Stream.mapEffect(stream.follow({ from: "beginning" }), (message) => Effect.as(Queue.take(gate), message))
        )
        yield* Queue.offer(gate, undefined)
        yield* reader.take(1)
        yield* write(0, 100)
        yield* Effect.sleep("100 millis")
        assert.isAtMost(pages, 2)
        yield* Queue.offerAll(gate, Array.from({ length: 1099 }, () => undefined))
        assert.deepStrictEqual((yield* reader.take(1099)).of(0), range(1, 1100))
        yield* reader.stop
      }).pipe(Effect.provide(Layer.fresh(layer)))
    }))

  it.effect("notices between two pages that another server answers, which lacks what it gave out, or what is next", () =>
    Effect.gen(function*() {
      const storage = yield* Storage
      const lost = globalThis.crypto.randomUUID()
      // After the first page another server answers: what is at position 99 is lost, or what comes next, which others write anew.
      for (const hasFirst of [false, true]) {
        let [pages, server, answered] = [0, 1, 1]
        const failingOver = (stream: AggregatedStorage): AggregatedStorage => ({
          ...stream,
          readPartition: (query) =>
            Effect.suspend(() => {
              if (++pages === 2) server = 2
              if (pages === 2 && hasFirst) return Effect.succeed({ messages: [], more: false })
              return Effect.tap(stream.readPartition(query), () =>
                Effect.sync(() => {
                  if (query.tellsRun === true) answered = server
                }))
            }),
          partitions: Effect.tap(stream.partitions, () =>
            Effect.sync(() => {
              answered = server
            })),
          messageIds: (places) =>
            Effect.map(
              stream.messageIds(places),
              (found) => found.map((one) => hasFirst || one.position > 99 ? one : { ...one, messageId: lost })
            )
        })
        const layer = Layer.provide(
          Accounts.layerStorage,
          Layer.succeed(Storage, {
            ...storage,
            serverRun: () => answered,
            aggregatedStream: (definition) => Effect.map(storage.aggregatedStream(definition), failingOver)
          })
        )
        yield* Effect.gen(function*() {
          const { stream, write } = yield* followed
          yield* write(0, 150)
          const given: Array<number> = []
          const messages = Stream.take(stream.follow({ from: "beginning" }), 150)
          const giving = Stream.runForEach(messages, ({ position }) => Effect.sync(() => given.push(position)))
          if (hasFirst) yield* giving
          else yield* failsWith(giving, { _tag: "InvalidArgumentError", argument: "from" })
          assert.deepStrictEqual(given, range(0, hasFirst ? 150 : 100))
        }).pipe(Effect.provide(Layer.fresh(layer)))
      }
    }))

  it.effect("refuses positions that are not there, and transactions", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const { stream, write } = yield* followed
      yield* write(0, 5)
      const refused = { _tag: "InvalidArgumentError" }
      const run = (options: Parameters<typeof stream.follow>[0]) => Stream.runDrain(stream.follow(options))
      yield* failsWith(run({ partitions: -1 }), { ...refused, argument: "partition" })
      yield* failsWith(run({ from: new Map([[0, 0.5]]) }), { ...refused, argument: "from" })
      for (const pollInterval of [0, "-1 seconds", "soon" as never] as const) {
        yield* failsWith(run({ pollInterval }), { ...refused, argument: "pollInterval" })
        yield* failsWith(stream.projector.run({ pollInterval }), { ...refused, argument: "pollInterval" })
      }
      yield* failsWith(run({ from: new Map([[0, 6]]) }), { ...refused, argument: "from" })
      yield* failsWith(run({ from: new Map([[1, 1]]) }), { ...refused, argument: "from" })
      yield* failsWith(accounts.withTransaction(run({})), { ...refused, argument: "follow" })
      // Rebuilt while it is followed.
      const failed = yield* Effect.forkScoped(
        Effect.flip(Stream.runDrain(stream.follow({ from: new Map([[0, 5]]), pollInterval: "20 millis" }))),
        { startImmediately: true }
      )
      yield* Effect.sleep("50 millis")
      const storage = yield* Storage
      const again = yield* storage.aggregatedStream({
        name: stream.name,
        patterns: [newStream()], // matches nothing
        partitioner: undefined
      })
      yield* again.reset
      assert.strictEqual((yield* Effect.timeout(Fiber.join(failed), "10 seconds"))._tag, "InvalidArgumentError")
    }))
}
