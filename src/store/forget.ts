/** Forgets subjects: what is personal of theirs is forgotten in all messages, without touching any. */
import { Duration, Effect, Option, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { InvalidArgumentError, type PersonalDataError } from "../errors.ts"
import { checkStreamName, checkWhole, invalid } from "../internal/checks.ts"
import type { PersonalPlaces } from "../internal/personalPaths.ts"
import type { Operations } from "../internal/telemetry.ts"
import { KeyEncryption } from "../KeyEncryption.ts"
import type { MessagePosition } from "../Message.ts"
import { type Freshness, make as makeFreshness } from "../personal/freshness.ts"
import { Keys } from "../personal/keys.ts"
import { make as makeSnapshots, nobody } from "../personal/snapshots.ts"
import { make as makeStorage } from "../personal/storage.ts"
import type { Backend } from "../Storage.ts"
import { SubjectKeys } from "../SubjectKeys.ts"
import type { StreamWrite } from "./encode.ts"
import type { WriteError } from "./update.ts"

/** How a store deals with personal fields. */
export interface PersonalOptions<in out A> {
  /**
   * What becomes of a message that is written for a subject after it was forgotten. `"refuse"` (default) refuses it with a
   * `SerializationError`, whose cause is a `PersonalDataError` of reason `forgotten`. `"newKey"` gives the subject a new key, under
   * which nothing older can be read; a decision or a handler that was under way when the subject was forgotten, and writes a value
   * that it has read before, makes that value readable again.
   */
  readonly whenForgotten?: "refuse" | "newKey" | undefined
  /**
   * How long after `forget` other processes may still read values of the subject, since they hold keys, and states of folds, for
   * that long at most; more than 0. Default 1 minute. The process that calls `forget` drops them at once.
   */
  readonly cacheTime?: Duration.Input | undefined
  /** How many keys of subjects a process holds: a whole number, 1 or more. Default 10,000. */
  readonly cachedKeys?: number | undefined
  /**
   * Makes the message that `forget` writes in the same transaction, such as a `Message.SubjectForgotten`: it tells projections, and
   * others that keep personal data, to delete it. Write it to a stream, and with the field, that put it into the partition of the
   * subject's messages, so that it comes after them. Default: none is written.
   */
  readonly notice?: ((subject: string) => StreamWrite<A>) | undefined
}

/** What forgets. */
export interface Forgetting {
  /**
   * Forgets a subject: removes its key, in the transaction that is open. Once that is committed, every personal field of its
   * messages reads as `Forgotten`, in every copy of the messages: in this process at once, elsewhere within `cacheTime`. Snapshots of
   * folds, which may hold values, are void.
   *
   * **Details**
   *
   * It waits for open transactions that have encrypted values of the subject, and those values are forgotten too. A subject
   * without a key, for which nothing personal was written yet, is remembered as forgotten as well: `whenForgotten` applies to what
   * is written for it from then on. Forgetting a subject again changes nothing, but writes the notice again. Messages, tags,
   * metadata and ids stay as they are; `delete` and `redact` are for them. Fails with an `InvalidArgumentError` if the schema has no
   * personal fields. To wait for a read model, wait for the notice: its position is the `head` of its stream.
   *
   * **Gotchas**
   *
   * A backup of the database contains the keys: see docs/forgetting.md. Read models, logs and other systems have to delete what
   * they keep themselves, when they see the notice.
   *
   * **Example**
   *
   * ```ts
   * yield* customers.forget("customer-7")
   * ```
   */
  readonly forget: (subject: string) => Effect.Effect<void, ForgetError>
  /**
   * Wraps again, with the present wrapping key, all keys that another one has wrapped. Returns how many; messages are not touched.
   * Others may write and forget meanwhile. It can be interrupted at any time, and run again.
   */
  readonly rewrapKeys: Effect.Effect<number, RewrapError>
}

/** Why a subject cannot be forgotten: a bad argument, keys out of reach, or a notice that cannot be written. */
export type ForgetError = WriteError | PersonalDataError

/** Why keys cannot be wrapped anew. */
export type RewrapError = InvalidArgumentError | PersonalDataError | SqlError

/**
 * What a store with personal fields has beside its backend.
 *
 * @internal
 */
export interface Shredding<A> {
  readonly freshness: Freshness
  /** Forgets in the transaction that is open. */
  readonly remove: (subject: string) => Effect.Effect<void, PersonalDataError | SqlError>
  /** Drops what this process holds. */
  readonly expire: Effect.Effect<void>
  readonly rewrap: Keys["rewrap"]
  readonly notice: PersonalOptions<A>["notice"]
}

/** The options, checked, with their defaults. */
export interface Settings<A> extends Pick<PersonalOptions<A>, "notice"> {
  readonly revives: boolean
  /** In milliseconds. */
  readonly cacheTime: number
  readonly cachedKeys: number
}

/** @internal */
export const settingsOf = <A>(
  { cachedKeys = 10_000, cacheTime = "1 minute", notice, whenForgotten = "refuse" }: PersonalOptions<A> = {}
): Result.Result<Settings<A>, InvalidArgumentError> =>
  Result.gen(function*() {
    yield* checkWhole("cachedKeys", cachedKeys, 1)
    const milliseconds = Option.getOrElse(Option.map(Duration.fromInput(cacheTime), Duration.toMillis), () => 0)
    if (!(milliseconds > 0 && milliseconds < Infinity)) {
      return yield* invalid("cacheTime", "must be more than 0, and finite")
    }
    if (whenForgotten !== "refuse" && whenForgotten !== "newKey") {
      return yield* invalid("whenForgotten", "must be \"refuse\" or \"newKey\"")
    }
    return { notice, cachedKeys, cacheTime: milliseconds, revives: whenForgotten === "newKey" }
  })

/**
 * Puts the encryption before a backend.
 *
 * @internal
 */
export const shred = Effect.fnUntraced(function*<A>(
  backend: Backend,
  places: PersonalPlaces,
  { cachedKeys, cacheTime, notice, revives }: Settings<A>
): Effect.fn.Return<{ readonly storage: Backend; readonly shredding: Shredding<A> }, never, KeyEncryption> {
  const elsewhere = yield* Effect.serviceOption(SubjectKeys)
  const stored = Option.getOrElse(elsewhere, () => backend.subjectKeys)
  // A state may be folded of values that were decrypted by a key as long as that is held: each has half of the time.
  const freshness = yield* makeFreshness(cacheTime / 2)
  const keys = new Keys(backend, stored, yield* KeyEncryption, freshness, {
    capacity: cachedKeys,
    revives
  })
  const snapshots = makeSnapshots(keys)
  // A statement that is refused would break a transaction.
  if (!(yield* backend.inTransaction)) yield* snapshots.observe
  return {
    storage: makeStorage(backend, places, keys, snapshots),
    shredding: {
      freshness,
      notice,
      rewrap: keys.rewrap,
      // In this order, or transactions that forget several would wait for each other.
      remove: (subject) =>
        Effect.asVoid(stored.forget([nobody, subject].map((each) => ({
          subject: each,
          id: globalThis.crypto.randomUUID()
        })))),
      // The subject is forgotten by now: whoever wraps the key of the next snapshots may be slow, or not there.
      expire: Effect.andThen(Effect.sync(() => keys.clear()), Effect.exit(Effect.interruptible(snapshots.observe)))
    }
  }
})

/**
 * @internal
 */
export const make = <A>(
  storage: Backend,
  operation: Operations,
  shredding: Shredding<A> | undefined,
  append: (write: StreamWrite<A>) => Effect.Effect<MessagePosition, WriteError>
): Forgetting => {
  const required = (call: string) =>
    Effect.fromResult(
      shredding === undefined
        ? invalid(call, "has nothing to do: the store's schema has no personal fields (Message.personal)")
        : Result.succeed(shredding)
    )
  const forgetting = operation("forget")
  const rewrapping = operation("rewrapKeys")
  return {
    forget: Effect.fn(forgetting.spanName, forgetting.spanOptions)(function*(subject) {
      yield* Effect.fromResult(
        Result.mapError(
          checkStreamName(subject),
          ({ reason }) => new InvalidArgumentError({ argument: "subject", reason })
        )
      )
      const { expire, notice, remove } = yield* required("forget")
      yield* forgetting.observe(storage.withTransaction(Effect.gen(function*() {
        // In the order in which writers lock: keys, then streams.
        yield* remove(subject)
        if (notice !== undefined) yield* append(notice(subject))
        yield* storage.afterCommit(expire)
      })))
    }),
    rewrapKeys: Effect.withSpan(
      rewrapping.observe(Effect.flatMap(required("rewrapKeys"), ({ rewrap }) => rewrap)),
      rewrapping.spanName,
      rewrapping.spanOptions
    )
  }
}
