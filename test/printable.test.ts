/** A name with a newline in it begins no new line of the log. */
import { assert, it } from "@effect/vitest"
import { Effect, Logger } from "effect"
import { OptimisticConcurrencyError, PartitionError, SerializationError } from "effect-message-store"
import { annotationsOf } from "../src/subscription/consumer.ts"

const stream = "a\nlevel=ERROR message=forged \u001b[2J\u2029\u202eb"
const oneLine = /^[^\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]*$/u

it("errors print a stream's name on one line", () => {
  const place = { stream, version: 1, messageId: "" }
  const errors = [
    new OptimisticConcurrencyError({ stream, expectedVersion: 0, actualVersion: 1 }),
    new SerializationError({ operation: "deserialize", reason: "r", ...place }),
    new PartitionError({ aggregatedStream: "s", reason: "r", ...place })
  ]
  for (const { message } of errors) assert.match(message, oneLine)
})

it.effect("lines of the log have a stream's name on one line", () =>
  Effect.gen(function*() {
    const lines: Array<string> = []
    const capture = Logger.map(Logger.formatLogFmt, (line) => void lines.push(line))
    const place = { messageId: "m", stream, partition: 0, position: 0, attempt: 1 }
    assert.match(annotationsOf(place).stream, oneLine)
    assert.strictEqual(annotationsOf({ ...place, stream: "order-1 ü 日本" }).stream, "order-1 ü 日本")
    yield* Effect.logWarning("x").pipe(
      Effect.annotateLogs(annotationsOf(place)),
      Effect.provide(Logger.layer([capture]))
    )
    assert.match(lines.join(""), oneLine)
  }))
