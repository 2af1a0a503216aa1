/**
 * Where streams and tags end, for many fibers in one statement: decisions that wait for their turns ask about tags of their own.
 *
 * Each answer is of one moment, after its question was put; else it is as `client/gathered.ts` says.
 */
import { Effect } from "effect"
import type { Scope } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import { attribute, attributesOf } from "../internal/telemetry.ts"
import type { Ends, MessageStorage } from "../Storage.ts"
import * as Gathered from "./client/gathered.ts"

interface Question {
  readonly streams: ReadonlyArray<string>
  readonly tags: ReadonlyArray<string>
}

/** Statements on their way at once: one is answered while the next is being sent. */
const maximumStatements = 2

/** How many streams and tags one statement asks about. */
const maximumNames = 1000

/** When the scope closes, all fibers that wait are interrupted. */
export const make = Effect.fnUntraced(function*(
  sql: Pick<SqlClient, "transactionService">,
  ends: MessageStorage["ends"],
  store: string
): Effect.fn.Return<MessageStorage["ends"], never, Scope.Scope> {
  const attributes = attributesOf(store, "ends", undefined)
  const ask = (yield* Gathered.make(sql))<Question, Ends>({
    statements: maximumStatements,
    maximum: maximumNames,
    sizeOf: ({ streams, tags }) => streams.length + tags.length,
    span: (questions) => ({
      name: `ends ${store}`,
      attributes: { ...attributes, [attribute.questions]: questions }
    }),
    put: (questions) =>
      Effect.map(
        ends(questions.flatMap(({ streams }) => streams), questions.flatMap(({ tags }) => tags)),
        ({ editions, heads, tags }) => {
          let [head, tag] = [0, 0]
          return questions.map((question) => {
            const [fromHead, fromTag] = [head, tag]
            head += question.streams.length
            tag += question.tags.length
            return {
              heads: heads.slice(fromHead, head),
              tags: tags.slice(fromTag, tag),
              editions: [
                ...editions.slice(fromHead, head),
                ...editions.slice(heads.length + fromTag, heads.length + tag)
              ],
              snapshots: []
            }
          })
        }
      )
  })

  return (streams, tags, snapshots = []) =>
    // A snapshot of a fold may be large: nobody else waits for it.
    snapshots.length > 0 ? ends(streams, tags, snapshots) : ask({ streams, tags })
})
