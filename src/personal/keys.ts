/**
 * The data keys that a store encrypts and decrypts with.
 *
 * - To decrypt, keys are found by the names that encrypted values have: those that the process holds, and in one query all others
 *   of a page. That a key is forgotten is held as well.
 * - To encrypt, the last keys of subjects are asked for each time, so that nothing is encrypted under a key that is known to be
 *   forgotten; in a transaction they stay what they are until it ends.
 *   Fibers that write at the same time ask together.
 * - In a transaction nothing is taken for granted: it may have forgotten a key itself, or roll back. Keys are looked at, and none is
 *   held that was found there.
 */
import { Effect, Result } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { PersonalDataError } from "../errors.ts"
import type { KeyEncryption } from "../KeyEncryption.ts"
import type { Backend } from "../Storage.ts"
import type { SubjectKey, SubjectKeyError, SubjectKeyStorage } from "../storage/subjectKeys.ts"
import { type DataKey, importKey, type Key, type KeyName, nameOf, newKey } from "./cipher.ts"
import type { Freshness, Stamp } from "./freshness.ts"
import { gathering } from "./gathering.ts"

/** What a name stands for. */
export type Found = Key | "forgotten" | PersonalDataError

/** How keys are found, and held. */
interface KeysOptions {
  /** How many are held at most. */
  readonly capacity: number
  /** Whether a subject that was forgotten gets a new key when something is written for it. */
  readonly revives: boolean
}

/** How many keys are asked for at a time, and how many are unwrapped at once. */
const atATime = 1000
const atOnce = 32
/** How often a key is added before it is given up; each time, another one was faster and is forgotten by now. */
const maximumRounds = 16

interface Held {
  readonly found: Key | "forgotten"
  readonly stamp: Stamp
}

/** A new key, as it is to be stored. */
interface Made {
  readonly stored: SubjectKey
  readonly key: Key
}

export class Keys {
  private readonly backend: Pick<Backend, "inTransaction">
  private readonly stored: SubjectKeyStorage
  private readonly encryption: KeyEncryption["Service"]
  private readonly freshness: Freshness
  private readonly options: KeysOptions
  private readonly currentTogether = gathering((subjects) => this.currentOf(subjects.toSorted()))
  /** In the order in which they were found. */
  private readonly held = new Map<string, Held>()

  constructor(
    backend: Pick<Backend, "inTransaction">,
    stored: SubjectKeyStorage,
    encryption: KeyEncryption["Service"],
    freshness: Freshness,
    options: KeysOptions
  ) {
    this.backend = backend
    this.stored = stored
    this.encryption = encryption
    this.freshness = freshness
    this.options = options
  }

  /** What names stand for. */
  find(names: ReadonlyMap<string, KeyName>): Effect.Effect<ReadonlyMap<string, Found>, SqlError> {
    return Effect.gen({ self: this }, function*() {
      const inTransaction = yield* this.backend.inTransaction
      const found = new Map<string, Found>()
      const missing: Array<readonly [string, KeyName]> = []
      for (const one of names) {
        const held = inTransaction ? undefined : this.get(one[0])
        if (held === undefined) missing.push(one)
        else found.set(one[0], held)
      }
      if (missing.length === 0) return found
      const { stamp } = this.freshness
      const ids = Array.from(new Set(missing.map(([, { id }]) => id)))
      const stored = new Map<string, SubjectKey>()
      for (let from = 0; from < ids.length; from += atATime) {
        const asked = yield* unlessUnavailable(this.stored.get(ids.slice(from, from + atATime)))
        if (Result.isFailure(asked)) {
          for (const [name] of missing) found.set(name, asked.failure)
          return found
        }
        for (const key of asked.success) stored.set(key.id, key)
      }
      yield* Effect.forEach(
        missing,
        ([name, key]) =>
          Effect.map(this.open(key, stored.get(key.id)), (opened) => {
            found.set(name, opened)
            if (!inTransaction && !isRefused(opened)) this.hold(name, { found: opened, stamp })
          }),
        { concurrency: atOnce, discard: true }
      )
      return found
    })
  }

  /** The keys of subjects to encrypt with; or why there is none. Those that have none yet get one. */
  toEncrypt(
    subjects: ReadonlyArray<string>,
    revives = this.options.revives
  ): Effect.Effect<ReadonlyMap<string, DataKey | PersonalDataError>, SqlError> {
    return Effect.gen({ self: this }, function*() {
      const found = new Map<string, DataKey | PersonalDataError>()
      const inTransaction = yield* this.backend.inTransaction
      const { stamp } = this.freshness
      // In one order, in which they are locked.
      let open = subjects.toSorted()
      /** By their subjects, keys that are added here. Whoever is faster may give another one the same name. */
      const added = new Map<string, Made>()
      for (let round = 0; open.length > 0; round++) {
        if (round === maximumRounds) {
          for (const subject of open) found.set(subject, notKept)
          break
        }
        const asked = yield* unlessUnavailable(inTransaction ? this.currentOf(open) : this.currentTogether(open))
        if (Result.isFailure(asked)) return new Map(subjects.map((subject) => [subject, asked.failure]))
        const current = new Map(asked.success.map((key) => [key.subject, key]))
        const fresh: Array<SubjectKey> = []
        for (const subject of open) {
          const key = current.get(subject)
          if (key !== undefined && key.wrapped === undefined && !revives) {
            found.set(subject, new PersonalDataError({ reason: "forgotten", subject }))
            continue
          }
          if (key?.wrapped !== undefined) {
            const name = nameOf(key)
            const own = added.get(subject)
            const opened = own?.stored.wrapped?.data === key.wrapped.data ? own.key : yield* this.open(key, key)
            if (!inTransaction && !isRefused(opened)) this.hold(name, { found: opened, stamp })
            found.set(subject, opened === "forgotten" ? lost : isRefused(opened) ? opened : { ...key, key: opened })
            continue
          }
          const id = key?.id ?? globalThis.crypto.randomUUID()
          const made = yield* Effect.result(this.make({ subject, id, generation: (key?.generation ?? 0) + 1 }))
          if (Result.isFailure(made)) {
            found.set(subject, made.failure)
            continue
          }
          fresh.push(made.success.stored)
          added.set(subject, made.success)
        }
        open = fresh.map(({ subject }) => subject)
        if (open.length === 0) break
        const adding = yield* unlessUnavailable(this.stored.add(fresh))
        if (Result.isFailure(adding)) {
          for (const subject of open) found.set(subject, adding.failure)
          break
        }
      }
      return found
    })
  }

