/**
 * Scheduled messages on PostgreSQL: rows of a table, moved into their streams in batches.
 *
 * One transaction moves a batch: it takes a lock that only one of all processes has, reads what is due, appends it, and
 * deletes it. So a message leaves once, those of a stream leave in their order, and a process that is killed leaves all of a
 * batch, or nothing of it. Due is what is due when the transaction begins: that is the time at which a message counts as added,
 * and none is added before its time. Streams and tags that others have locked are passed over, and tried again in the next batch.
 */
import { Array as Arr, Effect, Predicate } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { isPermanent } from "../internal/transient.ts"
import type { AppendItem, AppendOutcome, EncodedMessage, ListedEntry, Moved, ScheduleStorage } from "../Storage.ts"
import type { Wakeup } from "../storage/listeners.ts"
import { withTransaction } from "./client/transaction.ts"
import { type Int8, int8, milliseconds, timeParameter, toTime } from "./client/values.ts"
import { busyLocks } from "./locks.ts"
import type { Store } from "./objects.ts"
import { pageBytes } from "./pages.ts"

/** Each stream and each tag of a batch has a lock in the database until the commit. */
const batchSize = 500
const maximumTags = 500

interface Row {
  readonly id: Int8
  readonly key: string
  readonly stream: string
  readonly message_id: string
  readonly occurred_at: number
  readonly data: string
  readonly metadata: string
  readonly type: string | null
  /** JSON text of an array. */
  readonly tags: string | null
  readonly known_tags: Int8 | null
}

export const make = (
  sql: SqlClient,
  store: Store,
  append: (
    items: Arr.NonEmptyReadonlyArray<AppendItem>,
    options: { readonly atomic: boolean; readonly wait: boolean }
  ) => Effect.Effect<ReadonlyArray<AppendOutcome | undefined>, SqlError>,
  wakeup: Wakeup["Service"]
): ScheduleStorage => {
  const table = sql(store.scheduledTable)
  const channel = store.scheduledTable
  const timeOf = timeParameter(sql)
  const transaction = withTransaction(sql)
  const lockedBy = busyLocks(sql, store)

  const due = (busy: ReadonlyArray<string>) =>
    sql<Row>`select id, key, stream, message_id, ${
      sql.literal(milliseconds("occurred_at"))
    } as occurred_at, data, metadata,
        type, tags, known_tags
      from (
        select s.*, sum(octet_length(s.data) + octet_length(s.metadata)) over (order by s.due_at, s.id) as bytes
        from (
          select * from ${table} where refused is null and due_at <= now() and stream <> all(${busy}::text[])
          order by due_at, id limit ${batchSize} for update skip locked -- not those that are being replaced, or cancelled
        ) s
      ) sized
      where bytes - octet_length(data) - octet_length(metadata) < ${pageBytes}::int order by due_at, id`

  const nextDue = Effect.map(
    sql<{ readonly next: number | null }>`select ${
      sql.literal(milliseconds("min(due_at) - clock_timestamp()"))
    } as next from ${table} where refused is null`,
    ([row]) => typeof row?.next === "number" ? Math.max(0, row.next) : undefined
  )

  /** Appends the messages whose locks are free, and deletes those that were decided. Fails if one cannot be written at all. */
  const appendAll = (rows: Arr.NonEmptyReadonlyArray<Due>): Effect.Effect<Batch, SqlError> =>
    transaction(Effect.gen(function*() {
      // Asked first: a message that waits for a tag holds up those behind it in its stream.
      const locked = yield* lockedBy(Arr.map(rows, toItem))
      const held = new Set(rows.flatMap(({ row }, i) => locked[i] === undefined ? [] : [row.stream]))
      const free = rows.filter(({ row }) => !held.has(row.stream)) // a stream's messages keep their order
      const outcomes = Arr.isReadonlyArrayNonEmpty(free)
        ? yield* append(Arr.map(free, toItem), { atomic: false, wait: false })
        : []
      const decided = free.filter((_, i) => outcomes[i] !== undefined)
      const left = new Set(rows)
      for (const each of decided) left.delete(each)
      yield* sql`delete from ${table} where id = any(${decided.map(({ row }) => int8(BigInt(row.id)))}::int8[])`
      return {
        decided: decided.length,
        duplicates: outcomes.flatMap((outcome) => outcome?._tag === "Duplicate" ? [outcome.messageId] : []),
        busy: Array.from(left, ({ row }) => row.stream),
        refused: []
      }
    }))

  const refuse = ({ row: { id, key } }: Due, error: SqlError): Effect.Effect<Batch, SqlError> => {
    const { cause } = error.reason
    const reason = Predicate.hasProperty(cause, "message") ? String(cause.message) : error.message
    return Effect.as(
      sql`update ${table} set refused = ${reason} where id = ${int8(BigInt(id))}::int8`,
      { decided: 1, duplicates: [], busy: [], refused: [{ key, reason }] }
    )
  }

  /** Moves what of a batch can be written at once; answers what it has decided, and the streams that have to wait. */
  const moveBatch = Effect.fnUntraced(
    function*(busy: ReadonlyArray<string>): Effect.fn.Return<Batch | undefined, SqlError> {
      const rows = withFewTags((yield* due(busy)).map((row) => ({ row, message: toMessage(row) })))
      if (!Arr.isReadonlyArrayNonEmpty(rows)) return undefined
      // If one cannot be written, each is for itself, up to the first of its stream that has to wait.
      const held = new Set<string>()
      const alone = (one: Due) =>
        Effect.tap(
          held.has(one.row.stream)
            ? Effect.succeed<Batch>({ decided: 0, duplicates: [], busy: [one.row.stream], refused: [] })
            : Effect.catchIf(appendAll([one]), isPermanent, (error) => refuse(one, error)),
          (batch) => Effect.sync(() => batch.busy.forEach((stream) => held.add(stream)))
        )
      const batches: ReadonlyArray<Batch> = yield* Effect.catchIf(
        Effect.map(appendAll(rows), Arr.of<Batch>),
        isPermanent,
        () => Effect.forEach(rows, (one) => Effect.suspend(() => alone(one)))
      )
      return {
        decided: batches.reduce((sum, { decided }) => sum + decided, 0),
        duplicates: batches.flatMap(({ duplicates }) => duplicates),
        refused: batches.flatMap(({ refused }) => refused),
        busy: Arr.dedupe([...busy, ...batches.flatMap((batch) => batch.busy)])
      }
    }
  )

  return {
    schedule: ({ at, key, knownTags, message, metadata, stream }) =>
      Effect.andThen(
        sql`insert into ${table} (key, due_at, stream, message_id, occurred_at, data, metadata, type, tags, known_tags)
          values (${key}, ${timeOf(at)}::timestamptz, ${stream}, ${message.messageId}::uuid,
            ${timeOf(message.occurredAt)}::timestamptz, ${message.data}, ${metadata}, ${
          message.tagged?.type ?? null
        }::text,
            ${message.tagged === undefined ? null : JSON.stringify(message.tagged.tags)}::text,
            ${knownTags === undefined ? null : int8(knownTags)}::int8)
          on conflict (key) do update set id = default, due_at = excluded.due_at, stream = excluded.stream,
            message_id = excluded.message_id, occurred_at = excluded.occurred_at, data = excluded.data,
            metadata = excluded.metadata, type = excluded.type, tags = excluded.tags,
            known_tags = excluded.known_tags, refused = null`,
        wakeup.signal(channel, [{ key: channel, payload: {} }])
      ),

    cancel: (key) =>
      Effect.map(sql`delete from ${table} where key = ${key}::text returning 1 as done`, (rows) => rows.length > 0),

    scheduled: ({ after, isRefused, limit }) => {
      const behind = after === undefined
        ? sql``
        : sql` and (due_at, id) > (${timeOf(after.at)}::timestamptz, ${int8(after.order)}::int8)`
      return Effect.map(
        sql<ListedRow>`select id, key, stream, message_id, ${
          sql.literal(milliseconds("due_at"))
        } as due_at, data, metadata, refused, found
          from (
            select s.*, count(*) over ()::int as found,
              sum(octet_length(s.data) + octet_length(s.metadata)) over (order by s.due_at, s.id) as bytes
            from (
              select * from ${table} where refused is ${sql.literal(isRefused ? "not null" : "null")}${behind}
              order by due_at, id limit ${limit}
            ) s
          ) sized
          where bytes - octet_length(data) - octet_length(metadata) < ${pageBytes}::int order by due_at, id`,
        (rows) => ({
          entries: rows.map(toListed),
          more: rows[0] !== undefined && (rows[0].found === limit || rows.length < rows[0].found)
        })
      )
    },

    moveDue: transaction(Effect.gen(function*(): Effect.fn.Return<Moved | undefined, SqlError> {
      const [lock] = yield* sql<{ readonly is_taken: boolean }>`
        select pg_try_advisory_xact_lock(hashtextextended(${`${store.schema}.${channel}`}::text, 0::bigint)) as is_taken`
      if (lock?.is_taken !== true) return undefined
      // Streams that are busy may have more than a batch.
      let batch = yield* moveBatch([])
      while (batch?.decided === 0) batch = yield* moveBatch(batch.busy)
      return {
        moved: batch === undefined ? 0 : batch.decided - batch.duplicates.length - batch.refused.length,
        duplicates: batch?.duplicates ?? [],
        refused: batch?.refused ?? [],
        more: batch !== undefined,
        next: yield* nextDue
      }
    })),

    listenScheduled: wakeup.listen(channel)
  }
}

