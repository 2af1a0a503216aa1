/** Messages that are written later: what schedules them, and what moves them into their streams. */
import {
  type Array as Arr,
  DateTime,
  Duration,
  Effect,
  Metric,
  Option,
  Result,
  Schedule,
  type Scope,
  Stream
} from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { DuplicateMessageError, InvalidArgumentError, SerializationError } from "../errors.ts"
import { inBackground } from "../internal/background.ts"
import { checkKey, checkPollInterval, checkTime, checkWhole, outsideTransaction } from "../internal/checks.ts"
import { printable } from "../internal/printable.ts"
import { attributesOf, type Operations, type Sending, sentMessages } from "../internal/telemetry.ts"
import { tryingAgain } from "../internal/transient.ts"
import type { Metadata } from "../Message.ts"
import type { MessageCodec } from "../Serializer.ts"
import type { ListedEntry, Storage } from "../Storage.ts"
import type { Invalid, Items, StreamWrite } from "./encode.ts"

/** When a message is to be written, and what it is called until then. */
export interface ScheduleOptions {
  /** When it is written, by the clock of the database, and not before. A time in the past means at once. A scheduler has to run. */
  readonly at: DateTime.DateTime
  /**
   * By this key the message is cancelled, and replaced by another message that is scheduled with the same key; 1 to 255
   * characters. Default: the message's id.
   */
  readonly key?: string | undefined
  /** Stored with the message, as by `write`: with the trace context and the causation of whoever schedules it. */
  readonly metadata?: Metadata | undefined
}

/** Why a message cannot be scheduled. */
export type ScheduleError = DuplicateMessageError | SerializationError | InvalidArgumentError | SqlError

/** A message that is to be written later. */
export interface ScheduledMessage<out A> {
  /** By which it is cancelled, or replaced. */
  readonly key: string
  /** When it is due. */
  readonly at: DateTime.Utc
  /** Of messages that are due at the same time, the lower one leaves first. */
  readonly order: number
  readonly stream: string
  readonly messageId: string
  /** Undefined if this build cannot decode it. */
  readonly message: A | undefined
  /** Of who has scheduled it. */
  readonly metadata: Metadata
  /** Why it could not be written when it was due; undefined if it waits. */
  readonly refused: string | undefined
}

/** Which scheduled messages are read. */
export interface ScheduledOptions {
  /**
   * `true`: those that could not be written, and wait no more until they are cancelled, or replaced. Default `false`: those that
   * wait.
   */
  readonly refused?: boolean | undefined
  /** Those behind this one: the last one that was read. Default: from the first on. */
  readonly after?: Pick<ScheduledMessage<unknown>, "at" | "order"> | undefined
  /** How many are read at most; 0 or more. Default: all. */
  readonly limit?: number | undefined
}

/** How a scheduler waits. */
export interface SchedulerOptions {
  /**
   * How long it waits for a wake-up before it looks for itself, since wake-ups may be lost; a millisecond or more. Default 5
   * seconds.
   */
  readonly pollInterval?: Duration.Input | undefined
}

/** Moves scheduled messages into their streams when they are due. */
export interface Scheduler {
  /** Moves all that are due now; returns how many. Not inside a transaction. */
  readonly runOnce: Effect.Effect<number, InvalidArgumentError | SqlError>
  /**
   * Moves messages as they become due, until it is interrupted, in batches of up to 500. Any number of processes may run it:
   * one of them moves at a time. Transient failures of the database are tried again, and the first in a row is logged as a warning. Not inside a transaction.
   */
  readonly run: (options?: SchedulerOptions) => Effect.Effect<never, InvalidArgumentError | SqlError>
}

/** What writes messages later. */
export interface Scheduling<in out A> {
  /**
   * Schedules a message, in the transaction that is open: a scheduler writes it to its stream at a time, exactly once, whatever
   * the version of the stream is then. It is checked and encoded now. Returns its key.
   *
   * **Details**
   *
   * The message keeps its id, its time (`occurredAt` is when it was made, unless it says otherwise), its tags, and the
   * metadata of who schedules it. A message whose id is stored when it is due is not written again.
   *
   * **Example**
   *
   * ```ts
   * yield* orders.schedule("order-1", new PaymentExpired({ orderId: "1" }), {
   *   at: DateTime.addDuration(yield* DateTime.now, "15 minutes"),
   *   key: "order-1 expires"
   * })
   * ```
   */
  readonly schedule: (
    stream: string,
    message: A,
    options: ScheduleOptions
  ) => Effect.Effect<string, ScheduleError>
  /**
   * Cancels a scheduled message, in the transaction that is open. Returns whether it was still scheduled; `false` if it never was,
   * or was written already.
   */
  readonly cancel: (key: string) => Effect.Effect<boolean, InvalidArgumentError | SqlError>
  /**
   * The messages that wait for their time, in the order in which they leave, or those that could not be written; in pages of
   * 100, with no connection held between them. To go on later, give the last one that was read as `after`. In a transaction
   * that is open, what it sees.
   *
   * **Example**
   *
   * ```ts
   * yield* Stream.runForEach(orders.scheduled({ limit: 10 }), ({ at, key, stream }) => Console.log(key, stream, at))
   * ```
   */
  readonly scheduled: (
    options?: ScheduledOptions
  ) => Stream.Stream<ScheduledMessage<A>, InvalidArgumentError | SqlError>
  /** Moves scheduled messages into their streams: see `layerScheduler` of the store's class. */
  readonly scheduler: Scheduler
}

