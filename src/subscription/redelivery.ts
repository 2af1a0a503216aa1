/**
 * Delivers parked messages that were requeued, one after the other, in their order: each is tried as any other message is.
 * One that fails for the last time is parked again, whatever `onFailure` says.
 */
import { Effect, Result } from "effect"
import type { Delivery } from "../Handlers.ts"
import type { EncodedParkedMessage } from "../Storage.ts"
import { type Attempt, blameless, brokenTransaction, type Delivering, type Ended } from "./attempt.ts"
import type { ClaimedPartition } from "./claimedPartition.ts"
import { annotationsOf, typeIn } from "./consumer.ts"
import { toFailure } from "./failure.ts"
import { decodeParked } from "./parked.ts"
import * as Retry from "./retry.ts"

/** Delivers some of a claimed partition at most; whether there may be more. */
export interface Redeliver<R> {
  (partition: ClaimedPartition, limit: number): Effect.Effect<boolean, Ended, R>
}

/** @internal */
export const make = <A, R>(delivering: Delivering<A, R>): Redeliver<R> => {
  const { codec, consumer, metrics, options, shutdown, storage, subscribed } = delivering
  const { handlerTransactions } = storage
  const inTurn = handlerTransactions?.inTurn ?? (<B, E, R2>(transaction: Effect.Effect<B, E, R2>) => transaction)

  /** It is parked until it was handled; with transactional delivery, whoever takes it away has it to itself. */
  const attempting = (partition: ClaimedPartition, entry: EncodedParkedMessage): Attempt<A, R> => (deliveries) => {
    const handle = consumer(deliveries, () => Effect.succeed(true))
    const unpark = subscribed.unpark(entry)
    const handled = options.delivery === "transactional"
      ? inTurn(storage.withTransaction(
        Effect.flatMap(unpark, (isThere) => isThere ? Effect.as(handle, true) : Effect.succeed(false))
      )).pipe(brokenTransaction(0))
      : Effect.andThen(handle, unpark)
    return partition.ensureClaimed.pipe(
      Effect.andThen(handled),
      Effect.flatMap((isHandled) => isHandled ? metrics.handled(1) : Effect.void),
      blameless(partition)
    )
  }

  const parkAgain = (entry: EncodedParkedMessage, { attempt, ...message }: Retry.Given<A>, cause: unknown) =>
    Effect.gen(function*() {
      if (shutdown.isRequested) return
      yield* subscribed.park({ ...entry, attempts: attempt, error: toFailure(cause) }, { onlyIfParked: true })
      yield* Effect.annotateLogs(
        Effect.logError(`subscription ${options.name}: a requeued message is parked again`, cause),
        annotationsOf({ ...message, attempt, partition: entry.partition })
      )
    })

  return Effect.fnUntraced(function*(partition, limit) {
    for (let count = 0; count < limit; count++) {
      if (shutdown.isRequested) return true
      const entry = yield* subscribed.requeued(partition.partition)
      if (entry === undefined) return false
      const attempt = entry.attempts + 1
      const stored = decodeParked(codec, entry)
      const giveUp = (message: Retry.Given<A>, cause: unknown) => parkAgain(entry, message, cause)
      if (Result.isFailure(stored)) {
        const { messageId, position } = entry
        const stream = entry.stored?.stream ?? "?"
        yield* giveUp({ messageId, position, stream, attempt, type: typeIn(codec, entry.stored) }, stored.failure)
        continue
      }
      const delivery: Delivery<A> = { ...stored.success, partition: entry.partition, position: entry.position, attempt }
      const attempted = yield* Effect.result(attempting(partition, entry)([delivery]))
      if (Result.isSuccess(attempted)) continue
      if (attempted.failure._tag !== "HandlerFailure") return yield* attempted.failure
      yield* Retry.make(delivering, attempting(partition, entry), giveUp)(delivery, attempted.failure.cause)
    }
    return true
  })
}
