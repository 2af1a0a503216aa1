/**
 * Messages out of the table and into it, as they are stored.
 *
 * An import does in a few statements what the append function does in one (`append.ts`): it takes the locks of its streams and tags
 * in the order of their keys, then its transaction id, looks at what is stored, and inserts the rest with positions in the order
 * given. So it shares nothing with those who write to other streams, and comes before or after those who write to its own.
 *
 * Statements that look for versions, and pages, are planned to use their index, whatever the database knows of the table: plans
 * outlive the moment when it was empty, and of a table that was filled just now nothing is known. That they are is a setting of the
 * transaction.
 */
import { type Array as Arr, type DateTime, Effect, Result } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import {
  type ArchivedMessage,
  type ArchiveStorage,
  type ExportedMessage,
  type ExportRange,
  ImportOutcome,
  Refusal
} from "../storage/archive.ts"
import { joining, overlapping, type Versions } from "../storage/joining.ts"
import type { Signal, Wakeup } from "../storage/listeners.ts"
import { withTransaction } from "./client/transaction.ts"
import { type Int8, int8, timeParameter } from "./client/values.ts"
import type { OfStream } from "./messages.ts"
import { type Store, streamLockKey, tagLockKey, timeAdded } from "./objects.ts"
import { type Row, sized } from "./pages.ts"

interface StoredRow extends Row, OfStream {
  /** JSON text of a string. */
  readonly added: string
  readonly occurred: string | null
}

/** A tag of a message, by the index of that. */
interface Tag {
  readonly index: number
  readonly type: string
  readonly tag: string
}

/** Each stream and each tag of an import has a lock in the database until its commit. */
const maximumLocks = 500

/** Where there are tags, locks are used up soon: those of more messages would be looked for in vain. */
const taggedAtATime = 1000

/** Time without its zone, as JSON: in it, no setting of the session has a say. */
const utc = (column: string): string => `pg_catalog.to_json(${column} at time zone 'UTC')::text`

/** `2026-11-26T03:21:38.123456` or `0044-03-15T00:00:00 BC`, in quotes. */
const toTimeText = (json: string): string => json.slice(1, -1).replace(/^([^ ]*)/, "$1Z")

