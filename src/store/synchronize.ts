/** Makes a stream hold given messages: what is stored is compared, what is missing is written. */
import { Array as Arr, Effect, Predicate, Result } from "effect"
import { MessageIdMismatchError, OptimisticConcurrencyError } from "../errors.ts"
import { checkExpectedVersion, checkMessageId, checkStreamName } from "../internal/checks.ts"
import type { Operations, Sending } from "../internal/telemetry.ts"
import type { MessagePosition } from "../Message.ts"
import type { Storage } from "../Storage.ts"
import type { Accessors, StreamWrite, WriteOptions } from "./encode.ts"
import type { Appended, WriteError } from "./update.ts"

const idPage = 10_000

/**
 * @internal
 */
export const make = <A>(
  storage: Storage["Service"],
  operation: Operations,
  accessors: Accessors<A>,
  append: (write: StreamWrite<A>, sending: Sending) => Effect.Effect<MessagePosition, WriteError>
) => {
  /** How many of the messages are stored, or deleted, given that they are those the stream began with. */
  const countStored = Effect.fnUntraced(function*(stream: string, given: ReadonlyArray<string>) {
    for (let stored = 0;;) {
      const page = yield* storage.messageIds({ stream, fromVersion: stored + 1, limit: idPage })
      for (const { messageId: storedMessageId, version } of page) {
        const givenMessageId = given[version - 1]
        if (givenMessageId === undefined) return given.length
        if (givenMessageId !== storedMessageId) {
          return yield* new MessageIdMismatchError({ stream, version, storedMessageId, givenMessageId })
        }
      }
      stored = page.at(-1)?.version ?? stored
      if (page.length < idPage) return stored
    }
  })

  const synchronizing = operation("synchronize", "send")
  const synchronize = Effect.fnUntraced(
    function*(
      stream: string,
      messages: ReadonlyArray<A>,
      options: WriteOptions | undefined,
      sending: Sending
    ): Effect.fn.Return<Appended, WriteError | MessageIdMismatchError> {
      yield* Effect.fromResult(checkStreamName(stream))
      const expected = yield* Effect.fromResult(checkExpectedVersion(options?.expectedVersion))
      const ids = yield* Effect.fromResult(Result.all(messages.map((message) => checkMessageId(accessors.id(message)))))
      while (true) {
        const stored = yield* countStored(stream, ids)
        const missing = messages.slice(stored)
        if (!Arr.isReadonlyArrayNonEmpty(missing)) return { ...yield* storage.head(stream), appended: 0 }
        if (expected !== undefined && (expected === "exists" ? stored === 0 : expected !== stored)) {
          return yield* new OptimisticConcurrencyError({ stream, expectedVersion: expected, actualVersion: stored })
        }
        const written = yield* Effect.result(
          append({ ...options, stream, messages: missing, expectedVersion: stored }, sending)
        )
        if (Result.isSuccess(written)) {
          return { ...written.success, appended: missing.length }
        }
        if (written.failure._tag !== "OptimisticConcurrencyError" || Predicate.isNumber(expected)) {
          return yield* written.failure
        }
      }
    }
  )
  return Effect.fn(synchronizing.spanName, synchronizing.spanOptions)(
    function*(stream: string, messages: ReadonlyArray<A>, options?: WriteOptions) {
      const sending: Sending = { items: [] }
      return yield* synchronizing.observe(synchronize(stream, messages, options, sending), sending)
    }
  )
}
