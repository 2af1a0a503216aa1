/** The locks of the database that an append takes, and whether they are free. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { AppendItem } from "../Storage.ts"
import { withTransaction } from "./client/transaction.ts"
import { type Store, streamLockKey, tagLockKey } from "./objects.ts"

/** The lock of a stream or of a tag, had alone by who writes, and shared by those who ask. */
export interface Lock {
  readonly of: "stream" | "tag"
  readonly name: string
  readonly alone: boolean
}

/** Whether an item needs the function that decides (`decide.ts`). */
export const isConditional = ({ conditions, messages }: AppendItem): boolean =>
  (conditions !== undefined && conditions.length > 0) || messages.length === 0 ||
  messages.some(({ tagged }) => tagged !== undefined)

/** Tags, and whether their locks are had alone. */
export type TagLocks = ReadonlyMap<string, boolean>

const none: TagLocks = new Map()

/** Alone of the tags that an item writes, and shared of the first one of each of its queries. */
export const tagLocksOf = ({ conditions, messages }: AppendItem): TagLocks => {
  let locks: Map<string, boolean> | undefined
  for (const { tagged } of messages) {
    if (tagged === undefined) continue
    locks ??= new Map()
    for (const tag of tagged.tags) locks.set(tag, true)
  }
  if (conditions !== undefined) {
    locks ??= new Map()
    for (const { tags: [tag] } of conditions) if (!locks.has(tag)) locks.set(tag, false)
  }
  return locks ?? none
}

/**
 * The same, in the order in which all calls take them: of those that need the same tags, and find some of them busy, the first
 * one gets all.
 */
export const inOrder = (locks: TagLocks): ReadonlyArray<readonly [tag: string, alone: boolean]> =>
  Array.from(locks.keys()).toSorted().map((tag) => [tag, locks.get(tag) === true])

/** Of each item the first of its locks that is not free, if any. None of them is kept. */
export const busyLocks = (sql: SqlClient, store: Store) => {
  const tryAlone = "pg_catalog.pg_try_advisory_xact_lock"
  const key = keyOf(store, "asked.of_tag", "asked.name")
  return (items: ReadonlyArray<AppendItem>): Effect.Effect<ReadonlyArray<Lock | undefined>, SqlError> => {
    const locks = items.map((item): ReadonlyArray<Lock> => [
      { of: "stream", name: item.stream, alone: item.messages.length > 0 },
      ...inOrder(tagLocksOf(item)).map(([name, alone]): Lock => ({ of: "tag", name, alone }))
    ])
    const all = locks.flat()
    return Effect.map(
      sql<{ readonly i: number }>`select asked.i::int as i
        from unnest(${all.map((lock) => lock.of === "tag")}::boolean[], ${all.map(({ name }) => name)}::text[],
          ${all.map(({ alone }) => alone)}::boolean[]) with ordinality asked(of_tag, name, alone, i)
        where not case when asked.alone then ${sql.literal(`${tryAlone}(${key})`)}
          else ${sql.literal(`${tryAlone}_shared(${key})`)} end`,
      (rows) => {
        const busy = new Set(rows.map(({ i }) => all[i - 1]))
        return locks.map((own) => own.find((lock) => busy.has(lock)))
      }
    )
  }
}

/** Runs an effect in a transaction that has a lock. */
export const withLock =
  (sql: SqlClient, store: Store) =>
  ({ alone, name, of }: Lock) =>
  <A>(effect: Effect.Effect<A, SqlError>): Effect.Effect<A, SqlError> =>
    withTransaction(sql)(Effect.andThen(
      sql`select ${
        sql.literal(
          `pg_catalog.pg_advisory_xact_lock${alone ? "" : "_shared"}(${keyOf(store, "locked.of_tag", "locked.name")})`
        )
      } from (select ${of === "tag"}::boolean as of_tag, ${name}::text as name) locked`,
      effect
    ))

/** The key of the lock of a stream or a tag. */
export const keyOf = (store: Store, ofTag: string, name: string): string =>
  `case when ${ofTag} then ${tagLockKey(store, name)} else ${streamLockKey(store, name)} end`