export const make = (sql: SqlClient, store: Store, wakeup: Wakeup["Service"]): ArchiveStorage => {
  const table = sql(store.table)
  const timeOf = timeParameter(sql)
  const transaction = withTransaction(sql)
  const { page } = sized(sql, store)

  const matching = ({ pattern, toPosition, toVersion }: ExportRange) =>
    sql`m.stream operator(pg_catalog.~~) ${pattern}::text and m.version <= ${toVersion}::int
      and m.global_position <= ${int8(toPosition)}::int8`

  const lastPosition = (before: DateTime.Utc | undefined) => {
    const bound = before === undefined ? sql.literal("") : sql`where m.global_position < coalesce((
        select min(b.global_position) from ${table} b where ${sql.literal(timeAdded(store, "b"))} >= ${
      timeOf(before)
    }::timestamptz
      ), 9223372036854775807)`
    return Effect.map(
      sql<{ readonly last: Int8 | null }>`select max(m.global_position) as last from ${table} m ${bound}`,
      ([row]) => Number(row?.last ?? 0)
    )
  }

  const countStored: ArchiveStorage["countStored"] = (range) =>
    Effect.map(
      sql<{
        readonly messages: Int8
        readonly streams: Int8
        readonly first: Int8 | null
        readonly last: Int8 | null
      }>`select count(*) as messages, pg_catalog.count(distinct m.stream) as streams,
          min(m.global_position) as first, max(m.global_position) as last
        from ${table} m where ${matching(range)}`,
      ([row]) => ({
        messages: Number(row?.messages ?? 0),
        streams: Number(row?.streams ?? 0),
        firstPosition: Number(row?.first ?? 0),
        lastPosition: Number(row?.last ?? 0)
      })
    )

  /** Or each page would look at all that is behind it. */
  const byIndex = sql`select pg_catalog.set_config('enable_seqscan', 'off', true),
    pg_catalog.set_config('enable_bitmapscan', 'off', true), pg_catalog.set_config('enable_sort', 'off', true),
    pg_catalog.set_config('jit', 'off', true)`

  const readStored: ArchiveStorage["readStored"] = ({ fromPosition, limit, ...range }) =>
    Effect.map(
      Effect.andThen(
        byIndex,
        page<StoredRow>(
          `stream, ${utc("added_at")} as added, ${utc("occurred_at")} as occurred, `,
          sql`, m.occurred_at from ${table} m where ${matching(range)} and m.global_position >= ${
            int8(fromPosition)
          }::int8
          order by m.global_position`,
          limit
        )
      ),
      ({ more, rows }) => ({ messages: rows.map(toExported), more })
    )

  /** Whether messages have tags. */
  const isTagged = Effect.map(
    sql<{ readonly declared: Int8 | null }>`
      select pg_catalog.set_config('enable_seqscan', 'off', true), pg_catalog.set_config('jit', 'off', true),
        pg_catalog.pg_sequence_last_value(${store.declaredSequence}::text::regclass) as declared`,
    ([settings]) => Number(settings?.declared ?? 0) !== 1
  )

  /** What is declared, of each message. */
  const tagsOf = (messages: ReadonlyArray<ArchivedMessage>) =>
    sql<Tag>`select m.i::int - 1 as index, d.type, d.tag
      from pg_catalog.unnest(${messages.map(({ data }) => data)}::text[]) with ordinality m(data, i)
      cross join lateral ${sql(store.deriveFunction)}(m.data) d order by m.i`

  const lock = (streams: ReadonlyArray<string>, tags: ReadonlyArray<string>) =>
    sql`select pg_catalog.count(locked.done)::int as locks, pg_catalog.pg_current_xact_id()::text as tx from (
        select pg_catalog.pg_advisory_xact_lock(locks.key) as done from (
          select ${
      sql.literal(streamLockKey(store, "s.name"))
    } as key from pg_catalog.unnest(${streams}::text[]) s(name)
          union select ${sql.literal(tagLockKey(store, "t.name"))} from pg_catalog.unnest(${tags}::text[]) t(name)
          order by 1
        ) locks
      ) locked`

  const versionsOf = Effect.fnUntraced(function*(streams: ReadonlyArray<string>) {
    const rows = yield* sql<{ readonly first: number | null; readonly last: number | null }>`
      select (select m.version from ${table} m where m.stream operator(pg_catalog.=) s.name order by m.version limit 1) as first,
        (select m.version from ${table} m where m.stream operator(pg_catalog.=) s.name order by m.version desc limit 1) as last
      from pg_catalog.unnest(${streams}::text[]) with ordinality s(name, i) order by s.i`
    const versions = new Map(streams.map((stream, i): [string, Versions] => {
      const { first, last } = rows[i] ?? { first: null, last: null }
      return [stream, { first: first ?? 0, last: last ?? 0 }]
    }))
    return (stream: string): Versions => versions.get(stream) ?? { first: 0, last: 0 }
  })

  const storedAt = Effect.fnUntraced(function*(messages: ReadonlyArray<ArchivedMessage>) {
    const rows = messages.length === 0 ? [] : yield* sql<{ readonly message_id: string | null }>`
      select (
        select m.message_id from ${table} m where m.stream operator(pg_catalog.=) g.stream and m.version = g.version
      ) as message_id
      from unnest(${messages.map(({ stream }) => stream)}::text[], ${messages.map(({ version }) => version)}::int[])
        with ordinality g(stream, version, i) order by g.i`
    const ids = new Map(messages.map((message, i) => [message, rows[i]?.message_id ?? undefined]))
    return (message: ArchivedMessage) => ids.get(message)
  })

  /** Answers the last message of each stream. */
  const insert = (messages: ReadonlyArray<ArchivedMessage>, tags: ReadonlyArray<Tag>) => {
    const last = new Map(messages.map(({ messageId, stream }) => [stream, messageId]))
    // As in the append function: who has the same new ids waits in one order.
    const isAscending = messages.every(({ messageId }, i) => messageId > (messages[i - 1]?.messageId ?? ""))
    const byId = sql.literal(isAscending ? "" : "order by g.id")
    // Who writes no tags needs no rights on them.
    const tagging = tags.length === 0 ? sql.literal("") : sql`, tagged as (
        insert into ${sql(store.tagsTable)} (tag, global_position, type)
        select t.tag, w.global_position, t.type
        from unnest(${tags.map(({ tag }) => tag)}::text[], ${tags.map(({ type }) => type)}::text[],
          ${tags.map(({ index }) => (messages[index] as ArchivedMessage).messageId)}::uuid[]) t(tag, type, id)
        join written w on w.message_id operator(pg_catalog.=) t.id
      )`
    // What calls a volatile function is not merged with what sorts it: positions are given in the order of the messages.
    return sql<OfStream & Pick<Row, "version" | "global_position" | "message_id">>`
      with written as (
        insert into ${table}
          (message_id, global_position, added_at, recorded_at, stream, version, message, metadata, occurred_at, tx)
        select g.id, g.position, g.added at time zone ${store.timeZone}::text, g.added, g.stream, g.version, g.data::json,
          nullif(g.metadata, ''::text)::jsonb, nullif(g.occurred, ''::text)::timestamptz, pg_catalog.pg_current_xact_id()
        from (
          select u.*, pg_catalog.nextval(${store.sequence}::text::regclass) as position
          from unnest(${messages.map(({ messageId }) => messageId)}::uuid[], ${
      messages.map(({ stream }) => stream)
    }::text[],
            ${messages.map(({ version }) => version)}::int[], ${messages.map(({ addedAt }) => addedAt)}::timestamptz[],
            ${messages.map(({ occurredAt = "" }) => occurredAt)}::text[],
            ${messages.map(({ metadata }) => metadata === "null" ? "" : metadata)}::text[],
            ${messages.map(({ data }) => data)}::text[])
            u(id, stream, version, added, occurred, metadata, data)
        ) g ${byId}
        returning stream, version, global_position, message_id
      )${tagging}
      select w.* from written w
      join pg_catalog.unnest(${Array.from(last.values())}::uuid[]) l(id) on l.id operator(pg_catalog.=) w.message_id`
  }

  const importSome = (
    messages: Arr.NonEmptyReadonlyArray<ArchivedMessage>
  ): Effect.Effect<{ readonly outcome: ImportOutcome; readonly signals: ReadonlyArray<Signal> }, SqlError> =>
    transaction(Effect.gen(function*() {
      const tagged = (yield* isTagged) ? messages.slice(0, taggedAtATime) : []
      const allTags = tagged.length === 0 ? [] : yield* tagsOf(tagged)
      const { count, streams, tagNames } = withFewLocks(tagged.length === 0 ? messages : tagged, allTags)
      const some = messages.slice(0, count)
      yield* lock(streams, tagNames)
      const versions = yield* versionsOf(streams)
      const missing = joining(some, versions, yield* storedAt(overlapping(some, versions)))
      if (Result.isFailure(missing)) return { outcome: ImportOutcome.Refused(missing.failure), signals: [] }
      const places = new Map(missing.success.map((message, i) => [message, i]))
      const tags = allTags.flatMap((tag) => {
        const index = places.get(messages[tag.index] as ArchivedMessage)
        return index === undefined ? [] : [{ ...tag, index }]
      })
      const heads = missing.success.length === 0 ? [] : yield* insert(missing.success, tags)
      return {
        outcome: ImportOutcome.Imported({ messages: count, skipped: count - missing.success.length }),
        signals: heads.map(({ global_position, message_id, stream, version }): Signal => ({
          key: stream,
          payload: { message_id, stream, version, global_position: Number(global_position) }
        }))
      }
    }))

  /** The first message whose id is stored, and not at its place. */
  const elsewhere = Effect.fnUntraced(function*(messages: ReadonlyArray<ArchivedMessage>, error: SqlError) {
    const rows = yield* sql<OfStream & Pick<Row, "message_id" | "version">>`
      select message_id, stream, version from ${table} where message_id = any(${
      messages.map(({ messageId }) => messageId)
    }::uuid[])`
    const stored = new Map(rows.map((row) => [row.message_id, row]))
    for (const [index, { messageId, stream, version }] of messages.entries()) {
      const place = stored.get(messageId)
      if (place !== undefined && (place.stream !== stream || place.version !== version)) {
        return ImportOutcome.Refused({ index, refusal: Refusal.Elsewhere(place) })
      }
    }
    return yield* Effect.fail(error)
  })

  return {
    lastPosition,
    countStored,
    readStored,
    importStored: (messages) =>
      importSome(messages).pipe(
        Effect.tap(({ signals }) => wakeup.signal(store.channel, signals)),
        Effect.map(({ outcome }) => outcome),
        Effect.catchIf(
          ({ reason }) => reason._tag === "UniqueViolation",
          (error) => elsewhere(messages, error)
        )
      )
  }
}

const toExported = (row: StoredRow): ExportedMessage => ({
  stream: row.stream,
  version: row.version,
  messageId: row.message_id,
  globalPosition: Number(row.global_position),
  addedAt: toTimeText(row.added),
  occurredAt: row.occurred === null ? undefined : toTimeText(row.occurred),
  metadata: row.metadata ?? "null",
  data: row.message ?? "",
  oversize: row.message === null ? row.size : undefined
})

/** How many of the messages one transaction has locks for, and which. */
const withFewLocks = (messages: ReadonlyArray<ArchivedMessage>, tags: ReadonlyArray<Tag>) => {
  const streams = new Set<string>()
  const tagNames = new Set<string>()
  let count = 0
  let at = 0
  for (const [index, { stream }] of messages.entries()) {
    const own: Array<string> = []
    for (; tags[at]?.index === index; at++) own.push((tags[at] as Tag).tag)
    const more = (streams.has(stream) ? 0 : 1) + own.filter((tag) => !tagNames.has(tag)).length
    if (count > 0 && streams.size + tagNames.size + more > maximumLocks) break
    streams.add(stream)
    for (const tag of own) tagNames.add(tag)
    count++
  }
  return { count, streams: Array.from(streams), tagNames: Array.from(tagNames) }
}
