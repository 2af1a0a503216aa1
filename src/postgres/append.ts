/**
 * The append function: a batch of items in, an outcome per item out, in one round trip.
 *
 * **Algorithm**
 *
 * 1. The locks of all streams are taken, in the order of their keys, so that no two calls can wait for each other; or,
 *    without waiting, those that are free: the items of the other streams are left alone.
 * 2. The head of each stream is read after its lock: at READ COMMITTED this sees all that earlier holders wrote. Where a
 *    decision was made on a stream, its last message has to be the one that was seen, in the edition that was seen: of a stream
 *    that was deleted and is back at its version, the version says nothing.
 * 3. Item by item, in the order given, the versions are decided, each on what the previous item of its stream left; an
 *    item whose expectation does not hold is left out.
 * 4. The transaction gets its id, if it has none, and then positions; all messages of the accepted items go in with one
 *    insert, so that versions have no gaps and global positions rise within each stream. Positions are given in order, but
 *    rows go in by their ids: two calls that have the same new ids wait for each other in one order.
 * 5. Where that meets an id that exists, nothing goes in, and the items are decided once more, now looking each id up:
 *    a duplicate refuses its item as a whole and shifts the versions of those behind it. Duplicates are rare, and no
 *    other call pays for the check. (`on conflict do nothing` costs a multi-row insert a third of its speed, a subtransaction
 *    next to nothing. For a single message it is the other way round.)
 *
 * Heads and ids are found by index alone (`enable_seqscan` off): a plan that was made while statistics said that the
 * table is empty would be kept by its session, and scan the table as it grows. Where a table of a row or two has to be scanned
 * all the same, the plan is taken to be dear, and would be compiled each time, for 50 ms: hence `jit` is off as well. The plan is
 * generic: for a few items one that knows how many there are is taken to be cheaper, and to make it costs more than it saves.
 *
 * At REPEATABLE READ and SERIALIZABLE the heads may be older than the locks; then the insert meets a row that it cannot
 * see, and the append fails with a serialization failure (40001), which is retryable.
 */
import { Effect } from "effect"
import type { Array as Arr } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type AppendItem, AppendOutcome } from "../Storage.ts"
import { type Int8, int8, timeParameter } from "./client/values.ts"
import type { Objects } from "./objects.ts"

/** How the function's `_expected` says that any version will do, or any but 0: arrays of nulls have no type to bind. */
const anyVersion = -2
const existing = -1
const anyEdition = -1

/** An outcome, as both functions tell it. */
export interface Row {
  readonly outcome: "written" | "wrong_version" | "duplicate" | "skipped" | "busy"
  readonly version: number
  readonly global_position: Int8 | null
  readonly message_id: string | null
}

/**
 * Calls the function. With `wait: false`, an item whose stream another transaction is writing to is left alone, and has
 * no outcome.
 */
export const append = (sql: SqlClient, objects: Objects) => {
  const timeOf = timeParameter(sql)
  return (
    items: Arr.NonEmptyReadonlyArray<AppendItem>,
    options: { readonly atomic: boolean; readonly wait: boolean }
  ): Effect.Effect<ReadonlyArray<AppendOutcome | undefined>, SqlError> => {
    const given = itemArrays(items, timeOf)
    return Effect.map(
      sql<Row>`select outcome, version, global_position, duplicate as message_id from ${sql(objects.appendFunction)}(
      ${given.streams}::text[], ${given.previous}::int[], ${given.expected}::int[], ${given.metadata}::jsonb[],
      ${given.last}::int[], ${given.item}::int[], ${given.ids}::uuid[], ${given.occurred}::timestamptz[],
      ${given.data}::text[], ${options.atomic}::boolean, ${options.wait}::boolean, ${given.ascending}::boolean, ${
        int8(knownTags(items))
      }::int8, ${given.seen}::int8[], ${given.editions}::int8[])`,
      (rows) => rows.map(toOutcome)
    )
  }
}

/** The declaration of tags that all writers of the items know; 1: none. */
export const knownTags = (items: ReadonlyArray<AppendItem>): number => {
  const known = new Set(items.flatMap((item) => item.messages.length === 0 ? [] : [item.knownTags ?? 1]))
  const [first = 1] = known
  return known.size === 1 ? first : 1
}

/** What an item expects, as the functions take it. */
export const expectation = ({ expectedVersion }: AppendItem): number =>
  expectedVersion === undefined ? anyVersion : expectedVersion === "exists" ? existing : expectedVersion

/** Items and their messages as the function takes them: migration 5 says what each array is. */
export const itemArrays = (items: ReadonlyArray<AppendItem>, timeOf: ReturnType<typeof timeParameter>) => {
  const streams: Array<string> = []
  const previous: Array<number> = []
  const expected: Array<number> = []
  /** Where the message of the expected version was seen; 0: any will do. */
  const seen: Array<string> = []
  const editions: Array<string> = []
  let isSeen = false
  const metadata: Array<string> = []
  const last: Array<number> = []
  const item: Array<number> = []
  const ids: Array<string> = []
  const occurred: Array<Date | string> = []
  const data: Array<string> = []
  const latest = new Map<string, number>()
  let ascending = true
  for (const written of items) {
    const { expectedEdition = anyEdition, expectedPosition = 0, messages, metadata: itemMetadata, stream } = written
    const index = streams.push(stream)
    previous.push(latest.get(stream) ?? 0)
    latest.set(stream, index)
    expected.push(expectation(written))
    isSeen ||= expectedPosition > 0
    seen.push(int8(expectedPosition))
    editions.push(int8(expectedEdition))
    metadata.push(itemMetadata)
    for (const message of messages) {
      item.push(index)
      if (message.messageId < (ids.at(-1) ?? "")) ascending = false
      ids.push(message.messageId)
      occurred.push(timeOf(message.occurredAt))
      data.push(message.data)
    }
    last.push(ids.length)
  }
  const asSeen = isSeen ? { seen, editions } : { seen: null, editions: null }
  return { streams, previous, expected, ...asSeen, metadata, last, item, ids, occurred, data, ascending }
}

export const toOutcome = (row: Row): AppendOutcome | undefined => {
  switch (row.outcome) {
    case "written":
      return AppendOutcome.Written({ version: row.version, globalPosition: Number(row.global_position) })
    case "wrong_version":
      return AppendOutcome.WrongVersion({ actualVersion: row.version })
    case "duplicate":
      return AppendOutcome.Duplicate({ messageId: String(row.message_id) })
    case "skipped":
      return AppendOutcome.Skipped()
    case "busy":
      return undefined
  }
}
