/** The data keys of subjects in memory: they take part in transactions, as on PostgreSQL. */
import { Effect, Option } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { SubjectKey, SubjectKeyStorage } from "../Storage.ts"
import * as Transaction from "./transaction.ts"

export class SubjectKeys implements Transaction.Participant<SubjectKey> {
  private readonly locks = new Transaction.Locks()
  private readonly bySubject = new Map<string, SubjectKey>()
  private readonly byId = new Map<string, SubjectKey>()

  commit(keys: ReadonlyArray<SubjectKey>): void {
    for (const key of keys) {
      this.bySubject.set(key.subject, key)
      this.byId.set(key.id, key)
    }
  }

  private read<A>(find: (own: ReadonlyArray<SubjectKey>) => A): Effect.Effect<A, SqlError> {
    return Effect.map(
      Transaction.current,
      (transaction) => find(Option.isSome(transaction) ? transaction.value.journal(this) : [])
    )
  }

  private last(own: ReadonlyArray<SubjectKey>, subject: string): SubjectKey | undefined {
    return own.findLast((key) => key.subject === subject) ?? this.bySubject.get(subject)
  }

  private all(own: ReadonlyArray<SubjectKey>): ReadonlyArray<SubjectKey> {
    return Array.from(new Map([...this.bySubject, ...own.map((key) => [key.subject, key] as const)]).values())
  }

  /** Decides on the last keys of subjects, while nobody else does. */
  private change<A>(
    subjects: ReadonlyArray<string>,
    decide: (own: Array<SubjectKey>) => A
  ): Effect.Effect<A, SqlError> {
    return Transaction.required((transaction) =>
      Effect.andThen(
        this.locks.acquire(transaction, subjects),
        transaction.whileOpen(() => Effect.sync(() => decide(transaction.journal(this))))
      )
    )
  }

  readonly storage: SubjectKeyStorage = {
    get: (ids) =>
      this.read((own) => ids.flatMap((id) => own.findLast((key) => key.id === id) ?? this.byId.get(id) ?? [])),

    current: (subjects) => {
      const find = (own: ReadonlyArray<SubjectKey>) => subjects.flatMap((subject) => this.last(own, subject) ?? [])
      return Effect.flatMap(Transaction.current, (open) =>
        Option.isNone(open)
          ? this.read(find)
          : Effect.suspend(() => {
            const live = find(open.value.journal(this)).flatMap(({ subject, wrapped }) => wrapped ? [subject] : [])
            return Effect.andThen(
              this.locks.acquire(open.value, live.toSorted(), new Set(live)),
              open.value.whileOpen(() => Effect.sync(() => find(open.value.journal(this))))
            )
          }))
    },

    add: (keys) =>
      this.change(keys.map(({ subject }) => subject), (own) => {
        for (const key of keys) {
          const last = this.last(own, key.subject)
          const isNext = last === undefined || (last.wrapped === undefined && last.generation === key.generation - 1)
          if (isNext) own.push(key)
        }
      }),

    forget: (subjects) =>
      this.change(subjects.map(({ subject }) => subject), (own) =>
        subjects.map(({ id, subject }) => {
          const last = this.last(own, subject) ?? { subject, id, generation: 0 }
          const key: SubjectKey = { ...last, wrapped: undefined }
          own.push(key)
          return key
        })),

    wrappedByOthers: ({ after, keyId, limit }) =>
      this.read((own) =>
        this.all(own)
          .filter(({ id, wrapped }) => wrapped !== undefined && wrapped.keyId !== keyId && id > after)
          .toSorted((a, b) => a.id < b.id ? -1 : 1)
          .slice(0, limit)
      ),

    rewrap: (keys) =>
      this.change(keys.map(({ subject }) => subject).toSorted(), (own) => {
        let count = 0
        for (const { before, ...key } of keys) {
          const last = this.last(own, key.subject)
          const isSame = last?.wrapped?.keyId === before.keyId && last.wrapped.data === before.data
          if (!isSame || last.generation !== key.generation) continue
          own.push(key)
          count++
        }
        return count
      })
  }
}
