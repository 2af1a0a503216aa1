/** Aggregated streams: what is linked, where, and in which order. */
import { assert } from "@effect/vitest"
import { Array as Arr, Deferred, Effect, Fiber, Random, Stream } from "effect"
import type { AggregatedStream } from "../../AggregatedStream.ts"
import type { MessageStore } from "../../MessageStore.ts"
import * as Partitioner from "../../Partitioner.ts"
import {
  Accounts,
  deposit,
  type Deposited,
  deposits,
  failsWith,
  newStream,
  type Noted,
  outsider,
  type Part
} from "../fixture.ts"

type Account = Deposited | Noted

let streams = 0

/** The name of an aggregated stream that no other test uses. */
export const newName = (): string => `aggregated_${++streams}`

export const make = (options: {
  readonly patterns: string | Arr.NonEmptyReadonlyArray<string>
  readonly partitioner: Partitioner.Partitioner<Account>
}) => Effect.flatMap(anyFields, (accounts) => accounts.aggregatedStream({ name: newName(), ...options }))

/** The store, whose messages may have any fields. */
const anyFields: Effect.Effect<MessageStore<Account>, never, Accounts> = Accounts

const contents = Effect.fnUntraced(function*(stream: AggregatedStream<Account>) {
  const found: Record<number, ReadonlyArray<string>> = {}
  for (const { partition, position } of yield* stream.partitions) {
    const messages = yield* Stream.runCollect(stream.read(partition))
    assert.deepStrictEqual(messages.map((message) => message.position), Arr.makeBy(messages.length, (i) => i))
    assert.strictEqual(position, messages.length - 1)
    found[partition] = messages.map((message) => `${message.stream}@${message.version}`)
  }
  return found
})

const places = (stream: string, count: number, from = 1) => Arr.makeBy(count, (i) => `${stream}@${from + i}`)

/** Each message once, and each stream in the order of its versions in whatever partitions it is. */
const assertWoven = (
  found: Readonly<Record<number, ReadonlyArray<string>>>,
  heads: Readonly<Record<string, number>>
) => {
  const all = Object.values(found).flat()
  assert.strictEqual(new Set(all).size, all.length)
  for (const [stream, head] of Object.entries(heads)) {
    assert.deepStrictEqual(all.filter((place) => place.startsWith(`${stream}@`)), places(stream, head))
  }
  assert.strictEqual(all.length, Object.values(heads).reduce((sum, head) => sum + head, 0))
}