interface ListedRow extends Pick<Row, "id" | "key" | "stream" | "message_id" | "data" | "metadata"> {
  readonly due_at: number
  readonly refused: string | null
  /** How many the page would have if they were small. */
  readonly found: number
}

const toListed = ({ due_at, id, message_id, refused, ...row }: ListedRow): ListedEntry => ({
  key: row.key,
  at: toTime(due_at),
  order: Number(id),
  stream: row.stream,
  messageId: message_id,
  data: JSON.parse(row.data),
  metadata: JSON.parse(row.metadata),
  refused: refused ?? undefined
})

interface Due {
  readonly row: Row
  readonly message: EncodedMessage
}

interface Batch extends Pick<Moved, "duplicates" | "refused"> {
  /** How many are not to be looked at again. */
  readonly decided: number
  readonly busy: ReadonlyArray<string>
}

const toItem = ({ message, row }: Due): AppendItem => ({
  stream: row.stream,
  expectedVersion: undefined,
  messages: [message],
  metadata: row.metadata,
  knownTags: row.known_tags === null ? undefined : Number(row.known_tags)
})

const toMessage = (row: Row): EncodedMessage => {
  const tagged = row.type === null || row.tags === null ? undefined : { type: row.type, tags: JSON.parse(row.tags) }
  return { messageId: row.message_id, occurredAt: toTime(row.occurred_at), data: row.data, tagged }
}

/** The first ones, which together have as many tags as one write may have. */
const withFewTags = (rows: ReadonlyArray<Due>): ReadonlyArray<Due> => {
  const tags = new Set<string>()
  const end = rows.findIndex(({ message }) => {
    for (const tag of message.tagged?.tags ?? []) tags.add(tag)
    return tags.size > maximumTags
  })
  return end < 0 ? rows : rows.slice(0, end)
}
