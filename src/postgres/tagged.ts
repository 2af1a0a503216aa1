/**
 * Which tags the messages of a type have had from the first message on. Messages that were stored without a tag are not found
 * by it, and a decision that asks for it would be made on less than there is: a store that has such messages is refused.
 */
import { Effect } from "effect"
import { SqlClient } from "effect/sql"
import type { SqlError } from "effect/sql/SqlError"
import { SetupError } from "../errors.ts"
import type { Declared } from "../internal/tags.ts"
import { withTransaction } from "./client/transaction.ts"
import type { Objects } from "./objects.ts"

interface Pair {
  readonly type: string
  readonly tag: string
}

/** Notes the tags that are declared, if no message of their types was stored before. */
export const declareTags = Effect.fnUntraced(function*(
  { name, table, taggedTypesTable }: Objects,
  { byType, storedNames, typeField }: Declared
): Effect.fn.Return<void, SetupError | SqlError, SqlClient.SqlClient> {
  const sql = (yield* SqlClient.SqlClient).withoutTransforms()
  const declared = Array.from(byType).flatMap(([type, tags]) => Array.from(tags, (tag): Pair => ({ type, tag })))
  const missing = Effect.map(
    sql<Pair>`select type, tag from ${sql(taggedTypesTable)}`,
    (known) => declared.filter(({ tag, type }) => !known.some((pair) => pair.type === type && pair.tag === tag))
  )
  if ((yield* missing).length === 0) return

  yield* withTransaction(sql)(Effect.gen(function*() {
    yield* sql`lock table ${sql(taggedTypesTable)} in share row exclusive mode`
    for (const { tag, type } of yield* missing) {
      const names = storedNames(type)
      // A type is looked for in the text first: what holds NUL cannot be read as JSON, and is taken to be of the type.
      const mentions = names.map((one) => `"${typeField}"\\s*:\\s*${escaped(JSON.stringify(one))}`).join("|")
      const [found] = yield* sql<{ readonly stored: boolean }>`select exists (
        select from ${sql(table)} m where m.message::text operator(pg_catalog.~) ${mentions}::text
          and case when m.message::text operator(pg_catalog.~~) ${"%\\\\u0000%"}::text then true
            else (m.message::json operator(pg_catalog.->>) ${typeField}::text) operator(pg_catalog.=)
              any(${names}::text[]) end
      ) as stored`
      if (found?.stored === true) {
        return yield* new SetupError({
          identifier: name,
          reason:
            `has messages of type ${type} that were stored before its tag "${tag}" was declared, and are not found by ` +
            "it. Declare the tag on a type that has no messages yet, or write these messages anew into another store"
        })
      }
      yield* sql`insert into ${sql(taggedTypesTable)} (type, tag) values (${type}, ${tag})`
    }
  }))
})

/** A text in a regular expression. */
const escaped = (text: string): string => text.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&")
