/** Members of clubs, as three builds of an application have them, and writers that know none of these. Free of vitest. */
import { Effect, Schema, Stream } from "effect"
import { Message, MessageStore } from "effect-message-store"
import { SqlClient } from "effect/sql"

const name = "members"

class JoinedBefore extends Schema.TaggedClass<JoinedBefore>()("Joined", {
  ...Message.fields,
  club: Schema.String,
  roles: Schema.Array(Schema.String)
}) {}
class Noted extends Schema.TaggedClass<Noted>()("Noted", { ...Message.fields }) {}

/** Before there were tags. */
export class Before extends MessageStore.Service<Before>()("test/Before", {
  name,
  schema: Schema.Union([JoinedBefore, Noted])
}) {}

class Joined extends Schema.TaggedClass<Joined>()("Joined", {
  ...Message.fields,
  club: Message.tag("club", Schema.String),
  roles: Message.tag("role", Schema.Array(Schema.String))
}) {}

/** With tags. */
export class Members extends MessageStore.Service<Members>()("test/Members", {
  name,
  schema: Schema.Union([Joined, Noted])
}) {}

/** Each message by another club, in turn, with roles of all kinds. */
const fields = (i: number) => ({ club: `c${i % 7}`, roles: ["a", "b", "a", `r${i % 3}`].slice(0, i % 5) })

export const joinedBefore = (i: number) => new JoinedBefore(fields(i))
export const joined = (i: number) => new Joined(fields(i))
export const noted = () => new Noted({})

const json = (message: JoinedBefore) =>
  JSON.stringify({ ...message, _tag: "Joined", occurredAt: "2026-01-01T00:00:00.000Z" })

/** Python's statement. */
export const pythonWrites = Effect.fnUntraced(function*(stream: string, message: JoinedBefore) {
  const sql = yield* SqlClient.SqlClient
  yield* sql`select version from depeche_write_message_members(${message.messageId}::uuid, ${stream}::varchar,
    ${json(message)}::text::json)`
})

/** The statement of version 0.1. */
export const version01Writes = Effect.fnUntraced(function*(
  stream: string,
  messages: ReadonlyArray<JoinedBefore>,
  wait = false
) {
  const sql = yield* SqlClient.SqlClient
  const rows = yield* sql<{ readonly outcome: string }>`
    select outcome from effect_message_store_append_members(
      ${[stream]}::text[], ${[0]}::int[], ${[-2]}::int[], ${["{}"]}::jsonb[], ${[messages.length]}::int[],
      ${messages.map(() => 1)}::int[], ${messages.map(({ messageId }) => messageId)}::uuid[],
      ${messages.map(() => new Date("2026-01-01T00:00:00Z"))}::timestamptz[], ${messages.map(json)}::text[],
      ${false}, ${wait})`
  return rows.map(({ outcome }) => outcome)
})

/** What is stored without a tag that it should have, or with one that it should not have. */
export const wronglyTagged = Effect.gen(function*() {
  const sql = yield* SqlClient.SqlClient
  const members = yield* Members
  const rows = yield* sql<{ readonly position: number; readonly tag: string }>`
    select global_position::int as position, type || ' ' || tag as tag from effect_message_store_tags_members`
  const stored = new Set(rows.map(({ position, tag }) => `${position} ${tag}`))
  const expected = new Set<string>()
  yield* Effect.scoped(
    Effect.flatMap(
      members.reader,
      (reader) =>
        Stream.runForEach(reader.readWildcard("%"), ({ globalPosition, message }) =>
          Effect.sync(() => {
            if (message._tag !== "Joined") {
              return
            }
            for (const tag of [`club:${message.club}`, ...message.roles.map((role) => `role:${role}`)]) {
              expected.add(`${globalPosition} Joined ${tag}`)
            }
          }))
    )
  )
  return {
    expected: expected.size,
    missing: Array.from(expected).filter((tag) => !stored.has(tag)),
    excess: Array.from(stored).filter((tag) => !expected.has(tag))
  }
})