export const aggregating: Part = (it, { concurrentTransactions }) => {
  it.effect("merges the streams that match into one partition, in the order they were written in", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const [a, b, other] = [`${prefix}-a`, `${prefix}-b`, newStream()]
      yield* accounts.write(a, deposits(2))
      const stream = yield* make({ patterns: `${prefix}-%`, partitioner: Partitioner.constant(7) })
      assert.deepStrictEqual(yield* stream.partitions, [])
      assert.include(yield* stream.projector.runOnce, { linked: 2 })
      yield* accounts.write(b, deposit())
      yield* accounts.write(other, deposit())
      yield* accounts.write(a, deposit())
      assert.include(yield* stream.projector.runOnce, { linked: 2 })
      assert.include(yield* stream.projector.runOnce, { linked: 0 })
      assert.deepStrictEqual(yield* contents(stream), { 7: [`${a}@1`, `${a}@2`, `${b}@1`, `${a}@3`] })
      const { linkedGlobalPosition, scannedAt, scannedGlobalPosition, storeGlobalPosition, ...counts } = yield* stream
        .statistics
      assert.deepStrictEqual(counts, { partitions: 1, messages: 4, waiting: 0 })
      assert.isDefined(scannedAt)
      assert.isAtLeast(scannedGlobalPosition, linkedGlobalPosition)
      assert.isAtLeast(storeGlobalPosition, linkedGlobalPosition)
    }))

  it.effect("hands out messages as they were written, with their places", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const name = newStream()
      const written = deposits(3)
      const { globalPosition } = yield* accounts.write(name, written, { metadata: { correlationId: "c" } })
      const stream = yield* make({ patterns: name, partitioner: Partitioner.constant() })
      yield* stream.projector.runOnce
      const [first, second] = yield* Stream.runCollect(stream.read(0, { fromPosition: 1 }))
      assert.include(first, { partition: 0, position: 1, stream: name, version: 2 })
      assert.deepStrictEqual(first?.message, written[1])
      assert.strictEqual(first?.metadata.correlationId, "c")
      assert.strictEqual(second?.globalPosition, globalPosition)
      assert.lengthOf(yield* Stream.runCollect(stream.read(0, { limit: 2 })), 2)
      assert.lengthOf(yield* Stream.runCollect(stream.read(0, { limit: 0 })), 0)
      assert.lengthOf(yield* Stream.runCollect(stream.read(1)), 0)
    }))

  it.effect("links a message once, though several patterns match it", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const name = newStream()
      yield* accounts.write(name, deposits(3))
      const stream = yield* make({
        patterns: [`${name}%`, name, `%${name.slice(8)}`],
        partitioner: Partitioner.streamName(3)
      })
      yield* stream.projector.runOnce
      const found = Object.values(yield* contents(stream)).flat()
      assert.deepStrictEqual(found.filter((place) => place.startsWith(name)), places(name, 3))
    }))

  it.effect("gives the same partitions whatever computes them", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      for (const name of ["acc-1", "ünïcode", "a'b\\%"]) yield* accounts.write(`${prefix}${name}`, deposits(12))
      const known = yield* make({ patterns: "acc-1", partitioner: Partitioner.depeche })
      yield* accounts.write("acc-1", deposit())
      yield* known.projector.runOnce
      assert.deepStrictEqual((yield* known.partitions).map(({ partition }) => partition), [40399])
      const builtIns = [
        Partitioner.constant(3),
        Partitioner.depeche,
        Partitioner.streamName(5),
        Partitioner.streamName(2 ** 31 - 1),
        Partitioner.field("amount", 4),
        Partitioner.field(["_tag"], 9),
        Partitioner.field("missing", 9)
      ]
      for (const partitioner of builtIns) {
        const inside = yield* make({ patterns: `${prefix}%`, partitioner })
        yield* inside.projector.runOnce
        const expected: Record<number, Array<string>> = {}
        const reader = accounts.reader.pipe(Effect.map((opened) => opened.readWildcard(`${prefix}%`)), Stream.unwrap)
        yield* Stream.runForEach(reader, ({ message, stream, version }) =>
          Effect.map(
            Partitioner.partitionOf(partitioner, {
              stream,
              data: { _tag: message._tag, amount: message._tag === "Deposited" ? String(message.amount) : null }
            }),
            (partition) => {
              ;(expected[partition] ??= []).push(`${stream}@${version}`)
            }
          ))
        assert.deepStrictEqual(yield* contents(inside), expected, partitioner._tag)
      }
    }))

  it.effect("partitions by any function of the stored message", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const name = newStream()
      yield* accounts.write(name, deposits(2500))
      const stream = yield* make({
        patterns: name,
        partitioner: ({ message }) => message._tag === "Deposited" ? Number(message.amount % 3n) : 0
      })
      assert.include(yield* stream.projector.runOnce, { linked: 2500 })
      assert.deepStrictEqual(
        (yield* stream.partitions).map(({ position }) => position),
        [832, 833, 832]
      )
      yield* accounts.write(name, deposit(5))
      assert.include(yield* stream.projector.runOnce, { linked: 1 })
      const found = yield* contents(stream)
      assert.strictEqual(found[2]?.at(-1), `${name}@2501`)
    }))

  it.effect("stops before a message that has no partition, and goes on when it has one", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      for (const wrong of [-1, 0.5, NaN, 2 ** 31, "1" as unknown as number]) {
        const name = newStream()
        const written = deposits(5)
        yield* accounts.write(name, written)
        let partitionOfThird: () => number = () => wrong
        const stream = yield* make({
          patterns: name,
          partitioner: ({ version }) => version === 3 ? partitionOfThird() : 0
        })
        const fields = { _tag: "PartitionError", messageId: written[2]?.messageId, stream: name, version: 3 }
        yield* failsWith(stream.projector.runOnce, fields, String(wrong))
        assert.deepStrictEqual(yield* contents(stream), { 0: places(name, 2) })
        partitionOfThird = () => {
          throw new Error("no idea")
        }
        yield* failsWith(stream.projector.runOnce, fields)
        partitionOfThird = () => 1
        yield* stream.projector.runOnce
        assert.deepStrictEqual(yield* contents(stream), {
          0: [...places(name, 2), ...places(name, 2, 4)],
          1: [`${name}@3`]
        })
      }
    }))

  it.effect("rebuilds, is dropped, and refuses to go on by another definition", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const name = newName()
      yield* accounts.write(stream, deposits(4))
      const before = yield* accounts.aggregatedStream({ name, patterns: stream, partitioner: Partitioner.constant() })
      yield* before.projector.runOnce
      const after = yield* accounts.aggregatedStream({ name, patterns: stream, partitioner: Partitioner.constant(1) })
      yield* failsWith(after.projector.runOnce, { _tag: "StreamDefinitionError", aggregatedStream: name })
      assert.deepStrictEqual(yield* contents(after), { 0: places(stream, 4) })
      assert.include(yield* after.rebuild, { linked: 4 })
      assert.deepStrictEqual(yield* contents(after), { 1: places(stream, 4) })
      yield* failsWith(before.projector.runOnce, { _tag: "StreamDefinitionError", aggregatedStream: name })
      yield* after.drop
      const again = yield* accounts.aggregatedStream({
        name,
        patterns: stream,
        partitioner: ({ version }) => version % 2
      })
      assert.include(yield* again.projector.runOnce, { linked: 4 })
      assert.deepStrictEqual(yield* contents(again), {
        0: [`${stream}@2`, `${stream}@4`],
        1: [`${stream}@1`, `${stream}@3`]
      })
    }))

  it.effect("refuses bad input before anything is made", () =>
    Effect.gen(function*() {
      const accounts = yield* anyFields
      const partitioner = Partitioner.constant()
      const refused = (options: Parameters<typeof accounts.aggregatedStream>[0], tag: string) =>
        failsWith(accounts.aggregatedStream(options), { _tag: tag }, JSON.stringify(options))
      for (const name of ["", "A", "1a", "a-b", "a".repeat(41), "contract", "x_maxpos", "x_uq", "x_pkey"]) {
        yield* refused({ name, patterns: "%", partitioner }, "InvalidNameError")
      }
      for (const patterns of ["", "a\0", "\ud800", "a\\", [] as unknown as string]) {
        yield* refused({ name: newName(), patterns, partitioner }, "InvalidArgumentError")
      }
      const partitioners = [
        Partitioner.constant(-1),
        Partitioner.constant(2 ** 31),
        Partitioner.streamName(0),
        Partitioner.streamName(1.5),
        Partitioner.field("a", 0),
        Partitioner.field([], 1),
        Partitioner.field("", 1),
        Partitioner.field(["items", "0"], 1)
      ]
      for (const wrong of partitioners) {
        yield* refused({ name: newName(), patterns: "%", partitioner: wrong }, "InvalidArgumentError")
      }
      const stream = yield* make({ patterns: "%", partitioner })
      yield* failsWith(Stream.runDrain(stream.read(-1)), { _tag: "InvalidArgumentError" })
      yield* failsWith(Stream.runDrain(stream.read(0, { fromPosition: -1 })), { _tag: "InvalidArgumentError" })
      yield* failsWith(Stream.runDrain(stream.read(0, { limit: 0.5 })), { _tag: "InvalidArgumentError" })
      for (const inTransaction of [stream.projector.runOnce, stream.rebuild, stream.drop]) {
        yield* failsWith(accounts.withTransaction(inTransaction as Effect.Effect<void, unknown>), {
          _tag: "InvalidArgumentError"
        })
      }
    }))

  it.effect("links what was not rolled back", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const name = newStream()
      const stream = yield* make({ patterns: name, partitioner: Partitioner.constant() })
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(name, deposit())
        yield* Effect.ignore(
          accounts.withTransaction(Effect.andThen(accounts.write(name, deposits(2)), Effect.fail(0)))
        )
        yield* accounts.withTransaction(accounts.write(name, deposits(2)))
      }))
      yield* Effect.ignore(accounts.withTransaction(Effect.andThen(accounts.write(name, deposit()), Effect.fail(0))))
      yield* accounts.write(name, deposit())
      assert.include(yield* stream.projector.runOnce, { linked: 4 })
      assert.deepStrictEqual(yield* contents(stream), { 0: places(name, 4) })
    }))

  it.effect("keeps up with the store while it runs", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const name = newStream()
      const stream = yield* make({ patterns: name, partitioner: Partitioner.constant() })
      const running = yield* Effect.forkChild(stream.projector.run({ pollInterval: "1 day" }))
      for (let version = 1; version <= 5; version++) {
        yield* accounts.write(name, deposit())
        const linked = Effect.map(stream.partitions, ([head]) => head?.position)
        yield* Effect.repeat(linked, { until: (position) => position === version - 1 })
      }
      yield* Fiber.interrupt(running)
    }))

  if (!concurrentTransactions) return

  it.effect("links a transaction that commits late, and nobody waits for it", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const [late, early] = [`${prefix}-late`, `${prefix}-early`]
      const stream = yield* make({ patterns: `${prefix}%`, partitioner: Partitioner.constant() })
      const outside = yield* outsider
      yield* accounts.withTransaction(Effect.gen(function*() {
        yield* accounts.write(late, deposits(2))
        yield* outside(accounts.write(early, deposits(2)))
        assert.include(yield* outside(stream.projector.runOnce), { linked: 2 })
        yield* accounts.write(late, deposit())
        yield* outside(accounts.write(early, deposit()))
        assert.include(yield* outside(stream.projector.runOnce), { linked: 1 })
      }))
      assert.include(yield* stream.projector.runOnce, { linked: 3 })
      yield* accounts.write(late, deposit())
      assert.include(yield* stream.projector.runOnce, { linked: 1 })
      assert.deepStrictEqual(yield* contents(stream), { 0: [...places(early, 3), ...places(late, 4)] })
    }))

  it.effect("links every message once, with writers, transactions and projectors at random", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const prefix = newStream()
      const names = Arr.makeBy(7, (i) => `${prefix}-${i}`)
      const stream = yield* make({ patterns: `${prefix}%`, partitioner: Partitioner.streamName(3) })
      const finished = yield* Deferred.make<void>()
      const project = Effect.andThen(stream.projector.runOnce, Deferred.isDone(finished))
      const projectors = yield* Effect.forkChild(
        Effect.all(Arr.makeBy(2, () => Effect.repeat(project, { until: (done) => done })), { concurrency: 2 })
      )
      // One stream a transaction: who takes the locks of several in any order may meet a deadlock.
      const write = Effect.gen(function*() {
        const name = names[yield* Random.nextIntBetween(0, names.length - 1)] ?? ""
        const size = yield* Random.nextIntBetween(1, 4)
        const step = Effect.suspend(() => accounts.write(name, deposits(size)))
        switch (yield* Random.nextIntBetween(0, 3)) {
          case 0:
            return yield* step
          case 1:
            return yield* accounts.withTransaction(Effect.andThen(step, accounts.withTransaction(step)))
          case 2:
            return yield* Effect.ignore(accounts.withTransaction(Effect.andThen(step, Effect.fail("rolled back"))))
          default:
            return yield* accounts.withTransaction(Effect.andThen(
              step,
              Effect.ignore(accounts.withTransaction(Effect.andThen(step, Effect.fail("rolled back"))))
            ))
        }
      })
      yield* Effect.all(Arr.makeBy(10, () => Effect.repeat(write, { times: 40 })), { concurrency: 10 })
      yield* Deferred.succeed(finished, undefined)
      yield* Fiber.join(projectors)
      yield* stream.projector.runOnce
      const heads: Record<string, number> = {}
      for (const name of names) heads[name] = (yield* accounts.head(name)).version
      assertWoven(yield* contents(stream), heads)
    }))
}
