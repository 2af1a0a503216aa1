import { assert } from "@effect/vitest"
import { Array as Arr, Effect, Stream } from "effect"
import * as Partitioner from "../../Partitioner.ts"
import { type EncodedStoredMessage, Storage } from "../../Storage.ts"
import { Accounts, deposit, type Deposited, failsWith, newStream, Noted, type Part } from "../fixture.ts"

const pageBytes = 4 * 1024 * 1024

/** In characters, of what arrives. */
const sizeOf = ({ data, metadata }: EncodedStoredMessage): number =>
  JSON.stringify(data).length + JSON.stringify(metadata).length

let names = 0

export const pages: Part = (it) => {
  const large = [
    {
      title: "compressible messages",
      count: 12,
      message: (): Deposited | Noted => new Noted({ text: "x".repeat(1_000_000) }),
      metadata: {}
    },
    { title: "middling messages", count: 150, message: () => new Noted({ text: "xyz".repeat(20_000) }), metadata: {} },
    { title: "large metadata", count: 120, message: () => deposit(), metadata: { note: "x".repeat(60_000) } }
  ]
  for (const { count, message, metadata, title } of large) {
    it.effect(`bounds pages of ${title} by what arrives`, () =>
      Effect.gen(function*() {
        const accounts = yield* Accounts
        const storage = yield* Storage
        const stream = newStream()
        for (const written of Arr.chunksOf(Arr.makeBy(count, message), 10)) {
          yield* accounts.write(stream, written, { metadata })
        }
        const definition = {
          name: `pages_${++names}_${stream.slice(-8)}`,
          patterns: stream,
          partitioner: Partitioner.constant()
        }
        yield* Effect.flatMap(accounts.aggregatedStream(definition), ({ projector }) => projector.runOnce)
        const aggregated = yield* storage.aggregatedStream({ ...definition, patterns: [stream] })
        const everything = { fromVersion: 1, toVersion: 1_000_000, limit: 1000 }
        const positions = { fromPosition: 0, toPosition: Number.MAX_SAFE_INTEGER, limit: 1000 }
        const reads = [
          storage.readStream({ ...everything, stream, direction: "forward" }),
          storage.readStream({ ...everything, stream, direction: "backward" }),
          storage.readPattern({ ...positions, pattern: stream, direction: "forward" }),
          aggregated.readPartition({ partition: 0, fromPosition: 0, limit: 1000 })
        ]
        for (const read of reads) {
          const page = yield* read
          assert.isTrue(page.more)
          const sizes = page.messages.map(sizeOf)
          const [last = 0] = sizes.slice(-1)
          assert.isBelow(sizes.reduce((sum, size) => sum + size, 0) - last, pageBytes)
        }
        const versions = yield* Stream.runCollect(Stream.map(accounts.read(stream), ({ version }) => version))
        assert.deepStrictEqual(versions, Arr.range(1, count))
        yield* accounts.delete(stream) // other tests look through all that is stored
      }))
  }

  it.effect("refuses numbers that are too long without exponents, and stores as many as can be read back", () =>
    Effect.gen(function*() {
      const accounts = yield* Accounts
      const stream = newStream()
      const numbers = (count: number) => new Noted({ text: Arr.replicate(1e308, count) })
      for (const text of [Arr.replicate(1e308, 60_000), Arr.replicate(-5e-324, 60_000)]) {
        yield* failsWith(accounts.write(stream, new Noted({ text })), {
          _tag: "SerializationError",
          operation: "serialize"
        })
      }
      yield* failsWith(accounts.write(stream, deposit(), { metadata: { a: Arr.replicate(1e308, 1000) } }), {
        _tag: "SerializationError"
      })
      yield* accounts.write(stream, [numbers(25_000), numbers(1)])
      const sizes = yield* Stream.runCollect(
        Stream.map(accounts.read(stream), ({ message }) => "text" in message && Arr.ensure(message.text).length)
      )
      assert.deepStrictEqual(sizes, [25_000, 1])
    }))
}