/** How a layer runs a scheduler. */
export interface SchedulerLayerOptions extends SchedulerOptions {
  /** When it runs again after it failed; its input is the error. Default: after 30 seconds, each time. Failures are logged. */
  readonly restart?: Schedule.Schedule<unknown, InvalidArgumentError | SqlError> | undefined
}

/** @internal */
export const scheduleInBackground = (
  { name, scheduler }: { readonly name: string; readonly scheduler: Scheduler },
  { restart = Schedule.spaced("30 seconds"), ...options }: SchedulerLayerOptions = {}
): Effect.Effect<void, never, Scope.Scope> => inBackground(`the scheduler of ${name}`, scheduler.run(options), restart)

/** How soon messages are tried again whose streams others have locked, and how soon another process is followed. */
const busyMilliseconds = 100
const otherMilliseconds = 500

/** How many scheduled messages are read at once. */
const pageSize = 100

const read = <A>(
  storage: Storage["Service"],
  codec: MessageCodec<A>,
  { after, limit = Infinity, refused = false }: ScheduledOptions = {}
): Stream.Stream<ScheduledMessage<A>, InvalidArgumentError | SqlError> =>
  Stream.unwrap(Effect.map(
    Effect.fromResult(Result.all([
      limit === Infinity ? Result.void : checkWhole("limit", limit, 0),
      after === undefined ? Result.void : checkTime(after.at, "after"),
      after === undefined ? Result.void : checkWhole("after", after.order, 0)
    ])),
    () =>
      limit === 0 ? Stream.empty : Stream.paginate(
        { after, left: limit },
        Effect.fnUntraced(function*(page) {
          const { entries, more } = yield* storage.scheduled({
            isRefused: refused,
            after: page.after && { ...page.after, at: DateTime.toUtc(page.after.at) },
            limit: Math.min(page.left, pageSize)
          })
          const left = page.left - entries.length
          return [
            entries.map(toScheduled(codec)),
            more && left > 0 ? Option.some({ after: entries.at(-1), left }) : Option.none()
          ]
        })
      )
  ))

const toScheduled =
  <A>(codec: MessageCodec<A>) => ({ data, unreadable, ...entry }: ListedEntry): ScheduledMessage<A> => {
    const { messageId, stream } = entry
    const decoded = unreadable === undefined ? codec.decode(data, { messageId, stream, version: 0 }) : undefined
    return { ...entry, message: decoded !== undefined && Result.isSuccess(decoded) ? decoded.success : undefined }
  }

/** @internal */
export const make = <A>(
  storage: Storage["Service"],
  operation: Operations,
  codec: MessageCodec<A>,
  name: string,
  encoded: <B, E>(
    writes: Arr.NonEmptyReadonlyArray<StreamWrite<A>>,
    use: (items: Items) => Effect.Effect<B, E>
  ) => Effect.Effect<B, E | Invalid>
): Scheduling<A> => {
  const creating = operation("schedule", "create")
  const cancelling = operation("cancel")
  const sent = sentMessages(attributesOf(name, "schedule", "send"))
  const moveDue = Effect.tap(storage.moveDue, (moved) =>
    Effect.all([
      Metric.update(sent, moved?.moved ?? 0),
      Effect.forEach(moved?.duplicates ?? [], (messageId) =>
        Effect.logWarning(`the scheduler of ${name} has left out a message that is stored already`, messageId)),
      Effect.forEach(moved?.refused ?? [], ({ key, reason }) =>
        Effect.logError(`the scheduler of ${name} cannot write the message "${printable(key)}": ${reason}`))
    ]))

  return {
    schedule: Effect.fn(creating.spanName, creating.spanOptions)(function*(stream, message, { at, key, metadata }) {
      const time = yield* Effect.fromResult(checkTime(at, "at"))
      const given = key === undefined ? undefined : yield* Effect.fromResult(checkKey(key))
      const sending: Sending = { items: [] }
      const scheduling = encoded([{ stream, messages: message, metadata }], ([item]) => {
        sending.items = [item]
        // One message was given.
        const [only] = item.messages as typeof item.messages & readonly [typeof item.messages[number]]
        const entry = {
          key: given ?? only.messageId,
          at: time,
          stream,
          message: only,
          metadata: item.metadata,
          knownTags: item.knownTags
        }
        return Effect.as(storage.schedule(entry), entry.key)
      })
      return yield* creating.observe(scheduling, sending)
    }),
    cancel: Effect.fn(cancelling.spanName, cancelling.spanOptions)(function*(key) {
      return yield* cancelling.observe(storage.cancel(yield* Effect.fromResult(checkKey(key))))
    }),
    scheduled: (options) => read(storage, codec, options),
    scheduler: {
      runOnce: Effect.gen(function*() {
        yield* outsideTransaction(storage, "scheduler")
        let total = 0
        while (true) {
          const moved = yield* moveDue
          total += moved?.moved ?? 0
          if (moved === undefined) yield* Effect.sleep(busyMilliseconds)
          else if (!moved.more) return total
        }
      }),
      run: ({ pollInterval } = {}) =>
        Effect.scoped(Effect.gen(function*() {
          const longest = Duration.toMillis(yield* Effect.fromResult(checkPollInterval(pollInterval)))
          yield* outsideTransaction(storage, "scheduler")
          const listener = yield* storage.listenScheduled
          while (true) {
            const moved = yield* tryingAgain(`the scheduler of ${name}`)(moveDue)
            if (moved?.more === true) continue
            const next = moved === undefined ? otherMilliseconds : Math.max(busyMilliseconds, moved.next ?? Infinity)
            yield* listener.wait(Math.min(next, longest))
          }
        }))
    }
  }
}
