/**
 * Appends of one item without conditions, by functions that are made for one message, and for the messages of one stream
 * (migration 11): with every guarantee of those that append any items (`append.ts`, `decide.ts`), at half of their cost.
 *
 * What these functions leave undecided goes to the others, in another statement: items with an id that exists, those of a writer
 * that does not know all tags, and, if the append has to wait, those whose stream is not free. Others go there at once: items that
 * expect a message which was seen, messages whose ids do not rise, and, if the append has to wait, those with tags. What waits
 * must take its locks in one order with all others, and a transaction that has tried some would have them already.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type AppendItem, AppendOutcome, type EncodedMessage } from "../Storage.ts"
import { expectation } from "./append.ts"
import { int8, timeParameter } from "./client/values.ts"
import { isConditional } from "./locks.ts"
import type { Objects } from "./objects.ts"

interface Row {
  readonly outcome: string | null
}

/** Appends an item by one of these functions, or else by `general`. Without `wait` there is no outcome if a lock is not free. */
export const lean = (sql: SqlClient, objects: Objects) => {
  const timeOf = timeParameter(sql)
  const single =
    `select ${objects.singleFunction}($1::text, $2::int, $3::jsonb, $4::uuid, $5::timestamptz, $6::text, ` +
    "$7::int8, $8::text, $9::text[]) as outcome"
  const batch =
    `select ${objects.batchFunction}($1::text, $2::int, $3::jsonb, $4::uuid[], $5::timestamptz[], $6::text[], ` +
    "$7::int8, $8::text[], $9::text[], $10::int[]) as outcome"
  /** The last declaration of tags that was seen not to be the last. */
  let outdated = 0

  const call = (item: AppendItem, isTagged: boolean, knownTags: number) => {
    const { messages, metadata, stream } = item
    const [first] = messages
    const known = int8(knownTags)
    if (messages.length === 1 && first !== undefined) {
      const { data, messageId, occurredAt, tagged } = first
      const time = timeOf(occurredAt)
      const ofTags = tagged === undefined ? [null, null] : [tagged.type, tagged.tags.toSorted()]
      return sql.unsafe<Row>(single, [stream, expectation(item), metadata, messageId, time, data, known, ...ofTags])
    }
    const ids: Array<string> = []
    const times: Array<Date | string> = []
    const texts: Array<string> = []
    for (const { data, messageId, occurredAt } of messages) {
      ids.push(messageId)
      times.push(timeOf(occurredAt))
      texts.push(data)
    }
    const ofTags = isTagged ? [typesOf(messages), ...tagsOf(messages)] : [null, null, null]
    return sql.unsafe<Row>(batch, [stream, expectation(item), metadata, ids, times, texts, known, ...ofTags])
  }

  return (
    item: AppendItem,
    wait: boolean,
    general: () => Effect.Effect<AppendOutcome | undefined, SqlError>
  ): Effect.Effect<AppendOutcome | undefined, SqlError> => {
    const { conditions, expectedPosition = 0, knownTags = 1, messages } = item
    if (knownTags <= outdated || expectedPosition > 0 || (conditions?.length ?? 0) > 0 || !rise(messages)) {
      return general()
    }
    const isTagged = isConditional(item)
    if (wait && isTagged) return general()
    return Effect.flatMap(call(item, isTagged, knownTags), ([row]) => {
      const outcome = row?.outcome ?? null
      if (outcome === "outdated") outdated = knownTags
      return outcome === null || outcome === "outdated" || (outcome === "busy" && wait)
        ? general()
        : Effect.succeed(toOutcome(outcome))
    })
  }
}

/** Whether there are messages, and each id is above the one before it. */
const rise = (messages: ReadonlyArray<EncodedMessage>): boolean => {
  let last = ""
  for (const { messageId } of messages) {
    if (messageId <= last) return false
    last = messageId
  }
  return last !== ""
}

const typesOf = (messages: ReadonlyArray<EncodedMessage>) => messages.map(({ tagged }) => tagged?.type ?? "")

/** The tags of messages in the order in which their locks are taken, and of each the index of its message. */
const tagsOf = (messages: ReadonlyArray<EncodedMessage>): [tags: Array<string>, message: Array<number>] => {
  const found: Array<{ readonly tag: string; readonly message: number }> = []
  for (const [i, { tagged }] of messages.entries()) {
    if (tagged !== undefined) { for (const tag of tagged.tags) found.push({ tag, message: i + 1 }) }
  }
  found.sort((a, b) => a.tag < b.tag ? -1 : a.tag > b.tag ? 1 : 0)
  return [found.map(({ tag }) => tag), found.map(({ message }) => message)]
}

/** Nothing if it is busy, else a version, or a version and a position. */
const toOutcome = (text: string): AppendOutcome | undefined => {
  if (text === "busy") return undefined
  const space = text.indexOf(" ")
  return space < 0
    ? AppendOutcome.WrongVersion({ actualVersion: Number(text) })
    : AppendOutcome.Written({ version: Number(text.slice(0, space)), globalPosition: Number(text.slice(space + 1)) })
}