  /** Wraps all keys anew that another wrapping key has wrapped; answers how many. */
  readonly rewrap: Effect.Effect<number, SubjectKeyError> = Effect.gen({ self: this }, function*() {
    const { keyId } = this.encryption
    let count = 0
    let after = "00000000-0000-0000-0000-000000000000"
    while (true) {
      const page = yield* this.stored.wrappedByOthers({ keyId, after, limit: atATime })
      const last = page.at(-1)
      if (last === undefined) return count
      const rewrapped = yield* Effect.forEach(
        page.flatMap(({ wrapped, ...key }) => wrapped === undefined ? [] : [{ ...key, before: wrapped }]),
        (key) =>
          Effect.gen({ self: this }, function*() {
            const bytes = yield* this.encryption.unwrap(key.before, nameOf(key))
            return { ...key, wrapped: yield* this.encryption.wrap(bytes, nameOf(key)) }
          }),
        { concurrency: atOnce }
      )
      count += yield* this.stored.rewrap(rewrapped)
      after = last.id
    }
  })

  /** Holds no key any more. */
  clear(): void {
    this.held.clear()
    this.freshness.expire()
  }

  private currentOf(subjects: ReadonlyArray<string>): Effect.Effect<ReadonlyArray<SubjectKey>, SubjectKeyError> {
    return subjects.length <= atATime
      ? this.stored.current(subjects)
      : Effect.zipWith(
        this.stored.current(subjects.slice(0, atATime)),
        Effect.suspend(() => this.currentOf(subjects.slice(atATime))),
        (first, others) => [...first, ...others]
      )
  }

  /** What a name stands for, given the last key of its id. */
  private open(name: KeyName, key: SubjectKey | undefined): Effect.Effect<Found> {
    // A key of a higher generation than the last one was kept once, and is not there any more.
    if (key === undefined || key.generation < name.generation) return Effect.succeed(lost)
    if (key.generation > name.generation || key.wrapped === undefined) return Effect.succeed("forgotten")
    const held = this.get(nameOf(name))
    if (held !== undefined && held !== "forgotten") return Effect.succeed(held)
    return Effect.match(this.encryption.unwrap(key.wrapped, nameOf(name)), {
      onFailure: (error): Found => error,
      onSuccess: (bytes) => bytes
    }).pipe(
      Effect.flatMap((opened) =>
        opened instanceof Uint8Array
          ? Effect.promise(() => importKey(opened as Uint8Array<ArrayBuffer>))
          : Effect.succeed(opened)
      )
    )
  }

  private make(key: Omit<SubjectKey, "wrapped">): Effect.Effect<Made, PersonalDataError> {
    return Effect.gen({ self: this }, function*() {
      const bytes = newKey()
      const wrapped = yield* this.encryption.wrap(bytes, nameOf(key))
      return { stored: { ...key, wrapped }, key: yield* Effect.promise(() => importKey(bytes)) }
    })
  }

  private get(name: string): Key | "forgotten" | undefined {
    const held = this.held.get(name)
    if (held === undefined) return undefined
    if (this.freshness.isFresh(held.stamp)) return held.found
    this.held.delete(name)
    return undefined
  }

  private hold(name: string, held: Held): void {
    this.held.delete(name)
    this.held.set(name, held)
    for (const [oldest, { stamp }] of this.held) {
      if (this.held.size <= this.options.capacity && this.freshness.isFresh(stamp)) break
      this.held.delete(oldest)
    }
  }
}

/** Whether there is a reason why a key cannot be used. */
export const isRefused = (found: unknown): found is PersonalDataError => found instanceof PersonalDataError

const lost = new PersonalDataError({ reason: "lost" })

const notKept = new PersonalDataError({
  reason: "unavailable",
  cause: new Error("the SubjectKeys service does not give, as `current`, the keys that were added to it")
})

/** Failures of the database are the caller's; that keys are out of reach is told of each message. */
const unlessUnavailable = <A>(
  asking: Effect.Effect<A, SubjectKeyError>
): Effect.Effect<Result.Result<A, PersonalDataError>, SqlError> =>
  Effect.matchEffect(asking, {
    onFailure: (error) => isRefused(error) ? Effect.succeed(Result.fail(error)) : Effect.fail(error),
    onSuccess: (answer) => Effect.succeed(Result.succeed(answer))
  })
