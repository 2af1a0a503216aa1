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

/** Of items that have some: they are asked for on the way to the database more than once. */
const found = new WeakMap<AppendItem, TagLocks>()

/**
 * Alone of the tags that an item writes, and shared of the first one of each of its queries. All calls take them in one order:
 * of those that need the same tags, and find some of them busy, the first one gets all.
 */
export const tagLocksOf = (item: AppendItem): TagLocks => {
  const known = found.get(item)
  if (known !== undefined) return known
  const { conditions = [], messages } = item
  const alone = new Set<string>()
  for (const { tagged } of messages) if (tagged !== undefined) { for (const tag of tagged.tags) alone.add(tag) }
  if (alone.size === 0 && conditions.length === 0) return none
  const all = new Set(alone)
  for (const { tags: [tag] } of conditions) all.add(tag)
  const locks = new Map<string, boolean>()
  for (const tag of Array.from(all).toSorted()) locks.set(tag, alone.has(tag))
  found.set(item, locks)
  return locks
}

/** Of each item the first of its locks that is not free, if any. None of them is kept. */
export const busyLocks = (sql: SqlClient, store: Store) => {
  const tryAlone = "pg_catalog.pg_try_advisory_xact_lock"
  const key = keyOf(store, "asked.of_tag", "asked.name")
  return (items: ReadonlyArray<AppendItem>): Effect.Effect<ReadonlyArray<Lock | undefined>, SqlError> => {
    const locks = items.map((item): ReadonlyArray<Lock> => [
      { of: "stream", name: item.stream, alone: item.messages.length > 0 },
      ...Array.from(tagLocksOf(item), ([name, alone]): Lock => ({ of: "tag", name, alone }))
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
