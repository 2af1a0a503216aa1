/** Shared by the parts of the contract: a store, its messages, and a way to run effects outside of a transaction. */
import { assert, type Vitest } from "@effect/vitest"
import { Array as Arr, Clock, Context, Deferred, Duration, Effect, Metric, Queue, Schema, Stream, Tracer } from "effect"
import type { SqlClient } from "effect/sql"
import * as Message from "../Message.ts"
import * as MessageStore from "../MessageStore.ts"
import type { Model } from "../projection/model.ts"
import type { Storage } from "../Storage.ts"
import type { Options } from "../Subscription.ts"

export class Deposited extends Schema.TaggedClass<Deposited>()("Deposited", {
  ...Message.fields,
  amount: Schema.BigInt
}) {}

export class Noted extends Schema.TaggedClass<Noted>()("Noted", {
  ...Message.fields,
  text: Schema.Unknown
}) {}

export class Accounts extends MessageStore.Service<Accounts>()("effect-message-store/testing/Accounts", {
  name: "contract",
  schema: Schema.Union([Deposited, Noted])
}) {}

/** The tests of one part of the contract. */
export interface Part {
  (it: Vitest.MethodsNonLive<Accounts | Storage>, options: ContractOptions): void
}

/** A read model that counts messages by their ids. */
export interface ReadModel {
  /** Kept under this name, where names are needed. */
  readonly model: (name: string) => Model<unknown, unknown>
  /** Counts each of these messages once more. */
  readonly add: (model: unknown, messageIds: ReadonlyArray<string>) => Effect.Effect<void, unknown>
  /** How often each message was counted. */
  readonly counts: (model: unknown) => Effect.Effect<ReadonlyMap<string, number>, unknown>
}

export interface ContractOptions {
  /** A read model in tables of the backend, whose layer provides the client too. Without it: states in memory. */
  readonly readModel?: ((sql: SqlClient.SqlClient) => ReadModel) | undefined
  /**
   * Whether transactions of several fibers can be open at once. Where they cannot (PGlite), whatever happens outside
   * of a transaction waits for its end; tests that force an interleaving are left out.
   */
  readonly concurrentTransactions: boolean
}

/** How the subscriptions of the contract claim partitions. */
export const ClaimsOption = Context.Reference<Options["claims"]>("effect-message-store/testing/ClaimsOption", {
  defaultValue: () => undefined
})

/** A tracer that keeps its spans. */
export const recordingTracer = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, tracer }
}

/** What the metrics of an operation count, of durations how many, by name and the type of error. */
export const metricsOf = (operation: string): Effect.Effect<Readonly<Record<string, number>>> =>
  Effect.map(Metric.snapshot, (all) =>
    Object.fromEntries(all.flatMap(({ attributes, id, state }) => {
      if (attributes?.["messaging.operation.name"] !== operation || !("count" in state)) return []
      const errorType = attributes["error.type"]
      return [[errorType === undefined ? id : `${id} ${errorType}`, Number(state.count)]]
    })))

/** The sum of the deposits of a stream. */
export const balance = {
  initial: 0n,
  evolve: (sum: bigint, message: Deposited | Noted) => message._tag === "Deposited" ? sum + message.amount : sum
}

let streams = 0

/** A stream name that no other test uses. */
export const newStream = (): string => `account-${++streams}-${globalThis.crypto.randomUUID().slice(0, 8)}`

export const deposit = (amount = 1): Deposited => new Deposited({ amount: BigInt(amount) })

export const deposits = (count: number): Arr.NonEmptyArray<Deposited> => Arr.makeBy(count, (i) => deposit(i + 1))

export const versions = Effect.fnUntraced(function*(stream: string) {
  const accounts = yield* Accounts
  return (yield* Stream.runCollect(accounts.read(stream))).map((stored) => stored.version)
})

/** The effect fails, with an error that has these fields. */
export const failsWith = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  fields: { readonly _tag: string; readonly [field: string]: unknown },
  name?: string
): Effect.Effect<void, A, R> =>
  Effect.map(Effect.flip(effect), (error) => assert.deepInclude<object>({ ...Object(error) }, fields, name))

/** Runs an effect on a clock that is another one than that of the test in this. */
export const onClock =
  (other: (clock: Clock.Clock) => Partial<Clock.Clock>) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.clockWith((clock) =>
      Effect.provideService(effect, Clock.Clock, {
        currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe(),
        currentTimeMillis: clock.currentTimeMillis,
        currentTimeNanosUnsafe: () => clock.currentTimeNanosUnsafe(),
        currentTimeNanos: clock.currentTimeNanos,
        monotonicTimeNanosUnsafe: () => clock.monotonicTimeNanosUnsafe(),
        monotonicTimeNanos: clock.monotonicTimeNanos,
        sleep: (duration) => clock.sleep(duration),
        ...other(clock)
      })
    )

/** Runs an effect ten times as fast: what it waits for takes a tenth of the time. */
export const hurried = onClock((clock) => {
  const monotonicTimeNanosUnsafe = () => 10n * clock.monotonicTimeNanosUnsafe()
  return {
    monotonicTimeNanosUnsafe,
    monotonicTimeNanos: Effect.sync(monotonicTimeNanosUnsafe),
    sleep: (duration) => clock.sleep(Duration.times(duration, 0.1))
  }
})

/** Runs effects in a fiber that was forked here: outside of the transactions that are opened later. */
export const outsider = Effect.gen(function*() {
  const requests = yield* Queue.unbounded<Effect.Effect<unknown>>()
  yield* Effect.forkScoped(Effect.forever(Effect.flatten(Queue.take(requests))))
  return <A, E>(effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.gen(function*() {
      const answer = yield* Deferred.make<A, E>()
      yield* Queue.offer(requests, Deferred.into(effect, answer))
      return yield* Deferred.await(answer)
    })
})
