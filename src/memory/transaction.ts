/**
 * Transactions over in-memory data: what `withTransaction` is on PostgreSQL, at READ COMMITTED.
 *
 * Writes go to a journal that only the transaction itself sees, and become visible to all at once when it commits.
 * Locks are held to the end of the transaction (or of the nested part that took them, when that rolls back); who
 * waits in a circle fails with a `DeadlockError`, as in PostgreSQL. One transaction may span many stores.
 */
import { Context, Deferred, Effect, Exit, Option, Semaphore } from "effect"
import { DeadlockError, SqlError } from "effect/sql/SqlError"

/** Something that takes part in transactions: what it writes in one is kept in that transaction's journal. */
export interface Participant<Entry> {
  readonly commit: (entries: ReadonlyArray<Entry>) => void
}

export class Transaction {
  readonly journals = new Map<Participant<unknown>, Array<unknown>>()
  readonly locks: Array<Lock> = []
  /** What is done when it has committed. */
  readonly afterCommit: Array<Effect.Effect<void>> = []
  /** The owners of the locks that fibers of this transaction wait for: one entry a fiber. */
  readonly waitsFor: Array<Transaction> = []

  journal<Entry>(participant: Participant<Entry>): Array<Entry> {
    const key = participant as Participant<unknown>
    let journal = this.journals.get(key)
    if (journal === undefined) this.journals.set(key, journal = [])
    return journal as Array<Entry>
  }

  savepoint(): () => void {
    const lengths = new Map(Array.from(this.journals, ([participant, journal]) => [participant, journal.length]))
    const held = this.locks.length
    const deferred = this.afterCommit.length
    return () => {
      for (const [participant, journal] of this.journals) journal.length = lengths.get(participant) ?? 0
      this.afterCommit.length = deferred
      this.release(held)
    }
  }

  end(exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (Exit.isSuccess(exit)) {
        for (const [participant, journal] of this.journals) participant.commit(journal)
      }
      this.release(0)
      return Exit.isSuccess(exit) ? Effect.all(this.afterCommit, { discard: true }) : Effect.void
    })
  }

  private release(from: number): void {
    for (const lock of this.locks.splice(from)) lock.release()
  }
}

/** Exclusive and reentrant within a transaction. */
class Lock {
  readonly owner: Transaction
  readonly released = Deferred.makeUnsafe<void>()
  private readonly forget: () => void

  constructor(owner: Transaction, forget: () => void) {
    this.owner = owner
    this.forget = forget
  }

  release(): void {
    this.forget()
    Deferred.doneUnsafe(this.released, Exit.void)
  }
}

export class Locks {
  private readonly held = new Map<string, Lock>()

  /** Takes the locks of these keys for the transaction, in the order given, waiting for others to end. */
  acquire(transaction: Transaction, keys: ReadonlyArray<string>): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => {
      for (const key of keys) {
        const lock = this.held.get(key)
        if (lock === undefined) {
          const taken = new Lock(transaction, () => this.held.delete(key))
          this.held.set(key, taken)
          transaction.locks.push(taken)
        } else if (lock.owner !== transaction) {
          return Effect.andThen(waitFor(transaction, lock), this.acquire(transaction, keys))
        }
      }
      return Effect.void
    })
  }

  /** Waits until nobody holds a lock. */
  readonly idle: Effect.Effect<void> = Effect.suspend(() => {
    for (const lock of this.held.values()) return Effect.andThen(Deferred.await(lock.released), this.idle)
    return Effect.void
  })
}

const waitFor = (transaction: Transaction, lock: Lock): Effect.Effect<void, SqlError> =>
  Effect.suspend(() => {
    if (reaches(lock.owner, transaction)) {
      return Effect.fail(
        new SqlError({
          reason: new DeadlockError({
            cause: new Error("deadlock detected"),
            message: "two transactions wait for each other's streams or message ids",
            operation: "append"
          })
        })
      )
    }
    transaction.waitsFor.push(lock.owner)
    return Effect.ensuring(
      Deferred.await(lock.released),
      Effect.sync(() => transaction.waitsFor.splice(transaction.waitsFor.indexOf(lock.owner), 1))
    )
  })

const reaches = (from: Transaction, to: Transaction): boolean =>
  from === to || from.waitsFor.some((next) => reaches(next, to))

/** A level of nesting. Nested transactions of one level run one after the other. */
interface Level {
  readonly transaction: Transaction
  readonly nested: Semaphore.Semaphore
}

class CurrentLevel extends Context.Service<CurrentLevel, Level>()("effect-message-store/memory/Transaction") {}

/** The transaction that is open in the fiber's context. */
export const current: Effect.Effect<Option.Option<Transaction>> = Effect.map(
  Effect.serviceOption(CurrentLevel),
  Option.map((level) => level.transaction)
)

/** Runs in the open transaction, or in one of its own. */
export const required = <A, E>(
  effect: (transaction: Transaction) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.flatMap(current, (open) => {
    if (Option.isSome(open)) return effect(open.value)
    const transaction = new Transaction()
    return Effect.onExit(Effect.suspend(() => effect(transaction)), (exit) => transaction.end(exit))
  })

/** `SqlClient.afterCommit`, in memory: does this when the open transaction has committed; now if none is open. */
export const afterCommit = (effect: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.flatMap(
    current,
    Option.match({
      onNone: () => effect,
      onSome: (transaction) => Effect.sync(() => void transaction.afterCommit.push(effect))
    })
  )

/** `SqlClient.withTransaction`, in memory. */
export const withTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(
    Effect.serviceOption(CurrentLevel),
    Option.match({
      onNone: () => {
        const transaction = new Transaction()
        return within(transaction, effect, (exit) => transaction.end(exit))
      },
      onSome: ({ nested, transaction }) =>
        nested.withPermit(Effect.suspend(() => {
          const rollback = transaction.savepoint()
          return within(transaction, effect, (exit) => Exit.isSuccess(exit) ? Effect.void : Effect.sync(rollback))
        }))
    })
  )

const within = <A, E, R>(
  transaction: Transaction,
  effect: Effect.Effect<A, E, R>,
  end: (exit: Exit.Exit<A, E>) => Effect.Effect<void>
): Effect.Effect<A, E, R> =>
  Effect.onExit(
    Effect.provideService(effect, CurrentLevel, { transaction, nested: Semaphore.makeUnsafe(1) }) as typeof effect,
    end
  )
