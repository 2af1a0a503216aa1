/** Transactions of several calls that wait for each other: one of them fails, and can be retried. */
import { assert } from "@effect/vitest"
import { Deferred, Effect, Result } from "effect"
import * as Decision from "../../Decision.ts"
import type { DecideError, MessageStore, WriteError } from "../../MessageStore.ts"
import { newStream, type Part } from "../fixture.ts"
import { Closed, count, type CourseEvent, courses, newValue, Subscribed } from "./tags.ts"

type Call = (key: string) => Effect.Effect<unknown, DecideError | WriteError>

/** What each of two transactions does first, with a key of its own, and then with that of the other. */
const crossings = ({ decide, write }: MessageStore<CourseEvent>): Readonly<Record<string, readonly [Call, Call]>> => {
  const writes: Call = (course) => write(newStream(), new Subscribed({ course, student: newValue() }))
  const asks: Call = (course) =>
    decide({ taken: Decision.tagged({ course }, count) }, () => ({ stream: newStream(), messages: new Closed({}) }))
  const appends: Call = (stream) => write(stream, new Closed({}))
  const requires: Call = (stream) =>
    decide({ required: Decision.stream(stream, count) }, () => ({ stream: newStream(), messages: new Closed({}) }))
  const both: Call = (key) =>
    decide(
      { tagged: Decision.tagged({ course: key }, count), stream: Decision.stream(key, count) },
      () => ({ stream: newStream(), messages: new Subscribed({ course: key, student: key }) })
    )
  return {
    "write each other's tags": [writes, writes],
    "write what the other asked about": [asks, writes],
    "ask about what the other wrote": [writes, asks],
    "write to streams that the other requires": [requires, appends],
    "require streams that the other wrote to": [appends, requires],
    "decide on each other's tags and streams": [both, both]
  }
}

export const deadlocks: Part = (it, { concurrentTransactions }) => {
  if (!concurrentTransactions) return

  it.effect("fails one of two transactions that wait for each other's tags, and it can be retried", () =>
    Effect.gen(function*() {
      const store = yield* courses
      const crossed = Effect.fnUntraced(function*(title: string, [first, second]: readonly [Call, Call]) {
        const keys = [newValue(), newValue()] as const
        const begun = yield* Effect.all([Deferred.make<void>(), Deferred.make<void>()])
        const transaction = (mine: 0 | 1) =>
          store.withTransaction(Effect.gen(function*() {
            yield* first(keys[mine])
            yield* Deferred.succeed(begun[mine], undefined)
            yield* Deferred.await(begun[1 - mine as 0 | 1])
            yield* second(keys[1 - mine as 0 | 1])
          }))
        const results = yield* Effect.all([Effect.result(transaction(0)), Effect.result(transaction(1))], {
          concurrency: "unbounded"
        })
        const failures = results.filter(Result.isFailure).map(({ failure }) => failure)
        assert.strictEqual(failures.length, 1, title)
        const [failure] = failures
        assert(failure?._tag === "SqlError", title)
        assert.strictEqual(failure.reason._tag, "DeadlockError", title)
        assert.isTrue(failure.isRetryable, title)
        yield* transaction(Result.isFailure(results[0]) ? 0 : 1)
      })
      yield* Effect.forEach(Object.entries(crossings(store)), ([title, calls]) => crossed(title, calls), {
        concurrency: 2
      })
    }).pipe(Effect.scoped))
}
