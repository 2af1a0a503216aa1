/**
 * Transactions over in-memory data: what `withTransaction` is on PostgreSQL, at READ COMMITTED.
 *
 * - A transaction writes to journals that only it sees; they become visible to all at once when it commits. One
 *   transaction may span many stores.
 * - Locks are held to the end of the transaction, or to the end of the nested part that took them, if that rolls back.
 *   Transactions that wait for each other in a circle fail with a `DeadlockError`, as in PostgreSQL.
 * - A fiber that outlives its transaction can do nothing more in it: whatever it reads or writes there fails with a
 *   `ConnectionError`, as a statement does on a connection that has been given back.
 */
import { Context, Deferred, Effect, Exit, Option, Semaphore } from "effect"
import { ConnectionError, DeadlockError, SqlError } from "effect/sql/SqlError"

/** Data that takes part in transactions: its writes are kept in the transaction's journal until the commit. */
export interface Participant<Entry> {
  readonly commit: (entries: ReadonlyArray<Entry>) => void
}

export class Transaction {
  readonly locks: Array<Lock> = []
  /** The owners of the locks that fibers of this transaction wait for: one entry a fiber. */
  readonly waitsFor: Array<Transaction> = []
  private readonly afterCommit: Array<Effect.Effect<void>> = []
  private readonly journals = new Map<Participant<unknown>, Array<unknown>>()
  private ended = false

  journal<Entry>(participant: Participant<Entry>): Array<Entry> {
    const key = participant as Participant<unknown>
    let journal = this.journals.get(key)
    if (journal === undefined) this.journals.set(key, journal = [])
    return journal as Array<Entry>
  }

  /** Takes a step if the transaction is open. It cannot end between check and step. */
  whileOpen<A, E, R>(step: () => Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> {
    return Effect.suspend((): Effect.Effect<A, E | SqlError, R> => this.ended ? Effect.fail(endedError()) : step())
  }

  /** Runs an effect after the commit; at once if the transaction has ended. */
  defer(effect: Effect.Effect<void>): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.ended) return effect
      this.afterCommit.push(effect)
      return Effect.void
    })
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
      this.ended = true
      if (Exit.isSuccess(exit)) {
        for (const [participant, journal] of this.journals) participant.commit(journal)
      }
      for (const journal of this.journals.values()) journal.length = 0
      this.release(0)
      return Exit.isSuccess(exit) ? Effect.all(this.afterCommit, { discard: true }) : Effect.void
    })
  }

  private release(from: number): void {
    for (const lock of this.locks.splice(from)) lock.release()
  }
}

const endedError = (): SqlError =>
  new SqlError({
    reason: new ConnectionError({
      cause: new Error("the transaction has ended"),
      message: "the transaction of this fiber has ended: a fiber that outlives its transaction cannot use it",
      operation: "query"
    })
  })

/** What a transaction holds of a key: alone, or shared with others that share it. */
class Lock {
  readonly owner: Transaction
  readonly isShared: boolean
  readonly released = Deferred.makeUnsafe<void>()
  private readonly forget: (lock: Lock) => void

  constructor(owner: Transaction, isShared: boolean, forget: (lock: Lock) => void) {
    this.owner = owner
    this.isShared = isShared
    this.forget = forget
  }

  release(): void {
    this.forget(this)
    Deferred.doneUnsafe(this.released, Exit.void)
  }
}

export class Locks {
  private readonly held = new Map<string, ReadonlyArray<Lock>>()

  /**
   * Takes the locks of these keys for the transaction, in the order given, and waits for those of others: the keys of
   * `shared` in that way, the rest alone. A transaction that ends meanwhile gets none.
   */
  acquire(
    transaction: Transaction,
    keys: ReadonlyArray<string>,
    shared: ReadonlySet<string> = new Set()
  ): Effect.Effect<void, SqlError> {
    return transaction.whileOpen(() => {
      for (const key of keys) {
        const isShared = shared.has(key)
        const locks = this.held.get(key) ?? []
        const inTheWay = locks.find((lock) => lock.owner !== transaction && !(isShared && lock.isShared))
        if (inTheWay !== undefined) {
          return Effect.andThen(waitFor(transaction, inTheWay), this.acquire(transaction, keys, shared))
        }
        if (locks.some((lock) => lock.owner === transaction && (isShared || !lock.isShared))) continue
        const taken = new Lock(transaction, isShared, (lock) => this.forget(key, lock))
        this.held.set(key, [...locks, taken])
        transaction.locks.push(taken)
      }
      return Effect.void
    })
  }

  /** Whether no other transaction has the lock of a key. */
  isFree(transaction: Transaction, key: string): boolean {
    return (this.held.get(key) ?? []).every((lock) => lock.owner === transaction)
  }

  private forget(key: string, released: Lock): void {
    const left = (this.held.get(key) ?? []).filter((lock) => lock !== released)
    if (left.length > 0) this.held.set(key, left)
    else this.held.delete(key)
  }

  /** Waits until nobody holds a lock. */
  readonly idle: Effect.Effect<void> = Effect.suspend(() => {
    for (const [lock] of this.held.values()) {
      if (lock !== undefined) return Effect.andThen(Deferred.await(lock.released), this.idle)
    }
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

const inContext: Effect.Effect<Option.Option<Transaction>> = Effect.map(
  Effect.serviceOption(CurrentLevel),
  Option.map((level) => level.transaction)
)

/** Whether the fiber's context has a transaction. */
export const isCurrent: Effect.Effect<boolean> = Effect.map(inContext, Option.isSome)

/** The transaction in the fiber's context; fails if it has ended. */
export const current: Effect.Effect<Option.Option<Transaction>, SqlError> = Effect.flatMap(
  inContext,
  Option.match({
    onNone: () => Effect.succeedNone,
    onSome: (transaction) => transaction.whileOpen(() => Effect.succeedSome(transaction))
  })
)

/** Runs in the open transaction, or in one of its own. */
export const required = <A, E>(
  effect: (transaction: Transaction) => Effect.Effect<A, E>
): Effect.Effect<A, E | SqlError> =>
  Effect.flatMap(current, (open) => {
    if (Option.isSome(open)) return effect(open.value)
    const transaction = new Transaction()
    return Effect.onExit(Effect.suspend(() => effect(transaction)), (exit) => transaction.end(exit))
  })

/** `SqlClient.afterCommit`, in memory: runs an effect after the commit of the open transaction; at once if none is open. */
export const afterCommit = (effect: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.flatMap(
    inContext,
    Option.match({
      onNone: () => effect,
      onSome: (transaction) => transaction.defer(effect)
    })
  )

/** `SqlClient.withTransaction`, in memory. */
export const withTransaction = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
  Effect.flatMap(
    Effect.serviceOption(CurrentLevel),
    Option.match({
      onNone: () => {
        const transaction = new Transaction()
        return within(transaction, effect, (exit) => transaction.end(exit))
      },
      onSome: ({ nested, transaction }) =>
        nested.withPermit(transaction.whileOpen(() => {
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
