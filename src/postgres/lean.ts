/**
 * Appends to one stream, by functions that are made for one message, and for several (migration 11): of one item without
 * conditions, or of several that have neither tags nor expectations. With every guarantee of those that append any items
 * (`append.ts`, `decide.ts`), at half of their cost.
 *
 * What these functions leave undecided goes to the others, in another statement: items with an id that exists, those of a writer
 * that does not know all tags, and, if the append has to wait, those whose stream is not free. Others go there at once: items that
 * expect a message which was seen, messages whose ids do not rise, and, if the append has to wait, those with tags. What waits
 * must take its locks in one order with all others, and a transaction that has tried some would have them already.
 */
import { Effect } from "effect"
import type { Array as Arr } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { type AppendItem, AppendOutcome, type EncodedMessage } from "../Storage.ts"
import { expectation, knownTags as knownTagsOf } from "./append.ts"
import { int8, timeParameter } from "./client/values.ts"
import { isConditional } from "./locks.ts"
import type { Objects } from "./objects.ts"

interface Row {
  readonly outcome: string | null
}

type Items = Arr.NonEmptyReadonlyArray<AppendItem>
type Outcomes = Effect.Effect<ReadonlyArray<AppendOutcome | undefined>, SqlError>

/** Appends items by one of these functions, or else by `general`. Without `wait` there is no outcome if a lock is not free. */
export const lean = (sql: SqlClient, objects: Objects) => {
  const timeOf = timeParameter(sql)
  const single =
    `select ${objects.singleFunction}($1::text, $2::int, $3::jsonb, $4::uuid, $5::timestamptz, $6::text, ` +
    "$7::int8, $8::text, $9::text[]) as outcome"
  const batch =
    `select ${objects.batchFunction}($1::text, $2::int, $3::jsonb, $4::uuid[], $5::timestamptz[], $6::text[], ` +
    "$7::int8, $8::text[], $9::text[], $10::int[], $11::jsonb[]) as outcome"
  /** The last declaration of tags that was seen not to be the last. */
  let outdated = 0

  const callSingle = (item: AppendItem, { data, messageId, occurredAt, tagged }: EncodedMessage, known: string) => {
    const { metadata, stream } = item
    const time = timeOf(occurredAt)
    const ofTags = tagged === undefined ? [null, null] : [tagged.type, tagged.tags.toSorted()]
    return sql.unsafe<Row>(single, [stream, expectation(item), metadata, messageId, time, data, known, ...ofTags])
  }

  const callBatch = (items: Items, messages: ReadonlyArray<EncodedMessage>, isTagged: boolean, known: string) => {
    const [first] = items
    const ids: Array<string> = []
    const times: Array<Date | string> = []
    const texts: Array<string> = []
    for (const { data, messageId, occurredAt } of messages) {
      ids.push(messageId)
      times.push(timeOf(occurredAt))
      texts.push(data)
    }
    const [metadata, each] = items.length === 1
      ? [first.metadata, null]
      : [null, items.flatMap((item) => item.messages.map(() => item.metadata))]
    const ofTags = isTagged ? [typesOf(messages), ...tagsOf(messages)] : [null, null, null]
    const parameters = [first.stream, expectation(first), metadata, ids, times, texts, known, ...ofTags, each]
    return sql.unsafe<Row>(batch, parameters)
  }

  return (items: Items, wait: boolean, general: () => Outcomes): Outcomes => {
    const [first] = items
    const knownTags = items.length === 1 ? first.knownTags ?? 1 : knownTagsOf(items)
    const isTagged = isConditional(first)
    if (knownTags <= outdated || (wait && isTagged) || !(items.length === 1 ? isPlain(first) : areOfOneStream(items))) {
      return general()
    }
    const messages = items.length === 1 ? first.messages : items.flatMap((item) => item.messages)
    const [message] = messages
    if (message === undefined || !rise(messages)) return general()
    const known = int8(knownTags)
    const called = messages.length === 1
      ? callSingle(first, message, known)
      : callBatch(items, messages, isTagged, known)
    return Effect.flatMap(called, ([row]) => {
      const outcome = row?.outcome ?? null
      if (outcome === "outdated") outdated = knownTags
      return outcome === null || outcome === "outdated" || (outcome === "busy" && wait)
        ? general()
        : Effect.succeed(toOutcomes(items, outcome))
    })
  }
}

/** Whether it asks nothing but a version of its stream. */
const isPlain = ({ conditions, expectedPosition = 0 }: AppendItem): boolean =>
  expectedPosition === 0 && (conditions?.length ?? 0) === 0

/** Whether they ask nothing, have no tags, and go to one stream. */
const areOfOneStream = (items: Items): boolean =>
  items.every((item) => item.stream === items[0].stream && item.expectedVersion === undefined && !isConditional(item))

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

/** Nothing if it is busy, else a version, or a version and a position, or a version and the positions of all messages. */
const toOutcomes = (items: Items, text: string): ReadonlyArray<AppendOutcome | undefined> => {
  if (text === "busy") return items.map(() => undefined)
  const [version = 0, ...positions] = text.split(" ").map(Number)
  const [position] = positions
  if (position === undefined) return [AppendOutcome.WrongVersion({ actualVersion: version })]
  if (items.length === 1) return [AppendOutcome.Written({ version, globalPosition: position })]
  let written = 0
  return items.map(({ messages }) => {
    written += messages.length
    return AppendOutcome.Written({
      version: version - positions.length + written,
      globalPosition: positions[written - 1] ?? 0 // one for each
    })
  })
}
