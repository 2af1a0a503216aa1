/**
 * The function that writes on conditions, and what has tags. It does what the append function does (`append.ts`), and more:
 *
 * 1. With the locks of streams it takes those of tags, all in one order of their keys: alone for each tag that it writes, and
 *    shared for the first tag of each query that it asks about. The lock of a stream is shared where nothing is written to
 *    the stream. A commit is visible before its locks are free, so every snapshot sees a beginning of each tag.
 *    Without waiting, an item whose locks are not all free is left alone. Its locks are tried in the order of its tags, up to
 *    the first that is not free: of several calls that need the same tags one has them all.
 * 2. Under the locks it looks, for all queries at once, for a match behind the last position that was seen of the tag. One
 *    position for the whole of a condition would be wrong: a message of another tag may be committed late, below it. That a
 *    message of the tag was deleted or redacted since is a match too.
 * 3. An item fails whose stream is not as expected, or whose query has a match: in the database, or, unless the append is
 *    atomic, among the messages of the items before it.
 *
 * Conditions need READ COMMITTED: a snapshot that is older than the locks does not see what was added before they were had.
 * Under other isolation levels an item that has some is not decided, nor is an atomic append; the outcome says so.
 *
 * The other tags of a match are counted, and the plan is generic: `not exists` was planned as a hash join of all messages.
 */
import { type Array as Arr, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type AppendItem, AppendOutcome, type TagQuery } from "../Storage.ts"
import * as Append from "./append.ts"
import { int8, timeParameter } from "./client/values.ts"
import { inOrder, tagLocksOf } from "./locks.ts"
import type { Objects } from "./objects.ts"

interface OfDecision extends Omit<Append.Row, "outcome"> {
  readonly outcome: "unchanged" | "conflict" | "outdated" | "isolation"
  readonly query: number | null
}

/** Calls the function, as `append` calls its own. */
export const decide = (sql: SqlClient, objects: Objects) => {
  const timeOf = timeParameter(sql)
  return (
    items: Arr.NonEmptyReadonlyArray<AppendItem>,
    options: { readonly atomic: boolean; readonly wait: boolean }
  ): Effect.Effect<ReadonlyArray<AppendOutcome | undefined>, SqlError> => {
    const given = Append.itemArrays(items, timeOf)
    const types: Array<string> = []
    const locks: Array<string> = []
    const alone: Array<boolean> = []
    const lastLock: Array<number> = []
    const tags: Array<string> = []
    const tagMessage: Array<number> = []
    const lastQuery: Array<number> = []
    const askedEarlier: Array<boolean> = []
    const written = new Set<string>()
    const queries = items.flatMap(({ conditions = [] }) => conditions)
    for (const item of items) {
      const { conditions = [], messages } = item
      for (const { tagged } of messages) {
        types.push(tagged?.type ?? "")
        for (const tag of tagged?.tags ?? []) {
          tags.push(tag)
          tagMessage.push(types.length)
        }
      }
      for (const condition of conditions) askedEarlier.push(written.has(condition.tags[0]))
      lastQuery.push(askedEarlier.length)
      for (const [tag, isAlone] of inOrder(tagLocksOf(item))) {
        locks.push(tag)
        alone.push(isAlone)
        if (isAlone) written.add(tag)
      }
      lastLock.push(locks.length)
    }
    const asked = queryArrays(queries)
    return Effect.map(
      sql<Append.Row | OfDecision>`select outcome, version, global_position, message_id, query from ${
        sql(objects.decideFunction)
      }(
      ${given.streams}::text[], ${given.previous}::int[], ${given.expected}::int[], ${given.metadata}::jsonb[],
      ${given.last}::int[], ${given.item}::int[], ${given.ids}::uuid[], ${given.occurred}::timestamptz[],
      ${given.data}::text[], ${options.atomic}::boolean, ${options.wait}::boolean, ${types}::text[], ${locks}::text[],
      ${alone}::boolean[], ${lastLock}::int[], ${tags}::text[], ${tagMessage}::int[], ${lastQuery}::int[],
      ${some(asked.tags)}::text[], ${some(askedEarlier)}::boolean[],
      ${some(queries.map(({ after }) => int8(after)))}::int8[], ${some(asked.types)}::text[],
      ${some(asked.others)}::text[], ${int8(Append.knownTags(items))}::int8, ${given.seen}::int8[],
      ${given.editions}::int8[], ${some(queries.map(({ edition = -1 }) => int8(edition)))}::int8[])`,
      (rows) => rows.map(toOutcome)
    )
  }
}

/** Null costs the function less than an array that it has to make ready. */
const some = <A>(all: ReadonlyArray<A>): ReadonlyArray<A> | null => all.length === 0 ? null : all

/** Of queries the first tags, the types (none: any), and the other tags: array literals, since lengths differ. */
export const queryArrays = (queries: ReadonlyArray<TagQuery>) => ({
  tags: queries.map(({ tags }) => tags[0]),
  types: queries.map(({ types = [] }) => arrayLiteral(types)),
  others: queries.map(({ tags }) => arrayLiteral(tags.slice(1)))
})

export const arrayLiteral = (texts: ReadonlyArray<string | null>): string =>
  `{${texts.map((text) => text === null ? "NULL" : `"${text.replaceAll(/["\\]/g, "\\$&")}"`).join(",")}}`

const toOutcome = (row: Append.Row | OfDecision): AppendOutcome | undefined => {
  switch (row.outcome) {
    case "unchanged":
      return AppendOutcome.Unchanged({ version: row.version })
    case "conflict":
      return AppendOutcome.Conflict({
        condition: Number(row.query) - 1,
        messageId: String(row.message_id),
        globalPosition: Number(row.global_position)
      })
    case "outdated":
      return AppendOutcome.Outdated({ condition: Number(row.query) - 1 })
    case "isolation":
      return AppendOutcome.WrongIsolation()
    default:
      return Append.toOutcome(row)
  }
}
